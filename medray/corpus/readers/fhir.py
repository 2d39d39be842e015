"""FHIR R4 bulk export. In: NDJSON of Patient, Encounter, Condition, Observation, Procedure,
DocumentReference and Composition. Out: one row of a dated `RawRecord` per encounter.

What names no encounter is gathered by day into a record of its own, so that nothing is lost and
nothing guessed. Resources of other types are passed over. Source: HL7 FHIR 4.0.1; Bulk Data 2.0.
"""

import base64
import binascii
import io
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from medray.common.formats import Encoding, decode, undecodable
from medray.common.sources import (
    Rejected,
    Source,
    SourceRow,
    dotted,
    read_file,
    source_files,
)
from medray.corpus.readers.document_files import read_pages
from medray.corpus.readers.headings import canonical, split_sections
from medray.corpus.readers.joins import Line, Part, by_patient, visit_row
from medray.corpus.readers.markup import element_text, read_xml

DATES = {
    "Encounter": ("period.start",),
    "Condition": ("recordedDate", "onsetDateTime", "onsetPeriod.start"),
    "Observation": ("effectiveDateTime", "effectivePeriod.start", "effectiveInstant", "issued"),
    "Procedure": ("performedDateTime", "performedPeriod.start"),
    "DocumentReference": ("context.period.start", "date"),
    "Composition": ("date",),
}
"""Type → where its date stands, the first that is given."""
ENCOUNTERS = ("encounter", "context.encounter.0", "context")
TYPES = {"Patient", *DATES}
VISIT = "Encounter/"


def read_fhir(
    name: str, path: str, encoding: Encoding, data: Path, part: Part
) -> Iterator[SourceRow | Rejected]:
    """Yields the encounters of this part, and of the first part also the lines that fit nowhere."""
    source = Source(name=name, kind="resource", path=path, encoding=encoding)

    def lines() -> Iterator[Line | Rejected]:
        for file in source_files(source, data):
            for row in read_file(source, file, data):
                if isinstance(row, Rejected):
                    yield row
                elif not isinstance(kind := row.values.get("resourceType"), str):
                    yield Rejected(row.file, row.line, "missing_field:resourceType")
                elif kind in TYPES:
                    yield Line(kind, row.file, row.line, row.values)

    for found in by_patient(lines(), _patient, part):
        if isinstance(found, Rejected):
            yield found
        else:
            yield from _encounters(found, encoding)


def _encounters(lines: list[Line], encoding: Encoding) -> Iterator[SourceRow | Rejected]:
    """The encounters of one patient."""
    latest: dict[tuple[str, str], Line] = {}
    for line in lines:
        key = (line.table, _text(line, "id") or f"{line.file}:{line.line}")
        older = latest.get(key)
        if older is not None and _updated(older) > _updated(line):
            older, line = line, older
        latest[key] = line
        if older is not None:
            yield Rejected(older.file, older.line, "older_version")
    patient = next((line for line in latest.values() if line.table == "Patient"), None)
    kept = []
    for line in latest.values():
        if "entered-in-error" in (_text(line, "status"), _code(line, "verificationStatus")):
            yield Rejected(line.file, line.line, "entered_in_error")
        elif line.table != "Patient":
            kept.append(line)
    kept.sort(key=lambda line: (_encounter(line), _date(line), line.file, line.line))
    for encounter, group in groupby(kept, key=_encounter):
        resources = list(group)
        stay = next((line for line in resources if line.table == "Encounter"), None)
        sections: list[dict[str, Any]] = []
        diagnoses: list[dict[str, Any]] = []
        for line in resources:
            made = _sections(line, encoding)
            if isinstance(made, str):
                yield Rejected(line.file, line.line, made)
            elif line.table == "Condition":
                diagnoses += made
            else:
                sections += made
        sections = _joined(sections, diagnoses)
        place = stay or resources[0]
        if not sections:
            if stay is not None:
                yield Rejected(stay.file, stay.line, "empty_encounter")
            continue
        header = _header(patient) if patient else ""
        if header:
            sections.insert(0, {"heading": "患者信息", "text": header})
        number = _reference(place, "subject", "patient")
        visit = encounter.removeprefix(VISIT) if encounter.startswith(VISIT) else ""
        yield visit_row(place, {
            "record_id": visit or f"{number}-{encounter}",
            "patient_id": number,
            "visit_id": visit,
            "visit_date": _date(place),
            "department": _text(stay, "serviceType.text", "serviceType.coding.0.display",
                                "type.0.text", "type.0.coding.0.display") if stay else "",
            "hospital": _text(stay, "serviceProvider.display") if stay else "",
            "sections": sections,
        })  # fmt: skip


