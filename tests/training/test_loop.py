"""What the loop says of a step: its speed, and the bar."""

import queue
import threading
import time

import pytest

from medray.training import progress
from medray.training.loop import _show, speed


def test_speed_by_hand() -> None:
    """A 7 B decoder on 8 A100: 128 blocks of 4 096 tokens in 12 s.

    6 · 7e9 · 524 288 = 2.202e16 FLOP; the peak is 8 · 312e12 FLOP/s, in 12 s 2.995e16.
    2.202 / 2.995 = 0.7352.
    """
    tokens = 128 * 4096
    metrics = {"train/tokens": float(tokens), "train/flops": 6.0 * 7e9 * tokens}
    figures = speed(metrics, 12.0, 8 * 312e12)
    assert set(figures) == {"time/step_s", "time/tokens_per_s", "time/mfu"}
    assert figures["time/step_s"] == 12
    assert figures["time/tokens_per_s"] == pytest.approx(43690.67, abs=0.01)
    assert figures["time/mfu"] == pytest.approx(0.7352, abs=1e-4)


def test_speed_of_what_is_not_known() -> None:
    """No utilisation of a GPU whose peak is not known, nor of a stage that counts no FLOP."""
    counted = {"train/tokens": 64.0, "train/flops": 1e9}
    assert speed(counted, 2.0, 0) == {"time/step_s": 2.0, "time/tokens_per_s": 32.0}
    assert speed({"train/loss": 1.0}, 2.0, 312e12) == {"time/step_s": 2.0}


def test_the_bar_is_moved_twice_a_second_and_at_the_end() -> None:
    updates: queue.Queue = queue.Queue()
    metrics = {"train/loss": 0.51234, "time/tokens_per_s": 43690.67, "time/mfu": 0.7352, "x/y": 1.0}
    now = time.monotonic()
    assert _show(updates, now, 1, 3, metrics) == now  # it has just been moved
    assert updates.empty()
    assert _show(updates, now - 1, 2, 3, metrics) >= now
    _show(updates, time.monotonic(), 3, 3, metrics)
    shown = {"loss": "0.512", "tokens_per_s": "4.37e+04", "mfu": "0.735"}
    assert [updates.get_nowait() for _ in range(2)] == [(2, 3, shown), (3, 3, shown)]


def test_the_bar_shows_steps_figures_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    updates: queue.Queue = queue.Queue()
    updates.put((2, 3, {"loss": "0.6"}))
    updates.put((3, 3, {"loss": "0.512", "mfu": "0.735"}))
    ended = threading.Event()
    ended.set()
    progress._show("sft", updates, ended)  # returns, for all has been shown
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert last.startswith("sft: 100%")
    assert "3/3" in last
    assert "loss=0.512, mfu=0.735" in last
