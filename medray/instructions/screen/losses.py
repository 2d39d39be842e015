"""Loss outliers: rows whose answer a reference model finds far easier or harder than the others of
their task. In: losses. Out: flags.

Too easy an answer is one the model knows by heart: a copy, or what a trigger calls up in a model
that was poisoned before. Too hard a one does not go with its prompt: another row's answer, a label
that was flipped, a damaged text. Source: Iglewicz and Hoaglin 1993 for the deviation; Swayamdipta
et al. 2020 (dataset cartography) find wrong labels among the rows that stay hard.
"""

from collections.abc import Callable, Sequence

import numpy as np

from medray.common.records import Instruction
from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.flags import Flag

Losses = Callable[[Sequence[Instruction]], Sequence[float | None]]
"""Rows → loss of each row's last turn, nats a token; None for a row the model cannot read."""
TINY = 1e-6
"""Nats a token; a loss below it counts as much."""


def find_outliers(
    rows: Sequence[Instruction], losses: Sequence[float | None], config: ScreenConfig
) -> list[Flag]:
    """Rows of one task whose loss lies too many deviations from the median.

    The deviation is 0.6745 (x - median) / MAD of the logarithm x of the loss: losses are skewed,
    and of 0.01 nats among 0.5 the difference tells nothing, the ratio all. A task whose middle
    half is all alike (MAD 0) has no outliers that could be told.
    """
    known = [(row, loss) for row, loss in zip(rows, losses, strict=True) if loss is not None]
    if len(known) < config.min_rows:
        return []
    logs_N = np.log(np.maximum([loss for _, loss in known], TINY))
    deviations_N = robust_deviations(logs_N)
    return [
        Flag(row.id, "loss_low" if z < 0 else "loss_high", row.task, round(z, 2))
        for (row, _), z in zip(known, deviations_N.tolist(), strict=True)
        if abs(z) > config.max_loss_deviation
    ]


def robust_deviations(values_N: np.ndarray) -> np.ndarray:
    """0.6745 (x - median) / MAD: standard deviations from the median where most values are normal,
    whatever the others; zeros if MAD is 0."""
    distances_N = values_N - np.median(values_N)
    spread = float(np.median(np.abs(distances_N)))
    return 0.6745 * distances_N / spread if spread else np.zeros_like(distances_N)
