"""MIMIC-III and MIMIC-IV notes. In: NOTEEVENTS or discharge.csv and the tables of admissions and
diagnoses. Out: one row of a `RawRecord` per admission, its notes in the order of their time.

Source: mimic.mit.edu, schemas of MIMIC-III 1.4 (NOTEEVENTS, ADMISSIONS, DIAGNOSES_ICD,
D_ICD_DIAGNOSES) and MIMIC-IV 2.2 (note, hosp).
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from medray.common.formats import Encoding
from medray.common.sources import Rejected, SourceRow
from medray.corpus.readers.joins import (
    Line,
    Part,
    Table,
    by_patient,
    field,
    needed,
    read_names,
    read_table,
    visit_row,
)
from medray.corpus.readers.notes import Note, note_sections, note_time

COLUMNS = {
    "notes": ("subject_id", "hadm_id", "text"),
    "admissions": ("subject_id", "hadm_id", "admittime"),
    "diagnoses_icd": ("subject_id", "hadm_id", "seq_num"),
    "d_icd_diagnoses": ("long_title",),
}
NAMES = "d_icd_diagnoses"


def read_mimic(
    name: str, tables: dict[str, str], encoding: Encoding, data: Path, part: Part
) -> Iterator[SourceRow | Rejected]:
    """Yields the admissions of this part, and of the first part also the lines that fit nowhere.

    Args:
        tables: glob of `notes`, and of `admissions`, `diagnoses_icd`, `d_icd_diagnoses` if given.
    """
    codes: set[str] = set()

    def lines() -> Iterator[Line | Rejected]:
        for table, columns in COLUMNS.items():
            if table in tables and table != NAMES:
                yield from read_table(name, Table(table, tables[table], columns), encoding, data)

    def see(line: Line) -> None:
        if line.table == "diagnoses_icd":
            codes.add(_code(line.values))

    names: dict[str, str] | None = None
    for found in by_patient(lines(), lambda line: needed(line, "subject_id"), part, see):
        if isinstance(found, Rejected):
            yield found
            continue
        if names is None:
            terms = Table(NAMES, tables.get(NAMES, ""), COLUMNS[NAMES])
            names = read_names(
                read_table(name, terms, encoding, data) if terms.path else (),
                _code, "long_title", codes,
            )  # fmt: skip
        yield from _admissions(found, names)


def _admissions(lines: list[Line], names: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    """The admissions of one patient; a note outside of any is a record of its own."""
    lines = sorted(lines, key=lambda line: (_visit(line), line.file, line.line))
    for visit, group in groupby(lines, key=_visit):
        tables: dict[str, list[Line]] = {}
        notes: list[Note] = []
        for line in group:
            if line.table == "notes" and field(line, "iserror") == "1":
                yield Rejected(line.file, line.line, "entered_in_error")
            elif line.table == "notes":
                if sections := note_sections(line):
                    notes.append(Note(note_time(line), line, sections))
                else:
                    yield Rejected(line.file, line.line, "no_text")
            elif not field(line, "hadm_id"):
                yield Rejected(line.file, line.line, "missing_field:hadm_id")
            else:
                tables.setdefault(line.table, []).append(line)
        notes.sort(key=lambda note: note.time)
        admission = next(iter(tables.get("admissions", [])), None)
        if not notes:
            if tables:
                place = admission or tables["diagnoses_icd"][0]
                yield Rejected(place.file, place.line, "no_note")
            continue
        first = notes[0].line
        sections = [section for note in notes for section in note.sections]
        diagnoses = sorted(tables.get("diagnoses_icd", []), key=_rank)
        left = field(admission, "dischtime") if admission else ""
        if diagnoses:
            sections.append(
                {"heading": "诊断", "text": _listed(diagnoses, names), "date": left[:10]}
            )
        arrived = field(admission, "admittime") if admission else ""
        yield visit_row(first, {
            **first.values,
            "record_id": field(first, "hadm_id") or visit,
            "patient_id": field(first, "subject_id"),
            "visit_id": field(first, "hadm_id"),
            "visit_date": (arrived or note_time(first))[:10],
            "sections": sections,
        })  # fmt: skip


def _visit(line: Line) -> str:
    visit = field(line, "hadm_id")
    if not visit and line.table == "notes":
        return "note-" + (field(line, "note_id", "row_id") or f"{line.file}:{line.line}")
    return visit


def _rank(line: Line) -> tuple[float, int]:
    rank = field(line, "seq_num")
    return (float(rank) if rank.replace(".", "", 1).isdecimal() else float("inf"), line.line)


def _code(values: dict[str, Any]) -> str:
    """Code and version; MIMIC-III has version 9 alone."""
    code = values.get("icd_code") or values.get("icd9_code") or ""
    return f"{str(code).strip()}/{values.get('icd_version') or 9}"


def _listed(diagnoses: list[Line], names: dict[str, str]) -> str:
    """`1. name（code）；2. …` as the record-to-diagnosis task reads it."""
    entries = []
    for line in diagnoses:
        code = _code(line.values)
        bare = code.rpartition("/")[0]
        name = names.get(code, "")
        if name or bare:
            entries.append(f"{name}（{bare}）" if name and bare else name or bare)
    return "；".join(f"{number}. {entry}" for number, entry in enumerate(entries, 1))
