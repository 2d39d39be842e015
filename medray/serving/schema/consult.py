"""/v1/consult: a consultation as a session, medray's own. Requests, and what is told of a session.

Source: steps of [MedFM table 3].
"""

import time
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from medray.generation.sampling import Chat
from medray.serving.schema.base import Request, example
from medray.serving.schema.grounding import Grounding

MAX_MESSAGE_CHARS = 4000
Author = Literal["patient", "model", "clinician", "service"]
Kind = Literal["statement", "question", "judgement", "urgent", "notice", "refused"]
Status = Literal["asking", "urgent", "clinician", "judged"]


class OpenRequest(Request):
    """POST /v1/consult: the case and the complaint."""

    model_config = example(
        {"background": "45岁，男性", "content": "近1个月来反复头痛", "stream": False}
    )

    content: str = Field(pattern=r"\S", max_length=MAX_MESSAGE_CHARS)
    """What the patient complains of, in Chinese or English."""
    background: str | None = Field(None, max_length=MAX_MESSAGE_CHARS)
    """What is known of the patient already: age, sex, past illness."""
    max_questions: int | None = Field(None, ge=1, le=50)
    """Judge after so many questions; the service's own maximum holds in any case."""
    stream: bool | None = None
    """Server-sent events: pieces of the answer, the consultation last."""

    @field_validator("content")
    @classmethod
    def _says_something(cls, content: str) -> str:
        if not content.strip():  # a few control characters, which the pattern lets pass
            raise ValueError("give the complaint")
        return content

    def text(self) -> str:
        """The first message."""
        return "\n".join(filter(None, [(self.background or "").strip(), self.content.strip()]))


class SayRequest(Request):
    """POST /v1/consult/{id}/messages: the patient's next words, a wish to be judged, or both."""

    model_config = example({"content": "两侧太阳穴，下午重，没有呕吐"})

    content: str | None = Field(None, pattern=r"\S", max_length=MAX_MESSAGE_CHARS)
    judge: bool | None = None
    """True: no more questions, the judgement now."""
    stream: bool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "SayRequest":
        if self.content is None and not self.judge:
            raise ValueError("give content, or judge: true")
        return self


class ReplyRequest(Request):
    """POST /v1/consult/{id}/reply: what a clinician who has taken over writes to the patient."""

    model_config = example({"content": "您好，我是王医生。头痛时血压量过吗？"})

    content: str = Field(pattern=r"\S", max_length=MAX_MESSAGE_CHARS)


class ConsultMessage(BaseModel):
    """One message. `refused` is a patient's that a rule answered in the model's place."""

    number: int = 0
    """Its place in the consultation, from 0."""
    author: Author
    kind: Kind
    content: str
    created: int = Field(default_factory=lambda: int(time.time()))
    request: str = ""
    """Of the turn, as the audit log has it; feedback names it."""
    medray: Grounding | None = None
    """Passages and checked citations of a judgement."""


class Summary(BaseModel):
    """A consultation without its text.

    `asking`: the model asks. `urgent`: a sign of an emergency was found; the model is silent until
    a clinician hands back. `clinician`: a clinician has taken over. `judged`: the model has given
    its judgement.
    """

    id: str
    status: Status = "asking"
    language: Literal["zh", "en"]
    red_flag: str = ""
    """The sign of an emergency that was found last."""
    num_questions: int = 0
    max_questions: int
    num_messages: int = 0
    created: int = Field(default_factory=lambda: int(time.time()))
    idle_s: float = 0.0
    """Since the last message."""


class Consultation(Summary):
    """A consultation with its messages, or with those from some number on."""

    object: Literal["consultation"] = "consultation"
    messages: list[ConsultMessage] = []

    def said(self) -> list[str]:
        """The patient's messages, the newest last."""
        return [m.content for m in self.messages if m.author == "patient"]

    def question(self) -> str:
        """The question that is open, if one is."""
        last = self.messages[-1] if self.messages else None
        asked = last is not None and (last.kind == "question" or last.author == "clinician")
        return last.content if last is not None and asked else ""

    def chat(self) -> Chat:
        """The conversation as a model reads it, turns alternating: a clinician's words are the
        assistant's; notices of the service, and what it refused, are left out."""
        chat: Chat = []
        for message in self.messages:
            if message.kind in ("urgent", "notice", "refused"):
                continue
            role = "user" if message.author == "patient" else "assistant"
            if chat and chat[-1]["role"] == role:
                chat[-1]["content"] += f"\n{message.content}"
            else:
                chat.append({"role": role, "content": message.content})
        return chat

    def since(self, number: int) -> "Consultation":
        """The same with the messages from `number` on."""
        return self.model_copy(update={"messages": self.messages[number:]})


class ConsultationList(BaseModel):
    """GET /v1/consult."""

    object: Literal["list"] = "list"
    attends: bool
    """Whether the caller may take consultations over, and so sees those of others."""
    data: list[Summary]
