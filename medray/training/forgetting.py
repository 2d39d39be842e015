"""What a stage forgets. In: the rows of its metrics. Out: every task's held-out loss at the start,
after each stage of the curriculum and at the end, and how far each is above its best.

Source: the forgetting measure of Chaudhry et al. 2018 (Riemannian Walk, 3.2), on losses in place
of accuracies; [MedQC 4.1.2] orders the tasks and does not say what is lost.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BY = "loss_of/"
"""Begins the name of the held-out loss of one source or task; its name follows."""
STAGE = "stage/"
"""Begins the names of what was measured after a stage of the curriculum."""
HELD_OUT = "held_out/"
"""Begins the names of what was measured every so many steps."""
FILE = "forgetting.json"

Matrix = dict[str, dict[str, float]]


def loss_matrix(rows: Sequence[dict[str, Any]]) -> Matrix:
    """When it was measured → task → held-out loss; empty if losses are not known by task.

    A run that was resumed measured some moments twice; the last counts.
    """
    matrix: Matrix = {}
    for row in rows:
        for key, value in row.items():
            moment, found, task = key.partition(f"/{BY}")
            if moment == HELD_OUT.rstrip("/"):
                moment = f"step {row['step']}"
            if found:
                matrix.setdefault(moment.removeprefix(STAGE), {})[task] = value
    return matrix


def forgetting(matrix: Matrix) -> dict[str, float]:
    """Task → its last loss less the lowest before, in nats per token; below 0: still learning."""
    *earlier, last = matrix.values()
    return {
        task: loss - min(moment[task] for moment in earlier if task in moment)
        for task, loss in last.items()
        if any(task in moment for moment in earlier)
    }


def write_forgetting(rows: Sequence[dict[str, Any]], directory: Path) -> dict[str, float]:
    """Writes forgetting.json; returns figures for the manifest, none if losses are not by task."""
    matrix = loss_matrix(rows)
    if len(matrix) < 2:
        return {}
    lost = forgetting(matrix)
    content = {"loss": matrix, "forgetting": lost, "unit": "nats per token"}
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (directory / FILE).write_text(text, encoding="utf-8")
    return {"max_forgetting": max(lost.values())}
