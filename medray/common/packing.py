"""Best-fit packing: many short sequences into few fixed blocks, and out of them again."""

import bisect
from collections.abc import Iterator, Sequence

import numpy as np


def pack_best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Assigns sequences to blocks, the longest first, each to the fullest block that takes it.

    Args:
        lengths: tokens of each sequence, each at least 1 and at most `capacity`.
        capacity: tokens of a block.
    Returns:
        one list of sequence indices per block; every index stands in exactly one.
    Source: DESIGN.md 1 (pack); best-fit decreasing.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    blocks: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, block), ascending
    for i in order:
        if not 1 <= lengths[i] <= capacity:
            raise ValueError(f"sequence {i} has {lengths[i]} tokens; blocks hold 1 to {capacity}")
        place = bisect.bisect_left(room, (lengths[i], -1))
        if place == len(room):
            free, block = capacity, len(blocks)
            blocks.append([])
        else:
            free, block = room.pop(place)
        blocks[block].append(i)
        bisect.insort(room, (free - lengths[i], block))
    return blocks


def read_segments(tokens_NT: np.ndarray, segments_NT: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the tokens of every segment, block by block."""
    for tokens_T, segments_T in zip(tokens_NT, segments_NT, strict=True):
        for segment in range(1, int(segments_T.max(initial=0)) + 1):
            yield tokens_T[segments_T == segment]
