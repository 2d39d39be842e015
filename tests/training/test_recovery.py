"""What goes wrong while a stage runs: lost workers, other workers, memory, storage, settings."""

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch
from ray import cloudpickle
from safetensors.torch import load_file
from torch import nn

from medray.common.errors import CheckpointError, ConfigError, MedrayError, StorageError
from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.storage import Storage
from medray.training.checkpoints import check_settings, write_settings
from medray.training.failures import OutOfMemoryError
from medray.training.language_model import DecoderConfig
from medray.training.optimiser import OptimiserConfig, initialise
from medray.training.pretrain import PretrainConfig, pretrain
from medray.training.stage import Stage
from medray.training.trainer import Inputs, fit, wait_for_storage
from medray.training.workers import WorkersConfig

pytestmark = pytest.mark.cluster
CORPUS, INSTRUCTIONS = ("corpus", "tiny"), ("instructions", "tiny")
CONFIG = OptimiserConfig(
    learning_rate=0.1, warmup_steps=0, batch_size=2, micro_batch_size=1, total_steps=6
)
PRETRAIN = PretrainConfig(
    learning_rate=1e-2, warmup_steps=1, batch_size=8, micro_batch_size=2, total_steps=12
)


def workers(**values: Any) -> WorkersConfig:
    settings = {"num_workers": 2, "use_gpu": False, "checkpoint_steps": 2, "max_failures": 0}
    return WorkersConfig.model_validate(settings | values)


@pytest.fixture(autouse=True)
def by_value() -> Iterator[None]:
    """Ray's workers cannot import this file."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Square(nn.Module):
    """The loss x², a stage of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(4))

    def forward(self) -> torch.Tensor:
        return (self.x**2).sum()


def train_square(
    inputs: Inputs[OptimiserConfig],
    trouble: str = "",
    at: int = -1,
    attempts: Path | None = None,
    aim: float = 0.0,
) -> None:
    """A stage that meets `trouble` in step `at`: an infinite loss, or an error on the second
    worker. Each attempt adds a byte to the file `attempts`. Held out, x² is to be `aim`."""
    engine = initialise(Square(), inputs.config, ray.train.get_context().get_world_size())
    if attempts is not None and ray.train.get_context().get_world_rank() == 0:
        with attempts.open("ab") as file:
            file.write(b".")

    def train_step(step: int) -> dict[str, float]:
        loss = engine()
        if step == at and trouble == "infinity":
            loss = loss * float("inf")
        engine.backward(loss)
        engine.step()
        if step == at and ray.train.get_context().get_world_rank() == 1:
            if trouble == "memory":
                torch.empty(2**60)
            if trouble == "boom":
                raise KeyError(trouble)
        return {"train/loss": float(loss)}

    def export(directory: Path) -> None:
        if ray.train.get_context().get_world_rank() == 0:
            directory.mkdir()
            torch.save(engine.module.x.detach(), directory / "x.pt")

    evaluate = lambda: {"loss": abs(float(engine.module()) - aim)}  # noqa: E731
    inputs.run(Stage("square", engine, inputs.config.total_steps, train_step, evaluate, export))


def square(storage: Storage, key: str, config: OptimiserConfig = CONFIG) -> Artefact:
    return Artefact(storage, "square", config, key=key)


def interrupted(storage: Storage, key: str) -> Artefact:
    """A run whose second worker dies in step 4, one checkpoint (of step 2 or 4) behind it."""
    artefact = square(storage, key)

    def train(inputs: Inputs[OptimiserConfig]) -> None:
        train_square(inputs, "boom", 4)

    with pytest.raises(ray.train.WorkerGroupError, match="boom"):
        fit(train, CONFIG, workers(), artefact)
    return artefact


