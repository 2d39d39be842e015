"""Checkpoints of a stage: every worker its DeepSpeed shards; read again by any number of workers.

With as many workers as wrote it, a checkpoint is read as it is, and the run goes on bit for bit.
With another number the shards are put together first (DeepSpeed's universal checkpoint), and the
run goes on to rounding, for sums are then taken in another order; what is drawn at random, PPO's
answers and dropout, is drawn anew, for each worker draws its own.
Source: DESIGN.md 3, checkpoints; Universal Checkpointing (Lian et al. 2024).
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch.distributed as dist
from ray.train import Checkpoint
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random_exponential

from medray.common.errors import CheckpointError
from medray.common.metrics import MetricsLog
from medray.training.failures import is_want_of_memory

logger = logging.getLogger(__name__)
STATE, UNIVERSAL = "state", "universal"  # DeepSpeed's tags inside a checkpoint
METRICS, SETTINGS = "metrics.jsonl", "settings.json"
LOGS = "*.jsonl"
"""The metrics, and what a stage logs beside them."""
MODEL = "model"
SCORE = "score"
"""What Ray Train knows the best checkpoint by; those without a model have none."""


def save(
    engine: Any,
    client_state: dict[str, Any],
    log: MetricsLog,
    metrics: dict[str, float],
    settings: dict[str, Any],
    *,
    partial_state: bool,
    in_background: bool,
    patience_s: float,
    export: Callable[[Path], None] | None = None,
) -> None:
    """Hands a checkpoint to Ray Train; all workers call this.

    Args:
        log: its directory is the worker's scratch, in which the checkpoint is written; it
            holds all logs in it.
        client_state: what to keep beside the engine's state; the same on every worker.
        metrics: what Ray Train knows the checkpoint by.
        settings: those of the stage, as JSON has them.
        partial_state: leave frozen weights out.
        in_background: train on while it is copied to the storage.
        patience_s: how long a storage that does not answer is tried again.
        export: writes the model into a directory, if the checkpoint is to hold it.
    """
    directory = Path(tempfile.mkdtemp(prefix="checkpoint-", dir=log.path.parent))
    try:
        engine.save_checkpoint(
            str(directory),
            tag=STATE,
            client_state=client_state,
            exclude_frozen_parameters=partial_state,
        )
        if dist.get_rank() == 0:
            write_settings(directory, settings)
        for path in log.path.parent.glob(LOGS):
            shutil.copy(path, directory)
        if export is not None:
            export(directory / MODEL)
        mode = ray.train.CheckpointUploadMode
        ray.train.report(
            metrics,
            checkpoint=Checkpoint(directory),
            checkpoint_upload_mode=mode.ASYNC if in_background else mode.SYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=patient_upload(patience_s),
        )
        if not in_background:
            # Ray Train takes note of a checkpoint some time after it was handed over. A worker that
            # dies before that would go back two checkpoints.
            ray.train.get_all_reported_checkpoints(ray.train.CheckpointConsistencyMode.COMMITTED)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def patient_upload(patience_s: float) -> Callable[[Checkpoint, str], Checkpoint]:
    """Copies to the storage, and tries again while it cannot be reached."""
    storage: Any = ray.train.get_context().get_storage()

    def upload(checkpoint: Checkpoint, name: str) -> Checkpoint:
        for attempt in Retrying(
            # RuntimeError: Ray Train's when its marker file in the storage is gone.
            retry=retry_if_exception_type((OSError, RuntimeError)),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_after_delay(patience_s),
            before_sleep=before_sleep_log(logger, logging.WARNING),
            reraise=True,
        ):
            with attempt:
                copied = storage.persist_current_checkpoint(checkpoint, name)
                # Of a mount that went away meanwhile, the copy lies in the empty directory below.
                storage._check_validation_file()
                return copied
        raise AssertionError("Retrying returns or raises")

    return upload


def load(
    engine: Any, log: MetricsLog, settings: dict[str, Any], *, partial_state: bool
) -> dict[str, Any] | None:
    """Takes the newest checkpoint of this run, if there is one; all workers call this.

    Args:
        log: receives, on the first worker, the metrics up to the checkpoint; its directory the
            other logs.
        settings: the stage's settings, which must be those that the checkpoint was made with.
    Returns:
        the client state that `save` was given.
    Raises:
        CheckpointError: if the checkpoint is of other settings, or cannot be read.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as name:
        directory = Path(name)
        check_settings(directory, settings)
        written_by = len(list((directory / STATE).glob("*zero_pp_rank_*_optim_states.pt")))
        world_size = dist.get_world_size()
        strict = not partial_state
        try:
            if written_by in (0, world_size):  # 0: without ZeRO, any number of workers reads it
                _, state = engine.load_checkpoint(name, tag=STATE, load_module_strict=strict)
            else:
                logger.info("checkpoint of %d workers, read by %d", written_by, world_size)
                with _universal(directory) as universal, _reading_universal(engine):
                    _, state = engine.load_checkpoint(
                        str(universal), tag=UNIVERSAL, load_module_strict=strict
                    )
        except (RuntimeError, KeyError, AssertionError, OSError, ValueError) as error:
            if is_want_of_memory(error):
                raise
            raise CheckpointError(
                f"the checkpoint in {checkpoint.path} is not of this model, or {written_by} "
                f"workers wrote what {world_size} cannot read ({type(error).__name__}); go on with "
                "the same workers, or remove the directory and start again"
            ) from error
        # Only the first worker keeps logs: another's copies would overwrite them in a checkpoint.
        if dist.get_rank() == 0:
            for path in directory.glob(LOGS):
                shutil.copy(path, log.path.parent)
    return state


