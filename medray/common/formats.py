"""Files of many rows, read as a stream. In: JSON Lines, NDJSON, JSON, CSV, TSV (`.gz` or not) or
Parquet. Out: `Parsed` rows with the line each stands on, good or with the reason they are not.

Memory: one row of a text file, one batch of a Parquet file. A row that cannot be read never stops
the file; its text is in no reason.
"""

import codecs
import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

Encoding = Literal["utf-8", "gb18030", "auto"]
TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
TABLE_SUFFIXES = (*TABLES, *(f"{suffix}.gz" for suffix in TABLES), ".parquet")
MAX_LINE_BYTES = 32 * 2**20
"""A longer line is not a row: a file without line ends must not fill the memory."""
CHUNK_BYTES = 2**16
DELIMITERS = ",\t;|"
BETWEEN = re.compile(r"[\s,\]]*")
NEXT_OBJECT = re.compile(r"\n\s*(?=[{\[])")
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")

Mine = Callable[[int], bool]
"""Whether a task takes the row at this place of the file, from 0."""


class Parsed(NamedTuple):
    """One row of a file."""

    line: int
    """Number of the line on which the row begins; of a Parquet file, of the row."""
    value: dict[str, Any] | str
    """The row, or why there is none."""
    encoding: str = "utf-8"


def parse_table(path: Path, encoding: Encoding, mine: Mine | None = None) -> Iterator[Parsed]:
    """Yields the rows of a file, by its suffix; with `mine`, only those at its places.

    Raises:
        OSError, EOFError, zlib.error, pyarrow.ArrowInvalid: if the file is damaged.
    """
    mine = mine or (lambda _: True)
    if path.name.endswith(".parquet"):
        yield from _parse_parquet(path, mine)
        return
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    with open_file(path) as file:
        if kind in ("csv", "tsv"):
            yield from _parse_csv(file, encoding, mine)
        elif kind == "json":
            yield from _parse_json(file, encoding, mine)
        else:
            yield from _parse_json_lines(file, encoding, mine)


def open_file(path: Path) -> BinaryIO:
    """Opens a file for reading bytes, unpacked if its name ends in `.gz`."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def decode(raw: bytes, encoding: Encoding) -> tuple[str | None, str]:
    """(text or None, the encoding it is in); `auto` tries UTF-8, then GB18030."""
    for name in ("utf-8", "gb18030") if encoding == "auto" else (encoding,):
        try:
            return raw.decode(name), name
        except UnicodeDecodeError:
            continue
    return None, encoding


def undecodable(encoding: Encoding) -> str:
    """The reason for rows that are not in the encoding they should be in."""
    return "not_utf-8_or_gb18030" if encoding == "auto" else f"not_{encoding}"


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yields lines without a byte-order mark; None stands for one that is too long."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line.removeprefix(codecs.BOM_UTF8)
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield None


def _parse_json_lines(file: BinaryIO, encoding: Encoding, mine: Mine) -> Iterator[Parsed]:
    for place, raw in enumerate(_lines(file)):
        if (raw is not None and raw.isspace()) or not mine(place):
            continue
        if raw is None:
            yield Parsed(place + 1, "line_too_long")
            continue
        text, used = decode(raw, encoding)
        if text is None:
            yield Parsed(place + 1, undecodable(encoding))
        elif text.strip():
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):  # a number of 5 000 digits is a ValueError too
                yield Parsed(place + 1, "malformed_json")
            else:
                yield Parsed(place + 1, _checked(value, text), used)


def _parse_json(file: BinaryIO, encoding: Encoding, mine: Mine) -> Iterator[Parsed]:
    """Values of one array, or one after another, over any number of lines.

    A list becomes {"items": list}. After a fault reading goes on at the next line that opens an
    object or a list. Which encoding a value was in is not told.
    """
    to_text = _chunk_decoder(encoding)
    decoder = json.JSONDecoder()
    buffer, place, ended = to_text(file.read(CHUNK_BYTES).removeprefix(codecs.BOM_UTF8)), 0, False
    at = len(buffer) - len(buffer.lstrip())
    line = 1 + buffer.count("\n", 0, at)
    at += buffer.startswith("[", at)

    def grow() -> None:
        nonlocal buffer, at, ended
        # Doubling keeps the rereading of a long value linear.
        raw = file.read(max(CHUNK_BYTES, len(buffer) - at))
        ended = not raw
        buffer, at = buffer[at:] + to_text(raw), 0

    while True:
        start = cast(re.Match[str], BETWEEN.match(buffer, at)).end()
        line += buffer.count("\n", at, start)
        at, reason = start, ""
        if at == len(buffer):
            if ended:
                return
            grow()
            continue
        try:
            value, end = decoder.raw_decode(buffer, at)
            # A number at the end of the buffer may have more digits.
            cut = end == len(buffer) and not isinstance(value, dict | list)
        except (ValueError, RecursionError) as error:
            value, end, reason = None, -1, "malformed_json"
            cut = isinstance(error, json.JSONDecodeError) and (
                error.msg.startswith("Unterminated string") or error.pos > len(buffer) - 12
            )
        if cut and not ended and len(buffer) - at < MAX_LINE_BYTES:
            grow()
            continue
        begins = line
        if end < 0:
            while not (found := NEXT_OBJECT.search(buffer, at)) and not ended:
                line += buffer.count("\n", at, len(buffer) - 1)
                at = len(buffer) - 1
                grow()
            end = found.end() if found else len(buffer)
        if mine(place):
            raw = buffer[at:end]
            if isinstance(value, list):
                value = {"items": value}
            if not raw.isascii() and ESCAPED_BYTE.search(raw):
                reason = undecodable(encoding)
            yield Parsed(begins, reason or _checked(value, raw))
        place += 1
        line += buffer.count("\n", at, end)
        at = end


def _chunk_decoder(encoding: Encoding) -> Callable[[bytes], str]:
    """Makes text of a file's chunks; an empty one ends it. Bad bytes become lone surrogates."""
    if encoding != "auto":
        incremental = codecs.getincrementaldecoder(encoding)(errors="surrogateescape")
        return lambda raw: incremental.decode(raw, not raw)
    pending = b""

    def by_line(raw: bytes) -> str:
        nonlocal pending
        whole = pending + raw
        # Neither sign is ever the second byte of a character of GB18030.
        cut = max(whole.rfind(b"\n"), whole.rfind(b",")) + 1 if raw else len(whole)
        pending = whole[cut:]
        lines = whole[:cut].splitlines(keepends=True)
        return "".join(decode(x, "auto")[0] or x.decode("utf-8", "surrogateescape") for x in lines)

    return by_line


