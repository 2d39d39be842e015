"""Texts to compare. In: keys of one band. Out: groups with equal keys, cut to a task's size.

Shapes: N texts. Source: Mining of Massive Datasets 3.4, banding; the cuts are ours.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

TASK_CHARS = 1_000_000
"""Characters that one task compares: about 150 MB of n-grams."""
MIN_CHARS = 500
"""A shorter text counts as much, so that a task compares 2 000 texts at most."""


class Groups(NamedTuple):
    """Texts that share a key of one band."""

    members: list[np.ndarray]
    """Of each group, ascending; a group of several tasks' size keeps its parts apart."""
    chars_N: np.ndarray

    @staticmethod
    def of_keys(keys_N: np.ndarray, chars_N: np.ndarray) -> "Groups":
        """Groups of two and more texts with equal keys."""
        order_N = np.argsort(keys_N, kind="stable")
        ends = np.flatnonzero(np.diff(keys_N[order_N])) + 1
        bounds = np.concatenate([[0], ends, [len(keys_N)]])
        several = np.flatnonzero(np.diff(bounds) > 1)
        return Groups([order_N[bounds[k] : bounds[k + 1]] for k in several], chars_N)

    def with_pivots(self, labels_N: np.ndarray) -> Iterator[np.ndarray]:
        """Each part of a group with the group's first member in front."""
        for group in self._open(labels_N):
            first, *others = self._parts(group)
            yield first
            yield from (np.concatenate([group[:1], part]) for part in others)

    def in_full(self, labels_N: np.ndarray) -> Iterator[np.ndarray]:
        """Each two parts of a group of several parts, unless all of them are joined by now."""
        for group in self._open(labels_N):
            if len(self._parts(group)) == 1:
                continue  # compared in full with its pivot
            # Joined members stand together, so that their parts need no comparison.
            parts = self._parts(group[np.argsort(labels_N[group], kind="stable")])
            pairs = list(combinations(parts, 2)) or [(parts[0], group[:0])]
            for pair in pairs:
                both = np.concatenate(pair)
                if (labels_N[both] != labels_N[both[0]]).any():
                    yield both

    def _open(self, labels_N: np.ndarray) -> Iterator[np.ndarray]:
        return (g for g in self.members if (labels_N[g] != labels_N[g[0]]).any())

    def _parts(self, group: np.ndarray) -> list[np.ndarray]:
        size = np.maximum(self.chars_N[group], MIN_CHARS)
        part_of = np.cumsum(size) // (TASK_CHARS // 2)
        return np.split(group, np.flatnonzero(np.diff(part_of)) + 1)
