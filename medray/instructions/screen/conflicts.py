"""Label conflicts: near-identical inputs with different answers. In: rows. Out: flags.

Source of the attack: label flips on inputs that are copied with a small edit. Differs from the
near-duplicates of the corpus in size only: one task's prompts fit in memory, so no Ray is needed.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from medray.common.minhash import band_keys, plan_bands, signature
from medray.common.ngrams import canonical, ngram_hashes
from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.flags import Flag, Labelled

SHORTEST = 40
"""A label is at most so many characters; a longer answer that differs is another wording."""
RECALL, MAX_HASHES = 0.99, 64
"""At a similarity of 0.8, 12 bands of 5 minima."""


def find_conflicts(rows: Sequence[Labelled], config: ScreenConfig) -> list[Flag]:
    """Rows of one task whose label is not that of most near-identical inputs; all of them where
    none leads."""
    rows = sorted(row for row in rows if len(row.answer) <= SHORTEST)
    groups: dict[int, list[Labelled]] = defaultdict(list)
    for row, label in zip(rows, near_identical([r.prompt for r in rows], config), strict=True):
        groups[label].append(row)
    in_conflict = [group for group in groups.values() if len({row.answer for row in group}) > 1]
    if sum(map(len, in_conflict)) > config.max_conflicts * len(rows):
        return []
    flags = []
    for number, group in enumerate(in_conflict):
        times = Counter(row.answer for row in group)
        (answer, most), (_, second) = times.most_common(2)
        flags += [
            Flag(
                row.id, "label_conflict", f"{row.task}/conflict-{number}",
                round(1 - times[row.answer] / len(group), 3),
            )
            for row in group
            if most == second or row.answer != answer
        ]  # fmt: skip
    return flags


def near_identical(prompts: Sequence[str], config: ScreenConfig) -> list[int]:
    """A label for each prompt: those chained by pairs of the configured similarity share one.

    Pairs that share a band are compared exactly: the first of a band's group with each other one,
    and each with the next. Memory: 8 bytes a character.
    """
    if not prompts:
        return []
    texts = [canonical(prompt) for prompt in prompts]
    hashes = [np.unique(ngram_hashes(text, min(config.ngram, len(text)))) for text in texts]
    bands = plan_bands(config.similarity, RECALL, MAX_HASHES)
    signatures_NH = np.stack([signature(own, bands.bands * bands.rows) for own in hashes])
    candidates: set[tuple[int, int]] = set()
    for keys_N in band_keys(signatures_NH, bands).T:
        order_N = np.argsort(keys_N, kind="stable")
        ends = np.flatnonzero(np.diff(keys_N[order_N])) + 1
        for group in np.split(order_N, ends):
            members = group.tolist()
            candidates |= {(members[0], other) for other in members[1:]} | set(pairwise(members))
    pairs = [
        (i, j) for i, j in sorted(candidates) if _jaccard(hashes[i], hashes[j]) >= config.similarity
    ]
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = csr_array((np.ones(len(pairs), bool), (left, right)), shape=(len(prompts),) * 2)
    return connected_components(graph, directed=False)[1].tolist()


def _jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Of two sets of hashes, each ascending and without repeats."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)