def _checked(value: Any, raw: str) -> dict[str, Any] | str:
    """The object, or why it cannot be a row."""
    if not isinstance(value, dict):
        return "not_an_object"
    if "\\ud" in raw.lower():
        try:  # half of an escaped pair is no character: it cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return "malformed_json"
    return value


def _parse_csv(file: BinaryIO, encoding: Encoding, mine: Mine) -> Iterator[Parsed]:
    """Rows under the header; the delimiter is the sign of `,` tab `;` `|` it has most of."""
    csv.field_size_limit(MAX_LINE_BYTES)  # the default of 131 072 cuts long notes
    lines, fault, used = _lines(file), "", encoding

    def texts() -> Iterator[str]:
        """Lines as text. csv draws no line ahead, so a fault belongs to the row in hand."""
        nonlocal fault, used
        for raw in lines:
            if raw is None:
                fault = "line_too_long"
                yield "\n"
                continue
            text, name = decode(raw, encoding)
            if text is None:
                fault = undecodable(encoding)
                text = raw.decode("utf-8" if encoding == "auto" else encoding, "replace")
            if name == "gb18030" or used == "auto":
                used = name
            yield text

    stream = texts()
    first = next(stream, "")
    delimiter = max(DELIMITERS, key=first.count)

    def chained() -> Iterator[str]:
        yield first
        yield from stream

    reader = csv.reader(chained(), delimiter=delimiter)
    header: list[str] | None = None
    place = 0
    while True:
        line, fault, used = reader.line_num + 1, "" if header else fault, encoding
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            cells, fault = [""], fault or "malformed_csv"
        if not cells and not fault:
            continue
        if header is None:
            header = cells
            continue
        if mine(place):
            if not fault and len(cells) != len(header):
                fault = "wrong_number_of_columns"
            value = fault or dict(zip(header, cells, strict=True))
            yield Parsed(line, value, used)
        place += 1


def _parse_parquet(path: Path, mine: Mine) -> Iterator[Parsed]:
    with pq.ParquetFile(path) as file:
        place = 0
        for batch in file.iter_batches(batch_size=256):
            wanted = [mine(place + k) for k in range(len(batch))]
            if any(wanted):
                numbers = [place + k + 1 for k, is_mine in enumerate(wanted) if is_mine]
                rows = batch.filter(pa.array(wanted)).to_pylist()
                for number, row in zip(numbers, rows, strict=True):
                    yield Parsed(number, {name: _plain(value) for name, value in row.items()})
            place += len(batch)


def _plain(value: Any) -> Any:
    """A Parquet value as JSON would hold it: dates in ISO form, maps as objects."""
    if isinstance(value, date):  # a datetime is one
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):  # Hive and Impala write text as plain bytes
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(pair, tuple) for pair in value):
            return {str(name): _plain(inner) for name, inner in value}
        return [_plain(inner) for inner in value]
    return value