def test_want_of_memory_on_one_worker_ends_all_and_says_what_to_change(
    ray_cluster, storage: Storage, tmp_path: Path
) -> None:
    def train(inputs: Inputs[OptimiserConfig]) -> None:
        train_square(inputs, "memory", 1, tmp_path / "attempts")

    with pytest.raises(
        OutOfMemoryError, match=r"square ran out of memory in step 2: lower square.micro_batch_size"
    ):
        fit(train, CONFIG, workers(max_failures=3), square(storage, "memory"))
    # Tried once more, for its memory may have been in splinters, but not thrice.
    assert (tmp_path / "attempts").read_bytes() == b".."


def test_an_infinite_loss_ends_the_run_at_once_and_leaves_what_another_goes_on_from(
    ray_cluster, storage: Storage, tmp_path: Path
) -> None:
    again = square(storage, "again")

    def train(inputs: Inputs[OptimiserConfig]) -> None:
        train_square(inputs, "infinity", 3, tmp_path / "attempts")

    with pytest.raises(MedrayError, match="square stopped at step 4: train/loss is not finite"):
        fit(train, CONFIG, workers(max_failures=3, checkpoint_steps=1), again)
    assert (tmp_path / "attempts").read_bytes() == b"."
    logs = [MetricsLog(path).read() for path in again.dir.rglob("metrics.jsonl")]
    assert sorted(log[-1]["step"] for log in logs) == [2, 3]  # num_to_keep checkpoints, sound ones
    assert not list(again.dir.rglob("x.pt"))

    fit(train_square, CONFIG, workers(), again)
    straight = square(storage, "straight")
    rows = fit(train_square, CONFIG, workers(upload_in_background=True), straight)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6, 6]
    one, two = (torch.load(made.dir / "model" / "x.pt") for made in (again, straight))
    assert torch.equal(one, two)
    assert not torch.equal(one, torch.ones(4))
    # Of the checkpoints of steps 2, 4 and 6 the last num_to_keep = 2 are left.
    assert len(list((straight.dir / "train").glob("*/checkpoint_2*"))) == 2


def test_the_best_model_so_far_is_kept_when_a_run_is_broken_off(
    ray_cluster, storage: Storage
) -> None:
    config = CONFIG.model_copy(update={"keep": "best", "evaluate_steps": 2})

    def train(inputs: Inputs[OptimiserConfig], trouble: str = "") -> None:
        # x falls by a tenth a step: x² is 4, 2.56 (step 2), 1.44 (step 4), 0.64 (step 6).
        train_square(inputs, trouble, 4, aim=1.6)

    straight, broken = square(storage, "best", config), square(storage, "best-broken", config)
    rows = fit(train, config, workers(), straight)
    with pytest.raises(ray.train.WorkerGroupError, match="boom"):
        fit(partial(train, trouble="boom"), config, workers(), broken)
    again = fit(train, config, workers(), broken)
    kept = [[row["best/step"] for row in log if "best/step" in row] for log in (rows, again)]
    assert kept == [[4], [4]]
    one, two = (torch.load(made.dir / "model" / "x.pt") for made in (straight, broken))
    assert torch.equal(one, two)
    assert float((one**2).sum()) == pytest.approx(1.44, abs=1e-4)


def test_a_batch_that_workers_cannot_share_is_refused_before_they_start(storage: Storage) -> None:
    config = CONFIG.model_copy(update={"batch_size": 4})
    for num_workers, worst in ((3, 3), ((2, 4), 3)):
        with pytest.raises(
            ConfigError, match=f"batch_size 4 must be .* micro_batch_size × workers = 1 × {worst}"
        ):
            fit(train_square, config, workers(num_workers=num_workers), square(storage, "uneven"))


def test_a_checkpoint_of_other_settings_is_refused(ray_cluster, storage: Storage) -> None:
    interrupted(storage, "settings")
    other = CONFIG.model_copy(update={"learning_rate": 0.2})
    with pytest.raises(
        CheckpointError, match=r"made with other settings \(learning_rate 0\.1 → 0\.2\)"
    ):
        fit(train_square, other, workers(), square(storage, "settings", other))


