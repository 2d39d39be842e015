"""Clusters of near-duplicates against brute force, for every order and number of workers."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest

from medray.common.ngrams import canonical
from medray.corpus.duplicates.components import Forest
from medray.corpus.duplicates.find import survivors
from medray.corpus.duplicates.groups import Groups
from medray.corpus.duplicates.jaccard import ngram_set
from medray.corpus.duplicates.near import (
    Documents,
    NearDuplicateConfig,
    find_clusters,
)


@pytest.fixture
def planted(letters, edited):
    """seed → 400 texts: 150 alone, families of 2 to 30 with 1 to 9 edits each, and short texts."""

    def make(seed: int) -> list[str]:
        rng = random.Random(seed)
        texts = ["".join(rng.choices(letters, k=rng.randint(60, 400))) for _ in range(150)]
        while len(texts) < 390:
            base = "".join(rng.choices(letters, k=rng.randint(100, 400)))
            texts += [edited(base, rng.randint(1, 9), rng) for _ in range(rng.randint(2, 30))]
        short = [
            "咳嗽",
            "咳嗽。",
            "发热",
            "",
            "？",
            "ABC 12",
            "abc12",
            "咳嗽",
            "头晕三天",
            "头晕 三天",
        ]
        return texts + short

    return make


def brute_force(texts: list[str], config: NearDuplicateConfig) -> list[set[int]]:
    """Components of all pairs at or above the threshold, as sets, by sets of n-grams."""
    grams = [ngram_set(canonical(text), config.ngram) for text in texts]
    clusters: list[set[int]] = []
    for i, own in enumerate(grams):
        joined = {i}
        for cluster in list(clusters):
            if any(
                len(own & grams[j]) >= config.threshold * max(1, len(own | grams[j]))
                for j in cluster
            ):
                joined |= cluster
                clusters.remove(cluster)
        clusters.append(joined)
    return clusters


def texts_of(column: pa.ChunkedArray) -> list[str]:
    return column.to_pylist()


def clusters_of(labels: np.ndarray, names: list) -> set[frozenset]:
    groups: dict[int, set] = {}
    for label, name in zip(labels.tolist(), names, strict=True):
        groups.setdefault(label, set()).add(name)
    return {frozenset(group) for group in groups.values()}


def documents(texts: list[str], rows: np.ndarray | None = None) -> Documents:
    # Chunks of several sizes, one of them empty, as a stream on disk may have them.
    chunks = [texts[:7], [], texts[7:300], texts[300:]]
    return Documents(pa.chunked_array(chunks, pa.string()), texts_of, rows)


@pytest.mark.cluster
@pytest.mark.parametrize("seed", [0, 1])
def test_clusters_are_those_of_brute_force(ray_cluster, tmp_path, planted, seed):
    texts, config = planted(seed), NearDuplicateConfig()
    expected = {frozenset(cluster) for cluster in brute_force(texts, config)}
    labels = find_clusters(documents(texts), config, tmp_path)
    found = clusters_of(labels, list(range(len(texts))))
    assert found == expected
    assert 170 < len(expected) < 330  # some are joined, some are not
    assert all(label == min(np.flatnonzero(labels == label)) for label in labels)


@pytest.mark.cluster
def test_order_and_workers_do_not_matter(ray_cluster, tmp_path, planted, monkeypatch):
    """Small tasks as well, so that a family is divided among several of them."""
    texts, config = planted(2), NearDuplicateConfig()
    first = clusters_of(find_clusters(documents(texts), config, tmp_path / "a"), range(len(texts)))
    monkeypatch.setattr("medray.corpus.duplicates.near.TASK_ROWS", 30)
    monkeypatch.setattr("medray.corpus.duplicates.near.TASK_CHARS", 4_000)
    monkeypatch.setattr("medray.corpus.duplicates.groups.TASK_CHARS", 4_000)
    for workers in (1, 2, 4):
        order = random.Random(workers).sample(range(len(texts)), len(texts))
        labels = find_clusters(
            documents([texts[i] for i in order]), config, tmp_path / str(workers), workers
        )
        assert clusters_of(labels, order) == first


@pytest.mark.cluster
def test_rows_that_take_no_part(ray_cluster, tmp_path):
    texts = [
        "咳嗽伴发热三天来诊",
        "x",
        "咳嗽伴发热三天来诊",
        "咳嗽伴发热三天来诊。",
        "另一段文字在此处",
    ]
    chosen = documents(texts, np.array([2, 3, 4]))
    assert find_clusters(chosen, NearDuplicateConfig(), tmp_path / "a").tolist() == [0, 0, 2]
    none = documents(texts, np.array([], int))
    assert find_clusters(none, NearDuplicateConfig(), tmp_path / "b").tolist() == []


@pytest.mark.cluster
def test_a_killed_call_goes_on_where_it_stopped(ray_cluster, tmp_path, planted, monkeypatch):
    """Keys and bands that are on disk are not made again, and the result is the same."""
    texts, config = planted(3), NearDuplicateConfig()
    expected = find_clusters(documents(texts), config, tmp_path / "whole")
    join, calls = Forest.join, itertools.count()

    def dies(self: Forest, pairs_E2: np.ndarray) -> None:
        if next(calls) == 6:
            raise KeyboardInterrupt
        join(self, pairs_E2)

    monkeypatch.setattr(Forest, "join", dies)
    with pytest.raises(KeyboardInterrupt):
        find_clusters(documents(texts), config, tmp_path / "killed")
    with np.load(tmp_path / "killed" / "clusters.npz") as saved:
        assert 0 < int(saved["bands"]) < 26
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").glob("keys-*")}
    again = find_clusters(documents(texts), config, tmp_path / "killed")
    np.testing.assert_array_equal(again, expected)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").glob("keys-*")}


def test_forest_joins_to_the_least_member():
    forest = Forest(6)
    forest.join(np.array([[4, 5], [5, 2], [1, 3]]))
    assert forest.labels().tolist() == [0, 1, 2, 1, 2, 2]
    forest.join(np.array([[3, 4]]))
    assert forest.labels().tolist() == [0, 1, 1, 1, 1, 1]


def test_groups_cover_every_pair_that_is_not_joined_yet(monkeypatch):
    """A group of five tasks' size: pivots first, then each two parts, but not joined ones."""
    monkeypatch.setattr(
        "medray.corpus.duplicates.groups.TASK_CHARS", 4_000
    )  # four texts of 500 in a part
    keys = np.array([7] * 20 + [9, 3, 9], np.uint64)
    groups = Groups.of_keys(keys, np.full(23, 100))
    assert [group.tolist() for group in groups.members] == [list(range(20)), [20, 22]]
    labels = np.arange(23)

    def pairs(comparisons) -> set:
        return {tuple(sorted(p)) for c in comparisons for p in itertools.combinations(c, 2)}

    everything = set(itertools.combinations(range(20), 2)) | {(20, 22)}
    pivots, full = pairs(groups.with_pivots(labels)), pairs(groups.in_full(labels))
    assert {(0, k) for k in range(1, 20)} <= pivots
    assert pivots | full == everything
    labels[:16] = 0  # joined by now: only what 16 to 19 are in is left
    left = {p for p in everything - {(20, 22)} if p[1] >= 16}
    assert left <= pairs(groups.in_full(labels))
    assert list(groups.in_full(np.zeros(23, int))) == []


def test_survivors_have_the_least_rank_and_kept_ones_stay():
    labels = np.array([0, 0, 2, 2, 2, 5])
    ranks = [(1, "b"), (1, "a"), (0, "z"), (1, "a"), (1, "b"), (9, "x")]
    none = np.zeros(6, bool)
    assert survivors(labels, ranks, none).tolist() == [False, True, True, False, False, True]
    kept = np.array([False, False, False, True, True, False])
    assert survivors(labels, ranks, kept).tolist() == [False, True, False, True, True, True]
