"""A patient's record from a file that a reader brings: its sections, and its abnormal results.

In: bytes of a text file, UTF-8 or GBK, of free text or of JSON as a chat's `record` has it. Out:
sections as that `record` takes them. Nothing of it is kept.
"""

import codecs
import json
from typing import Literal

from pydantic import ValidationError

from medray.corpus.readers.headings import split_sections
from medray.serving.record.abnormal import abnormal_values
from medray.serving.schema.base import ApiError
from medray.serving.schema.record import (
    MOST_FILE_CHARS,
    MOST_RECORD_CHARS,
    MOST_SECTIONS,
    AbnormalResult,
    PatientRecord,
    RecordFile,
    RecordSection,
)

MIN_COMMON_FRACTION = 0.9
"""Any other encoding's bytes often decode as GBK, into characters that nobody writes: at least so
many must be of GB 2312. Names and old words are the rest. Source: not given; chosen because Big5
and Shift JIS lie far below."""


def read_record(raw: bytes) -> RecordFile:
    """The record that a file holds; one that is too long for a chat too, for parts to be left out.

    Raises:
        ApiError: 400 if it is no text, in neither encoding, or JSON that is no record.
    """
    text, encoding = decode(raw)
    record = _from_json(text) if text.lstrip().startswith("{") else _from_text(text)
    num_chars = record.num_chars()
    if num_chars > MOST_FILE_CHARS:
        raise _refused(
            f"the file holds {num_chars} characters, more than {MOST_FILE_CHARS}; bring the part "
            "of the record that the question is about", "record_too_long",
        )  # fmt: skip
    abnormal = [
        AbnormalResult(section=number, start=start, end=end, direction=direction)
        for number, section in enumerate(record.sections)
        for start, end, direction in abnormal_values(section.text)
    ]
    return RecordFile(
        encoding=encoding, record=record, num_chars=num_chars, max_chars=MOST_RECORD_CHARS,
        abnormal=abnormal,
    )  # fmt: skip


def decode(raw: bytes) -> tuple[str, Literal["utf-8", "gbk"]]:
    """A file's text and what it is encoded in.

    Raises:
        ApiError: 400 if it is neither, or no text at all.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _refused("the file is UTF-16 text; save it as UTF-8", "encoding")
    encoding: Literal["utf-8", "gbk"] = "utf-8"
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = "gbk"
        text = _decode_gbk(raw)
    if any(ord(c) < 32 and c not in "\t\n\r\f\v" for c in text):
        raise _refused("the file is no text; bring a .txt or .json file", "no_text")
    if not text.strip():
        raise _refused("the file is empty", "no_text")
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _decode_gbk(raw: bytes) -> str:
    refused = _refused(
        "the file is neither UTF-8 nor GBK text; save it as UTF-8 text (.txt) or JSON", "encoding"
    )
    try:
        text = raw.decode("gb18030")  # GBK and what was added to it
    except UnicodeDecodeError:
        raise refused from None
    foreign = [c for c in text if ord(c) > 127]
    common = sum(_is_common(c) for c in foreign)
    if common < MIN_COMMON_FRACTION * len(foreign):
        raise refused
    return text


def _is_common(character: str) -> bool:
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def _from_json(text: str) -> PatientRecord:
    try:
        return PatientRecord.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise _refused(
            f"the file begins as JSON and is none: {error.msg} in line {error.lineno}", "no_json"
        ) from None
    except RecursionError:
        raise _refused("the file's JSON is too deep", "no_json") from None
    except ValidationError as error:
        # Not the names of unknown fields: they are the file's own words.
        faults = {
            ".".join(map(str, e["loc"][:-1] if e["type"] == "extra_forbidden" else e["loc"])): e
            for e in error.errors()
        }
        told = "; ".join(f"{place or 'record'}: {e['msg']}" for place, e in faults.items())
        raise _refused(
            f"the JSON is no record, {told}; expected "
            '{"sections": [{"heading": …, "text": …, "date": …}]}', "no_record",
        ) from None  # fmt: skip


def _from_text(text: str) -> PatientRecord:
    found = split_sections(text, is_record=True)
    if len(found) > MOST_SECTIONS:
        found, rest = found[: MOST_SECTIONS - 1], found[MOST_SECTIONS - 1 :]
        body = "\n".join(f"{section['heading']}\n{section['text']}".strip() for section in rest)
        found.append({"heading": "", "text": body})
    if not found:
        raise _refused("the file holds headings and no text", "no_text")
    return PatientRecord(sections=[RecordSection(**section) for section in found])


def _refused(message: str, code: str) -> ApiError:
    return ApiError(400, message, code=code)
