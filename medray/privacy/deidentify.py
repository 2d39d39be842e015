"""De-identification. In: `RawRecord`, `RawDocument`. Out: `Document`, and labels of what was
replaced.

The types are the guard: whatever comes later takes a `Document`, and only this file makes one.
Names and numbers of the record's header are looked for in all its sections before the header is
dropped. Source: EVALUATION.md 4, [MedFM 5] de-identified data.
"""

import re
from collections import Counter
from typing import NamedTuple

from medray.common.records import Document, RawDocument, RawRecord, Section
from medray.common.split import split_of
from medray.privacy.dates import shift_date
from medray.privacy.recognise import FOLD, PhiClass, Span, find_phi, known_strings
from medray.privacy.surrogates import Surrogates

HEADER_SECTIONS = frozenset({"患者信息", "病人信息", "基本信息", "个人信息", "患者基本信息"})


class Label(NamedTuple):
    """One replacement: the surrogate is the document's sections[section] at [start:end].

    Raw text: it may leave the process only in an audit file (`medray.privacy.audit`).
    """

    section: int
    """Index among the document's sections; -1 is the department."""
    field: str
    """heading, text or department."""
    start: int
    end: int
    phi_class: PhiClass
    original: str

    def __repr__(self) -> str:
        return f"Label({self.section}, {self.field}, {self.start}, {self.end}, {self.phi_class})"


def count_phi(labels: list[Label]) -> dict[str, int]:
    """How many spans of each class were replaced."""
    return dict(Counter(label.phi_class for label in labels))


MOVED = re.compile(r"2[1-9]\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")
"""A date that the source has moved, as MIMIC does; it keeps its distance to those in the text."""


def deidentify(
    record: RawRecord, source: str, surrogates: Surrogates, dev_fraction: float
) -> tuple[Document, list[Label]]:
    """Returns the record without PHI, and a label of every span that was replaced.

    The split follows the patient, so that nobody stands on both sides. `hospital`, `visit_id`,
    header sections and empty ones are left out; a date that cannot be read is left out too.
    """
    patient, visit = record.patient_id, record.visit_date
    known = known_strings(map(_line, record.sections))
    if len(record.hospital) >= 4:
        known.setdefault(record.hospital, "HOSPITAL")
    for number in (patient, record.visit_id):
        if len(number) >= 6:
            known.setdefault(number, "MRN")
    labels: list[Label] = []

    def scrub(text: str, spans: list[Span], section: int, field: str) -> str:
        text, replaced = _replace(text, spans, surrogates, patient, visit)
        labels.extend(Label(section, field, *found) for found in replaced)
        return text

    def scrub_section(section: Section, index: int) -> Section:
        # Read as one line: a heading can be the label of what stands below it (联系人).
        spans, text_at = find_phi(_line(section), known), len(section.heading) + 1
        return Section(
            heading=scrub(section.heading, _cut(spans, 0, text_at - 1), index, "heading"),
            text=scrub(section.text, _cut(spans, text_at, len(_line(section))), index, "text"),
            date=_moved(section.date, offset),
        )

    offset = surrogates.offset_days(patient)
    kept = [
        s for s in record.sections if s.heading.strip() not in HEADER_SECTIONS and s.text.strip()
    ]
    return Document(
        doc_id=record.record_id,
        patient_id=surrogates.patient_id(patient),
        kind="emr",
        department=scrub(record.department, find_phi(record.department, known), -1, "department"),
        date=_moved(visit, offset),
        source=source,
        sections=[scrub_section(section, index) for index, section in enumerate(kept)],
        split=record.split or split_of(patient, dev_fraction),
    ), labels


def _line(section: Section) -> str:
    return f"{section.heading}：{section.text}"


def _cut(spans: list[Span], start: int, end: int) -> list[Span]:
    """What of the spans lies in [start:end], counted from start."""
    inside = [s for s in spans if s.start < end and s.end > start]
    return [Span(max(s.start, start) - start, min(s.end, end) - start, s.label) for s in inside]


def _replace(
    text: str, spans: list[Span], surrogates: Surrogates, patient_id: str, visit_date: str
) -> tuple[str, list[tuple[int, int, PhiClass, str]]]:
    """Returns `text` with surrogates, and (start, end, class, original) of each in the new text."""
    pieces: list[str] = []
    replaced: list[tuple[int, int, PhiClass, str]] = []
    at = length = 0
    before = ""
    for start, end, label in spans:
        value = text[start:end].translate(FOLD)
        surrogate = surrogates.replace(label, value, patient_id, visit_date, before)
        if label == "DATE":
            before = value
        pieces += [text[at:start], surrogate]
        length += start - at
        replaced.append((length, length + len(surrogate), label, text[start:end]))
        length += len(surrogate)
        at = end
    return "".join([*pieces, text[at:]]), replaced


def published(document: RawDocument, source: str, dev_fraction: float) -> Document:
    """A published text as a `Document`: literature, guidelines and encyclopaedias hold no patients.

    Authors' names stay. Reports of cases that the hospital itself wrote belong in a record source.
    """
    return Document(
        doc_id=document.doc_id,
        kind=document.kind,
        title=document.title,
        department=document.department,
        date=document.date,
        superseded_by=document.superseded_by or "",
        source=source,
        sections=document.sections,
        split=document.split or split_of(document.doc_id, dev_fraction),
    )


def _moved(date: str, offset_days: int) -> str:
    day = date.strip()[:10].strip()
    if MOVED.fullmatch(day):
        return day
    moved = shift_date(day, offset_days) if day else ""
    return "" if moved == "[日期]" else moved
