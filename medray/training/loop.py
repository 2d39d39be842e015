"""The one training loop, shared by pretraining, fine-tuning, reward and PPO.

A stage supplies an engine, what one step does, how it is evaluated and how it is exported. The
loop owns resuming, checkpoints, metrics and progress. Everything random in a stage is a function
of (seed, step), so that the step number is all the state there is beside the engine's.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray.train

from medray.common.errors import MedrayError
from medray.common.metrics import MetricsLog
from medray.common.scratch import scratch_directory
from medray.training import checkpoints
from medray.training.checkpoints import SCORE
from medray.training.estimate import peak_flops
from medray.training.failures import explaining_memory
from medray.training.forgetting import HELD_OUT, STAGE
from medray.training.optimiser import OptimiserConfig
from medray.training.watching import check_packages, open_sinks
from medray.training.workers import WorkersConfig

logger = logging.getLogger(__name__)
SAMPLES = "samples.jsonl"


@dataclass
class Stage:
    """What the loop needs of a training stage."""

    name: str
    engine: Any
    """DeepSpeed engine."""
    total_steps: int
    train_step: Callable[[int], dict[str, float]]
    """Does step t (from 0); returns its metrics, the same on every worker."""
    evaluate: Callable[[], dict[str, float]]
    """Held-out figures, the same on every worker."""
    export: Callable[[Path], None]
    """Writes a Hugging Face directory; called on every worker, writes on the first."""
    partial_state: bool = False
    """True if frozen weights stay out of checkpoints (LoRA)."""
    milestones: Mapping[int, str] = field(default_factory=dict)
    """Step → name: after it held-out figures are measured too (the end of a curriculum's stage)."""
    score: Callable[[dict[str, float]], float] = lambda figures: -figures["loss"]
    """Held-out figures → what the best model has most of."""
    get_state: Callable[[], dict[str, Any]] = dict
    """Further state of the stage (the KL coefficient)."""
    set_state: Callable[[dict[str, Any]], None] = lambda state: None
    samples: Callable[[int], Sequence[dict[str, Any]]] = lambda num: ()
    """Up to `num` examples of the last step, described without their text, for samples.jsonl."""
    takes_memory: Sequence[str] = ()
    """Settings that the memory of a step grows with, for the message when it runs out; empty:
    micro_batch_size alone."""


class Best(NamedTuple):
    """The measurement with the highest score so far."""

    score: float
    step: int
    figures: dict[str, float]


def run_stage(
    stage: Stage,
    workers: WorkersConfig,
    config: OptimiserConfig,
    run: str = "",
    progress: Any = None,
) -> None:
    """Trains to the end, from the newest checkpoint if there is one, and reports the model.

    Args:
        config: the stage's settings; a checkpoint of others is refused.
        run: the artefact's key, by which sinks tell the runs of a stage apart.
        progress: a queue that takes (step, total steps, figures), for the driver's bar.
    """
    check_packages(workers.watch)
    settings = config.model_dump(mode="json")
    keeps_best = config.keep == "best"
    context = ray.train.get_context()
    is_first, world_size = context.get_world_rank() == 0, context.get_world_size()
    with scratch_directory() as scratch, ExitStack() as stack:
        log = MetricsLog(scratch / checkpoints.METRICS)
        samples = MetricsLog(scratch / SAMPLES)
        state = checkpoints.load(stage.engine, log, settings, partial_state=stage.partial_state)
        if state is None:
            step, before, best = 0, _measured(stage, 0), None
        else:
            step, before, best = state["step"], state["before"], state["best"]
            stage.set_state(state["stage"])
            logger.info("%s resumes at step %d", stage.name, step)

        sinks = []
        if is_first:
            sinks = stack.enter_context(
                open_sinks(workers.watch, stage.name, run, step, world_size)
            )

        def note(figures: dict[str, float], group: str = "") -> None:
            """Writes figures of the present step, on the first worker."""
            if is_first:
                named = {f"{group}{name}": value for name, value in figures.items()}
                log.write(step, named)
                for sink in list(sinks):
                    try:
                        sink(step, named)
                    except Exception as error:  # whatever a package raises: it is only watched
                        sinks.remove(sink)
                        reason = type(error).__name__
                        logger.warning("%s is no longer watched there: %s", stage.name, reason)

        if state is None:
            note(before, "before/")

        def save(figures: dict[str, float], *, brings_model: bool) -> None:
            score = {SCORE: best.score} if brings_model and best else {}
            export = stage.export if brings_model else None
            checkpoints.save(
                stage.engine,
                {"step": step, "before": before, "best": best, "stage": stage.get_state()},
                log,
                {"step": step, **figures, **score},
                settings,
                partial_state=stage.partial_state,
                in_background=workers.upload_in_background and not brings_model,
                patience_s=workers.storage_patience_s,
                export=export,
            )

        shown, warned, saved = 0.0, False, time.monotonic()
        peak = (peak_flops() or 0) * world_size
        while step < stage.total_steps:
            started = time.monotonic()
            metrics = _guarded_step(stage, step)
            step += 1
            ended = time.monotonic()
            metrics |= speed(metrics, ended - started, peak)
            metrics["time/checkpoint_age_s"] = ended - saved
            note(metrics)
            if is_first:
                shown = _show(progress, shown, step, stage.total_steps, metrics)
                if step % workers.log_steps == 0 or step == stage.total_steps:
                    for row in stage.samples(workers.watch.samples):
                        samples.write(step, row)
                    logger.info("%s %d/%d %s", stage.name, step, stage.total_steps, metrics)
            if name := stage.milestones.get(step):
                note(_measured(stage, step), f"{STAGE}{name}/")
            if step == stage.total_steps:
                break
            is_best = False
            if config.evaluate_steps and step % config.evaluate_steps == 0:
                figures = _measured(stage, step)
                note(figures, HELD_OUT)
                if keeps_best and is_better(stage.score(figures), best):
                    best, is_best = Best(stage.score(figures), step, figures), True
            is_due = step % workers.checkpoint_steps == 0
            if not is_due and not warned and _machine_is_leaving():
                is_due = warned = True
            if is_due or is_best:
                save(metrics, brings_model=is_best)
                saved = time.monotonic()
        after = _measured(stage, step)
        if keeps_best:
            note(after, HELD_OUT)
            if best is None or is_better(stage.score(after), best):
                best = Best(stage.score(after), step, after)
            after = best.figures
            note({"best/step": best.step})
        note(after, "after/")
        save(after, brings_model=best is None or best.step == step)


def speed(metrics: Mapping[str, float], seconds: float, peak: float) -> dict[str, float]:
    """How fast a step was.

    Args:
        metrics: of the step; `train/tokens` and `train/flops` of all workers, where it counts them.
        seconds: the step took.
        peak: FLOP/s of all workers' GPUs at their best; 0 if that is not known.
    Returns:
        `time/step_s`; `time/tokens_per_s`; `time/mfu`, the fraction of `peak` that the model's own
        arithmetic comes to (PaLM, Chowdhery et al. 2022, appendix B).
    """
    figures = {"time/step_s": seconds}
    if "train/tokens" in metrics:
        figures["time/tokens_per_s"] = metrics["train/tokens"] / seconds
    if peak and "train/flops" in metrics:
        figures["time/mfu"] = metrics["train/flops"] / seconds / peak
    return figures


def is_better(score: float, best: Best | None) -> bool:
    """Whether a score is above the best so far; one that is no number never is."""
    return math.isfinite(score) and (best is None or score > best.score)


def _guarded_step(stage: Stage, step: int) -> dict[str, float]:
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


def _measured(stage: Stage, step: int) -> dict[str, float]:
    """Held-out figures after `step` steps, all finite.

    Raises:
        MedrayError, OutOfMemoryError: as `_guarded_step`.
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


def _machine_is_leaving() -> bool:
    """Whether a worker's machine is to be taken away soon. All workers call this and agree.

    After the notice Ray Train starts the workers anew as soon as the machine has gone, so that one
    checkpoint for it is enough.
    """
    if os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1") == "0":
        return False
    return ray.train.get_preemption_info() is not None


PROGRESS_S = 0.5
"""Between two updates of the bar. Each is a call to another process, for which all workers wait."""


def _show(
    progress: Any, shown: float, step: int, total_steps: int, metrics: dict[str, float]
) -> float:
    """Moves the driver's bar, if it is time; returns when it was last moved."""
    now = time.monotonic()
    if progress is None or (now - shown < PROGRESS_S and step < total_steps):
        return shown
    figures = {
        name.split("/")[1]: f"{value:.3g}"
        for name, value in metrics.items()
        if name in ("train/loss", "time/tokens_per_s", "time/mfu", "ppo/reward", "ppo/kl")
    }
    progress.put_nowait((step, total_steps, figures))
    return now
