"""Outside files as rows. In: files of `medray.common.formats`. Out: `SourceRow | Rejected`.

A line that cannot be read becomes `Rejected` with file, line number and reason, never with its
text; a source that cannot be read at all is a `DataError` that says how to mend it. Everything
streams: memory is one line.
"""

import codecs
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import pyarrow as pa
from pydantic import Field, ValidationError, field_validator

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.formats import (
    TABLE_SUFFIXES,
    Encoding,
    Mine,
    decode,
    open_file,
    parse_table,
)
from medray.common.manifest import Counts
from medray.common.records import Row

RowType = TypeVar("RowType", bound=Row)
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowInvalid)
PLACE = "$place"
PROBE_LINES = 200
"""Lines of a file that decide whether it has the encoding it should have."""
PROBE_BYTES = 2**16
"""A longer line does not decide: it may be a file without line ends."""


class Source(Config):
    """Files of one kind and how their fields map to a row. A package narrows `kind`."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    """Names the source in counts, messages and its quarantine file."""
    kind: str
    path: str
    """Glob relative to the data directory, such as `records/*.jsonl.gz`."""
    fields: dict[str, str] = Field(default_factory=dict)
    """Row field ← key in the source; both dotted for nested ones (`record.主诉`, `turns.0.text`;
    `options.A`). A field not named here is taken under its own name. The key `$place` stands for
    file and line, as the id of rows that bring none."""
    constants: dict[str, Any] = Field(default_factory=dict)
    """Row field ← fixed value."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first lines, in the order of file names."""
    encoding: Encoding = "utf-8"
    """auto: each line is read as UTF-8 or, where that fails, as GB18030."""

    @field_validator("path")
    @classmethod
    def _relative(cls, path: str) -> str:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError("must be a glob below the data directory, without / at the start")
        return path


class SourceRow(NamedTuple):
    """One line as it was read. `values` may hold PHI."""

    file: str
    line: int
    values: dict[str, Any]
    tally: Mapping[str, int] | None = None
    """What was met in reading and is worth counting, such as a line in another encoding."""


class Rejected(NamedTuple):
    """One line that goes no further. `reason` holds field names, never text."""

    file: str
    line: int
    reason: str


Reader = Callable[[Any, Path], Iterator[SourceRow | Rejected]]
"""Yields the rows of a source below the data directory."""


def source_files(
    source: Source, data: Path, suffixes: tuple[str, ...] = TABLE_SUFFIXES
) -> list[Path]:
    """The files of a source, by name; each ends in one of `suffixes`.

    Raises:
        DataError: if the directory or a matching file is missing, or a file is empty or of a
            kind that cannot be read.
    """
    if not data.is_dir():
        raise DataError(f"no data directory at {data}; set --data to the directory of the export")
    paths = sorted(p for p in data.glob(source.path) if p.is_file())
    if not paths:
        raise DataError(
            f"source {source.name}: no file matches {source.path} below {data}; "
            "mend the source's path or remove the source from the profile"
        )
    for path in paths:
        if not path.name.lower().endswith(suffixes):
            raise DataError(
                f"source {source.name}: {path} is none of {', '.join(suffixes)}; "
                "convert it or narrow the source's path"
            )
        if path.stat().st_size == 0 and path.name.endswith(TABLE_SUFFIXES):
            raise DataError(
                f"source {source.name}: {path} is empty; export it again or narrow the path"
            )
    return paths


def read_source(source: Source, data: Path) -> Iterator[SourceRow | Rejected]:
    """Yields every line of a source, good or rejected, in the order of file names.

    Raises:
        DataError: as `source_files`, or if a file is damaged or mostly in another encoding.
    """
    rows = (row for path in source_files(source, data) for row in read_file(source, path, data))
    return islice(rows, source.limit)


def read_file(
    source: Source, path: Path, data: Path, mine: Mine | None = None
) -> Iterator[SourceRow | Rejected]:
    """Yields every line of one file of a source; `limit` is not applied.

    Args:
        mine: tells by a row's place in the file whether to yield it; the others are passed over
            without being looked at.
    """
    name = path.relative_to(data).as_posix()
    _check_encoding(source, path)
    count = 0

    def counted(place: int) -> bool:
        nonlocal count
        count = max(count, place + 1)
        return mine is None or mine(place)

    try:
        for line, value, encoding in parse_table(path, source.encoding, counted):
            if isinstance(value, str):
                yield Rejected(name, line, value)
            else:
                row = SourceRow(name, line, value)
                if source.encoding == "auto" and encoding != "utf-8":
                    row = row._replace(tally={f"{encoding}_lines": 1})
                yield map_fields(row, source)
    except DAMAGED:
        raise DataError(
            f"source {source.name}: {path} is damaged or cut off after {count} lines; copy it again"
        ) from None
    if count == 0:
        raise DataError(f"source {source.name}: {path} holds no line; export it again or narrow "
                        "the source's path")  # fmt: skip


def map_fields(row: SourceRow, source: Source) -> SourceRow:
    """The row with the source's `fields` and `constants` applied."""
    mapped = dict(row.values)
    for field in source.fields:
        mapped.pop(field, None)
    for field, key in source.fields.items():
        value = f"{row.file}:{row.line}" if key == PLACE else dotted(row.values, key)
        if value is None:
            continue
        *parents, last = field.split(".")
        node = mapped
        for parent in parents:
            inner = node.get(parent)
            node[parent] = node = dict(inner) if isinstance(inner, dict) else {}
        node[last] = value
    return row._replace(values=mapped | source.constants)


