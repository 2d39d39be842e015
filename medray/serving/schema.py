"""The OpenAI API as far as medray speaks it: requests, responses, errors.

In: JSON bodies of `openai` clients. Out: bodies these clients parse; what medray adds stands in one
extra field, `medray`, which the client keeps in `model_extra`.

Fields of the API that would change the answer, but that medray cannot honour, are refused; fields
that are harmless to ignore (`user`, `metadata`, `store`, …) are ignored.
Source: OpenAI API reference, chat completions and embeddings.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from medray.retrieval.filters import PassageFilter

MOST_PASSAGES = 50

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "stop": (None, "", []),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "audio": (None,),
    "prediction": (None,),
    "modalities": (None, ["text"]),
}
"""Fields that medray cannot honour → the values that ask for nothing."""


class ApiError(Exception):
    """An answer other than 200, in OpenAI's shape. The message never holds text of a request."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The error body."""
        kinds = {429: "rate_limit_error", 404: "not_found_error"}
        kind = kinds.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


class Request(BaseModel):
    """Base of requests: types are strict, fields unknown to us are kept aside."""

    model_config = ConfigDict(extra="allow", strict=True)


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

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    """medray's default is 0 (greedy), so that an answer can be reproduced."""
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    retrieval: bool | None = None
    """medray: false asks the model alone, without passages and citations."""
    top_k: int | None = Field(None, ge=1, le=MOST_PASSAGES)
    """medray: how many passages to show the model."""
    filters: PassageFilter = PassageFilter()
    """medray: which passages may be shown."""

    def check(self) -> None:
        """Raises ApiError if the request asks for what medray cannot do."""
        for name, neutral in NEUTRAL.items():
            if (self.model_extra or {}).get(name) not in neutral:
                raise ApiError(
                    400,
                    f"{name} is not supported by this server; leave it out",
                    code="unsupported_parameter",
                    param=name,
                )
        if self.messages[-1].role != "user":
            raise ApiError(400, "the last message must be the user's", param="messages")
        if not self.messages[-1].plain()["content"].strip():
            raise ApiError(400, "the last message is empty", param="messages")


class RetrieveRequest(Request):
    """POST /v1/retrieve, which is medray's own."""

    query: str = Field(pattern=r"\S")
    top_k: int = Field(default=10, ge=1, le=MOST_PASSAGES)
    filters: PassageFilter = PassageFilter()


class EmbeddingRequest(Request):
    """POST /v1/embeddings."""

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)

    @field_validator("input")
    @classmethod
    def _not_empty(cls, value: str | list[str]) -> str | list[str]:
        if not all([value] if isinstance(value, str) else value):
            raise ValueError("must not hold an empty string")
        return value

    def texts(self) -> list[str]:
        """The input as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


class Usage(BaseModel):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int


class FoundPassage(BaseModel):
    """A passage that the model was shown. `start`, `end`: offsets in the section of the document;
    `score`: of the fused ranking, 0 to 1 within one search; `cosine`, `bm25`: what makes it."""

    number: int
    passage_id: str
    doc_id: str
    title: str
    section: str
    start: int
    end: int
    source: str
    date: str
    score: float
    cosine: float
    bm25: float
    text: str


Fault = Literal["no_such_passage", "other_title", "quote_not_in_passage", "no_quote"]


class CheckedCitation(BaseModel):
    """A citation that the model wrote, and whether it holds."""

    sentence: int
    """Index into `verdicts`."""
    number: int
    passage_id: str | None
    title: str
    quote: str
    start: int | None = None
    """Where the quote begins in the section of the document."""
    end: int | None = None
    ok: bool
    fault: Fault | None = None


class SentenceVerdict(BaseModel):
    """What the check said of one sentence. `failed` sentences are not in the answer."""

    verdict: Literal["supported", "failed", "uncited", "no_answer"]
    faults: list[Fault] = []


class Grounding(BaseModel):
    """medray's extra field of an answer."""

    retrieval: bool
    index_version: str = ""
    passages: list[FoundPassage] = []
    citations: list[CheckedCitation] = []
    verdicts: list[SentenceVerdict] = []


def completion(
    identity: dict[str, Any], text: str, finish_reason: str, usage: Usage, grounding: Grounding
) -> dict[str, Any]:
    """The body of an answer in one piece. `identity`: id, created and model."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return {
        **identity,
        "object": "chat.completion",
        "choices": [choice],
        "usage": usage.model_dump(),
        "medray": grounding.model_dump(),
    }


def chunk(
    identity: dict[str, Any], delta: dict[str, str] | None, finish_reason: str | None = None,
    **extra: Any,
) -> dict[str, Any]:  # fmt: skip
    """The body of one streamed event; `delta` None leaves `choices` empty (the usage chunk)."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        **identity,
        "object": "chat.completion.chunk",
        "choices": [] if delta is None else [choice],
        **extra,
    }


def embeddings(model: str, data: Sequence[Any], num_tokens: int) -> dict[str, Any]:
    """The body of an embeddings answer; `data` holds lists of floats or base64 strings."""
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": value}
            for index, value in enumerate(data)
        ],
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }
