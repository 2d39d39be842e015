"""Tables joined by patient. In: the tables of an export. Out: all lines of one patient at a time.

Every line passes through a spool on disk, so memory holds one bucket of patients whatever the size
of the export. A task takes the patients whose hash falls to it and reads past the others.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from medray.common.errors import DataError
from medray.common.formats import Encoding
from medray.common.sources import Rejected, Source, SourceRow, read_file, source_files
from medray.common.spool import Spool, hash_key

UNJOINED = frozenset({"no_note", "empty_encounter"})
"""Reasons of visits that stand in the tables and hold nothing to read: no fault of the export."""


class Line(NamedTuple):
    """One line of a table, as it was read."""

    table: str
    file: str
    line: int
    values: dict[str, Any]


class Table(NamedTuple):
    """One table of an export."""

    name: str
    path: str
    """Glob relative to the data directory."""
    columns: tuple[str, ...]
    """Columns without which it is not that table, in lower case."""


class Part(NamedTuple):
    """A task's share of the patients."""

    index: int = 0
    of: int = 1

    def owns(self, key: str) -> bool:
        """Whether the patient with this `hash_key` falls to this part."""
        return int(key[-8:], 16) % self.of == self.index


def read_table(
    name: str, table: Table, encoding: Encoding, data: Path
) -> Iterator[Line | Rejected]:
    """Yields the lines of a table, column names in lower case.

    Raises:
        DataError: if a file lacks a column, or as `read_file`.
    """
    source = Source(name=name, kind="table", path=table.path, encoding=encoding)
    for path in source_files(source, data):
        checked = False
        for row in read_file(source, path, data):
            if isinstance(row, Rejected):
                yield row
                continue
            values = {key.lower(): value for key, value in row.values.items()}
            if not checked:
                _check_columns(name, table, row.file, values)
                checked = True
            yield Line(table.name, row.file, row.line, values)


def by_patient(
    lines: Iterable[Line | Rejected],
    patient_of: Callable[[Line], str | Rejected],
    part: Part,
    see: Callable[[Line], None] | None = None,
) -> Iterator[Rejected | list[Line]]:
    """Yields the lines that can be read and joined grouped by patient, in an order of their own.

    Args:
        patient_of: the patient's id, or why the line has none.
        see: is shown every line of this part before the first group is yielded.
    """
    with Spool() as spool:
        for line in lines:
            patient = line if isinstance(line, Rejected) else patient_of(line)
            if isinstance(patient, Rejected):
                if part.index == 0:
                    yield patient
                continue
            key = hash_key(patient)
            if part.owns(key):
                assert isinstance(line, Line)
                if see is not None:
                    see(line)
                spool.add(key, line)
        for _, values in spool.groups():
            yield sorted((Line(*value) for value in values), key=lambda x: (x.file, x.line))


def read_names(
    lines: Iterable[Line | Rejected],
    key: Callable[[dict[str, Any]], str],
    value: str,
    wanted: set[str],
) -> dict[str, str]:
    """The names of the `wanted` keys in a table of terms; memory grows with those alone."""
    names = {}
    for line in lines:
        if isinstance(line, Line) and (found := key(line.values)) in wanted:
            names[found] = str(line.values.get(value) or "")
    return names


def field(line: Line, *names: str) -> str:
    """The first of these columns that is given, as text."""
    for name in names:
        value = line.values.get(name)
        if value is not None and str(value).strip():
            return str(value).strip()
    return ""


def needed(line: Line, name: str) -> str | Rejected:
    """The column, which must be given."""
    return field(line, name) or Rejected(line.file, line.line, f"missing_field:{name}")


def visit_row(line: Line, values: dict[str, Any]) -> SourceRow:
    """A visit as a row that stands where `line` stands; empty values count as absent."""
    return SourceRow(line.file, line.line, {k: v for k, v in values.items() if v})


def _check_columns(name: str, table: Table, file: str, values: dict[str, Any]) -> None:
    absent = [column for column in table.columns if column not in values]
    if absent:
        raise DataError(
            f"source {name}: {file} is not the table {table.name}: it has no column "
            f"{', '.join(absent)}; columns found: {', '.join(sorted(map(str, values)))}; "
            "mend the table's path or name the columns as its standard does"
        )