def to_row(row: SourceRow, row_type: type[RowType]) -> RowType | Rejected:
    """Validates a line as a row; fields that `row_type` does not have are left out.

    Null counts as absent, and a number stands for its digits where the row wants text.
    """
    values: dict[str, Any] = {}
    for name, field in row_type.model_fields.items():
        value = row.values.get(name)
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        values[name] = str(value) if field.annotation is str and is_number else value
    try:
        return row_type.model_validate(values)
    except ValidationError as error:
        return Rejected(row.file, row.line, fault(error))


def fault(error: ValidationError) -> str:
    """The first fault of a row as a reason: kind and field, no value."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join("*" if isinstance(part, int) else part for part in first["loc"])
    return f"missing_field:{field}" if first["type"] == "missing" else f"invalid_field:{field}"


def check_source(
    source: Source, data: Path, row_type: type[Row] | None = None, read: Reader = read_source
) -> None:
    """Opens every file of a source and looks at its first rows, so that a wrong setting shows
    before the work starts.

    Args:
        read: how the package reads a source, where it joins or reshapes files.
    Raises:
        DataError: as `read_source`; or if a mapped key is in none of these rows, or, where
            `row_type` is given, not one of them makes a row.
    """
    if read is read_source:
        for path in source_files(source, data):
            next(read_file(source, path, data))
    seen = list(islice(read(source, data), PROBE_LINES))
    rows = [row for row in seen if isinstance(row, SourceRow)]
    if not rows:
        raise DataError(
            f"source {source.name}: none of the first {len(seen)} lines can be read "
            f"({seen[0].file}:{seen[0].line}: {cast(Rejected, seen[0]).reason})"
        )
    present = {key for row in rows for key in row.values}
    absent = [
        f"{field} ← {key}"
        for field, key in source.fields.items()
        if all(dotted(row.values, field) is None for row in rows)
    ]
    if absent:
        raise DataError(
            f"source {source.name}: no line of {rows[0].file} has {', '.join(absent)}; keys found: "
            f"{', '.join(sorted(present - set(source.constants)))}; mend the source's fields"
        )
    if row_type is not None:
        made = [to_row(row, row_type) for row in rows]
        bad = [row for row in made if isinstance(row, Rejected)]
        if len(bad) == len(made):
            raise DataError(
                f"source {source.name}: no line of {rows[0].file} makes a {row_type.__name__} "
                f"({bad[0].reason}); keys found: {', '.join(sorted(present))}; "
                "map the field in the source's fields"
            )


def write_quarantine(path: Path, rejected: Iterable[NamedTuple]) -> int:
    """Writes where each rejected line stands and why, readable by its owner only; returns how many.

    The line itself stays in the export: a quarantine file holds no patient text, so neither may
    the tuples, whose fields are written by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.touch(mode=0o600)
    count = 0
    with temporary.open("w", encoding="utf-8") as file:
        for row in rejected:
            file.write(json.dumps(row._asdict(), ensure_ascii=False) + "\n")
            count += 1
    temporary.replace(path)
    return count


def check_rejected(
    name: str, counts: Counts, max_rejected_fraction: float, quarantine: Path
) -> None:
    """Raises DataError if too many lines of the source `name` were rejected."""
    rejected = sum(counts.rejected.values())
    fraction = rejected / max(1, counts.rows_in)
    if fraction <= max_rejected_fraction:
        return
    top = Counter(counts.rejected).most_common(3)
    raise DataError(
        f"source {name}: {rejected} of {counts.rows_in} lines rejected ({fraction:.1%}, allowed "
        f"{max_rejected_fraction:.1%}): {', '.join(f'{reason} {n}' for reason, n in top)}; "
        f"see {quarantine}, mend the export or the source's fields, or raise max_rejected_fraction"
    )


def _check_encoding(source: Source, path: Path) -> None:
    """Raises DataError if most of the first lines with Chinese in them do not decode."""
    if path.name.endswith(".parquet"):
        return
    lines = bad = 0
    try:
        with open_file(path) as file:
            for number in range(PROBE_LINES):
                line = file.readline(PROBE_BYTES)
                if number == 0 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise DataError(
                        f"source {source.name}: {path} is UTF-16; save it as UTF-8 or GB18030"
                    )
                if not line.isascii() and len(line) < PROBE_BYTES:
                    lines += 1
                    bad += decode(line, source.encoding)[0] is None
    except DAMAGED:
        return  # the reader meets it again and knows the line
    if 2 * bad > lines:
        other = {"utf-8": "gb18030", "gb18030": "utf-8"}.get(source.encoding)
        raise DataError(
            f"source {source.name}: {path} is not {source.encoding.upper()} "
            f"({bad} of {lines} lines fail to decode); "
            + (f"set encoding: {other} for this source" if other else "convert it to UTF-8")
        )


def dotted(values: Any, key: str) -> Any:
    """The value under a dotted key, or None; digits index a list, a key with dots is tried whole.

    >>> dotted({"a": [{"b": 1}]}, "a.0.b")
    1
    """
    if isinstance(values, dict) and key in values:
        return values[key]
    for part in key.split("."):
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            return None
    return values
