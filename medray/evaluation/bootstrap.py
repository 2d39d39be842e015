"""Bootstrap intervals. In: values per item. Out: 95 % percentile intervals.

Two systems are compared on the same items: items are resampled, not systems.
Source: EVALUATION.md 1 (paired bootstrap).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
"""Source: not given; the percentile interval's ends then move by less than 0.1 of their width."""
CHUNK = 200


class Difference(NamedTuple):
    """Mean of b − a over items, its interval, and the share of resamples at or below 0."""

    value: float
    low: float
    high: float
    p_not_above: float


def mean_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `values` [N], N ≥ 1."""
    low, high = np.percentile(_resampled_means(np.asarray(values, float), seed), [2.5, 97.5])
    return float(low), float(high)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Difference:
    """How much higher `b` is than `a` on the same items, in the same order.

    Raises:
        ValueError: if the lengths differ or are 0.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"a paired comparison needs the same items: got {len(a)} and {len(b)}")
    differences = np.asarray(b, float) - np.asarray(a, float)
    means = _resampled_means(differences, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(
        float(differences.mean()), float(low), float(high), float((means <= 0).mean())
    )


def _resampled_means(values_N: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    means = [
        values_N[generator.integers(0, len(values_N), (CHUNK, len(values_N)))].mean(axis=1)
        for _ in range(RESAMPLES // CHUNK)
    ]
    return np.concatenate(means)
