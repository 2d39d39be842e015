"""Notes of a visit, as MIMIC and OMOP keep them: one line of a table each."""

from typing import Any, NamedTuple

from medray.corpus.readers.headings import split_sections
from medray.corpus.readers.joins import Line, field


class Note(NamedTuple):
    """A note that says something."""

    time: str
    line: Line
    sections: list[dict[str, Any]]


def note_sections(note: Line) -> list[dict[str, Any]]:
    """A note's sections; what stands under no heading is headed by the note's category."""
    kind = field(note, "category", "description", "note_title")
    return [
        {**section, "heading": section["heading"] or kind, "date": note_time(note)[:10]}
        for section in split_sections(field(note, "text", "note_text"), is_record=True)
    ]


def note_time(line: Line) -> str:
    """When a note was written, to the second where that is said."""
    return field(line, "charttime", "chartdate", "note_datetime", "note_date")
