"""What TRL's trainer says, said as in other stages: metrics, the bar, Ray Train's checkpoints."""

import math
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


class Report(TrainerCallback):
    """Writes metrics, moves the bar and hands TRL's checkpoints to Ray Train."""

    def __init__(
        self,
        log: MetricsLog,
        settings: dict[str, Any],
        scratch: Path,
        inputs: Inputs[PreferenceConfig],
    ) -> None:
        self.log, self.settings, self.scratch, self.inputs = log, settings, scratch, inputs
        self.is_first = ray.train.get_context().get_world_rank() == 0

    def note(self, step: int, figures: dict[str, Any], group: str) -> None:
        """Writes figures, on the first worker."""
        if self.is_first:
            numbers = {
                f"{group}{name.removeprefix('eval_')}": float(value)
                for name, value in figures.items()
                if isinstance(value, (int, float)) and "runtime" not in name
            }
            self.log.write(step, numbers)

    def hand_over(self, directory: Path, metrics: dict[str, Any]) -> None:
        """Reports a directory of this worker as its part of a checkpoint."""
        if self.is_first:
            write_settings(directory, self.settings)
            (directory / METRICS).write_bytes(self.log.path.read_bytes())
        ray.train.report(
            metrics,
            checkpoint=Checkpoint(directory),
            checkpoint_upload_fn=patient_upload(self.inputs.workers.storage_patience_s),
        )
        ray.train.get_all_reported_checkpoints(ray.train.CheckpointConsistencyMode.COMMITTED)

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
        self.note(state.global_step, logs, "train/")
        if self.is_first and self.inputs.progress is not None:
            figures = {"loss": f"{logs['loss']:.3g}"}
            total = self.inputs.config.total_steps
            self.inputs.progress.put_nowait((state.global_step, total, figures))

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The evaluation at the start; the one at the end is noted by who asks for it."""
        if state.global_step == 0:
            self.note(0, given.get("metrics") or {}, "before/")

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Each worker has written its part below its own output directory."""
        directory = self.scratch / "checkpoints" / f"checkpoint-{state.global_step}"
        if state.global_step < self.inputs.config.total_steps:
            directory.mkdir(parents=True, exist_ok=True)
            self.hand_over(directory, {"step": state.global_step})
