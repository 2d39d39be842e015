"""POST /v1/completions: a text continued, or the log-probabilities of a given one (`echo`), with
which public evaluation harnesses score exams. Source: OpenAI API reference, legacy completions."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any

from pydantic import Field

from medray.serving.messages import Spelled
from medray.serving.schema.base import ApiError, Request, Usage, example
from medray.serving.schema.chat import StreamOptions, stop_strings

MOST_PROMPTS = 256
Tokens = Annotated[list[int], Field(min_length=1)]

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "suffix": (None, ""),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
}
"""Fields that medray cannot honour → the values that ask for nothing."""


class CompletionRequest(Request):
    """A text, several, or their tokens."""

    model_config = example(
        {
            "model": "medray",
            "prompt": "肺炎的首选药物是",
            "max_tokens": 1,
            "echo": True,
            "logprobs": 1,
        }
    )

    model: str
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    max_tokens: int | None = Field(None, ge=0)
    """16 where it is not given, as the API has it; 0 with `echo` scores the prompt alone."""
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None

    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return self.prompt  # type: ignore[return-value]

    def size(self) -> int:
        """Characters, or tokens, of all prompts."""
        return sum(map(len, self.prompts()))

    def stops(self) -> tuple[str, ...]:
        """The stop strings as they are told to the engine."""
        return stop_strings(self.stop)

    def check(self) -> None:
        """Raises ApiError if the request asks for what medray cannot do."""
        self.check_neutral(NEUTRAL)
        if self.max_tokens == 0 and not self.echo:
            raise ApiError(400, "max_tokens 0 asks for nothing without echo", param="max_tokens")
        if self.stream and len(self.prompts()) > 1:
            raise ApiError(400, "one prompt at a time can be streamed", param="stream")


def choice(
    index: int, text: str, tokens: Sequence[Spelled] | None, finish_reason: str | None
) -> dict[str, Any]:
    """One prompt's completion; `tokens` None where no log-probabilities were asked for."""
    return {
        "index": index,
        "text": text,
        "logprobs": None if tokens is None else _logprobs(tokens),
        "finish_reason": finish_reason,
    }


def body(
    identity: dict[str, Any], choices: list[dict[str, Any]], usage: Usage | None
) -> dict[str, Any]:
    """The body of an answer, or of one streamed event. `identity`: id, created and model."""
    counts = {} if usage is None else {"usage": usage.model_dump()}
    return {**identity, "object": "text_completion", "choices": choices, **counts}


def _logprobs(tokens: Sequence[Spelled]) -> dict[str, Any]:
    lengths = [len(token.text) for token in tokens]
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [None if token.logprob is None else _likeliest(token) for token in tokens],
        "text_offset": list(accumulate(lengths[:-1], initial=0)) if lengths else [],
    }


def _likeliest(token: Spelled) -> dict[str, float]:
    """Text → log-probability. Of tokens that are spelled alike, parts of characters, the likeliest
    stands; the token itself is always among them."""
    found: dict[str, float] = {}
    for text, value in token.top:
        found.setdefault(text, value)
    if token.logprob is not None:
        found.setdefault(token.text, token.logprob)
    return found
