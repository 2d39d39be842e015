"""Packed token blocks with labels: what the language-model stages train on.

Shapes: N blocks, T tokens of a block. A block holds several sequences; `segments` numbers them
from 1 (0 is padding), and attention never crosses from one to another. A sequence may branch:
`branches` is 0 on what all its branches share, which stands first, and numbers them from 1; a
branch sees the shared part and itself, at the positions it would have if it were alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from medray.common.packing import pack_best_fit

IGNORE = -100


class Tokens(NamedTuple):
    """A sequence of T tokens."""

    ids: Sequence[int] | np.ndarray
    """[T]"""
    weights: Sequence[float] | np.ndarray
    """[T], each token's weight in the loss, 0 where it does not fall."""
    branches: np.ndarray | int = 0
    """[T], or 0 for a sequence without any."""


class PackedBlocks:
    """Blocks of tokens, in memory or memory-mapped."""

    def __init__(
        self,
        tokens_NT: np.ndarray,
        segments_NT: np.ndarray,
        weights_NT: np.ndarray,
        branches_NT: np.ndarray | None = None,
    ) -> None:
        """`weights_NT` is each token's weight in the loss, 0 for none."""
        self.tokens_NT, self.segments_NT, self.weights_NT = tokens_NT, segments_NT, weights_NT
        none = np.broadcast_to(np.int32(0), tokens_NT.shape)
        self.branches_NT = none if branches_NT is None else branches_NT

    @classmethod
    def open(cls, directory: Path, name: str) -> "PackedBlocks":
        """Memory-maps `<name>.npy` and `<name>_segments.npy`; the loss falls on every token."""
        tokens_NT = np.load(directory / f"{name}.npy", mmap_mode="r")
        segments_NT = np.load(directory / f"{name}_segments.npy", mmap_mode="r")
        return cls(tokens_NT, segments_NT, np.broadcast_to(np.float32(1), tokens_NT.shape))

    @classmethod
    def open_groups(cls, directory: Path, name: str) -> "dict[str, PackedBlocks]":
        """The blocks of each group of documents; all by their name if groups are not told apart."""
        whole = cls.open(directory, name)
        path = directory / f"{name}_groups.json"
        if not path.exists():
            return {name: whole}
        groups: dict[str, PackedBlocks] = {}
        first = 0
        for group, size in json.loads(path.read_text(encoding="utf-8")).items():
            part = slice(first, first := first + size)
            groups[group] = cls(
                whole.tokens_NT[part], whole.segments_NT[part], whole.weights_NT[part]
            )
        return groups

    @classmethod
    def pack(
        cls,
        sequences: Sequence[Tokens],
        block_tokens: int,
        pad: int,
    ) -> "PackedBlocks":
        """Packs sequences best-fit; each must fit into one block. The loss falls on answers."""
        blocks = pack_best_fit([len(sequence.ids) for sequence in sequences], block_tokens)
        tokens_NT = np.full((len(blocks), block_tokens), pad, dtype=np.int32)
        segments_NT = np.zeros((len(blocks), block_tokens), dtype=np.int32)
        weights_NT = np.zeros((len(blocks), block_tokens), dtype=np.float32)
        branches_NT = np.zeros((len(blocks), block_tokens), dtype=np.int32)
        for n, members in enumerate(blocks):
            at = 0
            for segment, i in enumerate(members, 1):
                ids, weights, branches = sequences[i]
                end = at + len(ids)
                tokens_NT[n, at:end] = ids
                segments_NT[n, at:end] = segment
                weights_NT[n, at:end] = weights
                branches_NT[n, at:end] = branches
                at = end
        return cls(tokens_NT, segments_NT, weights_NT, branches_NT)

    @property
    def block_tokens(self) -> int:
        """T, the tokens of a block."""
        return self.tokens_NT.shape[1]

    def join(self, other: "PackedBlocks") -> "PackedBlocks":
        """Both sets of blocks, this one's first; in memory."""
        return PackedBlocks(
            np.concatenate([self.tokens_NT, other.tokens_NT]),
            np.concatenate([self.segments_NT, other.segments_NT]),
            np.concatenate([self.weights_NT, other.weights_NT]),
            np.concatenate([self.branches_NT, other.branches_NT]),
        )

    def take(self, indices: Sequence[int]) -> "PackedBlocks":
        """Some of the blocks, in this order, repeated where named twice; in memory."""
        arrays = (self.tokens_NT, self.segments_NT, self.weights_NT, self.branches_NT)
        return PackedBlocks(*(np.asarray(array[indices]) for array in arrays))

    def reweighted(self, scale: float) -> "PackedBlocks":
        """The same blocks, each token's weight `scale` times as high."""
        weights_NT = self.weights_NT * np.float32(scale)
        return PackedBlocks(self.tokens_NT, self.segments_NT, weights_NT, self.branches_NT)

    def whole(self, answer_weight: float = 1.0, prompt_weight: float = 1.0) -> "PackedBlocks":
        """The same blocks with the loss on every token: on an answer's `answer_weight` times, on
        all others `prompt_weight`."""
        weights_NT = np.where(
            self.weights_NT > 0,
            self.weights_NT * np.float32(answer_weight),
            np.float32(prompt_weight),
        )
        return PackedBlocks(self.tokens_NT, self.segments_NT, weights_NT, self.branches_NT)

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def weight(self, indices: Sequence[int]) -> float:
        """Sum of the weights of the tokens of these blocks that the loss falls on."""
        return float(sum(self._weights(i).sum() for i in indices))

    def num_labels(self, indices: Sequence[int]) -> int:
        """How many tokens of these blocks the loss falls on."""
        return int(sum((self._weights(i) > 0).sum() for i in indices))

    def collate(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Tensors of some blocks: tokens, labels (shifted) and their weights, positions and the
        attention mask.

        Returns:
            input_ids, labels, weights, position_ids: [B, T]; attention_mask: bool [B, 1, T, T],
            True where a token may look. A padded token looks at itself, so that no row is empty.
        """
        segments_BT = torch.from_numpy(np.stack([self.segments_NT[i] for i in indices]))
        branches_BT = torch.from_numpy(np.stack([self.branches_NT[i] for i in indices]))
        T = segments_BT.shape[1]
        same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
        shared_BTT = same_BTT & (branches_BT == 0)[:, None, :]
        branch_BTT = same_BTT & (branches_BT[:, :, None] == branches_BT[:, None, :])
        causal_TT = torch.ones(T, T, dtype=torch.bool).tril()
        real_BTT = (segments_BT != 0)[:, None, :] | torch.eye(T, dtype=torch.bool)
        return {
            "input_ids": torch.from_numpy(
                np.stack([self.tokens_NT[i] for i in indices]).astype(np.int64)
            ),
            "labels": torch.from_numpy(np.stack([self._labels(i) for i in indices])),
            "weights": torch.from_numpy(np.stack([self._weights(i) for i in indices])),
            "position_ids": _positions(segments_BT, branches_BT, shared_BTT.sum(-1)),
            "attention_mask": ((shared_BTT | branch_BTT) & causal_TT & real_BTT)[:, None],
        }

    def _labels(self, i: int) -> np.ndarray:
        labels_T = np.full(self.block_tokens, IGNORE, dtype=np.int64)
        keep = self._weights(i)[:-1] > 0
        labels_T[:-1][keep] = self.tokens_NT[i][1:][keep]
        return labels_T

    def _weights(self, i: int) -> np.ndarray:
        """The weight of the label at each place: that of the next token of the same segment, and
        of the same branch, or the first one's after the shared part."""
        segments_T, branches_T = self.segments_NT[i], self.branches_NT[i]
        weights_T = np.zeros(self.block_tokens, dtype=np.float32)
        same = (segments_T[1:] == segments_T[:-1]) & (segments_T[1:] != 0)
        same &= (branches_T[1:] == branches_T[:-1]) | (branches_T[:-1] == 0)
        weights_T[:-1][same] = self.weights_NT[i][1:][same]
        return weights_T


def _positions(
    segments_BT: torch.Tensor, branches_BT: torch.Tensor, num_shared_BT: torch.Tensor
) -> torch.Tensor:
    """Positions that start at 0 in every segment, and after the shared part in every branch.

    Args:
        num_shared_BT: tokens of the shared part of each token's segment.
    """
    T = segments_BT.shape[1]
    index_BT = torch.arange(T).expand_as(segments_BT)
    starts_BT = torch.ones_like(segments_BT, dtype=torch.bool)
    starts_BT[:, 1:] = (segments_BT.diff() != 0) | (branches_BT.diff() != 0)
    run_BT = index_BT - torch.where(starts_BT, index_BT, 0).cummax(-1).values
    return run_BT + torch.where(branches_BT > 0, num_shared_BT, 0)