def test_a_checkpoint_must_say_what_settings_it_was_made_with(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not say .*: remove the directory and start"):
        check_settings(tmp_path, {"a": 1})
    write_settings(tmp_path, {"a": 1, "b": 2})
    check_settings(tmp_path, {"b": 2, "a": 1})
    with pytest.raises(CheckpointError, match=r"other settings \(a 1 → None; c None → 3\)"):
        check_settings(tmp_path, {"b": 2, "c": 3})


@pytest.mark.parametrize("in_background", [False, True])
def test_a_storage_that_vanishes_is_waited_for(
    ray_cluster, storage: Storage, in_background: bool
) -> None:
    artefact = square(storage, f"vanishing-{in_background}")
    train, away = artefact.dir / "train", artefact.dir / "away"
    over = threading.Event()
    waited: list[bool] = []

    def take_away() -> None:
        while not over.wait(0.01):
            if any(train.glob("*/checkpoint_manager_snapshot.json")):
                train.rename(away)
                waited.append(not over.wait(2))  # two tries at least
                # A mount that comes back hides what was written in its place.
                shutil.rmtree(train, ignore_errors=True)
                away.rename(train)
                return

    def slowly(inputs: Inputs[OptimiserConfig]) -> None:
        config = inputs.config.model_copy(update={"total_steps": 40})
        train_square(Inputs(config, inputs.workers, inputs.storage, inputs.parents))

    thread = threading.Thread(target=take_away, daemon=True)
    thread.start()
    try:
        # One failure: in the background a checkpoint may be there, and the storage away when Ray's
        # controller notes it down.
        settings = {"checkpoint_steps": 1, "upload_in_background": in_background}
        fit(slowly, CONFIG, workers(**settings, max_failures=1), artefact)
    finally:
        over.set()
        thread.join()
    assert waited == [True], "the storage was not away while the run went on"
    assert (artefact.dir / "model" / "x.pt").exists()
    steps = [row["step"] for row in MetricsLog(artefact.dir / "metrics.jsonl").read()]
    assert steps == [0, *range(1, 41), 40]


def test_a_storage_that_stays_away_is_named(tmp_path: Path) -> None:
    wait_for_storage(str(tmp_path), 0)
    with pytest.raises(StorageError, match="/gone could not be reached for 0 s"):
        wait_for_storage(f"{tmp_path}/gone", 0)


@pytest.fixture(scope="module")
def straight(ray_cluster, storage: Storage, decoder: DecoderConfig) -> Path:
    artefact = Artefact(storage, "pretrain", PRETRAIN, key="two")
    pretrain(PRETRAIN, decoder, workers(), CORPUS, INSTRUCTIONS, artefact)
    return artefact.dir


@pytest.mark.parametrize("num_workers", [1, 4])
def test_other_workers_go_on_where_two_stopped(
    straight: Path,
    storage: Storage,
    decoder: DecoderConfig,
    num_workers: int,
    one_worker_killed: Callable[[Path], AbstractContextManager[None]],
) -> None:
    """The order of the data and, to rounding, the losses are those of the run on two workers."""
    artefact = Artefact(storage, "pretrain", PRETRAIN, key=f"then{num_workers}")
    with (
        one_worker_killed(artefact.dir / "train"),
        pytest.raises(ray.train.WorkerGroupError),
    ):
        pretrain(PRETRAIN, decoder, workers(), CORPUS, INSTRUCTIONS, artefact)
    assert not (artefact.dir / "model").exists()
    other = workers(num_workers=num_workers)
    pretrain(PRETRAIN, decoder, other, CORPUS, INSTRUCTIONS, artefact)
    rows, expected = (
        [row for row in MetricsLog(path / "metrics.jsonl").read() if "train/loss" in row]
        for path in (artefact.dir, straight)
    )
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["train/loss"] for row in rows] == pytest.approx(
        [row["train/loss"] for row in expected], abs=2e-4
    )
    one, two = (
        load_file(path / "model" / "model.safetensors") for path in (artefact.dir, straight)
    )
    assert max((one[name] - two[name]).abs().max().item() for name in two) < 2e-3
