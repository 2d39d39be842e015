"""Task files as a hospital or a public set delivers them, one row model per kind of source.

In: mapped rows of `medray.common.sources`. Out: `TaskSource`s and validated rows. Columns that a
model does not name are ignored, so a public set needs a mapping for the renamed ones only.
"""

from typing import Literal

from pydantic import ConfigDict, Field

from medray.common.records import Row
from medray.common.sources import Source

TaskKind = Literal[
    "triple", "exam", "dialogue", "consultation", "score", "preference",
    "scenario", "question", "grounded", "quality_label", "instruction",
]  # fmt: skip
Given = Literal["train", "dev"]
Text = Field(min_length=1)


class TaskSource(Source):
    """One task file of the hospital and what it holds."""

    kind: TaskKind  # pyright: ignore[reportIncompatibleVariableOverride]


class RawRow(Row):
    """Base of raw task rows. May hold PHI in its free text: never written as it is."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class Turn(RawRow):
    """One utterance of a consultation."""

    role: Literal["patient", "doctor"]
    text: str = Text


class Triple(RawRow):
    """One edge of a knowledge graph."""

    head: str = Text
    relation: str = Text
    tail: str = Text


class Exam(RawRow):
    """A multiple-choice question; `answer` holds the letters of all right options."""

    id: str = Text
    question: str = Text
    options: dict[str, str] = Field(min_length=2)
    answer: str = Text
    subject: str = ""
    split: Given | None = None


class Dialogue(RawRow):
    """A consultation of several turns."""

    id: str = Text
    turns: list[Turn] = Field(min_length=2)
    department: str | None = None
    diagnosis: str | None = None
    split: Given | None = None


class ScenarioRow(RawRow):
    """What a patient or colleague asks; the prompt of every kind of answer."""

    id: str = Text
    scenario: str = Text
    split: Given | None = None


class Consultation(ScenarioRow):
    """A patient's scenario and an answer, as found on the web or in the hospital's portal."""

    response: str = Text
    department: str | None = None


class Score(ScenarioRow):
    """An expert's score of a response, on the scale that the configuration declares."""

    response: str = Text
    score: float


class Preference(ScenarioRow):
    """Two responses to a scenario, each a text or a whole consultation."""

    chosen: str | list[Turn] = Text
    rejected: str | list[Turn] = Text


class Question(RawRow):
    """A question and where its answer lies: one section of a document, or whole documents."""

    id: str = Text
    question: str = Text
    doc_id: str | None = None
    section: str | None = None
    doc_ids: list[str] = Field(default_factory=list)
    split: Given | None = None


class RawPassage(RawRow):
    """A passage as shown to the model."""

    title: str
    text: str = Text


class Grounded(RawRow):
    """A question over passages; `gold` is the index of the one that answers, `quote` its clause."""

    id: str = Text
    question: str = Text
    passages: list[RawPassage] = Field(min_length=1)
    quote: str | None = None
    gold: int | None = None
    split: Given | None = None


class Evidence(RawRow):
    """Where a verdict stands: sentence `sentence` (from 0) of the section under `section`."""

    section: str = Text
    sentence: int = Field(ge=0)


class QualityLabels(RawRow):
    """Quality control's verdicts on one record for one indicator; null = not mentioned."""

    record_id: str = Text
    indicator: str = Text
    tasks: dict[str, bool | None]
    populations: dict[str, bool | None] = Field(default_factory=dict)
    evidence: dict[str, Evidence | None] = Field(default_factory=dict)
    split: Given | None = None


class Generic(RawRow):
    """An instruction of the Alpaca form."""

    id: str = Text
    instruction: str = Text
    input: str | None = None
    output: str = Text
    department: str | None = None
    split: Given | None = None


ROW_TYPES: dict[TaskKind, type[RawRow]] = {
    "triple": Triple,
    "exam": Exam,
    "dialogue": Dialogue,
    "consultation": Consultation,
    "score": Score,
    "preference": Preference,
    "scenario": ScenarioRow,
    "question": Question,
    "grounded": Grounded,
    "quality_label": QualityLabels,
    "instruction": Generic,
}
