import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from medray.retrieval.recall import (
    exact_top,
    mean_reciprocal_rank,
    ndcg,
    recall_at,
    retrieval_metrics,
)

RANKED = [["a", "b", "c"], ["b", "a", "c"], ["x", "y", "z"]]
GOLD = [["a"], ["c", "a"], ["q"]]


def test_recall_and_mrr_by_hand() -> None:
    assert recall_at(RANKED, GOLD, 1) == pytest.approx((1 + 0 + 0) / 3)
    assert recall_at(RANKED, GOLD, 2) == pytest.approx((1 + 0.5 + 0) / 3)
    assert recall_at(RANKED, GOLD, 3) == pytest.approx((1 + 1 + 0) / 3)
    assert mean_reciprocal_rank(RANKED, GOLD) == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_ndcg_by_hand_and_as_scikit_learn_has_it() -> None:
    # Second: gold at ranks 2 and 3 of the best 1 and 2.
    second = (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3))
    assert ndcg(RANKED, GOLD) == pytest.approx((1 + second + 0) / 3)
    assert ndcg([[*"abcdefghijk"]], [["k"]]) == 0  # eleventh
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(30)]
    for _ in range(20):
        ranked = [str(i) for i in rng.permutation(30)]
        wanted = [str(i) for i in rng.choice(30, rng.integers(1, 14), replace=False)]
        scores = [[-ranked.index(name) for name in names]]
        expected = ndcg_score([[name in wanted for name in names]], scores, k=10)
        assert ndcg([ranked], [wanted]) == pytest.approx(expected)


def test_mrr_stops_at_ten() -> None:
    ranked = [[str(i) for i in range(11)]]
    assert mean_reciprocal_rank(ranked, [["9"]]) == pytest.approx(0.1)
    assert mean_reciprocal_rank(ranked, [["10"]]) == 0


def test_no_question_is_undefined_not_zero() -> None:
    assert all(
        math.isnan(x) for x in (recall_at([], [], 5), mean_reciprocal_rank([], []), ndcg([], []))
    )


def test_figures_are_named() -> None:
    assert set(retrieval_metrics(RANKED, GOLD, "exact/")) == {
        "exact/recall@1", "exact/recall@5", "exact/recall@10", "exact/mrr@10", "exact/ndcg@10",
    }  # fmt: skip


def test_exact_top_equals_sorting_by_hand() -> None:
    rng = np.random.default_rng(0)
    queries, vectors = rng.normal(size=(300, 8)), rng.normal(size=(40, 8))
    top = exact_top(queries, vectors, 5)
    for query, rows in zip(queries, top, strict=True):
        expected = sorted(range(40), key=lambda i: -float(query @ vectors[i]))[:5]
        assert rows.tolist() == expected
    assert exact_top(queries, vectors[:3], 5).shape == (300, 3)
