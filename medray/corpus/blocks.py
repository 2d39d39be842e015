"""Packed blocks. In: tokens of documents. Out: `<name>.npy`, `<name>_segments.npy` and, where
documents are kept apart by group, `<name>_groups.json`.

Shapes: N blocks, T tokens of a block, int32. Segments number the documents of a block from 1 and
are 0 on padding; attention must not cross from one to another. A document longer than T is cut
into pieces of T. Memory: lengths only; tokens pass through a scratch file.
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from medray.common.packing import pack_best_fit


def write_blocks(
    directory: Path,
    name: str,
    documents: Iterable[np.ndarray],
    block_tokens: int,
    pad: int,
    groups: Sequence[str] = (),
) -> tuple[int, int]:
    """Packs documents' tokens (int32, end-of-text included); returns (blocks, tokens).

    Args:
        groups: each document's group, if documents of two groups shall not share a block; then
            groups.json says how many blocks each group has, in their order.
    """
    directory.mkdir(parents=True, exist_ok=True)
    scratch = directory / f".{name}.tokens"
    lengths: list[int] = []
    pieces: dict[str, list[int]] = {group: [] for group in sorted(set(groups) or {""})}
    with scratch.open("wb") as file:
        for n, tokens in enumerate(documents):
            file.write(np.ascontiguousarray(tokens, dtype=np.int32).tobytes())
            found = piece_lengths(len(tokens), block_tokens)
            group = groups[n] if groups else ""
            pieces[group] += range(len(lengths), len(lengths) + len(found))
            lengths += found
    total = sum(lengths)
    stream = np.memmap(scratch, np.int32, "r") if total else np.zeros(0, np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    blocks: list[list[int]] = []
    sizes: dict[str, int] = {}
    for group, mine in pieces.items():
        packed = pack_best_fit([lengths[i] for i in mine], block_tokens)
        blocks += [[mine[k] for k in members] for members in packed]
        sizes[group] = len(packed)
    if groups:
        text = json.dumps(sizes, ensure_ascii=False, indent=1)
        (directory / f"{name}_groups.json").write_text(text, encoding="utf-8")
    shape = (len(blocks), block_tokens)
    tokens_NT = _create(directory / f"{name}.npy", shape)
    segments_NT = _create(directory / f"{name}_segments.npy", shape)
    for n, members in enumerate(blocks):
        tokens_NT[n] = pad
        at = 0
        for segment, i in enumerate(members, 1):
            end = at + lengths[i]
            tokens_NT[n, at:end] = stream[starts[i] : starts[i + 1]]
            segments_NT[n, at:end] = segment
            at = end
    for array, suffix in ((tokens_NT, ""), (segments_NT, "_segments")):
        if isinstance(array, np.memmap):
            array.flush()
        else:
            np.save(directory / f"{name}{suffix}.npy", array)
    del stream
    scratch.unlink()
    return len(blocks), total


def piece_lengths(num_tokens: int, block_tokens: int) -> list[int]:
    """Lengths of the pieces of one document: full blocks and the rest.

    >>> piece_lengths(10, 4)
    [4, 4, 2]
    """
    full, rest = divmod(num_tokens, block_tokens)
    return [block_tokens] * full + ([rest] if rest else [])


def unigram_nats(train_V: np.ndarray, heldout_V: np.ndarray) -> float | None:
    """Cross-entropy of held-out tokens under the training unigram distribution, nats per token.

    Args:
        train_V, heldout_V: how often each token of the vocabulary occurs.
    Returns:
        None if there is no held-out token. Training counts are smoothed by adding one.
    """
    tokens = int(heldout_V.sum())
    if tokens == 0:
        return None
    log_p_V = np.log(train_V + 1.0) - math.log(float(train_V.sum()) + len(train_V))
    return float(-(heldout_V * log_p_V).sum() / tokens)


def _create(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A zeroed array on disk; NumPy cannot map an empty one."""
    if shape[0] == 0:
        return np.zeros(shape, np.int32)
    return np.lib.format.open_memmap(path, "w+", np.int32, shape)