def _sections(line: Line, encoding: Encoding) -> list[dict[str, Any]] | str:
    """What a resource adds to its encounter, or why it cannot be read."""
    date, name = _date(line), _concept(line, "code")
    if line.table == "Condition" and name:
        code = _text(line, "code.coding.0.code")
        return [{"text": f"{name}（{code}）" if code not in ("", name) else name}]
    if line.table == "Procedure" and name:
        return [{"heading": "手术操作", "text": name, "date": date}]
    if line.table == "Observation":
        is_finding = _text(line, "category.0.coding.0.code") in ("vital-signs", "exam")
        parts = [(name, _value(line, ""))]
        components = line.values.get("component")
        for k in range(len(components) if isinstance(components, list) else 0):
            parts.append((_concept(line, f"component.{k}.code"), _value(line, f"component.{k}.")))
        text = "\n".join(f"{part} {value}" for part, value in parts if part and value)
        heading = "体格检查" if is_finding else "辅助检查"
        return [{"heading": heading, "text": text, "date": date}] if text else "no_value"
    if line.table == "DocumentReference":
        return _attachments(line, encoding, date)
    if line.table == "Composition":
        return _composed(line.values, date)
    return [] if line.table == "Encounter" else "missing_field:code"


def _attachments(line: Line, encoding: Encoding, date: str) -> list[dict[str, Any]] | str:
    sections: list[dict[str, Any]] = []
    contents = line.values.get("content")
    for k in range(len(contents) if isinstance(contents, list) else 0):
        kind = _text(line, f"content.{k}.attachment.contentType").partition(";")[0].strip().lower()
        coded = _text(line, f"content.{k}.attachment.data")
        if not coded:
            return "attachment_not_inline"
        try:
            raw = base64.b64decode("".join(coded.split()), validate=True)
        except (binascii.Error, ValueError):
            return "malformed_base64"
        if kind == "application/pdf":
            read = read_pages(io.BytesIO(raw))
            if isinstance(read, str):
                return read
            text: str | None = "\n".join(filter(None, read[0]))
        elif kind in ("", "text/plain", "text/markdown"):
            text = decode(raw, encoding)[0]
        elif kind in ("text/html", "application/xhtml+xml"):
            root = read_xml(raw, encoding)
            if isinstance(root, str):
                return root
            text = element_text(root)
        else:
            return "unsupported_attachment"
        if text is None:
            return undecodable(encoding)
        title = canonical(_text(line, f"content.{k}.attachment.title", "description", "type.text",
                                "type.coding.0.display"))  # fmt: skip
        sections += [
            {**section, "heading": section["heading"] or title, "date": date}
            for section in split_sections(text, is_record=True)
        ]
    return sections or "no_text"


def _composed(values: dict[str, Any], date: str) -> list[dict[str, Any]] | str:
    """The sections of a Composition, nested ones after the one that holds them."""
    sections: list[dict[str, Any]] = []
    found = values.get("section")
    for section in found if isinstance(found, list) else []:
        if not isinstance(section, dict):
            return "invalid_field:section"
        div = dotted(section, "text.div")
        if isinstance(div, str) and div.strip():
            root = read_xml(div.encode("utf-8", "replace"))
            if isinstance(root, str):
                return "malformed_xhtml"
            code, title = dotted(section, "code.coding.0.code"), section.get("title")
            heading = canonical(str(code or ""))
            if heading == str(code or ""):
                heading = canonical(str(title or ""))
            sections.append({"heading": heading, "text": element_text(root), "date": date})
        if section.get("section"):
            nested = _composed(section, date)
            if isinstance(nested, str):
                return nested
            sections += nested
    return sections or "no_text"


