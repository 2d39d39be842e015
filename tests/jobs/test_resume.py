"""A driver that is killed, with its whole cluster, goes on where it stopped."""

import time
from pathlib import Path

import pytest

from medray.common.metrics import MetricsLog
from medray.common.storage import MANIFEST


@pytest.mark.slow
def test_a_killed_driver_leaves_no_trace(
    start, kill, finish, tiny: list[str], tmp_path: Path
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    settings = [*tiny, "pretrain.total_steps=40", "workers.checkpoint_steps=2"]
    arguments = [*settings, f"storage.root={straight}"]
    for job in ("generate_sample", "prepare_corpus", "build_instructions", "run_pretrain"):
        finish(start(job, *arguments))

    # The same inputs elsewhere, so that only pretraining is disturbed.
    killed.mkdir()
    for step in ("sample", "corpus", "instructions"):
        (killed / step).symlink_to(straight / step)
    arguments = [*settings, f"storage.root={killed}"]
    process = start("run_pretrain", *arguments)
    deadline = time.monotonic() + 600
    while not list(killed.glob("pretrain/.*.partial/train/*/checkpoint_manager_snapshot.json")):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.02)
    kill(process)
    assert not list(killed.glob(f"pretrain/*/{MANIFEST}")), "it was finished before the kill"

    output = finish(start("run_pretrain", *arguments))
    assert "pretrain: done in" in output
    one, other = (next(root.glob(f"pretrain/*/{MANIFEST}")).parent for root in (straight, killed))
    assert one.name == other.name
    weights = [path / "model" / "model.safetensors" for path in (one, other)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    rows = [MetricsLog(path / "metrics.jsonl").read() for path in (one, other)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    losses = [[row.get("train/loss") for row in run] for run in rows]
    assert losses[0] == losses[1]
