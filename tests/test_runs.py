"""`medray runs` on artefacts of a storage root, finished and in the making."""

import os
from pathlib import Path

import pytest

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.storage import Storage, StorageConfig
from medray.runs import compare, find_run, list_runs, read_steps, smooth, table
from medray.training.sft import SftConfig


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Two runs, and an artefact that is none."""
    storage = Storage(StorageConfig(root=str(tmp_path)))
    for key, loss in (("aa11", 2.0), ("ab22", 1.0)):
        artefact = Artefact(storage, "sft", SftConfig(), key=key)
        log = MetricsLog(artefact.dir / "metrics.jsonl")
        log.write(0, {"before/loss": 3.0})
        for step in range(1, 5):
            log.write(step, {"train/loss": loss / step, "time/step_s": 0.1})
        log.write(4, {"after/loss": loss})
        artefact.metrics |= {"loss_before": 3.0, "loss_after": loss, "steps": 4}
        artefact.publish()
    other = Artefact(storage, "corpus", SftConfig(), key="aa11")
    (other.dir / "file").write_text("x", encoding="utf-8")
    other.publish()
    return storage


def test_the_table_holds_every_run(storage: Storage) -> None:
    lines = table(list_runs(storage)).splitlines()
    assert {line.split()[0] for line in lines[1:]} == {"sft/aa11", "sft/ab22"}
    (newest,) = [line for line in lines if "sft/ab22" in line]
    assert newest.split()[1] == "finished"
    assert newest.endswith("loss_before 3, loss_after 1, steps 4")


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_run_in_the_making_is_known_by_its_newest_checkpoint(
    tmp_path: Path, is_remote: bool
) -> None:
    root = f"file://{tmp_path}/root" if is_remote else str(tmp_path / "root")
    storage = Storage(StorageConfig(root=root, cache=str(tmp_path / "cache")))
    Artefact(storage, "sft", SftConfig(), key="aa11").publish()
    artefact = Artefact(storage, "ppo", SftConfig(), key="cc33")
    train = Path(storage.checkpoints("ppo", "cc33").removeprefix("file://")) / "ppo"
    assert list_runs(storage) == []  # started, and nothing to show yet
    for name, last in (
        ("checkpoint_2026-01-01_00-00-09.5", 2),
        ("checkpoint_2026-01-01_00-00-10.1", 3),
    ):
        log = MetricsLog(train / name / "metrics.jsonl")
        log.write(0, {"before/reward": 0.25, "before/kl": 0})
        for step in range(1, last + 1):
            log.write(step, {"ppo/reward": 0.1 * step, "time/step_s": 40.0})
        os.utime(log.path, (1767225600 + last, 1767225600 + last))
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "ppo/rew')  # a copy under way
    os.utime(log.path, (1767225603, 1767225603))
    (run,) = list_runs(storage)
    assert run[:3] == ("ppo/cc33", "unfinished", "2026-01-01T00:00:03")
    assert run.minutes == 2  # 3 steps of 40 s
    assert run.figures == {"reward_before": 0.25, "steps": 3}
    assert [row["step"] for row in read_steps(storage, run)] == [1, 2, 3]
    compare(storage, [run], tmp_path / "runs.html")
    artefact.metrics["steps"] = 4
    MetricsLog(artefact.dir / "metrics.jsonl").write(1, {"ppo/reward": 0.5, "time/step_s": 1.0})
    artefact.publish(drop=("train",))
    (run,) = list_runs(storage)
    assert run[:2] == ("ppo/cc33", "finished")
    assert run.figures == {"steps": 4}
    assert [row["ppo/reward"] for row in read_steps(storage, run)] == [0.5]


def test_a_run_is_named_by_its_beginning(storage: Storage) -> None:
    runs = list_runs(storage)
    assert find_run(runs, "sft/ab").name == "sft/ab22"
    with pytest.raises(DataError, match="several runs begin with 'sft/a'"):
        find_run(runs, "sft/a")
    with pytest.raises(DataError, match="no run begins with 'ppo'; runs: sft/"):
        find_run(runs, "ppo")


def test_curves_of_steps_alone(storage: Storage, tmp_path: Path) -> None:
    runs = list_runs(storage)
    rows = read_steps(storage, find_run(runs, "sft/aa"))
    assert [row["train/loss"] for row in rows] == [2.0, 1.0, 2 / 3, 0.5]
    compare(storage, runs, tmp_path / "runs.html")
    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    assert page.count("sft/aa11") >= 2 and "<svg" in page and "loss_after" in page
    compare(storage, runs[:1], tmp_path / "runs.png")
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "message"),
    [("runs.txt", r"must end in \.html or \.png"), ("no/r.png", "no directory")],
)
def test_where_a_page_cannot_go(storage: Storage, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(storage, list_runs(storage), tmp_path / name)


def test_long_curves_are_means_of_stretches() -> None:
    assert smooth([1.0, 2.0, 3.0], 5) == [1.0, 2.0, 3.0]
    assert smooth([1.0, 3.0, 5.0, 7.0, 10.0], 3) == [2.0, 6.0, 10.0]
    assert len(smooth([0.0] * 1001)) <= 50 and smooth([]) == []
