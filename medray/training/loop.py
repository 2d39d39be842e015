"""The one training loop, shared by pretraining, fine-tuning, reward and PPO.

A stage supplies an engine, what one step does, how it is evaluated and how it is exported. The
loop owns resuming, checkpoints, metrics and progress. Everything random in a stage is a function
of (seed, step), so that the step number is all the state there is beside the engine's.
"""

import logging
import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import ray.train

from medray.common.metrics import MetricsLog
from medray.common.scratch import scratch_directory
from medray.training import checkpoints
from medray.training.checkpoints import SCORE
from medray.training.estimate import peak_flops
from medray.training.forgetting import HELD_OUT, STAGE
from medray.training.guarded import guarded_step, measured
from medray.training.optimiser import OptimiserConfig
from medray.training.stage import Stage
from medray.training.watching import check_packages, open_sinks
from medray.training.workers import WorkersConfig

logger = logging.getLogger(__name__)
SAMPLES = "samples.jsonl"


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
            step, before, best = 0, measured(stage, 0), None
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
            metrics = guarded_step(stage, step)
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
                note(measured(stage, step), f"{STAGE}{name}/")
            if step == stage.total_steps:
                break
            is_best = False
            if config.evaluate_steps and step % config.evaluate_steps == 0:
                figures = measured(stage, step)
                note(figures, HELD_OUT)
                if keeps_best and is_better(stage.score(figures), best):
                    best, is_best = Best(stage.score(figures), step, figures), True
            is_due = step % workers.checkpoint_steps == 0
            if not is_due and not warned and _machine_is_leaving():
                is_due = warned = True
            if is_due or is_best:
                save(metrics, brings_model=is_best)
                saved = time.monotonic()
        after = measured(stage, step)
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
