"""What a stage forgets, by hand."""

import json

import pytest

from medray.training.forgetting import FILE, forgetting, loss_matrix, write_forgetting

ROWS = [
    {"step": 0, "before/loss": 3.0, "before/loss_of/qa": 3.0, "before/loss_of/triage": 3.5},
    {"step": 1, "train/loss": 2.0},
    {"step": 4, "stage/qa/loss": 2.0, "stage/qa/loss_of/qa": 1.0, "stage/qa/loss_of/triage": 4.0},
    {"step": 8, "after/loss": 1.5, "after/loss_of/qa": 1.25, "after/loss_of/triage": 0.5},
]


def test_losses_by_moment_and_task() -> None:
    assert loss_matrix(ROWS) == {
        "before": {"qa": 3.0, "triage": 3.5},
        "qa": {"qa": 1.0, "triage": 4.0},
        "after": {"qa": 1.25, "triage": 0.5},
    }
    # qa was at 1 and is at 1.25; triage was never below 3.5.
    assert forgetting(loss_matrix(ROWS)) == {"qa": 0.25, "triage": -3.0}


def test_what_was_measured_twice_counts_once() -> None:
    again = [*ROWS, {"step": 8, "after/loss_of/qa": 1.0, "after/loss_of/triage": 0.5}]
    assert forgetting(loss_matrix(again))["qa"] == 0


def test_the_file_and_its_figure(tmp_path) -> None:
    assert write_forgetting(ROWS, tmp_path) == {"max_forgetting": 0.25}
    written = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert written["loss"]["qa"] == {"qa": 1.0, "triage": 4.0}
    assert written["forgetting"] == {"qa": 0.25, "triage": -3.0}


@pytest.mark.parametrize("rows", [[], ROWS[:1], [{"step": 0, "before/loss": 1.0}]])
def test_without_losses_by_task_nothing_is_said(rows, tmp_path) -> None:
    assert write_forgetting(rows, tmp_path) == {}
    assert not list(tmp_path.iterdir())
