"""What a reward model is worth on held-out examples. Pure functions on lists of numbers.

Source: [EMR-LLM 1.4], [ClinicalGPT 2.3]; calibration after Guo et al. 2017 (On Calibration, 2).
"""

from collections.abc import Sequence

import numpy as np


def regression_figures(guesses: Sequence[float], truths: Sequence[float]) -> dict[str, float]:
    """Squared error, Pearson's r (0 for a constant guess) and the spread of guesses as a share of
    that of the experts' scores."""
    guess, truth = np.asarray(guesses, float), np.asarray(truths, float)
    spread = guess.std() * truth.std()
    return {
        "loss": float(((guess - truth) ** 2).mean()),
        "correlation": float(np.cov(guess, truth, bias=True)[0, 1] / spread) if spread else 0.0,
        "spread": float(guess.std() / truth.std()) if truth.std() else 0.0,
    }


def ranking_figures(margins: Sequence[float]) -> dict[str, float]:
    """Figures of pairs, from r(chosen) − r(rejected) of each.

    Returns:
        loss: mean −log σ(margin); accuracy: share of pairs in the right order, a tie is half right;
        calibration_error: expected calibration error of the more likely order's probability, in ten
        bins; spread: standard deviation of the margins.
    """
    margin = np.asarray(margins, float)
    right = (margin > 0) + 0.5 * (margin == 0)
    confidence = 1 / (1 + np.exp(-np.abs(margin)))
    return {
        "loss": float(np.logaddexp(0, -margin).mean()),
        "accuracy": float(right.mean()),
        "calibration_error": calibration_error(confidence, right),
        "spread": float(margin.std()),
    }


def calibration_error(confidence: np.ndarray, right: np.ndarray, num_bins: int = 10) -> float:
    """Σ over bins of (share of the pairs in it) × |mean confidence − share right|.

    Args:
        confidence: probability of what was predicted, 0.5 to 1. Bins divide that range evenly.
    """
    bins = np.minimum(((confidence - 0.5) * 2 * num_bins).astype(int), num_bins - 1)
    error = 0.0
    for k in np.unique(bins):
        mine = bins == k
        error += mine.mean() * abs(confidence[mine].mean() - right[mine].mean())
    return float(error)
