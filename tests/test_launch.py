"""What a user sees when something is wrong: one message, exit code 2, nothing made."""

import socket
import time
from pathlib import Path

import pytest
import yaml

from medray import launch
from medray.common.errors import ConfigError, DataError
from medray.common.manifest import Artefact
from medray.job import JOBS, PARENTS, Job
from medray.launch import run_job
from medray.profile import Profile


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def profile(tmp_path: Path, root: Path) -> str:
    """The laptop profile with a storage root of its own, as a path."""
    values = yaml.safe_load(launch.find_profile("laptop").read_text(encoding="utf-8"))
    values["storage"]["root"] = str(root)
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests never start Ray; a wrong turn meets a closed port."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")


def never(job: Job) -> None:
    raise AssertionError("the job ran")


def fails(capsys, profile: str, *arguments: str, steps: tuple[str, ...] = ("sample",)) -> str:
    assert run_job(never, steps, ["--profile", profile, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return error


def test_unknown_profile(capsys) -> None:
    error = fails(capsys, "lapdog")
    assert "no profile 'lapdog'" in error and "laptop" in error
    assert error.count("\n") == 1


def test_unknown_key(capsys, profile: str) -> None:
    error = fails(capsys, profile, "sft.learning_rte=1e-4")
    assert "sft.learning_rte: unknown key; remove it or mend its spelling" in error


def test_wrong_value(capsys, profile: str) -> None:
    assert "pretrain.total_steps: " in fails(capsys, profile, "pretrain.total_steps=many")


def test_missing_data_directory(capsys, profile: str, tmp_path: Path) -> None:
    error = fails(capsys, profile, "--data", str(tmp_path / "none"))
    assert "no data directory at" in error and "check --data" in error
    assert error.count("\n") == 1


def test_an_export_by_uri_is_the_same_as_its_directory(profile: str, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "a.csv").write_text("x", encoding="utf-8")
    jobs = [
        Job(launch.load_profile(profile, [], f"{scheme}{tmp_path}/export"))
        for scheme in ("", "file://")
    ]
    assert jobs[0].key("corpus") == jobs[1].key("corpus")
    assert jobs[0].hospital() != jobs[1].hospital()


def test_storage_root_is_a_file(capsys, profile: str, root: Path) -> None:
    root.write_text("", encoding="utf-8")
    error = fails(capsys, profile)
    assert f"storage root {root} is not writable" in error
    assert error.count("\n") == 1


def test_too_little_disk(capsys, profile: str) -> None:
    error = fails(capsys, profile, "min_free_disk_gb=1e9")
    assert "the profile asks for 1000000000.0 GiB" in error
    assert error.count("\n") == 1


def test_no_cluster_at_the_address_is_said_fast(capsys, profile: str) -> None:
    started = time.monotonic()
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        error = fails(capsys, profile, f"ray.address={address}")
        assert f"no Ray cluster answers at {address} (ConnectionRefusedError)" in error
        assert "ray start --head" in error and error.count("\n") == 1
    assert time.monotonic() - started < 15


def test_the_address_in_the_environment_is_tried(capsys, profile: str) -> None:
    assert "no Ray cluster answers at 127.0.0.1:1" in fails(capsys, profile)


def test_an_open_port_is_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        launch._check_listens(f"127.0.0.1:{server.getsockname()[1]}")
    launch._check_listens("auto")
    launch._check_listens("")


def test_missing_parent_names_its_job(profile: str) -> None:
    job = Job(Profile.load(Path(profile)))
    with pytest.raises(DataError, match=r"corpus/\w{12} has not been made yet: run prepare_corpus"):
        job.make("pretrain", lambda artefact: None)


def test_an_error_of_the_job_is_one_message(capsys, profile: str, monkeypatch) -> None:
    monkeypatch.setattr(launch, "join_ray", lambda config: None)
    monkeypatch.setattr("ray.shutdown", lambda: None)

    def run(job: Job) -> None:
        job.artefact("sft")

    assert run_job(run, ("ppo",), ["--profile", profile]) == 2
    assert "run run_sft first" in capsys.readouterr().err


def test_a_full_disk_is_one_message(capsys, profile: str, monkeypatch) -> None:
    monkeypatch.setattr(launch, "join_ray", lambda config: None)
    monkeypatch.setattr("ray.shutdown", lambda: None)

    def run(job: Job) -> None:
        raise OSError(28, "No space left on device", "weights")

    assert run_job(run, ("sft",), ["--profile", profile]) == 2
    assert "no space left on the disk (weights)" in capsys.readouterr().err


def test_dry_run_makes_nothing(capsys, profile: str, root: Path) -> None:
    arguments = ["--profile", profile, "--dry-run"]
    assert run_job(never, ("corpus", "encoder"), arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "corpus", "  needs sample, not made yet", "encoder", "  needs instructions, not made yet",
    ]  # fmt: skip
    assert lines[0].startswith(f"corpus: would be made: {root}/corpus/")
    assert list(root.rglob("*")) == []


def test_dry_run_checks_the_sources(capsys, profile: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    arguments = ["--profile", profile, "--dry-run", "--data", str(tmp_path / "data")]
    assert run_job(never, tuple(JOBS), arguments) == 2
    assert "emr" in capsys.readouterr().err


def test_a_finished_step_is_reused(profile: str) -> None:
    made: list[str] = []

    def work(artefact: Artefact) -> None:
        made.append(artefact.key)

    first, second = (Job(Profile.load(Path(profile))) for _ in range(2))
    assert first.make("sample", work) == second.make("sample", work)
    assert len(made) == 1
    assert [job.done["sample"]["reused"] for job in (first, second)] == [False, True]
    # A setting that shapes the step makes another artefact, one that does not, the same.
    assert Job(Profile.load(Path(profile), ["sample.seed=8"])).key("sample") != first.key("sample")
    assert Job(Profile.load(Path(profile), ["ppo.seed=8"])).key("sft") == first.key("sft")
    assert Job(Profile.load(Path(profile), ["ppo.seed=8"])).key("ppo") != first.key("ppo")


def test_a_pinned_step_stands_whatever_its_settings_are(profile: str) -> None:
    key = Job(Profile.load(Path(profile))).key("sample")
    Job(Profile.load(Path(profile))).make("sample", lambda artefact: None)
    job = Job(Profile.load(Path(profile), [f"pin.sample={key}", "sample.seed=8"]))
    assert job.key("sample") == key
    job.make("sample", lambda artefact: pytest.fail("made again"))
    # What is made from it has the key that it would have with those settings.
    assert job.key("corpus") == Job(Profile.load(Path(profile))).key("corpus")


def test_what_cannot_be_pinned_is_said(profile: str) -> None:
    Job(Profile.load(Path(profile))).make("sample", lambda artefact: None)
    key = Job(Profile.load(Path(profile))).key("sample")
    with pytest.raises(DataError, match=rf"sample/older is not there; there are: {key}"):
        Job(Profile.load(Path(profile), ["pin.sample=older"]))
    with pytest.raises(ConfigError, match=r"pin\.sampel: there is no such step; sample, corpus"):
        Job(Profile.load(Path(profile), ["pin.sampel=older"]))


def test_an_earlier_artefact_has_the_same_parent(profile: str) -> None:
    def made(*settings: str) -> Job:
        job = Job(Profile.load(Path(profile), list(settings)))
        for step in ("sample", "corpus", "instructions", "encoder"):
            job.make(step, lambda artefact: (artefact.dir / "words").write_text(settings[0]))
        return job

    first = made("encoder.seed=1", "index.max_questions=5")
    assert first.earlier("index", "encoder") is None
    index = first.make("index", lambda artefact: None)
    assert first.earlier("index", "encoder") is None  # itself
    assert made("encoder.seed=1", "index.max_questions=6").earlier("index", "encoder") == index
    assert made("encoder.seed=2", "index.max_questions=6").earlier("index", "encoder") is None


def test_outside_data_take_the_samples_place(profile: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    job = Job(Profile.load(Path(profile), [f"data={tmp_path / 'data'}"]))
    assert job.hospital() == tmp_path / "data"
    assert job.parents("corpus") == [] and job.parents("instructions") == ["corpus"]
    keys = [job.key("corpus")]
    (tmp_path / "data" / "new.jsonl").write_text("{}", encoding="utf-8")
    keys.append(Job(Profile.load(Path(profile), [f"data={tmp_path / 'data'}"])).key("corpus"))
    assert keys[0] != keys[1]


def test_fine_tuning_reads_the_corpus_for_replayed_text_only(profile: str) -> None:
    plain, general, text = (
        Job(Profile.load(Path(profile), [f"sft.general_fraction={a}", f"sft.text_fraction={b}"]))
        for a, b in ((0, 0), (0.1, 0), (0, 0.1))
    )
    assert plain.parents("sft") == ["pretrain", "instructions"]
    for replaying in (general, text):
        assert replaying.parents("sft") == ["pretrain", "instructions", "corpus"]
    assert len({job.key("sft") for job in (plain, general, text)}) == 3


def test_how_a_run_is_kept_alive_and_watched_is_no_part_of_its_key(profile: str) -> None:
    def key(*overrides: str) -> str:
        return Job(Profile.load(Path(profile), list(overrides))).key("ppo")

    kept = ("workers.max_failures=9", "workers.log_steps=3", "workers.watch.tensorboard=boards")
    assert key(*kept) == key() != key("workers.num_workers=1")


def test_every_step_has_its_job_and_comes_after_its_parents() -> None:
    assert set(PARENTS) == set(JOBS)
    order = list(JOBS)
    for step, parents in PARENTS.items():
        assert all(order.index(parent) < order.index(step) for parent in parents)
        assert callable(launch.import_job(JOBS[step]).run)
