"""Packed blocks for models that cannot read them: one sequence a row, padded on the right.

Packing needs a model that takes an attention mask of its own for every pair of tokens and positions
that begin anew. Some architectures take neither (BLOOM's ALiBi counts its distances over the whole
row; recurrent layers carry a state on), and would quietly learn across documents. So a model is
probed before anything is packed for it.
Shapes: B rows, T tokens of the longest.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from medray.training.failures import is_want_of_memory
from medray.training.packed import IGNORE, PackedBlocks, Tokens

logger = logging.getLogger(__name__)
TOLERANCE = 1e-3
"""Of the largest hidden value; sums in another order differ by 1e-6 in fp32."""


class _Place(NamedTuple):
    """Where a sequence stands in its block: what its branches share, and the branch's own part."""

    block: int
    shared: slice
    own: slice


class SingleSequences:
    """The sequences of packed blocks one by one; each branch repeats what it shares, whose loss
    counts once."""

    def __init__(self, blocks: PackedBlocks) -> None:
        self.blocks = blocks
        self.places = [place for n in range(len(blocks)) for place in _places(blocks, n)]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def block_tokens(self) -> int:
        """Tokens that the longest sequence may have."""
        return self.blocks.block_tokens

    def weight(self, indices: Sequence[int]) -> float:
        """Sum of the weights of the tokens of these sequences that the loss falls on."""
        return float(sum(self._weights(i).sum() for i in indices))

    def num_labels(self, indices: Sequence[int]) -> int:
        """How many tokens of these sequences the loss falls on."""
        return int(sum((self._weights(i) > 0).sum() for i in indices))

    def collate(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Tensors of some sequences.

        Returns:
            input_ids, labels (shifted), weights, attention_mask (1 on real tokens): [B, T].
        """
        ids = [self._take(self.blocks.tokens_NT, i) for i in indices]
        weights = [self._weights(i) for i in indices]
        T = max(len(row) for row in ids)
        tokens_BT = np.zeros((len(ids), T), dtype=np.int64)
        labels_BT = np.full((len(ids), T), IGNORE, dtype=np.int64)
        weights_BT = np.zeros((len(ids), T), dtype=np.float32)
        mask_BT = np.zeros((len(ids), T), dtype=np.int64)
        for b, (row, weight) in enumerate(zip(ids, weights, strict=True)):
            tokens_BT[b, : len(row)] = row
            mask_BT[b, : len(row)] = 1
            weights_BT[b, : len(row)] = weight
            keep = np.flatnonzero(weight)
            labels_BT[b, keep] = row[keep + 1]
        return {
            "input_ids": torch.from_numpy(tokens_BT),
            "labels": torch.from_numpy(labels_BT),
            "weights": torch.from_numpy(weights_BT),
            "attention_mask": torch.from_numpy(mask_BT),
        }

    def _take(self, values_NT: np.ndarray, i: int) -> np.ndarray:
        n, shared, own = self.places[i]
        return np.concatenate([values_NT[n, shared], values_NT[n, own]])

    def _weights(self, i: int) -> np.ndarray:
        """The weight of the label at each place: that of the next token."""
        own = self._take(self.blocks.weights_NT, i).astype(np.float32)
        place = self.places[i]
        if i and self.places[i - 1].block == place.block:
            before = self.places[i - 1].shared
            if before == place.shared and place.shared.stop > place.shared.start:
                own[: place.shared.stop - place.shared.start] = 0
        return np.append(own[1:], np.float32(0))


Blocks = PackedBlocks | SingleSequences


def _places(blocks: PackedBlocks, n: int) -> list[_Place]:
    segments_T, branches_T = blocks.segments_NT[n], blocks.branches_NT[n]
    changes = (np.diff(segments_T) != 0) | (np.diff(branches_T) != 0)
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(segments_T)]
    places: list[_Place] = []
    shared = slice(0, 0)
    for start, end in pairwise(bounds):
        if not segments_T[start]:
            continue
        if start and segments_T[start] != segments_T[start - 1]:
            shared = slice(start, start)
        if branches_T[start]:
            places.append(_Place(n, shared, slice(start, end)))
            continue
        shared = slice(start, end)
        follows = end < len(segments_T) and segments_T[end] == segments_T[start]
        if not follows:
            places.append(_Place(n, slice(start, start), shared))
    return places


def reader_of(*models: Any) -> Callable[[PackedBlocks], Blocks]:
    """How `models` read packed blocks: as they are, or one sequence a row if one of them leaks."""
    for model in models:
        if leaks_across_documents(model):
            logger.warning(
                "%s sees across the documents of a packed block, so every sequence gets a row of "
                "its own; batch_size counts sequences, and training is slower",
                type(model).__name__,
            )
            return SingleSequences
    return lambda blocks: blocks


@torch.no_grad()
def leaks_across_documents(model: Any) -> bool:
    """Whether what `model` makes of a packed document depends on its neighbour, or differs from
    what it makes of the document alone; also true if it cannot read a packed block at all.

    Args:
        model: a transformers model in fp32, with or without adapters; left in the mode it was in.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    size = int(base.config.vocab_size)
    first, other, second = ([(k * step) % size for k in range(1, 9)] for step in (7, 11, 5))

    def hidden(*documents: list[int]) -> torch.Tensor:
        """States of the last document's tokens. [8, D]"""
        length = sum(map(len, documents))
        blocks = PackedBlocks.pack([Tokens(document, [0] * 8) for document in documents], length, 0)
        batch = {name: tensor.to(base.device) for name, tensor in blocks.collate([0]).items()}
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask")}
        return base.base_model(**inputs, use_cache=False).last_hidden_state[0, -8:].float()

    was_training = base.training
    base.eval()
    try:
        alone, beside, beside_other = hidden(second), hidden(first, second), hidden(other, second)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        if is_want_of_memory(error):
            raise
        return True  # it takes no mask for pairs of tokens
    finally:
        base.train(was_training)
    largest = alone.abs().max()
    gap = torch.stack([beside - alone, beside_other - beside]).abs().max()
    return bool(gap > TOLERANCE * largest)