def write_settings(directory: Path, settings: dict[str, Any]) -> None:
    """Writes a checkpoint's settings; the first worker calls this."""
    (directory / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def check_settings(directory: Path, now: dict[str, Any]) -> None:
    """Raises CheckpointError if a checkpoint was made with other settings."""
    path = directory / SETTINGS
    if not path.exists():
        raise CheckpointError(
            f"the checkpoint in {directory} does not say what settings it was made with; it is of "
            "an older medray: remove the directory and start again"
        )
    saved = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{name} {saved.get(name)!r} → {now.get(name)!r}"
        for name in sorted(saved.keys() | now.keys())
        if saved.get(name) != now.get(name)
    ]
    if changed:
        raise CheckpointError(
            f"the checkpoint in {directory} was made with other settings ({'; '.join(changed)}); "
            "take these again, or remove the directory and start again"
        )


@contextlib.contextmanager
def _universal(directory: Path) -> Iterator[Path]:
    """The checkpoint with its shards put together, once a node: two may share a machine's disk."""
    from deepspeed.checkpoint.ds_to_universal import main

    where = f"{directory} {ray.get_runtime_context().get_node_id()}"
    name = hashlib.sha256(where.encode()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"medray-universal-{name}"
    is_first = ray.train.get_context().get_local_rank() == 0
    failed: Exception | None = None
    try:
        if is_first:
            shutil.rmtree(target, ignore_errors=True)
            arguments = argparse.Namespace(
                input_folder=str(directory / STATE), output_folder=str(target / UNIVERSAL),
                num_extract_workers=1, num_merge_workers=1, keep_temp_folder=False, strict=True,
                inject_missing_state=True,
            )  # fmt: skip
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    main(arguments)
            except (KeyError, AssertionError, RuntimeError, OSError, ValueError) as error:
                failed = error
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, failed)  # the others wait here until it is whole
        for error in gathered:
            if error is not None:
                raise error
        yield target
        dist.barrier()
    finally:
        if is_first:
            shutil.rmtree(target, ignore_errors=True)


@contextlib.contextmanager
def _reading_universal(engine: Any) -> Iterator[None]:
    """DeepSpeed takes this from its settings, which are made before there is a checkpoint."""
    engine._config.load_universal_checkpoint = True
    try:
        yield
    finally:
        engine._config.load_universal_checkpoint = False
