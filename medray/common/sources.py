"""Outside files as rows. In: JSON Lines or CSV files, `.gz` or not. Out: `SourceRow | Rejected`.

A line that cannot be read becomes `Rejected` with file, line number and reason, never with its
text; a source that cannot be read at all is a `DataError` that says how to mend it. Everything
streams: memory is one line.
"""

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar, cast

from pydantic import Field, ValidationError, field_validator

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.manifest import Counts
from medray.common.records import Row

RowType = TypeVar("RowType", bound=Row)
SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz")
PROBE_LINES = 200
"""Lines of a file that decide whether it has the encoding it should have."""


class Source(Config):
    """Files of one kind and how their fields map to a row. A package narrows `kind`."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    """Names the source in counts, messages and its quarantine file."""
    kind: str
    path: str
    """Glob relative to the data directory, such as `records/*.jsonl.gz`."""
    fields: dict[str, str] = Field(default_factory=dict)
    """Row field ← key in the source, dotted for nested ones (`record.主诉`, `turns.0.text`).
    A field not named here is taken under its own name."""
    constants: dict[str, Any] = Field(default_factory=dict)
    """Row field ← fixed value."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first lines, in the order of file names."""
    encoding: Literal["utf-8", "gb18030"] = "utf-8"

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


class Rejected(NamedTuple):
    """One line that goes no further. `reason` holds field names, never text."""

    file: str
    line: int
    reason: str


def source_files(source: Source, data: Path) -> list[Path]:
    """The files of a source, by name.

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
        if not path.name.endswith(SUFFIXES):
            raise DataError(
                f"source {source.name}: {path} is none of {', '.join(SUFFIXES)}; "
                "convert it or narrow the source's path"
            )
        if path.stat().st_size == 0:
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


def read_file(source: Source, path: Path, data: Path) -> Iterator[SourceRow | Rejected]:
    """Yields every line of one file of a source; `limit` is not applied."""
    name = path.relative_to(data).as_posix()
    _check_encoding(source, path)
    is_csv = path.name.endswith((".csv", ".csv.gz"))
    count = 0
    try:
        with _open(path) as file:
            for line, parsed in _parse_csv(file, source) if is_csv else _parse_json(file, source):
                count += 1
                if isinstance(parsed, str):
                    yield Rejected(name, line, parsed)
                else:
                    yield SourceRow(name, line, _map(parsed, source))
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(
            f"source {source.name}: {path} is damaged or cut off after {count} lines; copy it again"
        ) from None
    if count == 0:
        raise DataError(f"source {source.name}: {path} holds no line; export it again or narrow "
                        "the source's path")  # fmt: skip


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


def check_source(source: Source, data: Path, row_type: type[Row] | None = None) -> None:
    """Opens every file of a source and looks at the first lines of the source, so that a wrong
    setting shows before the work starts.

    Raises:
        DataError: as `read_source`; or if a mapped key is in none of these lines, or, where
            `row_type` is given, not one of them makes a row.
    """
    for path in source_files(source, data):
        next(read_file(source, path, data))
    seen = list(islice(read_source(source, data), PROBE_LINES))
    rows = [row for row in seen if isinstance(row, SourceRow)]
    if not rows:
        raise DataError(
            f"source {source.name}: none of the first {len(seen)} lines can be read "
            f"({seen[0].file}:{seen[0].line}: {cast(Rejected, seen[0]).reason})"
        )
    present = {key for row in rows for key in row.values}
    absent = [f"{field} ← {key}" for field, key in source.fields.items() if field not in present]
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


def write_quarantine(path: Path, rejected: Iterable[Rejected]) -> int:
    """Writes where each rejected line stands and why, readable by its owner only; returns how many.

    The line itself stays in the export: a quarantine file holds no patient text.
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


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _check_encoding(source: Source, path: Path) -> None:
    """Raises DataError if most of the first lines with Chinese in them do not decode."""
    lines = bad = 0
    try:
        with _open(path) as file:
            for line in islice(file, PROBE_LINES):
                if not line.isascii():
                    lines += 1
                    bad += _decode(line, source.encoding) is None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return  # the reader meets it again and knows the line
    if 2 * bad > lines:
        other = "gb18030" if source.encoding == "utf-8" else "utf-8"
        raise DataError(
            f"source {source.name}: {path} is not {source.encoding.upper()} "
            f"({bad} of {lines} lines fail to decode); set encoding: {other} for this source"
        )


def _decode(line: bytes, encoding: str) -> str | None:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        return None


def _parse_json(file: BinaryIO, source: Source) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yields (line number, object or reason); blank lines are passed over."""
    for number, raw in enumerate(file, 1):
        line = _decode(raw.removeprefix(b"\xef\xbb\xbf"), source.encoding)
        if line is None:
            yield number, f"not_{source.encoding}"
        elif line.strip():
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                yield number, "malformed_json"
            else:
                yield number, value if isinstance(value, dict) else "not_an_object"


def _parse_csv(file: BinaryIO, source: Source) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yields (number of the row's last line, object or reason)."""
    # Undecodable bytes become lone surrogates, so that csv keeps its place in the file.
    lines = (raw.removeprefix(b"\xef\xbb\xbf").decode(source.encoding, "surrogateescape")
             for raw in file)  # fmt: skip
    reader = csv.DictReader(lines, restkey="")
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield reader.line_num, "malformed_csv"
            continue
        if "" in row or None in row.values():
            yield reader.line_num, "wrong_number_of_columns"
        elif any("\udc80" <= c <= "\udcff" for value in row.values() for c in value):
            yield reader.line_num, f"not_{source.encoding}"
        else:
            yield reader.line_num, row


def _map(values: dict[str, Any], source: Source) -> dict[str, Any]:
    mapped = dict(values)
    for field in source.fields:
        mapped.pop(field, None)
    for field, key in source.fields.items():
        value = dotted(values, key)
        if value is not None:
            mapped[field] = value
    return mapped | source.constants


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
