"""The metrics sink: one JSON object a line, appended, so that a resumed run goes on in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends to `metrics.jsonl`. Keys are `group/name`, unit last: `train/loss`, `time/step_s`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, metrics: Mapping[str, float | str]) -> None:
        """Appends the metrics of one step."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def truncate(self, step: int) -> None:
        """Drops what was written after `step`: a resumed run writes those steps again."""
        kept = [row for row in self.read() if row["step"] <= step]
        if self.path.exists():
            self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def read(self) -> list[dict[str, Any]]:
        """All rows, oldest first; a last line torn by a kill is left out."""
        if not self.path.exists():
            return []
        return parse_metrics(self.path.read_text(encoding="utf-8"))


def parse_metrics(text: str) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, up to a line torn by a kill or by a copy under way."""
    rows = []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
