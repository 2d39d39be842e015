"""Log-probabilities of given text: of options after prompts, of every token of a text.

In: a model and rows of tokens, padded on the left. Out: nats. Source: EVALUATION.md 2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from medray.generation.choice import told
from medray.generation.sampling import Token


@torch.inference_mode()
def option_scores(
    model: Any, inputs: Mapping[str, Tensor], rows: Sequence[tuple[int, list[int]]]
) -> list[float]:
    """Sum of log-probabilities of each option as the continuation of its prompt. A prompt is read
    once, whatever the number of its options.

    Args:
        inputs: the prompts' tokens and attention mask [B, T].
        rows: (prompt, tokens) of each of R options.
    """
    mask_BT = inputs["attention_mask"]
    read = model(**inputs, position_ids=_positions(mask_BT), logits_to_keep=1, use_cache=True)
    if not rows:
        return []
    source_R = torch.tensor([b for b, _ in rows], device=mask_BT.device)
    option_RO = pad_sequence([torch.tensor(ids) for _, ids in rows], batch_first=True)
    option_RO = option_RO.to(mask_BT.device)
    lengths_R1 = torch.tensor([[len(ids)] for _, ids in rows], device=mask_BT.device)
    real_RO = torch.arange(option_RO.shape[1], device=mask_BT.device) < lengths_R1
    logits_ROV = read.logits[:, -1:].float()[source_R]
    if option_RO.shape[1] > 1:
        cache = read.past_key_values
        cache.batch_select_indices(source_R)
        mask_RT = torch.cat([mask_BT[source_R], real_RO[:, :-1].long()], dim=1)
        rest_ROV = model(
            input_ids=option_RO[:, :-1],
            attention_mask=mask_RT,
            position_ids=_positions(mask_RT)[:, mask_BT.shape[1] :],
            past_key_values=cache,
        ).logits.float()
        logits_ROV = torch.cat([logits_ROV, rest_ROV], dim=1)
    logprobs_RO = logits_ROV.log_softmax(-1).gather(-1, option_RO[..., None])[..., 0]
    return (logprobs_RO * real_RO).sum(-1).tolist()


@torch.inference_mode()
def text_scores(model: Any, inputs: Mapping[str, Tensor], num_top: int) -> list[list[Token]]:
    """Every token of each text with its log-probability after those before it, and the `num_top`
    likeliest in its place. The first has none."""
    mask_BT = inputs["attention_mask"]
    logits_BTV = model(**inputs, position_ids=_positions(mask_BT), use_cache=False).logits
    texts = []
    for ids_T, mask_T, logits_TV in zip(inputs["input_ids"], mask_BT, logits_BTV, strict=True):
        length = int(mask_T.sum())
        ids = ids_T[len(ids_T) - length :].tolist()
        before_TV = logits_TV[len(ids_T) - length :]
        rest = [told(before_TV[k], token, num_top) for k, token in enumerate(ids[1:])]
        texts.append([*map(Token, ids[:1]), *rest])
    return texts


def _positions(mask_BT: Tensor) -> Tensor:
    """Positions that start at 0 at each row's first real token (rows are padded on the left)."""
    return (mask_BT.long().cumsum(-1) - 1).clamp(min=0)
