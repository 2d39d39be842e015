"""What TRL's trainer says, said as in other stages: metrics, sinks, the bar, checkpoints."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint
from transformers import TrainerCallback

from medray.common.errors import MedrayError
from medray.common.metrics import MetricsLog
from medray.training.checkpoints import METRICS, patient_upload, write_settings
from medray.training.preference.config import PreferenceConfig
from medray.training.trainer import Inputs
from medray.training.watching import Sink

logger = logging.getLogger(__name__)
NAME = "preference"
SAID_OTHERWISE = ("num_tokens", "step_time")
"""TRL's figures that stand in `train/tokens_read` and `time/step_s`. Its count of tokens starts
again when a run is resumed, and a step's time is there for two of the methods only."""
ON_THE_BAR = ("train/loss", "train/reward", "train/kl", "time/tokens_read_per_s")


def named(figures: dict[str, Any], group: str) -> dict[str, float]:
    """TRL's figures under the names that metrics.jsonl has them by."""
    short = {name.removeprefix("eval_"): value for name, value in figures.items()}
    return {
        f"{group}{name}": float(value)
        for name, value in short.items()
        if isinstance(value, int | float) and "runtime" not in name and name not in SAID_OTHERWISE
    }


class Report(TrainerCallback):
    """Writes metrics, moves the bar and hands TRL's checkpoints to Ray Train."""

    def __init__(
        self,
        log: MetricsLog,
        sinks: list[Sink],
        scratch: Path,
        inputs: Inputs[PreferenceConfig],
    ) -> None:
        self.log, self.sinks, self.scratch, self.inputs = log, sinks, scratch, inputs
        self.is_first = ray.train.get_context().get_world_rank() == 0
        self.started, self.num_tokens = 0.0, 0.0

    def note(self, step: int, figures: dict[str, float]) -> None:
        """Writes figures, on the first worker."""
        if self.is_first:
            self.log.write(step, figures)
            for sink in list(self.sinks):
                try:
                    sink(step, figures)
                except Exception as error:  # whatever a package raises: it is only watched
                    self.sinks.remove(sink)
                    reason = type(error).__name__
                    logger.warning("%s is no longer watched there: %s", NAME, reason)

    def of_step(self, logs: dict[str, Any]) -> dict[str, float]:
        """A step's figures, with its time and its tokens: those of all workers' prompts and
        answers, without padding. Other stages' `train/tokens` are those that are learned from."""
        seconds = time.monotonic() - self.started
        read = logs["num_tokens"] - self.num_tokens
        self.num_tokens = logs["num_tokens"]
        return named(logs, "train/") | {
            "train/tokens_read": read,
            "time/step_s": seconds,
            "time/tokens_read_per_s": read / seconds,
        }

    def hand_over(
        self, directory: Path, metrics: dict[str, Any], *, in_background: bool = False
    ) -> None:
        """Reports a directory of this worker, which goes away, as its part of a checkpoint."""
        if self.is_first:
            write_settings(directory, self.inputs.config.model_dump(mode="json"))
            (directory / METRICS).write_bytes(self.log.path.read_bytes())
        mode = ray.train.CheckpointUploadMode
        ray.train.report(
            metrics,
            checkpoint=Checkpoint(directory),
            checkpoint_upload_mode=mode.ASYNC if in_background else mode.SYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=patient_upload(self.inputs.workers.storage_patience_s),
        )
        if not in_background:
            ray.train.get_all_reported_checkpoints(ray.train.CheckpointConsistencyMode.COMMITTED)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Where TRL's count of tokens starts: a checkpoint holds it for GRPO and RLOO."""
        self.num_tokens = state.num_input_tokens_seen

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Drawing answers, scoring and learning all come after this."""
        self.started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """TRL logs training and evaluation alike; the latter is noted where it was asked for."""
        logs = given.get("logs") or {}
        if "loss" not in logs or any(name.startswith("eval_") for name in logs):
            return
        if not math.isfinite(logs["loss"]):  # the mean over workers: all of them stop
            raise MedrayError(
                f"preference stopped at step {state.global_step}: loss is not finite; lower the "
                "learning rate or look at the data"
            )
        figures = self.of_step(logs)
        self.note(state.global_step, figures)
        if self.is_first and self.inputs.progress is not None:
            shown = {
                name.split("/")[1]: f"{figures[name]:.3g}" for name in ON_THE_BAR if name in figures
            }
            total = self.inputs.config.total_steps
            self.inputs.progress.put_nowait((state.global_step, total, shown))

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The evaluation at the start; the one at the end is noted by who asks for it."""
        if state.global_step == 0:
            self.note(0, named(given.get("metrics") or {}, "before/"))

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Each worker has written its part below its own output directory."""
        directory = self.scratch / "checkpoints" / f"checkpoint-{state.global_step}"
        if state.global_step < self.inputs.config.total_steps:
            directory.mkdir(parents=True, exist_ok=True)
            # Out of the trainer's sight, which deletes all but its newest.
            handed = directory.rename(self.scratch / directory.name)
            background = self.inputs.workers.upload_in_background
            self.hand_over(handed, {"step": state.global_step}, in_background=background)
