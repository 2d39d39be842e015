"""Figures and intervals against numbers worked out by hand."""

import numpy as np
import pytest

from medray.corpus.medical.figures import auc, calibration_error, held_out_figures, proportion


def test_auc_by_hand():
    # Positives 3, 1; negatives 2, 0. Pairs won: 3>2, 3>0, 1>0 of 4: 0.75. Each positive beats
    # 1, 1/2 of the negatives: variance 1/8; each negative is beaten by 1/2, 1: variance 1/8.
    # Standard error √(1/8/2 + 1/8/2) = √(1/8); 0.75 − 1.96 · 0.3536 = 0.0571.
    found = auc(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False]))
    assert found == {"value": 0.75, "low": pytest.approx(0.0571, abs=1e-4), "high": 1.0}
    ties = auc(np.ones(6), np.array([True] * 3 + [False] * 3))
    assert ties == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert auc(np.ones(3), np.array([True, False, False]))["value"] is None


def test_auc_agrees_with_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    is_positive = rng.random(500) < 0.3
    scores = np.round(rng.normal(size=500) + is_positive, 1)  # with ties
    assert auc(scores, is_positive)["value"] == pytest.approx(
        roc_auc_score(is_positive, scores), abs=1e-5
    )


def test_wilson_by_hand():
    # 8 of 10, z = 1.96: centre (0.8 + z²/20) / (1 + z²/10) = 0.7167, half width 0.2266.
    assert proportion(8, 10) == {
        "value": 0.8,
        "low": pytest.approx(0.4902, abs=1e-4),
        "high": pytest.approx(0.9433, abs=1e-4),
    }
    assert proportion(0, 0) == {"value": None, "low": None, "high": None}


def test_calibration_by_hand():
    # Two of each side. Stated 0.9 where all are medical: gap 0.1 on half the weight; stated 0.3
    # where none is: gap 0.3 on the other half. (0.1 + 0.3) / 2 = 0.2.
    probabilities, is_medical = np.array([0.9, 0.9, 0.3, 0.3]), np.array([True, True, False, False])
    assert calibration_error(probabilities, is_medical) == pytest.approx(0.2)
    assert calibration_error(probabilities, np.ones(4, bool)) is None


def test_figures_at_the_threshold_by_hand():
    # Accepted at 0.5: a, a, b. Right: 2 of 3; medical found: 2 of 3; general left out: 1 of 2.
    found = held_out_figures(
        np.array([0.9, 0.5, 0.4, 0.8, 0.1]),
        np.array([True, True, True, False, False]),
        ["a", "a", "c", "b", "b"],
        0.5,
    )
    assert found["precision"]["value"] == found["recall"]["value"] == pytest.approx(2 / 3, abs=1e-5)
    assert found["specificity"]["value"] == 0.5
    accepted = {name: figure["value"] for name, figure in found["accepted_by_source"].items()}
    assert accepted == {"a": 1.0, "b": 0.5, "c": 0.0}
    at_tenth = next(row for row in found["thresholds"] if row["threshold"] == 0.1)
    assert (at_tenth["recall"]["value"], at_tenth["specificity"]["value"]) == (1.0, 0.0)
