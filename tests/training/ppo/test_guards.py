"""Guards against reward hacking, by hand."""

import pytest
from torch import tensor

from medray.training.ppo.guards import GuardConfig, length_guard, repeated_share, repetition_guard

CONFIG = GuardConfig(length_tolerance=0.2, length_strength=20)
LENGTHS = tensor([10.0, 20.0, 30.0])


def guard(first: float) -> list[float]:
    return length_guard(LENGTHS, mean=20, spread=8, first=first, config=CONFIG).tolist()


def test_answers_that_grew_short_gain_by_their_length() -> None:
    # Mean 20 after 25: drift −0.2, of which 0.1 is beyond half of the tolerance.
    # 20 × 0.1 = 2 for each standard deviation (8 tokens) above the mean.
    assert guard(25) == pytest.approx([-2.5, 0, 2.5])


def test_answers_that_grew_long_lose_by_their_length() -> None:
    # Mean 20 after 16: drift 0.25, 0.15 beyond.
    assert guard(16) == pytest.approx([3.75, 0, -3.75])


def test_within_half_of_the_tolerance_nothing_changes() -> None:
    assert guard(21) == guard(19) == [0, 0, 0]


def test_answers_of_one_length_cannot_be_told_apart() -> None:
    same = length_guard(tensor([5.0, 5.0]), mean=5, spread=0, first=10, config=CONFIG)
    assert same.tolist() == [0, 0]


def test_repeated_ngrams() -> None:
    # 1212 has the pairs 12, 21, 12: one of three stood before.
    assert repeated_share([1, 2, 1, 2], 2) == pytest.approx(1 / 3)
    assert repeated_share([1, 2, 3], 2) == repeated_share([1], 2) == repeated_share([], 2) == 0
    config = GuardConfig(repetition_tokens=2, repetition_strength=6)
    penalty = repetition_guard([[1, 2, 1, 2], [1, 2, 3], [7, 7, 7, 7]], config)
    # 7777 has the pair 77 three times: two of them stood before.
    assert penalty.tolist() == pytest.approx([-2, 0, -4])
