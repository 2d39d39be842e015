"""The two rankings made one, by hand, and the weight that questions choose."""

from functools import partial

import numpy as np
import pytest

from medray.retrieval.fusion import best_weight, fused
from medray.retrieval.measure import FEWEST, TUNING, Asked, split_for_tuning

NAMES = [f"p{i}" for i in range(12)]


def blends(cosines: list[np.ndarray], bm25: list[np.ndarray]) -> list[partial[np.ndarray]]:
    return [partial(fused, *both) for both in zip(cosines, bm25, strict=True)]


def test_fused_by_hand() -> None:
    cosines, bm25 = np.array([0.5, -1.0, 0.2]), np.array([0.0, 8.0, 2.0])
    # (1.5, 0, 1.2) / 1.5 and (0, 8, 2) / 8
    assert fused(cosines, bm25, 0.25) == pytest.approx(
        [0.25 * 1, 0.75 * 1, 0.25 * 0.8 + 0.75 * 0.25]
    )
    assert fused(cosines, bm25, 1.0) == pytest.approx([1, 0, 0.8])
    assert fused(cosines, np.zeros(3), 0.5) == pytest.approx([0.5, 0, 0.4])
    assert fused(np.array([]), np.array([]), 0.5).size == 0
    single = np.array([0.96, 0.92], np.float32), np.array([30.777, 25.612], np.float32)
    assert fused(*single, 0.95)[0] == 1.0  # and not 1.0000000007


def test_the_better_ranking_gets_the_weight() -> None:
    rng = np.random.default_rng(0)
    knows, noise = [], []
    for gold in range(12):
        knows.append(np.where(np.arange(12) == gold, 0.9, rng.uniform(0, 0.5, 12)))
        noise.append(rng.uniform(0, 1, 12))
    candidates, gold = [NAMES] * 12, [[name] for name in NAMES]
    assert best_weight(candidates, blends(knows, noise), gold) > 0.6
    assert best_weight(candidates, blends(noise, knows), gold) < 0.4


def test_of_equal_weights_the_middle_one() -> None:
    """From 0.25 on the cosine puts the gold passage first, whatever the weight."""
    cosines, bm25 = [np.array([1.0, 0.0])], [np.array([0.5, 0.6])]
    # α + (1 − α) 5/6 > α / 2 + (1 − α) from α 0.25 on: 0.25 to 1, 16 weights
    assert best_weight([NAMES[:2]], blends(cosines, bm25), [["p0"]]) == pytest.approx(0.65)


@pytest.mark.parametrize(
    ("num", "tuning"), [(2 * FEWEST - 1, 0), (2 * FEWEST, FEWEST), (5 * TUNING, TUNING)]
)
def test_no_question_chooses_and_is_measured(num: int, tuning: int) -> None:
    asked = Asked([str(i) for i in range(num)], [[f"g{i}"] for i in range(num)], np.eye(num))
    choose, measured = split_for_tuning(asked)
    assert len(choose.texts) == tuning
    assert {*choose.texts}.isdisjoint(measured.texts)
    assert {*choose.texts, *measured.texts} == set(asked.texts)
    for part in (choose, measured):
        assert [f"g{text}" for text in part.texts] == [name for (name,) in part.gold]
        assert part.vectors_QD.argmax(1).tolist() == [int(text) for text in part.texts]
