"""What the sinks are given is what can be read from them."""

import importlib.util
import struct
from pathlib import Path

import pytest

from medray.common.errors import ConfigError
from medray.training.watching import WatchConfig, check_packages, open_sinks


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


def test_prometheus_has_a_gauge_a_figure() -> None:
    with open_sinks(WatchConfig(), "sft", "abc", 0) as (sink,):
        sink(1, {"train/loss": 0.5})  # without Ray it is kept for the endpoint that is not there
        sink(2, {"train/loss": 0.4, "held out/loss": 0.3})


@pytest.mark.parametrize("setting", ["mlflow", "wandb"])
def test_a_missing_package_is_said_at_the_start(setting: str) -> None:
    if importlib.util.find_spec(setting):
        pytest.skip(f"{setting} is installed")
    with pytest.raises(ConfigError, match=rf"workers.watch.{setting} needs .* pip install"):
        check_packages(WatchConfig.model_validate({setting: "somewhere"}))
