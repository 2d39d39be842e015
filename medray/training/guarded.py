"""A stage's steps and measurements: finite figures come out, or an error that says what to change,
for want of memory too.
"""

import math
from collections.abc import Mapping, Sequence

from medray.common.errors import MedrayError
from medray.training.failures import explaining_memory
from medray.training.stage import Stage


def guarded_step(stage: Stage, step: int) -> dict[str, float]:
    """One step; its metrics and its gradients are finite.

    Raises:
        MedrayError: if they are not; nothing is saved after that.
        OutOfMemoryError: for want of memory, with what to change.
    """
    name, skipped = stage.name, stage.engine.skipped_steps
    remedy = (
        f"lower {_memory_settings(stage)}, set {name}.activation_checkpointing to true, or raise "
        f"{name}.zero_stage"
    )
    with explaining_memory(name, f"in step {step + 1}", remedy):
        try:
            metrics = stage.train_step(step)
        except FloatingPointError:  # of an optimiser that would have taken them
            raise _not_finite(stage, f"at step {step + 1}", ["a gradient"]) from None
    _check_finite(stage, f"at step {step + 1}", metrics)
    # DeepSpeed leaves out such an update and goes on, without a word.
    if stage.engine.skipped_steps > skipped:
        raise _not_finite(stage, f"at step {step + 1}", ["a gradient"])
    return metrics


def measured(stage: Stage, step: int) -> dict[str, float]:
    """Held-out figures after `step` steps, all finite.

    Raises:
        MedrayError, OutOfMemoryError: as `guarded_step`.
    """
    moment = f"as it was measured after step {step}"
    with explaining_memory(stage.name, moment, f"lower {_memory_settings(stage)}"):
        figures = stage.evaluate()
    _check_finite(stage, f"when it was measured after step {step}", figures)
    return figures


def _check_finite(stage: Stage, moment: str, figures: Mapping[str, float]) -> None:
    if broken := [name for name, value in figures.items() if not math.isfinite(value)]:
        raise _not_finite(stage, moment, broken)


def _not_finite(stage: Stage, moment: str, what: Sequence[str]) -> MedrayError:
    return MedrayError(
        f"{stage.name} stopped {moment}: {', '.join(what)} is not finite; nothing of it was saved; "
        f"lower {stage.name}.learning_rate, raise {stage.name}.warmup_steps, or look at the data "
        "and at the model it starts from"
    )


def _memory_settings(stage: Stage) -> str:
    *others, last = stage.takes_memory or (f"{stage.name}.micro_batch_size",)
    return f"{', '.join(others)} or {last}" if others else last
