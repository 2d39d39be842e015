"""Figures of a reward model by hand."""

import math

import numpy as np
import pytest

from medray.training.reward.figures import calibration_error, ranking_figures, regression_figures


def test_regression_by_hand() -> None:
    # Errors 0.1, 0.1, 0.2 of truths 0, 0.5, 1; guesses on a line: r = 1.
    figures = regression_figures([0.1, 0.45, 0.8], [0, 0.5, 1])
    assert figures["loss"] == pytest.approx((0.01 + 0.0025 + 0.04) / 3)
    assert figures["correlation"] == pytest.approx(1)
    assert figures["spread"] == pytest.approx(0.7)


def test_a_constant_guess_explains_nothing() -> None:
    assert regression_figures([0.4, 0.4], [0, 1]) == {
        "loss": pytest.approx((0.16 + 0.36) / 2), "correlation": 0.0, "spread": 0.0
    }  # fmt: skip


def test_equal_rewards_give_ln_2_and_half_a_point() -> None:
    figures = ranking_figures([0.0, 0.0])
    assert figures["loss"] == pytest.approx(math.log(2))
    # A coin is right half of the time, and says so.
    assert figures["accuracy"] == 0.5 and figures["calibration_error"] == 0
    assert figures["spread"] == 0


def test_ranking_by_hand() -> None:
    # σ(ln 3) = 0.75: three pairs right, one wrong, each said with 0.75.
    figures = ranking_figures([math.log(3)] * 3 + [-math.log(3)])
    assert figures["accuracy"] == 0.75
    assert figures["calibration_error"] == pytest.approx(0, abs=1e-9)
    assert figures["loss"] == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)


def test_calibration_error_by_hand() -> None:
    # Two at 0.52, one of them right; two at 1.0, none: ½·|0.52 − 0.5| + ½·|1 − 0|.
    confidence, right = np.array([0.52, 0.52, 1, 1]), np.array([1, 0, 0, 0])
    assert calibration_error(confidence, right) == pytest.approx(0.51)
