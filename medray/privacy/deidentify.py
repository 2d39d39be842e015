"""De-identification. In: `RawRecord`, `RawDocument`. Out: `Document`, and PHI found by class.

The types are the guard: whatever comes later takes a `Document`, and only this file makes one.
Names and numbers of the record's header are looked for in all its sections before the header is
dropped. Source: EVALUATION.md 4, [MedFM 5] de-identified data.
"""

from collections import Counter

from medray.common.records import Document, RawDocument, RawRecord, Section
from medray.common.split import split_of
from medray.privacy.recognise import FOLD, PhiClass, find_phi, known_strings
from medray.privacy.surrogates import Surrogates, shift_date

HEADER_SECTIONS = frozenset({"患者信息", "病人信息", "基本信息", "个人信息", "患者基本信息"})


def deidentify(
    record: RawRecord, source: str, surrogates: Surrogates, dev_fraction: float
) -> tuple[Document, Counter[PhiClass]]:
    """Returns the record without PHI, and how many spans of each class were replaced.

    The split follows the patient, so that nobody stands on both sides. `hospital`, `visit_id` and
    header sections are left out; a date that cannot be read is left out too.
    """
    patient, visit = record.patient_id, record.visit_date
    known = known_strings(f"{s.heading}：{s.text}" for s in record.sections)
    if len(record.hospital) >= 4:
        known.setdefault(record.hospital, "HOSPITAL")
    for number in (patient, record.visit_id):
        if len(number) >= 6:
            known.setdefault(number, "MRN")
    counts: Counter[PhiClass] = Counter()

    def scrub(text: str) -> str:
        return replace_phi(text, known, surrogates, patient, visit, counts)

    offset = surrogates.offset_days(patient)
    return Document(
        doc_id=record.record_id,
        patient_id=surrogates.patient_id(patient),
        kind="emr",
        department=scrub(record.department),
        date=_moved(visit, offset),
        source=source,
        sections=[
            Section(
                heading=scrub(section.heading),
                text=scrub(section.text),
                date=_moved(section.date, offset),
            )
            for section in record.sections
            if section.heading.strip() not in HEADER_SECTIONS
        ],
        split=record.split or split_of(patient, dev_fraction),
    ), counts


def replace_phi(
    text: str,
    known: dict[str, PhiClass],
    surrogates: Surrogates,
    patient_id: str,
    visit_date: str = "",
    counts: Counter[PhiClass] | None = None,
) -> str:
    """Returns `text` with surrogates; for free text without a record pass {} and any stable id."""
    pieces, at = [], 0
    for start, end, label in find_phi(text, known):
        value = text[start:end].translate(FOLD)
        pieces += [text[at:start], surrogates.replace(label, value, patient_id, visit_date)]
        at = end
        if counts is not None:
            counts[label] += 1
    return "".join([*pieces, text[at:]])


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
    moved = shift_date(date.strip()[:10].strip(), offset_days) if date.strip() else ""
    return "" if moved == "[日期]" else moved
