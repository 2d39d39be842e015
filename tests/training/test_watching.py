"""What the sinks are given is what can be read from them."""

import importlib.util
import json
import socket
import struct
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from medray.common.errors import ConfigError
from medray.training.watching import WatchConfig, check_packages, gauge_of, open_sinks


def read_scalars(directory: Path) -> list[tuple[int, str, float]]:
    """(step, name, value) in a directory of TensorBoard's event files, oldest file first."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(directory.glob("events.*"), key=lambda p: p.stat().st_mtime_ns):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack("<Q", content[at : at + 8])
            event = Event.FromString(content[at + 12 : at + 12 + size])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            at += 12 + size + 4
    return found


def test_tensorboard_gets_every_figure_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    config = WatchConfig(tensorboard=str(tmp_path), prometheus=False)
    with open_sinks(config, "sft", "abc", 0) as (sink,):
        sink(1, {"train/loss": 0.5, "time/step_s": 2.0})
    with open_sinks(config, "sft", "abc", 1) as (sink,):
        sink(2, {"train/loss": 0.25})
    assert read_scalars(tmp_path / "sft-abc") == [
        (1, "train/loss", 0.5), (1, "time/step_s", 2.0), (2, "train/loss", 0.25),
    ]  # fmt: skip


def test_mlflow_gets_every_figure_once_and_knows_how_the_run_ended(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config, client = WatchConfig(mlflow=uri, prometheus=False), mlflow.MlflowClient(uri)

    def find() -> Any:
        experiment = client.get_experiment_by_name("medray").experiment_id
        (found,) = client.search_runs([experiment])
        return found.info

    with pytest.raises(KeyError), open_sinks(config, "sft", "abc", 0) as (sink,):
        sink(0, {"before/loss_of/质控 (简)": 1.0})
        sink(1, {"train/loss": 0.5, "time/step_s": 2.0})
        sink(2, {"train/loss": 0.25})
        assert find().status == "RUNNING"
        raise KeyError
    assert find().status == "FAILED"
    with open_sinks(config, "sft", "abc", 1) as (sink,):
        assert find().status == "RUNNING"
        sink(2, {"train/loss": 0.25})
        sink(3, {"train/loss": 0.125})
    assert (find().run_name, find().status) == ("sft-abc", "FINISHED")
    history = {
        name: [
            (point.step, point.value) for point in client.get_metric_history(find().run_id, name)
        ]
        for name in ("train/loss", "time/step_s", "before/loss_of/质控 _简_")
    }
    assert history == {
        "train/loss": [(1, 0.5), (2, 0.25), (3, 0.125)],
        "time/step_s": [(1, 2.0)],
        "before/loss_of/质控 _简_": [(0, 1.0)],
    }


def read_wandb(path: Path) -> list[Any]:
    """The records of an offline run, in LevelDB's log format; none is as long as a block."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore

    content, at, records = path.read_bytes(), 7, []
    while at + 7 <= len(content):
        (size,) = struct.unpack("<H", content[at + 4 : at + 6])
        records.append(Record.FromString(content[at + 7 : at + 7 + size]))
        at += 7 + size
    return records


def test_wandb_gets_figures_and_nothing_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    with open_sinks(WatchConfig(wandb="hospital", prometheus=False), "sft", "abc", 0) as (sink,):
        sink(1, {"train/loss": 0.5, "time/step_s": 2.0})
        sink(2, {"train/loss": 0.25})
        sink(2, {"held_out/loss": 0.125})
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = read_wandb(path)
    (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (run.project, run.run_id, run.display_name, run.host) == (
        "hospital", "sft-abc", "sft-abc", "-",
    )  # fmt: skip
    rows = [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    figures = [{k: v for k, v in row.items() if k[0] != "_" or k == "_step"} for row in rows]
    assert figures == [
        {"_step": 1, "train/loss": 0.5, "time/step_s": 2.0},
        {"_step": 2, "train/loss": 0.25, "held_out/loss": 0.125},
    ]
    # Neither the machine's packages nor its name and user.
    assert not [path.name for path in tmp_path.rglob("files/*") if path.is_file()]


def test_a_server_that_is_away_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nothing listens there
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with open_sinks(WatchConfig(mlflow=uri, prometheus=False), "sft", "abc", 0) as sinks:
            assert sinks == []
    assert "sft is not watched in mlflow: MlflowException" in caplog.text


@pytest.mark.parametrize(
    ("figure", "gauge"),
    [
        ("train/loss", ("medray_train_loss", {})),
        ("held_out/loss", ("medray_held_out_loss", {})),
        ("after/loss_of/质控", ("medray_after_loss_of", {"task": "%E8%B4%A8%E6%8E%A7"})),
        ("stage/easy/loss", ("medray_stage_loss", {"after": "easy"})),
        ("stage/易/loss_of/a/b", ("medray_stage_loss_of", {"after": "%E6%98%93", "task": "a/b"})),
    ],
)
def test_names_of_gauges(figure: str, gauge: tuple[str, dict[str, str]]) -> None:
    assert gauge_of(figure) == gauge


@pytest.mark.cluster
def test_gauges_are_at_rays_metrics_endpoint(ray_cluster) -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Worker:
        def write(self) -> None:
            with open_sinks(WatchConfig(), "sft", "abc", 0, num_workers=2) as (sink,):
                sink(1, {"train/loss": 0.5})
                sink(2, {"train/loss": 0.25, "after/loss_of/质控": 0.125})

    worker = Worker.remote()  # keeps the gauges while it lives
    ray.get(worker.write.remote())
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    expected = {
        ("ray_medray_step", ""): 2.0,
        ("ray_medray_workers", ""): 2.0,
        ("ray_medray_train_loss", ""): 0.25,
        ("ray_medray_after_loss_of", "质控"): 0.125,
    }
    found: dict[tuple[str, str], float] = {}
    deadline = time.monotonic() + 60
    while found != expected and time.monotonic() < deadline:
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        found = {
            (sample.name, unquote(sample.labels.get("task", ""))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("run") == "abc" and sample.labels.get("stage") == "sft"
        }
        time.sleep(0.2)  # Ray offers no event: its agent takes the figures up every few seconds
    assert found == expected


@pytest.mark.parametrize("setting", ["mlflow", "wandb"])
def test_a_missing_package_is_said_at_the_start(setting: str) -> None:
    if importlib.util.find_spec(setting):
        pytest.skip(f"{setting} is installed")
    with pytest.raises(ConfigError, match=rf"workers.watch.{setting} needs .* pip install"):
        check_packages(WatchConfig.model_validate({setting: "somewhere"}))
