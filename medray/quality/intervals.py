"""Confidence intervals and balanced accuracy, shared with evaluation."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

Z95 = 1.959963984540054


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float] | None:
    """Wilson's score interval of a proportion; None if n is 0.

    `centre ± half` with centre = (p + z²/2n) / (1 + z²/n).
    """
    if n == 0:
        return None
    p, zz = successes / n, z * z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def balanced_accuracy(gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> float | None:
    """Mean recall over the classes that occur in `gold`; None if it is empty."""
    right: dict[Hashable, int] = defaultdict(int)
    total: dict[Hashable, int] = defaultdict(int)
    for truth, guess in zip(gold, predicted, strict=True):
        total[truth] += 1
        right[truth] += truth == guess
    return sum(right[c] / total[c] for c in total) / len(total) if total else None
