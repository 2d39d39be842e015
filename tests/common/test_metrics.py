"""The metrics log survives a kill in the middle of a line."""

from pathlib import Path

from medray.common.metrics import MetricsLog


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "deep" / "metrics.jsonl")
    assert log.read() == []
    log.write(1, {"train/loss": 2.5})
    log.write(2, {"train/loss": 1.5})
    assert log.read() == [{"step": 1, "train/loss": 2.5}, {"step": 2, "train/loss": 1.5}]


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, {"train/loss": 2.5})
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "train/lo')
    assert [row["step"] for row in log.read()] == [1]


def test_truncate_drops_later_steps_and_the_torn_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.truncate(3)  # nothing there yet
    assert not log.path.exists()
    for step in range(1, 5):
        log.write(step, {"a": step})
    with log.path.open("a", encoding="utf-8") as file:
        file.write("{")
    log.truncate(2)
    log.write(3, {"a": 30})
    assert [row["a"] for row in log.read()] == [1, 2, 30]
