"""Files that hold one document each: JATS and CDA XML, Markdown, plain text, PDF.

In: a file. Out: one `SourceRow` with id, title, date and sections or text, or `Rejected`. A record
among such files takes its ids from the file's place: the keys `stem` (its name without ending) and
`folder` (the name of its directory) serve in the source's `fields`.
"""

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from medray.common.formats import Encoding, decode, open_file, undecodable
from medray.common.sources import Rejected, Source, SourceRow, map_fields
from medray.corpus.readers.markup import parse_xml

TEXTS = (".xml", ".nxml", ".md", ".txt")
DOCUMENT_SUFFIXES = (*TEXTS, *(f"{suffix}.gz" for suffix in TEXTS), ".pdf")
MAX_DOCUMENT_BYTES = 64 * 2**20
"""A longer text is no document; XML in memory takes ten times its size."""
FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
FRONT_KEYS = ("doc_id", "title", "date", "kind", "department", "superseded_by")
TITLE = re.compile(r"\A\s*#[ \t]+(\S[^\n]*)")
DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError,
    RecursionError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
"""What pypdf raises, beside its own errors, where a damaged file sends it; not for want of memory
or of a disk."""
PDF_DATE = re.compile(r"D:(\d{4})(\d{2})?(\d{2})?")


def is_document(path: Path) -> bool:
    """Whether a file is one document, by its suffix."""
    return path.name.lower().endswith(DOCUMENT_SUFFIXES)


def read_document(source: Source, path: Path, data: Path) -> SourceRow | Rejected:
    """The file as one row, with the source's `fields` and `constants` applied."""
    name = path.relative_to(data).as_posix()
    tally: dict[str, int] = {}
    if path.name.lower().endswith(".pdf"):
        values = _pdf(path, tally)
    else:
        values = _text_file(path, source.encoding, tally)
    if isinstance(values, str):
        return Rejected(name, 1, values)
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    place = {"doc_id": name, "record_id": name, "stem": stem, "folder": path.parent.name}
    return map_fields(SourceRow(name, 1, {**place, **values}, tally), source)


def parse_markdown(text: str) -> dict[str, Any]:
    """Title and text; a YAML front matter may give the fields of a published document."""
    values: dict[str, Any] = {}
    front = FRONT_MATTER.match(text)
    if front:
        try:
            given = yaml.safe_load(front[1])
        except (yaml.YAMLError, ValueError):
            given = None
        if isinstance(given, dict):
            values = {k: str(given[k]) for k in FRONT_KEYS if given.get(k) is not None}
            text = text[front.end() :]
    title = TITLE.match(text)
    if title:
        values.setdefault("title", title[1].strip())
        text = text[title.end() :]
    return {**values, "text": text}


def read_pages(file: Any) -> tuple[list[str], dict[str, Any]] | str:
    """(the text of each page, the document information) of a PDF file, or why there is none."""
    import pypdf
    from pypdf.errors import DeprecationError, PyPdfError

    try:
        reader = pypdf.PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):
            return "encrypted_pdf"
        information = {key: str(value) for key, value in (reader.metadata or {}).items()}
        return [page.extract_text().strip() for page in reader.pages], information
    except (PyPdfError, DeprecationError, *DAMAGED):
        return "malformed_pdf"


def _pdf(path: Path, tally: dict[str, int]) -> dict[str, Any] | str:
    with path.open("rb") as file:
        read = read_pages(file)
    if isinstance(read, str):
        return read
    pages, information = read
    tally["pages_without_text"] = pages.count("")
    if not any(pages):
        return "no_text"
    date = PDF_DATE.match(information.get("/CreationDate", ""))
    return {
        "title": information.get("/Title", "").strip(),
        "date": "-".join(part for part in date.groups() if part) if date else "",
        "text": "\n".join(filter(None, pages)),
    }


def _text_file(path: Path, encoding: Encoding, tally: dict[str, int]) -> dict[str, Any] | str:
    try:
        with open_file(path) as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return "damaged_gzip"
    if len(raw) > MAX_DOCUMENT_BYTES:
        return "file_too_big"
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind in ("xml", "nxml"):
        return parse_xml(raw, encoding)
    lines = list(_decoded(raw.removeprefix(b"\xef\xbb\xbf"), encoding, tally))
    if None in lines:
        return undecodable(encoding)
    text = "".join(filter(None, lines)).replace("\r\n", "\n")
    return parse_markdown(text) if kind == "md" else {"text": text}


def _decoded(raw: bytes, encoding: Encoding, tally: dict[str, int]) -> Iterator[str | None]:
    for line in raw.splitlines(keepends=True):
        text, used = decode(line, encoding)
        if encoding == "auto" and used == "gb18030":
            tally["gb18030_lines"] = tally.get("gb18030_lines", 0) + 1
        yield text
