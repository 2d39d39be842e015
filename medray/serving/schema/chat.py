"""POST /v1/chat/completions, as far as medray speaks it.

In: JSON bodies of `openai` clients. Out: bodies these clients parse; what medray adds stands in one
extra field, `medray`, which the client keeps in `model_extra`.

Fields of the API that would change the answer, but that medray cannot honour, are refused; fields
that are harmless to ignore (`user`, `metadata`, `store`, …) are ignored.
Source: OpenAI API reference.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from medray.retrieval.filters import PassageFilter
from medray.serving.messages import Spelled
from medray.serving.schema.base import ApiError, Request, Usage, example
from medray.serving.schema.grounding import MOST_PASSAGES, Grounding
from medray.serving.schema.record import PatientRecord

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "audio": (None,),
    "prediction": (None,),
    "modalities": (None, ["text"]),
}
"""Fields that medray cannot honour → the values that ask for nothing."""


class TextPart(BaseModel):
    """A piece of a message's content. Images and sound are refused."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn; `developer` is OpenAI's newer name for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> dict[str, str]:
        """Role and text as the chat template takes them."""
        parts = [self.content] if isinstance(self.content, str) else [p.text for p in self.content]
        return {
            "role": "system" if self.role == "developer" else self.role,
            "content": "".join(parts),
        }


class StreamOptions(BaseModel):
    """Whether a last chunk with token counts is wanted."""

    include_usage: bool = False


class ChatRequest(Request):
    """POST /v1/chat/completions."""

    model_config = example(
        {"model": "medray", "messages": [{"role": "user", "content": "支气管哮喘首选什么药物？"}]}
    )

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    """medray's default is 0 (greedy), so that an answer can be reproduced."""
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    logprobs: bool | None = None
    """Only without retrieval: what a grounded answer shows is decided sentence by sentence."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    retrieval: bool | None = None
    """medray: true answers from passages or not at all, false asks the model alone. Left out, a
    question of a kind that passages do not answer goes to the model alone, which is said first,
    unless `top_k`, `filters` or `record` ask for passages. Patients get no answer without any."""
    top_k: int | None = Field(None, ge=1, le=MOST_PASSAGES)
    """medray: how many passages to show the model."""
    filters: PassageFilter = PassageFilter()
    """medray: which passages may be shown."""
    record: PatientRecord | None = None
    """medray: the patient's own record, of which passages are shown beside those of the index."""

    def stops(self) -> tuple[str, ...]:
        """The stop strings as they are told to the engine."""
        return stop_strings(self.stop)

    def check(self) -> None:
        """Raises ApiError if the request asks for what medray cannot do."""
        self.check_neutral(NEUTRAL)
        if self.logprobs and self.retrieval is not False:
            raise ApiError(
                400, "logprobs are told of answers without retrieval; set retrieval to false",
                code="unsupported_parameter", param="logprobs",
            )  # fmt: skip
        if self.record is not None:
            self.record.check()
            if self.retrieval is False:
                raise ApiError(
                    400, "a record is shown as passages; leave retrieval on",
                    code="unsupported_parameter", param="record",
                )  # fmt: skip
        if self.messages[-1].role != "user":
            raise ApiError(400, "the last message must be the user's", param="messages")
        if not self.messages[-1].plain()["content"].strip():
            raise ApiError(400, "the last message is empty", param="messages")


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """OpenAI's `stop`: one string, several, or none."""
    return tuple(text for text in ([stop] if isinstance(stop, str) else stop or []) if text)


def completion(
    identity: dict[str, Any],
    text: str,
    tokens: Sequence[Spelled],
    finish_reason: str,
    usage: Usage,
    grounding: Grounding,
) -> dict[str, Any]:
    """The body of an answer in one piece. `identity`: id, created and model."""
    return {
        **identity,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": logprobs(tokens),
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage.model_dump(),
        "medray": grounding.model_dump(),
    }


def chunk(
    identity: dict[str, Any],
    delta: dict[str, str] | None,
    tokens: Sequence[Spelled] = (),
    finish_reason: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """The body of one streamed event; `delta` None leaves `choices` empty (the usage chunk)."""
    choice = {
        "index": 0,
        "delta": delta,
        "logprobs": logprobs(tokens),
        "finish_reason": finish_reason,
    }
    return {
        **identity,
        "object": "chat.completion.chunk",
        "choices": [] if delta is None else [choice],
        **extra,
    }


def logprobs(tokens: Sequence[Spelled]) -> dict[str, Any] | None:
    """The tokens in the API's form; None for none."""
    if not tokens:
        return None
    content = [
        _logprob(token.text, token.logprob)
        | {"top_logprobs": [_logprob(text, value) for text, value in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _logprob(text: str, value: float | None) -> dict[str, Any]:
    whole = "\ufffd" not in text  # else a part of a character, whose bytes its text does not tell
    return {"token": text, "logprob": value, "bytes": list(text.encode()) if whole else None}
