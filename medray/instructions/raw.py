"""Task files as a hospital or a public set delivers them, one row model per kind of source.

In: mapped rows of `medray.common.sources`. Out: `TaskSource`s and validated rows. Columns that a
model does not name are ignored, so a public set needs a mapping for the renamed ones only.
"""

import re
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from medray.common.config import Config
from medray.common.records import Row
from medray.common.sources import Source

TaskKind = Literal[
    "triple", "exam", "dialogue", "consultation", "score", "preference",
    "scenario", "question", "grounded", "quality_label", "instruction", "labelled",
]  # fmt: skip
Given = Literal["train", "dev"]
Text = Field(min_length=1)


SPEAKERS = {
    **dict.fromkeys(("patient", "human", "user", "患者", "病人"), "patient"),
    **dict.fromkeys(("doctor", "gpt", "assistant", "医生", "大夫"), "doctor"),
}
OPTION = re.compile(r"^[ \t]*([A-Z])[ \t]*[.．、:：)）\s][ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
UTTERANCE = re.compile(r"\s*(\w+)\s*[:：]\s*(.*)", re.DOTALL)


class AnswerTable(Config):
    """Answers in a file of their own, many a question, as cMedQA2 has them."""

    path: str
    """Glob of the answers, relative to the data directory."""
    question: str = "question_id"
    """Column with the id of the question, in both files."""
    text: str = "content"
    """Column with the answer."""


class TaskSource(Source):
    """One task file of the hospital and what it holds."""

    kind: TaskKind  # pyright: ignore[reportIncompatibleVariableOverride]
    relations: dict[str, str] = Field(default_factory=dict)
    """For triples of one entity a line, with a list of tails a key (CMeKG, xywy, 39Health): key →
    relation. `fields` names the head; a tail that is a text is cut at 、 ， , ； ; and |."""
    task: str = ""
    """For labelled texts: the task, a name in labelled.yaml (named_entities, icd_coding, ...)."""
    choices: tuple[str, ...] = ()
    """For labelled texts: the labels that there are, for wordings that name them."""
    answers: AnswerTable | None = None
    """For consultations: where the answers stand. Each question gets one of its answers, chosen by
    the seed. Source: [ClinicalGPT 2.1] cMedQA2."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.relations and self.kind != "triple":
            raise ValueError("relations belong to a source of kind triple")
        if (self.kind == "labelled") != bool(self.task):
            raise ValueError("a source of kind labelled needs a task, and no other kind has one")
        if self.answers and self.kind != "consultation":
            raise ValueError("answers belong to a source of kind consultation")
        if self.answers:
            self._relative(self.answers.path)
        return self


class RawRow(Row):
    """Base of raw task rows. May hold PHI in its free text: never written as it is."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class Turn(RawRow):
    """One utterance of a consultation, in the words of any of the usual sets: {role, text},
    {from, value} of ShareGPT, {role, content} of OpenAI, or `病人：…` of MedDialog."""

    role: Literal["patient", "doctor"]
    text: str = Text

    @model_validator(mode="before")
    @classmethod
    def _usual_forms(cls, turn: Any) -> Any:
        if isinstance(turn, str) and (spoken := UTTERANCE.fullmatch(turn)):
            turn = {"role": spoken[1], "text": spoken[2].strip()}
        if not isinstance(turn, dict):
            return turn
        role = turn.get("role", turn.get("from", turn.get("speaker")))
        text = next((turn[k] for k in ("text", "value", "content", "utterance") if k in turn), None)
        return {"role": SPEAKERS.get(str(role).strip().lower(), role), "text": text}


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

    @field_validator("options", mode="before")
    @classmethod
    def _usual_forms(cls, options: Any) -> Any:
        """Also `A 甲\\nB 乙` and [{key, value}] of CMExam, a plain list, and blank options."""
        if isinstance(options, str):
            options = dict(OPTION.findall(options))
        elif isinstance(options, list):
            options = {
                str(o.get("key")) if isinstance(o, dict) else chr(ord("A") + k): o.get("value")
                if isinstance(o, dict) else o
                for k, o in enumerate(options)
            }  # fmt: skip
        if isinstance(options, dict):
            return {letter: text for letter, text in options.items() if text not in (None, "")}
        return options


class Dialogue(RawRow):
    """A consultation of several turns."""

    id: str = Text
    turns: list[Turn] = Field(min_length=2)
    department: str | None = None
    diagnosis: str | None = None
    split: Given | None = None

    @field_validator("turns", mode="before")
    @classmethod
    def _usual_forms(cls, turns: Any) -> Any:
        """Also {speaker: […], utterance: […]} of MedDialog; system turns are left out."""
        if isinstance(turns, dict) and {"speaker", "utterance"} <= turns.keys():
            columns = turns["speaker"], turns["utterance"]
            if not all(isinstance(c, list) for c in columns) or len(columns[0]) != len(columns[1]):
                return turns
            turns = [{"role": r, "text": t} for r, t in zip(*columns, strict=True)]
        if isinstance(turns, list):
            return [
                turn
                for turn in turns
                if not (isinstance(turn, dict) and "system" in (turn.get("from"), turn.get("role")))
            ]
        return turns


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


class Labelled(RawRow):
    """A text and what is to be said of it, each in a shape that `labelled.as_text` knows."""

    id: str = ""
    """Empty: a hash of the text and the label, for lists of terms and codes have no id."""
    text: Any
    label: Any
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
    "labelled": Labelled,
}
