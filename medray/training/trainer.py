"""Starts a stage on Ray Train workers and brings its model home.

Ray Train restarts workers that die; the same storage path and name make a rerun of a driver that
died resume as well. Source: DESIGN.md 3, checkpoints.
"""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from ray import cloudpickle
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from medray.common.config import Config
from medray.common.errors import MedrayError
from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.storage import Storage, StorageConfig
from medray.training.loop import METRICS, MODEL, Stage, run_stage
from medray.training.progress import progress

TRAIN_DIR = "train"


class WorkersConfig(Config):
    """The workers of every training stage."""

    num_workers: int = 8
    """[EMR-LLM 2.2]: 8 × A100."""
    use_gpu: bool = True
    cpus_per_worker: float = 1
    threads_per_worker: int = 1
    """Threads of one worker on a machine without a GPU."""
    max_failures: int = 3
    """How often workers that died are started again from the newest checkpoint."""
    checkpoint_steps: int = 500
    log_steps: int = 50
    collective_timeout_s: int = 1800


Settings = TypeVar("Settings", bound=Config)


@dataclass(frozen=True)
class Inputs(Generic[Settings]):
    """What every worker of a stage is given: its settings and where its parents lie."""

    config: Settings
    workers: WorkersConfig
    storage: StorageConfig
    parents: dict[str, tuple[str, str]]
    """What it is to the stage → (step, key) of the artefact."""
    progress: Any = None

    def fetch(self, parent: str) -> Path:
        """The directory of a parent, on this machine."""
        return Storage(self.storage).fetch(*self.parents[parent])

    def name(self, parent: str) -> str:
        """What a model card calls a parent: step/key."""
        return "/".join(self.parents[parent])

    def run(self, stage: Stage) -> None:
        """Trains `stage` to the end, as the loop does it."""
        run_stage(
            stage,
            checkpoint_steps=self.workers.checkpoint_steps,
            log_steps=self.workers.log_steps,
            progress=self.progress,
        )


def fit(
    train: Callable[[Inputs[Settings]], None],
    config: Settings,
    workers: WorkersConfig,
    artefact: Artefact,
    **parents: tuple[str, str],
) -> list[dict[str, Any]]:
    """Runs `train` on all workers until it ends; copies the model and the metrics.

    Args:
        train: a worker's function, picklable; it ends with `Inputs.run`.
        artefact: receives `model/` and `metrics.jsonl`; holds the checkpoints in `train/`.
        parents: (step, key) of the artefacts it reads, by the names it fetches them by.
    Returns:
        the rows of metrics.jsonl.
    """
    inputs = Inputs(config, workers, artefact.storage.config, parents)
    with progress(artefact.step) as updates:
        # As bytes, so that Ray's controller does not import all that training needs.
        body = cloudpickle.dumps((train, inputs))  # pyright: ignore[reportPrivateImportUsage]
        result = _trainer({"body": body, "progress": updates}, workers, artefact).fit()
    if isinstance(result.return_value, MedrayError):
        raise result.return_value
    if result.checkpoint is None:
        raise MedrayError(f"{artefact.step} ended without a checkpoint; see the workers' logs")
    model = artefact.dir / MODEL
    with result.checkpoint.as_directory() as directory:
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(Path(directory) / MODEL, model)
        shutil.copy(Path(directory) / METRICS, artefact.dir / METRICS)
    return MetricsLog(artefact.dir / METRICS).read()


def _trainer(config: dict[str, Any], workers: WorkersConfig, artefact: Artefact) -> TorchTrainer:
    return TorchTrainer(
        _on_worker,
        train_loop_config=config | {"workers": workers},
        torch_config=TorchConfig(backend="nccl" if workers.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.cpus_per_worker}
            | ({"GPU": 1} if workers.use_gpu else {}),
        ),
        run_config=RunConfig(
            name=artefact.step,
            storage_path=train_path(artefact),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": worker_environment(workers)},
        ),
    )


def train_path(artefact: Artefact) -> str:
    """Where Ray Train keeps checkpoints: beside the artefact in the making, on any storage."""
    if artefact.storage.is_remote:
        root = artefact.storage.config.root.rstrip("/")
        return f"{root}/{TRAIN_DIR}/{artefact.step}-{artefact.key}"
    return str(artefact.dir / TRAIN_DIR)


def worker_environment(workers: WorkersConfig) -> dict[str, str]:
    """Environment of the workers: set before torch and DeepSpeed are imported."""
    environment = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(workers.collective_timeout_s),
    }
    if not workers.use_gpu:
        threads = str(workers.threads_per_worker)
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": threads}
    return environment


def _on_worker(config: dict[str, Any]) -> MedrayError | None:
    """Runs on every worker. An error in the input, which every worker meets alike, is returned:
    raised, it would count as a worker's death and be tried again."""
    workers: WorkersConfig = config["workers"]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if not workers.use_gpu:
        torch.set_num_threads(workers.threads_per_worker)
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        train, inputs = cloudpickle.loads(config["body"])
        train(replace(inputs, progress=config["progress"]))
    except MedrayError as error:
        return error
    return None