def _joined(
    sections: list[dict[str, Any]], diagnoses: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Results, findings and operations as one section a day, diagnoses as one list at the end."""
    rest: dict[Any, dict[str, Any]] = {}
    for number, section in enumerate(sections):
        is_list = section["heading"] in ("辅助检查", "体格检查", "手术操作")
        key = (section["heading"], section["date"]) if is_list else number
        if key in rest:
            section = {**section, "text": f"{rest[key]['text']}\n{section['text']}"}
        rest[key] = section
    made = [section for section in rest.values() if section["text"].strip()]
    if diagnoses:
        unique = enumerate(dict.fromkeys(section["text"] for section in diagnoses), 1)
        made.append({"heading": "诊断", "text": "；".join(f"{n}. {text}" for n, text in unique)})
    return made


def _header(patient: Line) -> str:
    """What names the patient, to be looked for in every section before it is dropped."""
    given = dotted(patient.values, "name.0.given")
    name = _text(patient, "name.0.text") or " ".join(
        filter(None, [*(map(str, given) if isinstance(given, list) else ()),
                      _text(patient, "name.0.family")]))  # fmt: skip
    address = _text(patient, "address.0.text") or "".join(
        _text(patient, f"address.0.{part}") for part in ("state", "city", "line.0"))  # fmt: skip
    numbers = patient.values.get("telecom")
    phones = [_text(patient, f"telecom.{k}.value") for k in range(
        len(numbers) if isinstance(numbers, list) else 0)]  # fmt: skip
    named = [("姓名", name), *(("电话", phone) for phone in phones), ("住址", address)]
    identifiers = patient.values.get("identifier")
    for k in range(len(identifiers) if isinstance(identifiers, list) else 0):
        named.append(("病历号", _text(patient, f"identifier.{k}.value")))
    return "，".join(f"{label}：{value}" for label, value in named if value)


def _value(line: Line, prefix: str) -> str:
    """An observed value with its unit."""
    quantity = _text(line, f"{prefix}valueQuantity.value")
    if quantity:
        unit = _text(line, f"{prefix}valueQuantity.unit", f"{prefix}valueQuantity.code")
        return f"{quantity} {unit}".strip()
    return _concept(line, f"{prefix}valueCodeableConcept") or _text(
        line, *(f"{prefix}value{kind}" for kind in ("String", "Integer", "Boolean", "DateTime"))
    )


def _patient(line: Line) -> str | Rejected:
    found = _text(line, "id") if line.table == "Patient" else _reference(line, "subject", "patient")
    missing = "id" if line.table == "Patient" else "subject"
    return found or Rejected(line.file, line.line, f"missing_field:{missing}")


def _encounter(line: Line) -> str:
    """`Encounter/ID`, or the day of what names none."""
    number = _text(line, "id") if line.table == "Encounter" else _reference(line, *ENCOUNTERS)
    return f"{VISIT}{number}" if number else _date(line) or "undated"


def _reference(line: Line, *keys: str) -> str:
    """The id a reference points to: of `Patient/1`, an absolute URL or `urn:uuid:…`."""
    found = _text(line, *(f"{key}.reference" for key in keys)).partition("/_history")[0]
    return found.rpartition("/")[2].removeprefix("urn:uuid:")


def _concept(line: Line, key: str) -> str:
    return _text(line, f"{key}.text", f"{key}.coding.0.display", f"{key}.coding.0.code")


def _code(line: Line, key: str) -> str:
    return _text(line, f"{key}.coding.0.code")


def _date(line: Line) -> str:
    return _text(line, *DATES[line.table])[:10]


def _updated(line: Line) -> str:
    return _text(line, "meta.lastUpdated")


def _text(line: Line, *keys: str) -> str:
    """The first of these dotted keys that holds a text, a number or a truth value."""
    for key in keys:
        value = dotted(line.values, key)
        if isinstance(value, str | int | float) and str(value).strip():
            return str(value).strip()
    return ""
