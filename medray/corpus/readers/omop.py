"""OMOP CDM notes. In: NOTE and the tables of visits, conditions and measurements. Out: one row of a
`RawRecord` per visit, its notes in the order of their time.

Source: OHDSI Common Data Model 5.4; vocabulary files as Athena delivers them.
"""

from collections.abc import Iterable, Iterator
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
from medray.corpus.readers.notes import Note, note_sections

COLUMNS = {
    "notes": ("person_id", "note_id", "note_date", "note_text"),
    "visit_occurrence": ("person_id", "visit_occurrence_id", "visit_start_date"),
    "condition_occurrence": ("person_id", "visit_occurrence_id", "condition_concept_id"),
    "measurement": ("person_id", "visit_occurrence_id", "measurement_concept_id"),
    "concept": ("concept_id", "concept_name"),
}
CONCEPT_COLUMNS = ("condition_concept_id", "measurement_concept_id", "value_as_concept_id",
                   "unit_concept_id")  # fmt: skip


def read_omop(
    name: str, tables: dict[str, str], encoding: Encoding, data: Path, part: Part
) -> Iterator[SourceRow | Rejected]:
    """Yields the visits of this part, and of the first part also the lines that fit nowhere.

    Args:
        tables: glob of `notes`, and of `visit_occurrence`, `condition_occurrence`, `measurement`,
            `concept` if given.
    """
    ids: set[str] = set()

    def lines() -> Iterator[Line | Rejected]:
        for table, columns in COLUMNS.items():
            if table in tables and table != "concept":
                yield from read_table(name, Table(table, tables[table], columns), encoding, data)

    def see(line: Line) -> None:
        ids.update(filter(None, (field(line, column) for column in CONCEPT_COLUMNS)))

    names: dict[str, str] | None = None
    for found in by_patient(lines(), lambda line: needed(line, "person_id"), part, see):
        if isinstance(found, Rejected):
            yield found
            continue
        if names is None:
            concepts = Table("concept", tables.get("concept", ""), COLUMNS["concept"])
            names = read_names(
                read_table(name, concepts, encoding, data) if concepts.path else (),
                lambda values: str(values["concept_id"]), "concept_name", ids - {"0"},
            )  # fmt: skip
        yield from _visits(found, names)


def _visits(lines: list[Line], names: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    """The visits of one person; a note outside of any is a record of its own.

    Conditions and measurements outside of any visit are rejected: no record is theirs.
    """
    lines = sorted(lines, key=lambda line: (_visit(line), line.file, line.line))
    for visit, group in groupby(lines, key=_visit):
        tables: dict[str, list[Line]] = {}
        notes: list[Note] = []
        for line in group:
            if line.table == "notes":
                if sections := note_sections(line):
                    time = field(line, "note_datetime", "note_date")
                    notes.append(Note(time, line, sections))
                else:
                    yield Rejected(line.file, line.line, "no_text")
            elif not visit:
                yield Rejected(line.file, line.line, "missing_field:visit_occurrence_id")
            else:
                tables.setdefault(line.table, []).append(line)
        notes.sort(key=lambda note: note.time)
        stay = next(iter(tables.get("visit_occurrence", [])), None)
        if not notes:
            if tables:
                place = stay or next(iter(tables.values()))[0]
                yield Rejected(place.file, place.line, "no_note")
            continue
        first = notes[0].line
        sections = [section for note in notes for section in note.sections]
        sections += _measured(tables.get("measurement", []), names)
        sections += _diagnosed(tables.get("condition_occurrence", []), names)
        yield visit_row(first, {
            **first.values,
            "record_id": field(first, "visit_occurrence_id") or visit,
            "patient_id": field(first, "person_id"),
            "visit_id": field(first, "visit_occurrence_id"),
            "visit_date": field(stay, "visit_start_date") if stay else field(first, "note_date"),
            "sections": sections,
        })  # fmt: skip


def _measured(lines: Iterable[Line], names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A section 辅助检查 for each day: `name value unit`, one a line."""
    dated = sorted(lines, key=lambda line: (field(line, "measurement_date"), line.line))
    for day, group in groupby(dated, key=lambda line: field(line, "measurement_date")):
        texts = []
        for line in group:
            name = _name(line, names, "measurement_concept_id", "measurement_source_value")
            number = field(line, "value_as_number")
            value = number or _name(line, names, "value_as_concept_id", "value_source_value")
            unit = _name(line, names, "unit_concept_id", "unit_source_value") if number else ""
            if name and value:
                texts.append(f"{name} {value}{f' {unit}' if unit else ''}")
        if texts:
            yield {"heading": "辅助检查", "text": "\n".join(texts), "date": day}


def _diagnosed(lines: Iterable[Line], names: dict[str, str]) -> Iterator[dict[str, Any]]:
    dated = sorted(lines, key=lambda line: (field(line, "condition_start_date"), line.line))
    named = [_name(x, names, "condition_concept_id", "condition_source_value") for x in dated]
    entries = list(dict.fromkeys(filter(None, named)))
    if entries:
        text = "；".join(f"{number}. {entry}" for number, entry in enumerate(entries, 1))
        yield {"heading": "诊断", "text": text, "date": field(dated[0], "condition_start_date")}


def _name(line: Line, names: dict[str, str], concept: str, source: str) -> str:
    """The name of a concept; where it has none (0 is no concept), what the hospital wrote."""
    return names.get(field(line, concept), "") or field(line, source)


def _visit(line: Line) -> str:
    visit = field(line, "visit_occurrence_id")
    if not visit and line.table == "notes":
        return "note-" + (field(line, "note_id") or f"{line.file}:{line.line}")
    return visit
