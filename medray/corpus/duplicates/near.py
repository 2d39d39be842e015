"""Clusters of near-duplicates over a whole corpus, with Ray. In: texts. Out: a label for each.

A cluster is a connected component of the pairs whose exact Jaccard similarity of character n-grams
reaches the threshold, among the pairs that share a band of their MinHash signatures. Neither the
order of the texts nor the number of workers can change it.

Workers hash and compare; the driver sorts one band at a time and holds some 60 bytes a text,
however long it is: for 1 000 000 texts 60 MB, 216 MB of keys on disk and 26 sorts of 0.1 s.
Source: Lee et al. 2022, Deduplicating training data makes language models better, 4.2 (NearDup).
Differs: exact Jaccard in place of edit similarity; bands from `plan_bands`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field
from tqdm import tqdm

from medray.common.config import Config
from medray.common.minhash import band_keys, plan_bands, signature
from medray.common.ngrams import canonical, ngram_hashes
from medray.corpus.duplicates.components import Forest
from medray.corpus.duplicates.groups import MIN_CHARS, TASK_CHARS, Groups
from medray.corpus.duplicates.jaccard import jaccard, ngram_matrix
from medray.corpus.tasks import in_tasks, max_tasks_of_cluster

logger = logging.getLogger(__name__)

TASK_ROWS = 1_000
"""Texts that one task hashes."""


class NearDuplicateConfig(Config):
    """Which texts count as one."""

    threshold: float = Field(default=0.8, gt=0, lt=1)
    """Least Jaccard similarity. Source: Lee et al. 2022, 4.2."""
    ngram: int = Field(default=5, ge=1)
    """Characters in an n-gram. Source: Mining of Massive Datasets 3.2.2, k = 5 for short texts."""
    recall: float = Field(default=0.99, gt=0, lt=1)
    """Least chance that a pair at the threshold is compared; a more similar one has a better one.
    Source: not given; FineWeb's 14 bands of 8 find 0.92 of the pairs at 0.8."""
    max_hashes: int = Field(default=256, ge=1, le=4096)
    """Most minima in a signature. Source: not given; 0.33 ms a text of 1 000 characters."""
    keep: list[str] = Field(default_factory=list)
    """Sources of which no document is left out, such as records that labels refer to; near copies
    of theirs in other sources are."""


class Documents:
    """Random access to rows of a memory-mapped column, and how to read their texts."""

    def __init__(
        self,
        column: pa.ChunkedArray,
        text_of: Callable[[pa.ChunkedArray], list[str]],
        rows_N: np.ndarray | None = None,
    ) -> None:
        self.text_of = text_of
        self.rows_N = np.arange(len(column)) if rows_N is None else rows_N
        """The rows that take part, ascending."""
        self._chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *map(len, self._chunks)])

    def __len__(self) -> int:
        return len(self.rows_N)

    def take(self, members: np.ndarray) -> pa.Table:
        """Rows `rows_N[members]` as a table of one column; `members` ascend."""
        rows = self.rows_N[members]
        chunk_of = np.searchsorted(self._starts, rows, side="right") - 1
        return pa.table(
            {
                "document": pa.chunked_array(
                    [
                        self._chunks[c].take(pa.array(rows[chunk_of == c] - self._starts[c]))
                        for c in np.unique(chunk_of)
                    ]
                )
            }
        )


def find_clusters(
    documents: Documents, config: NearDuplicateConfig, work: Path, max_tasks: int | None = None
) -> np.ndarray:
    """Labels the texts: near-duplicates have the same label, their least number.

    Args:
        work: scratch directory. A killed call goes on in it, at the last finished band.
        max_tasks: Ray tasks at a time; None: one a CPU of the cluster.
    Returns:
        int64, one label for each of `documents.rows_N`.
    """
    max_tasks = max_tasks or max_tasks_of_cluster()
    work.mkdir(parents=True, exist_ok=True)
    bands = plan_bands(config.threshold, config.recall, config.max_hashes)
    shards = _hash(documents, config, work, max_tasks)
    keys = [np.load(path, mmap_mode="r") for path in shards]
    if not keys:
        return np.empty(0, np.int64)
    chars_N = np.concatenate([part[-1] for part in keys]).astype(np.int64)
    forest, first = Forest(len(documents)), 0
    state = work / "clusters.npz"
    if state.exists():
        with np.load(state) as saved:
            forest.parents_N, first = saved["parents"], int(saved["bands"])
    for band in tqdm(range(first, bands.bands), desc="near-duplicates", unit=" bands"):
        groups = Groups.of_keys(np.concatenate([part[band] for part in keys]), chars_N)
        # A large group is first compared with its least member alone, which joins most of it.
        for comparisons in (groups.with_pivots, groups.in_full):
            calls = _calls(documents, comparisons(forest.labels()), chars_N, config)
            for joined_E2 in in_tasks(_join, calls, max_tasks):
                forest.join(joined_E2)
        temporary = work / "clusters.tmp.npz"
        np.savez(temporary, parents=forest.parents_N, bands=band + 1)
        temporary.replace(state)
    return forest.labels()


