"""The one training loop, shared by pretraining, fine-tuning, reward and PPO.

A stage supplies an engine, what one step does, how it is evaluated and how it is exported. The
loop owns resuming, checkpoints, metrics and progress. Everything random in a stage is a function
of (seed, step), so that the step number is all the state there is beside the engine's.
"""

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray.train
import torch

from medray.common.errors import MedrayError
from medray.common.metrics import MetricsLog
from medray.training import checkpoints
from medray.training.checkpoints import SCORE
from medray.training.estimate import peak_flops
from medray.training.forgetting import HELD_OUT, STAGE
from medray.training.optimiser import OptimiserConfig
from medray.training.watching import check_packages, open_sinks
from medray.training.workers import WorkersConfig

logger = logging.getLogger(__name__)


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
    is_first = ray.train.get_context().get_world_rank() == 0
    with tempfile.TemporaryDirectory(prefix="medray-") as scratch, ExitStack() as stack:
        log = MetricsLog(Path(scratch) / checkpoints.METRICS)
        state = checkpoints.load(stage.engine, log, settings, partial_state=stage.partial_state)
        if state is None:
            step, before, best = 0, stage.evaluate(), None
        else:
            step, before, best = state["step"], state["before"], state["best"]
            stage.set_state(state["stage"])
            logger.info("%s resumes at step %d", stage.name, step)

        sinks = []
        if is_first:
            sinks = stack.enter_context(open_sinks(workers.watch, stage.name, run, step))

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

        shown, warned = 0.0, False
        peak = (peak_flops() or 0) * ray.train.get_context().get_world_size()
        while step < stage.total_steps:
            started = time.monotonic()
            metrics = _guarded_step(stage, step)
            step += 1
            seconds = metrics["time/step_s"] = time.monotonic() - started
            if "train/tokens" in metrics:
                metrics["time/tokens_per_s"] = metrics["train/tokens"] / seconds
            if peak and "train/flops" in metrics:
                metrics["time/mfu"] = metrics["train/flops"] / seconds / peak
            note(metrics)
            if is_first:
                shown = _show(progress, shown, step, stage.total_steps, metrics)
                if step % workers.log_steps == 0 or step == stage.total_steps:
                    logger.info("%s %d/%d %s", stage.name, step, stage.total_steps, metrics)
            if name := stage.milestones.get(step):
                note(stage.evaluate(), f"{STAGE}{name}/")
            if step == stage.total_steps:
                break
            is_best = False
            if config.evaluate_steps and step % config.evaluate_steps == 0:
                figures = stage.evaluate()
                note(figures, HELD_OUT)
                if keeps_best and is_better(stage.score(figures), best):
                    best, is_best = Best(stage.score(figures), step, figures), True
            is_due = step % workers.checkpoint_steps == 0
            if not is_due and not warned and _machine_is_leaving():
                is_due = warned = True
            if is_due or is_best:
                save(metrics, brings_model=is_best)
        after = stage.evaluate()
        if keeps_best:
            note(after, HELD_OUT)
            if best is None or is_better(stage.score(after), best):
                best = Best(stage.score(after), step, after)
            after = best.figures
            note({"best/step": best.step})
        note(after, "after/")
        save(after, brings_model=best is None or best.step == step)


def is_better(score: float, best: Best | None) -> bool:
    """Whether a score is above the best so far; one that is no number never is."""
    return math.isfinite(score) and (best is None or score > best.score)


def _guarded_step(stage: Stage, step: int) -> dict[str, float]:
    """One step; its metrics are finite.

    Raises:
        MedrayError: for a loss that is not, and, with what to change, for want of memory.
    """
    try:
        metrics = stage.train_step(step)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        name = stage.name
        raise OutOfMemoryError(
            f"{name} ran out of memory in step {step + 1}: lower {name}.micro_batch_size or the "
            f"tokens of a block, set {name}.activation_checkpointing to true, or raise "
            f"{name}.zero_stage; `medray doctor --profile` tells what a stage needs"
        ) from error
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise MedrayError(
            f"{stage.name} stopped at step {step + 1}: {', '.join(broken)} is not finite; lower "
            "the learning rate or look at the data"
        )
    return metrics


class OutOfMemoryError(MedrayError):
    """One worker's want of memory: the others do not meet it, and must be ended with it."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is wanting. On CPUs torch says so in words only."""
    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "DefaultCPUAllocator: can't allocate memory" in text
        or "out of memory" in text
    )


def _machine_is_leaving() -> bool:
    """Whether a worker's machine is to be taken away soon. All workers call this and agree."""
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
