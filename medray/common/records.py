"""The rows that packages hand to each other on disk, as strict row models.

Raw rows (`RawRecord`, `RawDocument`) may hold patient identifiers; they exist only before
`medray.corpus` has de-identified them. Every later type is built from de-identified text.
Source: [EMR-LLM 1.2-1.5] for the kinds of text, DESIGN.md 2 for who owns which.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["emr", "encyclopaedic", "guideline", "literature", "case_report"]


class Row(BaseModel):
    """Base of row models: unknown fields are refused, empty strings must be said."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Section(Row):
    """One headed part of a record or document."""

    heading: str
    text: str
    date: str = ""


class RawRecord(Row):
    """One visit as the hospital exported it. May hold PHI: never leaves `corpus` and `privacy`."""

    record_id: str = Field(min_length=1)
    patient_id: str = Field(min_length=1)
    visit_id: str = ""
    hospital: str = ""
    department: str = ""
    visit_date: str = ""
    sections: list[Section] = Field(min_length=1)
    split: Literal["train", "dev"] | None = None


class RawDocument(Row):
    """One text of the literature, guidelines or an encyclopaedia."""

    doc_id: str = Field(min_length=1)
    title: str = ""
    kind: Kind = "literature"
    department: str = ""
    date: str = ""
    superseded_by: str | None = None
    sections: list[Section] = Field(min_length=1)
    split: Literal["train", "dev"] | None = None


class Document(Row):
    """A de-identified record or document, ready for training and retrieval."""

    doc_id: str
    patient_id: str = ""
    """Surrogate, never the hospital's number; empty for literature."""
    kind: Kind
    title: str = ""
    department: str = ""
    date: str = ""
    superseded_by: str = ""
    source: str
    sections: list[Section]
    split: Literal["train", "dev"]
    general: bool = False
    """Not medical: for replay in training."""


class Passage(Row):
    """A piece of knowledge that retrieval can return; `text` = document section [start:end]."""

    passage_id: str
    doc_id: str
    start: int
    end: int
    section: str
    title: str
    text: str
    kind: Kind
    date: str = ""
    source: str = ""
    department: str = ""
    patient_id: str = ""
    """Of a case report or a record, the surrogate of its patient."""
    superseded_by: str = ""
    """`doc_id` of the document that replaces its own."""


class Message(Row):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Instruction(Row):
    """One fine-tuning example; the loss falls on the assistant's turns only."""

    id: str
    task: str
    messages: list[Message]
    split: Literal["train", "dev"]
    answer: str = ""
    """What an evaluation compares with (a diagnosis name), where it differs from the last turn."""
    group: str = ""
    """Department or category for a breakdown of results."""
    doc_id: str = ""
    """The record it was made from, by which an erasure finds it; empty for other sources."""
    partial: int = 0
    """Which copy of the record with findings left out; 0 is the whole record."""
    shared_chars: int = 0
    """The first so many characters of the first message stand before every question of the row,
    and no turn sees another: k questions on one text, asked each by itself. 0: a chat."""


class ScoredResponse(Row):
    """An expert's score of a response to a scenario, scaled to 0-1 [EMR-LLM 1.4]."""

    id: str
    scenario: str
    response: str
    score: float = Field(ge=0, le=1)
    split: Literal["train", "dev"]


class PreferencePair(Row):
    """Two responses to a prompt, the better one first [ClinicalGPT 2.3]."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    split: Literal["train", "dev"]


class Scenario(Row):
    """A prompt for reinforcement learning [EMR-LLM 1.4]."""

    id: str
    prompt: str
    split: Literal["train", "dev"]


class RetrievalQuestion(Row):
    """A question and the passages that answer it."""

    id: str
    question: str
    passage_ids: list[str] = Field(min_length=1)
    split: Literal["train", "dev"]


class ExamQuestion(Row):
    """A multiple-choice question; `answer` holds the letters of all right options."""

    id: str
    question: str
    options: dict[str, str] = Field(min_length=2)
    answer: str = Field(min_length=1)
    subject: str = ""
    split: Literal["train", "dev"]
