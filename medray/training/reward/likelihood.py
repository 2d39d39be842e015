"""A reward that a decoder reads off the probabilities it gives an answer's tokens.

    r(I, R) = b + v·h_T + (1/|R|) Σ_{t in R} (g·h_t + c) max(log P(x_t | x_<t), FLOOR)

h_t is the last layer's state behind token t, h_T that at the end; v, g, c are learned, and the
decoder with them; b is given: pairs do not determine it, and where it is the scores' mean its
gradient is rounding at first, of which Adam would make a whole step. From h_T alone, as sequence
classifiers score, some thousand scores do not teach whether the disease that an answer names fits
the patient; but that is what a decoder was trained to predict, and the weights g·h_t say of which
tokens it counts.
Source: not in the papers. The head on the last state is [ClinicalGPT 2.3]'s; that a model's own
log-probability is a reward: Rafailov et al. 2023 (DPO, 4).
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from medray.common.errors import CheckpointError
from medray.generation.directory import load_options
from medray.training.export import merge_adapters
from medray.training.language_model import base_of

FLOOR = -10.0
"""Nats; what is below does not matter more, so that one odd token does not make the score."""
HEAD = "likelihood_head.safetensors"
"""Beside the decoder's own files: what tells such a reward model from a decoder."""


class LikelihoodScorer(nn.Module):
    """A decoder, maybe with adapters, and the two heads; starts as a constant."""

    constant: Tensor

    def __init__(self, decoder: Any, constant: float = 0.0) -> None:
        super().__init__()
        self.decoder = decoder
        width = decoder.get_input_embeddings().embedding_dim
        self.state, self.weight = nn.Linear(width, 1, bias=False), nn.Linear(width, 1)
        for parameter in (self.state.weight, *self.weight.parameters()):
            nn.init.zeros_(parameter)
        self.register_buffer("constant", torch.tensor(constant))

    @classmethod
    def from_pretrained(cls, directory: Path | str) -> "LikelihoodScorer":
        """What `save_pretrained` wrote.

        Raises:
            CheckpointError: if the head's file holds something else.
        """
        decoder = AutoModelForCausalLM.from_pretrained(
            directory, use_safetensors=True, **load_options()
        )
        scorer = cls(decoder)
        heads = load_file(Path(directory) / HEAD)
        _, unexpected = scorer.load_state_dict(heads, strict=False)
        if unexpected or heads.keys() != scorer.heads().keys():
            raise CheckpointError(
                f"{Path(directory) / HEAD} is not the head of a reward model; copy it again, or "
                "train the reward model again"
            )
        return scorer.to(decoder.dtype)

    def heads(self) -> dict[str, Tensor]:
        """All that is not the decoder's, by name."""
        state = self.state_dict()
        return {name: value for name, value in state.items() if not name.startswith("decoder.")}

    def save_pretrained(self, directory: Path | str) -> None:
        """Writes a Hugging Face decoder, adapters merged, with the heads beside it."""
        merge_adapters(self.decoder).save_pretrained(directory)
        heads = {name: value.contiguous() for name, value in self.heads().items()}
        save_file(heads, Path(directory) / HEAD)

    def can_generate(self) -> bool:
        """As classifiers say; its decoder could, but was trained to judge."""
        return False

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.state.weight.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor, answer_mask: Tensor) -> Any:
        """`logits` [B, 1], as a classifier of one output gives them.

        Args:
            input_ids, attention_mask: [B, T], padded on the right.
            answer_mask: [B, T], True on the answer's tokens.
        """
        base = base_of(self.decoder)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        hidden_BTD = base.base_model(**inputs, use_cache=False).last_hidden_state
        # Token t is predicted by the state at t − 1; the first is predicted by none.
        answer_BT = answer_mask[:, 1:]
        logits_NV = base.get_output_embeddings()(hidden_BTD[:, :-1][answer_BT]).float()
        log_p_N = -F.cross_entropy(logits_NV, input_ids[:, 1:][answer_BT], reduction="none")
        weights_N = self.weight(hidden_BTD[:, 1:][answer_BT])[:, 0].float()
        rows_N = answer_BT.nonzero()[:, 0]
        sums_B = torch.zeros(len(input_ids), device=log_p_N.device)
        sums_B = sums_B.index_add(0, rows_N, weights_N * log_p_N.clamp(min=FLOOR))
        ends_B = attention_mask.sum(-1) - 1
        ends_BD = hidden_BTD[torch.arange(len(ends_B), device=ends_B.device), ends_B]
        scores_B = self.constant.float() + self.state(ends_BD)[:, 0].float()
        scores_B = scores_B + sums_B / answer_BT.sum(-1).clamp(min=1)
        return SimpleNamespace(logits=scores_B[:, None])
