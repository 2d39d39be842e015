"""A patient's own record beside a chat's question; medray's own."""

from pydantic import BaseModel, ConfigDict, Field

from medray.serving.schema.base import ApiError

MOST_SECTIONS = 64
MOST_RECORD_CHARS = 30_000
"""Some hundred passages, which the encoder embeds while the client waits."""


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

    def check(self) -> None:
        """Raises ApiError if it is too long."""
        size = sum(len(section.heading) + len(section.text) for section in self.sections)
        if size > MOST_RECORD_CHARS:
            raise ApiError(
                400,
                f"the record is {size} characters, more than {MOST_RECORD_CHARS}; leave out "
                "sections that the question is not about",
                code="record_too_long",
                param="record",
            )
