"""What a medical filter is worth. In: probabilities of held-out texts. Out: figures, intervals.

Every figure is {value, low, high}: a 95 % interval over texts; value is null where undefined.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm, rankdata

LEVEL = 0.95
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def held_out_figures(
    probabilities_N: np.ndarray,
    is_medical_N: np.ndarray,
    sources: Sequence[str],
    threshold: float,
) -> dict[str, Any]:
    """AUC, precision, recall and specificity at the threshold, calibration, and what is accepted
    of each source and at other thresholds, for whoever chooses one.

    Precision depends on how many texts of each side there are: it is given for `documents`.
    """
    accepted_N = probabilities_N >= threshold
    medical, general = int(is_medical_N.sum()), int((~is_medical_N).sum())
    right = int((accepted_N & is_medical_N).sum())
    names = np.array(sources)
    return {
        "threshold": threshold,
        "documents": {"medical": medical, "general": general},
        "auc": auc(probabilities_N, is_medical_N),
        "precision": proportion(right, int(accepted_N.sum())),
        "recall": proportion(right, medical),
        "specificity": proportion(int((~accepted_N & ~is_medical_N).sum()), general),
        "calibration_error": calibration_error(probabilities_N, is_medical_N),
        "accepted_by_source": {
            name: proportion(int(accepted_N[names == name].sum()), int((names == name).sum()))
            for name in sorted(set(sources))
        },
        "thresholds": [
            {
                "threshold": t,
                "recall": proportion(int((probabilities_N >= t)[is_medical_N].sum()), medical),
                "specificity": proportion(int((probabilities_N < t)[~is_medical_N].sum()), general),
            }
            for t in THRESHOLDS
        ],
    }


def auc(scores_N: np.ndarray, is_positive_N: np.ndarray) -> dict[str, float | None]:
    """Chance that a positive scores above a negative, ties half, with DeLong's interval.

    Where no pair is out of order the interval has no width: it says nothing then.
    Source: DeLong et al. 1988; placements by ranks: Sun and Xu 2014.
    """
    positive, negative = scores_N[is_positive_N], scores_N[~is_positive_N]
    m, n = len(positive), len(negative)
    if m < 2 or n < 2:
        return {"value": None, "low": None, "high": None}
    ranks = rankdata(np.concatenate([positive, negative]))
    above_M = (ranks[:m] - rankdata(positive)) / n
    below_N = 1 - (ranks[m:] - rankdata(negative)) / m
    value = float(above_M.mean())
    error = (np.var(above_M, ddof=1) / m + np.var(below_N, ddof=1) / n) ** 0.5
    half = float(norm.ppf((1 + LEVEL) / 2) * error)
    return _rounded(value, max(0.0, value - half), min(1.0, value + half))


def proportion(hits: int, total: int) -> dict[str, float | None]:
    """hits / total with Wilson's interval."""
    if total == 0:
        return {"value": None, "low": None, "high": None}
    interval = binomtest(hits, total).proportion_ci(LEVEL, method="wilson")
    return _rounded(hits / total, interval.low, interval.high)


def calibration_error(
    probabilities_N: np.ndarray, is_medical_N: np.ndarray, bins: int = 10
) -> float | None:
    """Mean distance of the stated probability from the true share, in bins of equal width, with
    both sides weighing the same. Source: Naeini et al. 2015 (ECE)."""
    sizes = np.array([(~is_medical_N).sum(), is_medical_N.sum()])
    if not sizes.all():
        return None
    weights_N = 0.5 / sizes[is_medical_N.astype(int)]
    bin_N = np.minimum((probabilities_N * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_N, weights_N * (probabilities_N - is_medical_N), bins)
    return round(float(np.abs(gaps).sum()), 4)


def _rounded(value: float, low: float, high: float) -> dict[str, float | None]:
    return {"value": round(value, 5), "low": round(float(low), 5), "high": round(float(high), 5)}
