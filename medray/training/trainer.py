"""Starts a stage on Ray Train workers and brings its model home.

Ray Train restarts workers that die; the same storage path and name make a rerun of a driver that
died resume as well. Source: DESIGN.md 3, checkpoints.
"""

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from pyarrow.fs import FileSystem, FileType
from ray import cloudpickle
from ray.train import (
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchConfig, TorchTrainer
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay
from tenacity.wait import wait_exponential

from medray.common.errors import MedrayError, StorageError
from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.storage import Storage, StorageConfig
from medray.training.checkpoints import LOGS, METRICS, MODEL, SCORE
from medray.training.failures import EndAtMistakes, cause_of, explaining_memory
from medray.training.loop import run_stage
from medray.training.optimiser import OptimiserConfig
from medray.training.progress import progress
from medray.training.stage import Stage
from medray.training.workers import WorkersConfig, worker_environment

logger = logging.getLogger(__name__)
Settings = TypeVar("Settings", bound=OptimiserConfig)


@dataclass(frozen=True)
class Inputs(Generic[Settings]):
    """What every worker of a stage is given: its settings and where its parents lie."""

    config: Settings
    workers: WorkersConfig
    storage: StorageConfig
    parents: dict[str, tuple[str, str]]
    """What it is to the stage → (step, key) of the artefact."""
    run_key: str = ""
    """Of the artefact in the making."""
    progress: Any = None

    def fetch(self, parent: str) -> Path:
        """The directory of a parent, on this machine."""
        return Storage(self.storage).fetch(*self.parents[parent])

    def name(self, parent: str) -> str:
        """What a model card calls a parent: step/key."""
        return "/".join(self.parents[parent])

    def run(self, stage: Stage) -> None:
        """Trains `stage` to the end, as the loop does it."""
        run_stage(stage, self.workers, self.config, self.run_key, self.progress)


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
        artefact: receives `model/` and the logs; holds the checkpoints in `train/`.
        parents: (step, key) of the artefacts it reads, by the names it fetches them by.
    Returns:
        the rows of metrics.jsonl.
    Raises:
        ConfigError: before any worker starts, if they cannot share a batch evenly.
        MedrayError: a worker's, after one attempt if another would end the same (`EndAtMistakes`).
    """
    for num_workers in workers.possible_workers:
        config.accumulation(num_workers)
    inputs = Inputs(config, workers, artefact.storage.config, parents, artefact.key)
    with progress(artefact.step) if workers.watch.progress else nullcontext() as updates:
        # As bytes, so that Ray's controller does not import all that training needs.
        body = cloudpickle.dumps((train, inputs))  # pyright: ignore[reportPrivateImportUsage]
        try:
            loop = {"body": body, "progress": updates, "stage": artefact.step}
            result = _fit(loop, workers, artefact, keeps_best=config.keep == "best")
        except WorkerGroupError as error:
            for cause in map(cause_of, error.worker_failures.values()):
                if isinstance(cause, MedrayError):
                    raise cause from None
            raise
        except ControllerError as error:
            if isinstance(error.controller_failure, MedrayError):
                raise error.controller_failure from None
            raise
    if result.checkpoint is None:
        raise MedrayError(f"{artefact.step} ended without a checkpoint; see the workers' logs")
    model = artefact.dir / MODEL
    best = result.checkpoint
    if config.keep == "best":
        best = result.get_best_checkpoint(SCORE, "max")
        assert best is not None  # the last one has a score, or one before it did better
    with best.as_directory() as directory:
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(Path(directory) / MODEL, model)
    with result.checkpoint.as_directory() as directory:
        for path in Path(directory).glob(LOGS):
            shutil.copy(path, artefact.dir)
    return MetricsLog(artefact.dir / METRICS).read()


def _fit(
    loop: dict[str, Any], workers: WorkersConfig, artefact: Artefact, *, keeps_best: bool
) -> Result:
    """Trains; goes on from the newest checkpoint when the storage was away as Ray's controller
    noted which checkpoints there are, which the controller does not try again itself."""
    parent = artefact.storage.checkpoints(artefact.step, artefact.key)
    for left in reversed(range(workers.max_failures + 1)):
        try:
            return _trainer(loop, workers, artefact, keeps_best=keeps_best).fit()
        except ControllerError as error:
            if not left or not isinstance(error.controller_failure, OSError):
                raise
            logger.warning("%s: the storage of its checkpoints cannot be written", artefact.step)
            wait_for_storage(f"{parent}/{artefact.step}", workers.storage_patience_s)
    raise AssertionError("the last turn returns or raises")


def wait_for_storage(directory: str, patience_s: float) -> None:
    """Returns once a directory, a path or a URI that was there, is there again.

    Raises:
        StorageError: if it is not after `patience_s`.
    """

    def is_away() -> bool:
        try:
            filesystem, path = FileSystem.from_uri(directory)
            return filesystem.get_file_info(path).type == FileType.NotFound
        except OSError:
            return True

    try:
        Retrying(
            retry=retry_if_result(bool),
            wait=wait_exponential(multiplier=0.5, max=30),
            stop=stop_after_delay(patience_s),
        )(is_away)
    except RetryError:
        raise StorageError(
            f"the checkpoints in {directory} could not be reached for {patience_s:.0f} s; bring "
            "the storage back, then give the same command again"
        ) from None


def _trainer(
    config: dict[str, Any], workers: WorkersConfig, artefact: Artefact, *, keeps_best: bool
) -> TorchTrainer:
    return TorchTrainer(
        _on_worker,
        train_loop_config=config | {"workers": workers},
        torch_config=TorchConfig(backend="nccl" if workers.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            elastic_resize_monitor_interval_s=workers.resize_check_s,
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.cpus_per_worker}
            | ({"GPU": 1} if workers.use_gpu else {}),
        ),
        run_config=RunConfig(
            name=artefact.step,
            storage_path=artefact.storage.checkpoints(artefact.step, artefact.key),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            callbacks=[EndAtMistakes()],
            checkpoint_config=CheckpointConfig(
                num_to_keep=workers.num_to_keep,
                checkpoint_score_attribute=SCORE if keeps_best else None,
            ),
            worker_runtime_env={"env_vars": worker_environment(workers)},
        ),
    )


def _on_worker(config: dict[str, Any]) -> None:
    """Runs on every worker."""
    workers: WorkersConfig = config["workers"]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if not workers.use_gpu:
        torch.set_num_threads(workers.threads_per_worker)
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    stage = config["stage"]
    remedy = "every worker reads the whole model: take fewer workers a machine or a smaller model"
    if stage != "preference":  # TRL's; the loop of the others has one of its own for its steps
        remedy += f", raise {stage}.zero_stage, or set {stage}.offload to cpu"
    with explaining_memory(stage, "outside its steps, as it loaded or saved a model", remedy):
        train, inputs = cloudpickle.loads(config["body"])
        train(replace(inputs, progress=config["progress"]))