def _hash(
    documents: Documents, config: NearDuplicateConfig, work: Path, max_tasks: int
) -> list[Path]:
    """Writes the keys of all texts, [bands + 1, TASK_ROWS] a shard, the last row their lengths."""
    members = np.split(np.arange(len(documents)), range(TASK_ROWS, len(documents), TASK_ROWS))
    shards = [work / f"keys-{k:06d}.npy" for k in range(len(members) if len(documents) else 0)]
    missing = [k for k, path in enumerate(shards) if not path.exists()]
    calls = ((k, documents.take(members[k]), documents.text_of, config) for k in missing)
    for k, keys in tqdm(in_tasks(_keys, calls, max_tasks), desc="minhash", total=len(missing)):
        temporary = work / "keys.tmp.npy"
        np.save(temporary, keys)
        temporary.replace(shards[k])
    return shards


def _keys(
    number: int,
    table: pa.Table,
    text_of: Callable[[pa.ChunkedArray], list[str]],
    config: NearDuplicateConfig,
) -> tuple[int, np.ndarray]:
    """Worker: the keys of a shard."""
    bands = plan_bands(config.threshold, config.recall, config.max_hashes)
    texts = [canonical(text) for text in text_of(table.column(0))]
    signatures_NH = np.stack(
        [
            signature(ngram_hashes(text, min(config.ngram, len(text))), bands.bands * bands.rows)
            for text in texts
        ]
    )
    lengths_N = np.array([len(text) for text in texts], np.uint64)
    return number, np.vstack([band_keys(signatures_NH, bands).T, lengths_N])


def _calls(
    documents: Documents,
    groups: Iterable[np.ndarray],
    chars_N: np.ndarray,
    config: NearDuplicateConfig,
) -> Iterator[tuple]:
    """Arguments of `_join`: as many groups as a task may compare."""
    batch: list[np.ndarray] = []
    chars = 0

    def call() -> tuple:
        members = np.unique(np.concatenate(batch))
        places = [np.searchsorted(members, group) for group in batch]
        return members, documents.take(members), documents.text_of, places, config

    for group in groups:
        batch.append(group)
        chars += int(np.maximum(chars_N[group], MIN_CHARS).sum())
        if chars >= TASK_CHARS:
            yield call()
            batch, chars = [], 0
    if batch:
        yield call()


def _join(
    members: np.ndarray,
    table: pa.Table,
    text_of: Callable[[pa.ChunkedArray], list[str]],
    groups: list[np.ndarray],
    config: NearDuplicateConfig,
) -> np.ndarray:
    """Worker: near-duplicate pairs [E, 2], enough to connect every component of each group.

    What is near the first member of its group is joined to it; the rest is compared with all.
    """
    matrix = ngram_matrix([canonical(text) for text in text_of(table.column(0))], config.ngram)

    def near(pairs_P2: np.ndarray) -> np.ndarray:
        return jaccard(matrix, pairs_P2[:, 0], pairs_P2[:, 1]) >= config.threshold

    firsts = [np.stack([np.full(len(g) - 1, g[0]), g[1:]], axis=1) for g in groups]
    is_near = near(np.concatenate(firsts))
    found = [np.concatenate(firsts)[is_near]]
    at = 0
    for pairs in firsts:
        close = is_near[at : at + len(pairs)]
        at += len(pairs)
        far = pairs[~close, 1]
        if len(far) and len(pairs) > 1:
            left, right = np.triu_indices(len(far), k=1)
            rest = np.concatenate(
                [
                    np.stack([far[left], far[right]], axis=1),
                    np.stack(np.meshgrid(far, pairs[close, 1]), axis=-1).reshape(-1, 2),
                ]
            )
            found.append(rest[near(rest)])
    return members[np.concatenate(found)]
