"""Dictionaries of medical terms. In: UMLS MRCONSO.RRF, ICD-10 tables, lists of the hospital's own.
Out: a stream of `Entry`s.

A dictionary is small and curated, so that a line which cannot be read stops the job with its file
and number: a vocabulary with holes would pass unseen. Memory: one line.
Source: [EMR-LLM 1.2] entity normalisation to UMLS; UMLS Reference Manual, 3.3.4 (columns of
MRCONSO.RRF) and table 1 of its appendix (which string is a concept's preferred name).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.formats import TABLE_SUFFIXES, Encoding, decode, open_file, parse_table
from medray.common.sources import DAMAGED, dotted

UMLS_COLUMNS = 18
CUI, LAT, TS, STT, ISPREF, SAB, STR, SUPPRESS = 0, 1, 2, 4, 6, 11, 14, 16
COLUMNS: dict[str, dict[str, str]] = {
    "icd10": {"concept": "code", "term": "name", "synonyms": "synonyms"},
    "terms": {
        "concept": "concept",
        "term": "term",
        "preferred": "preferred",
        "synonyms": "synonyms",
    },
}


class Dictionary(Config):
    """One vocabulary: a file, how it is read and what it is used for."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    """Names the dictionary in counts and messages."""
    path: str = Field(min_length=1)
    """File, relative to the data directory or absolute. What lies outside the data directory is
    not part of a run's key: give a new release a new path, as UMLS does (2025AB)."""
    format: Literal["umls", "icd10", "terms"]
    """umls: MRCONSO.RRF. icd10: a table of codes and names. terms: a list of the hospital's own.
    Tables are JSON Lines, JSON, CSV, TSV (each also `.gz`) or Parquet, by suffix."""
    fields: dict[Literal["concept", "term", "preferred", "synonyms"], str] = Field(
        default_factory=dict
    )
    """Of a table: where each stands. icd10 has concept: code, term: name, synonyms: synonyms.
    terms has each under its own name; without `preferred` the term is the preferred one, and
    without `concept` the preferred term is the concept's id."""
    separator: str = Field(default="|", min_length=1)
    """Between synonyms in one cell of a table."""
    encoding: Encoding = "utf-8"
    """auto: each line is read as UTF-8 or, where that fails, as GB18030."""
    languages: list[str] = Field(default=["CHI", "ENG"], min_length=1)
    """Of umls: languages (LAT) to read; a concept is called by its name in the first one that has
    it. Source: not given; the languages of the corpora."""
    vocabularies: list[str] = Field(default_factory=list)
    """Of umls: source vocabularies (SAB) to read, such as [SNOMEDCT_US, ICD10CM]; empty reads all.
    Each million strings takes about a gigabyte in every worker."""
    replace: bool = False
    """Writes a concept's preferred term in place of its other names. Off, terms are counted only:
    a name in a record is evidence, and a synonym of a vocabulary can be wider or narrower than
    what was meant. For a list that was read by eye."""
    link: bool = False
    """Entries of diagnosis sections that no dictionary holds are compared with these names."""


class Entry(NamedTuple):
    """One name of a concept."""

    concept: str
    term: str
    rank: int
    """The name of least rank is the preferred one; of equal ones, the first."""


def read_dictionary(dictionary: Dictionary, data: Path) -> Iterator[Entry]:
    """Yields every name in the file, in its order.

    Raises:
        DataError: if the file is missing, empty, damaged or holds a line that cannot be read.
    """
    path = data / dictionary.path
    if not path.is_file():
        raise DataError(
            f"dictionary {dictionary.name}: no file at {path}; mend its path or remove it from "
            "corpus.terms.dictionaries"
        )
    read = _read_umls if dictionary.format == "umls" else _read_table
    some = False
    try:
        for entry in read(dictionary, path):
            some = True
            yield entry
    except DAMAGED:
        raise DataError(
            f"dictionary {dictionary.name}: {path} is damaged or cut off; copy it again"
        ) from None
    if not some:
        chosen = "languages and vocabularies" if dictionary.format == "umls" else "path"
        raise DataError(
            f"dictionary {dictionary.name}: {path} holds no term; mend its {chosen} or export it "
            "again"
        )


def _read_umls(dictionary: Dictionary, path: Path) -> Iterator[Entry]:
    """Strings that are not suppressed, ranked by language, TS=P, STT=PF and ISPREF=Y."""
    languages = {code: place for place, code in enumerate(dictionary.languages)}
    vocabularies = frozenset(dictionary.vocabularies)
    with open_file(path) as file:
        for number, raw in enumerate(file, 1):
            text, _ = decode(raw.rstrip(b"\r\n"), dictionary.encoding)
            if text is None:
                raise _fault(dictionary, path, number, f"is not {dictionary.encoding}")
            cells = text.split("|")
            if len(cells) != UMLS_COLUMNS + 1:  # each column ends in |
                what = f"has {len(cells) - 1} columns of {UMLS_COLUMNS}"
                raise _fault(dictionary, path, number, what)
            if (
                cells[LAT] not in languages
                or cells[SUPPRESS] != "N"
                or (vocabularies and cells[SAB] not in vocabularies)
            ):
                continue
            if not cells[CUI] or not cells[STR].strip():
                raise _fault(dictionary, path, number, "has no CUI or no STR")
            rank = 8 * languages[cells[LAT]]
            rank += 4 * (cells[TS] != "P") + 2 * (cells[STT] != "PF") + (cells[ISPREF] != "Y")
            yield Entry(cells[CUI], cells[STR].strip(), rank)


def _read_table(dictionary: Dictionary, path: Path) -> Iterator[Entry]:
    if not path.name.endswith(TABLE_SUFFIXES):
        raise DataError(
            f"dictionary {dictionary.name}: {path} is none of {', '.join(TABLE_SUFFIXES)}; convert "
            "it, or set its format to umls"
        )
    columns = {**COLUMNS[dictionary.format], **dictionary.fields}
    for number, row, _ in parse_table(path, dictionary.encoding):
        if isinstance(row, str):
            raise _fault(dictionary, path, number, row.replace("_", " "))
        term = _text(row, columns["term"])
        if not term:
            found = ", ".join(map(str, row))
            what = f"has nothing in {columns['term']} (columns found: {found})"
            raise _fault(dictionary, path, number, what)
        preferred = _text(row, columns.get("preferred", "")) or term
        concept = _text(row, columns["concept"])
        if not concept and dictionary.format == "icd10":
            raise _fault(dictionary, path, number, f"has nothing in {columns['concept']}")
        concept = concept or preferred
        yield Entry(concept, preferred, 0)
        synonyms = dotted(row, columns["synonyms"])
        if isinstance(synonyms, str):
            synonyms = synonyms.split(dictionary.separator)
        for name in [term, *(synonyms or [])]:
            if str(name).strip() and str(name).strip() != preferred:
                yield Entry(concept, str(name).strip(), 1)


def _text(row: dict[str, Any], key: str) -> str:
    value = dotted(row, key) if key else None
    return "" if value is None else str(value).strip()


def _fault(dictionary: Dictionary, path: Path, line: int, what: str) -> DataError:
    return DataError(
        f"dictionary {dictionary.name}: line {line} of {path} {what}; mend the line, or the "
        "dictionary's fields, encoding or format"
    )
