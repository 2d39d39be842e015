"""The one training loop, shared by pretraining, fine-tuning, reward and PPO.

A stage supplies an engine, what one step does, how it is evaluated and how it is exported. The
loop owns resuming, checkpoints, metrics and progress. Everything random in a stage is a function
of (seed, step), so that the step number is all the state there is beside the engine's.
"""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint

from medray.common.errors import MedrayError
from medray.common.metrics import MetricsLog
from medray.training.forgetting import STAGE

logger = logging.getLogger(__name__)
STATE = "state"  # DeepSpeed's tag inside a checkpoint
METRICS = "metrics.jsonl"
MODEL = "model"


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
    get_state: Callable[[], dict[str, Any]] = dict
    """Further state of the stage (the KL coefficient)."""
    set_state: Callable[[dict[str, Any]], None] = lambda state: None


def run_stage(stage: Stage, *, checkpoint_steps: int, log_steps: int, progress: Any = None) -> None:
    """Trains to the end, from the newest checkpoint if there is one, and reports the model.

    Args:
        progress: a queue that takes (step, total steps, figures), for the driver's bar.
    """
    context = ray.train.get_context()
    is_first = context.get_world_rank() == 0
    with tempfile.TemporaryDirectory(prefix="medray-") as scratch:
        log = MetricsLog(Path(scratch) / METRICS)
        step, before = _resume(stage, log, is_first)
        if before is None:
            before = stage.evaluate()
            if is_first:
                log.write(0, {f"before/{name}": value for name, value in before.items()})
        shown = 0.0
        while step < stage.total_steps:
            started = time.monotonic()
            metrics = stage.train_step(step)
            step += 1
            broken = [name for name, value in metrics.items() if not math.isfinite(value)]
            if broken:
                raise MedrayError(
                    f"{stage.name} stopped at step {step}: {', '.join(broken)} is not finite; "
                    "lower the learning rate or look at the data"
                )
            seconds = metrics["time/step_s"] = time.monotonic() - started
            if "train/tokens" in metrics:
                metrics["time/tokens_per_s"] = metrics["train/tokens"] / seconds
            if is_first:
                log.write(step, metrics)
                shown = _show(progress, shown, step, stage.total_steps, metrics)
                if step % log_steps == 0 or step == stage.total_steps:
                    logger.info("%s %d/%d %s", stage.name, step, stage.total_steps, metrics)
            if name := stage.milestones.get(step):
                reached = stage.evaluate()
                if is_first:
                    log.write(step, {f"{STAGE}{name}/{key}": x for key, x in reached.items()})
            if step % checkpoint_steps == 0 and step < stage.total_steps:
                _report(stage, step, before, log, metrics)
        after = stage.evaluate()
        if is_first:
            log.write(step, {f"after/{name}": value for name, value in after.items()})
        _report(stage, step, before, log, after, export=True)


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
        if name in ("train/loss", "time/tokens_per_s", "ppo/reward", "ppo/kl")
    }
    progress.put_nowait((step, total_steps, figures))
    return now


def _resume(stage: Stage, log: MetricsLog, is_first: bool) -> tuple[int, dict[str, float] | None]:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0, None
    with checkpoint.as_directory() as directory:
        _, state = stage.engine.load_checkpoint(
            directory, tag=STATE, load_module_strict=not stage.partial_state
        )
        saved = Path(directory) / METRICS
        # Only the first worker keeps the log: another's copy would overwrite it in a checkpoint.
        if is_first and saved.exists():
            log.path.write_bytes(saved.read_bytes())
    stage.set_state(state["stage"])
    logger.info("%s resumes at step %d", stage.name, state["step"])
    return state["step"], state["before"]


def _report(
    stage: Stage,
    step: int,
    before: dict[str, float],
    log: MetricsLog,
    metrics: dict[str, float],
    *,
    export: bool = False,
) -> None:
    """Hands a checkpoint to Ray Train: every worker its own DeepSpeed shards."""
    with tempfile.TemporaryDirectory(prefix="medray-checkpoint-") as directory:
        stage.engine.save_checkpoint(
            directory,
            tag=STATE,
            client_state={"step": step, "before": before, "stage": stage.get_state()},
            exclude_frozen_parameters=stage.partial_state,
        )
        if log.path.exists():
            (Path(directory) / METRICS).write_bytes(log.path.read_bytes())
        if export:
            stage.export(Path(directory) / MODEL)
        ray.train.report({"step": step, **metrics}, checkpoint=Checkpoint(directory))
