"""Stage 1, masked-language pretraining. In: corpus text. Out: blocks, batches and the loss.

Source: [BERT 3.1]: 15 % of the tokens are predicted, of these 80 % replaced by [MASK], 10 % by a
random token, 10 % left. Differs: no next-sentence task [RoBERTa 4.2]; every block has the same
number of masked tokens, so that the mean over workers is the mean over tokens; the vocabulary
layer sees only the masked positions, which halves the cost of a small model.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medray.common.config import Config
from medray.common.errors import CheckpointError, DataError
from medray.retrieval.training.order import item_at

# Shapes: N blocks, B batch, T tokens of a block with [CLS] and [SEP], M masked per block.


class MlmConfig(Config):
    """Masked-language pretraining."""

    steps: int = Field(default=100, ge=0)
    """0 keeps a base model as it is. Source: not given; half a pass over 2 000 records. Without
    this stage the small encoder's contrastive loss did not leave ln(batch) in 120 steps."""
    batch_size: int = Field(default=32, ge=1)
    """Blocks in the global batch."""
    block_tokens: int = Field(default=128, ge=8)
    """Tokens per block. Source: [BERT A.2], which trains 90 % of its steps at 128."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak. Source: not given; measured for 1-2 M parameters. Large base models want 5e-5."""
    warmup_steps: int = Field(default=20, ge=0)
    mask_fraction: float = Field(default=0.15, gt=0, lt=1)
    """Source: [BERT 3.1]."""
    cls_weight: float = Field(default=1.0, ge=0)
    """How much of the [CLS] state is added to each masked token's before it is predicted, so that
    [CLS] must sum up its block. Source: the idea of [RetroMAE 3], which pretrains BGE [C-Pack 3.2],
    without its second decoder. 0 is plain BERT."""
    document_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the documents that is read, by a hash of their id; for very large corpora."""


def write_blocks(
    texts: Iterable[list[str]], tokenizer: Any, block_tokens: int, path: Path
) -> np.ndarray:
    """Tokenises batches of texts into one stream, [SEP] after each, cut into blocks.

    Returns:
        blocks_NT, uint32, each block wrapped in [CLS] and [SEP]; the last partial one is dropped.
    Raises:
        DataError: if the text does not fill one block.
    """
    body = block_tokens - 2
    left: list[int] = []
    count = 0
    with path.open("wb") as file:
        for batch in texts:
            for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
                left.extend([*ids, tokenizer.sep_token_id])
            whole = len(left) // body
            blocks_NT = np.empty((whole, block_tokens), dtype=np.uint32)
            blocks_NT[:, 1:-1] = np.asarray(left[: whole * body]).reshape(whole, body)
            blocks_NT[:, 0] = tokenizer.cls_token_id
            blocks_NT[:, -1] = tokenizer.sep_token_id
            file.write(blocks_NT.tobytes())
            left, count = left[whole * body :], count + whole
    if not count:
        raise DataError(
            f"the corpus holds fewer than {body} tokens of training text, not one block; "
            "prepare more documents or lower encoder.mlm.block_tokens"
        )
    return open_blocks(path, block_tokens)


def open_blocks(path: Path, block_tokens: int) -> np.ndarray:
    """Returns blocks_NT of a file that `write_blocks` wrote, memory-mapped."""
    return np.memmap(path, dtype=np.uint32, mode="r").reshape(-1, block_tokens)


def mask_blocks(
    blocks_BT: np.ndarray, tokenizer: Any, mask_fraction: float, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Chooses M tokens of each block and hides them as BERT does.

    Returns:
        input_ids_BT, positions_BM (ascending) and labels_BM.
    """
    blocks_BT = blocks_BT.astype(np.int64)
    num_masked = max(1, round(mask_fraction * (blocks_BT.shape[1] - 2)))
    keys_BT = rng.random(blocks_BT.shape)
    keys_BT[np.isin(blocks_BT, tokenizer.all_special_ids)] = 2  # chosen last: never, in practice
    positions_BM = np.sort(np.argsort(keys_BT, axis=1)[:, :num_masked], axis=1)
    labels_BM = np.take_along_axis(blocks_BT, positions_BM, axis=1)
    draw_BM = rng.random(positions_BM.shape)
    random_BM = rng.integers(len(tokenizer.all_special_ids), len(tokenizer), positions_BM.shape)
    hidden_BM = np.where(draw_BM < 0.8, tokenizer.mask_token_id, labels_BM)
    hidden_BM = np.where(draw_BM >= 0.9, random_BM, hidden_BM)
    np.put_along_axis(blocks_BT, positions_BM, hidden_BM, axis=1)
    return {
        "input_ids": torch.from_numpy(blocks_BT),
        "positions": torch.from_numpy(positions_BM),
        "labels": torch.from_numpy(labels_BM),
    }


class MaskedLanguageLoss(nn.Module):
    """A masked-language model whose vocabulary layer runs on masked positions only."""

    def __init__(self, model: Any, cls_weight: float) -> None:
        super().__init__()
        self.cls_weight = cls_weight
        head = getattr(model, "cls", None) or getattr(model, "lm_head", None)
        if head is None:
            raise CheckpointError(
                f"{type(model).__name__} has no masked-language head that is known here; "
                "set encoder.mlm.steps to 0 or take a BERT or RoBERTa model"
            )
        self.model = model
        self.head_name = "cls" if hasattr(model, "cls") else "lm_head"

    def forward(self, input_ids: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        """Returns the mean cross-entropy in nats over the masked tokens."""
        hidden_BTD = self.model.base_model(input_ids=input_ids).last_hidden_state
        index_BMD = positions.unsqueeze(-1).expand(-1, -1, hidden_BTD.size(-1))
        masked_BMD = hidden_BTD.gather(1, index_BMD) + self.cls_weight * hidden_BTD[:, :1]
        logits_BMV = getattr(self.model, self.head_name)(masked_BMD)
        return functional.cross_entropy(logits_BMV.flatten(0, 1), labels.flatten())


class MlmBatches:
    """The global batch of any step, and a worker's share of it; a pure function of the seed."""

    def __init__(self, config: MlmConfig, blocks_NT: np.ndarray, tokenizer: Any, seed: int) -> None:
        self.config, self.blocks_NT, self.tokenizer, self.seed = config, blocks_NT, tokenizer, seed

    def batch(self, step: int, rank: int, num_workers: int) -> dict[str, Tensor]:
        """Returns the arguments of `MaskedLanguageLoss` for worker `rank` at `step`."""
        first = step * self.config.batch_size
        rows = [
            item_at(first + i, len(self.blocks_NT), self.seed)
            for i in range(self.config.batch_size)
        ]
        rng = np.random.default_rng([self.seed, 1, step])
        batch = mask_blocks(self.blocks_NT[rows], self.tokenizer, self.config.mask_fraction, rng)
        return {name: values[rank::num_workers] for name, values in batch.items()}
