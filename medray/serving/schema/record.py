"""A patient's own record beside a chat's question; medray's own."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from medray.serving.schema.base import ApiError

MOST_SECTIONS = 64
MOST_RECORD_CHARS = 30_000
"""Some hundred passages, which the encoder embeds while the client waits."""
MOST_FILE_CHARS = 10 * MOST_RECORD_CHARS
"""Of a file whose sections a reader chooses from."""


class RecordSection(BaseModel):
    """A headed part of the record."""

    model_config = ConfigDict(extra="forbid", strict=True)

    heading: str = Field(default="", max_length=100)
    text: str = Field(pattern=r"\S")
    date: str = Field(default="", max_length=32)


class PatientRecord(BaseModel):
    """What is known of the patient who is asked about. It is read for one answer and then gone."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    sections: list[RecordSection] = Field(min_length=1, max_length=MOST_SECTIONS)
    patient_id: str = Field(default="", max_length=256)
    """As the corpus has it, a surrogate: passages of the index that stem from this patient are not
    shown beside the record."""

    def num_chars(self) -> int:
        """How long it is, headings with it."""
        return sum(len(section.heading) + len(section.text) for section in self.sections)

    def check(self) -> None:
        """Raises ApiError if it is too long."""
        size = self.num_chars()
        if size > MOST_RECORD_CHARS:
            raise ApiError(
                400,
                f"the record is {size} characters, more than {MOST_RECORD_CHARS}; leave out "
                "sections that the question is not about",
                code="record_too_long",
                param="record",
            )


class AbnormalResult(BaseModel):
    """A value outside of the range that the record prints beside it, or marked there."""

    section: int
    """Index into the record's sections."""
    start: int
    """Offset in the section's text, in code points."""
    end: int
    direction: Literal["high", "low"]


class RecordFile(BaseModel):
    """POST /v1/record: what a file holds, to look at before it is sent with a question."""

    object: Literal["record"] = "record"
    encoding: Literal["utf-8", "gbk"]
    record: PatientRecord
    """As a chat's `record` takes it, once it is no longer than `max_chars`."""
    num_chars: int
    max_chars: int
    abnormal: list[AbnormalResult]
