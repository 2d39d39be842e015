"""JSON Lines files that are the same bytes for the same rows.

In: rows. Out: .jsonl.gz without time stamp or file name in the gzip header; written beside and
moved into place, so that nothing half-written is found.
"""

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def open_rows(path: Path) -> Iterator[TextIO]:
    """A text file to write one JSON object a line to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=5) as packed,
        TextIOWrapper(packed, encoding="utf-8", newline="\n") as text,
    ):
        yield text
    os.replace(partial, path)


def dump(row: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Writes rows; returns how many."""
    num_rows = 0
    with open_rows(path) as file:
        for row in rows:
            file.write(dump(row))
            num_rows += 1
    return num_rows


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that `write_rows` wrote."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
