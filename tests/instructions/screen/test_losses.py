"""Deviations against hand-worked numbers, outliers against planted ones."""

import numpy as np
import pytest

from medray.common.records import Instruction, Message
from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.losses import find_outliers, robust_deviations


def rows(num: int) -> list[Instruction]:
    turns = [Message(role="user", content="问"), Message(role="assistant", content="答")]
    return [Instruction(id=f"r{k}", task="t", messages=turns, split="train") for k in range(num)]


def test_robust_deviations_by_hand():
    # Median 3, distances 2 1 0 1 97, their median 1: 0.6745 * (100 - 3) = 65.4.
    deviations = robust_deviations(np.array([1.0, 2, 3, 4, 100]))
    assert deviations == pytest.approx([-1.349, -0.6745, 0, 0.6745, 65.4265])
    assert robust_deviations(np.ones(5)).tolist() == [0] * 5


def test_both_ends_are_flagged_and_rows_without_a_loss_are_not():
    # Logarithms -1, -0.9 ... 1: median 0, MAD 0.5. exp(5) deviates by 0.6745 * 5 / 0.5 = 6.745.
    losses = [*np.exp(np.linspace(-1, 1, 21)), np.exp(5.0), np.exp(-5.0), None]
    flags = find_outliers(rows(24), losses, ScreenConfig())
    assert [(f.id, f.reason) for f in flags] == [("r21", "loss_high"), ("r22", "loss_low")]
    assert [abs(f.score) for f in flags] == pytest.approx([5.62, 5.62], abs=1.2)
    assert find_outliers(rows(24), losses, ScreenConfig(max_loss_deviation=8)) == []
    assert find_outliers(rows(3), losses[-3:], ScreenConfig()) == []  # too few to tell
