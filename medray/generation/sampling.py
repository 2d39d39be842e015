"""What every engine takes and gives, whatever runs beneath. Loads no model and no framework."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple, Protocol

from pydantic import Field

from medray.common.config import Config
from medray.generation.prompts import Numbered, citable_texts

Chat = list[dict[str, str]]


class Sampling(Config):
    """How to choose tokens. Greedy by default, so that an answer can be reproduced."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    guided_quotes: bool = True
    """Chats with numbered passages or a record to judge: let citations hold a passage's number and
    words only, and evidence the record's words."""
    stop: tuple[str, ...] = ()
    """Streams: strings that end the answer and are no part of it."""
    num_logprobs: int | None = Field(default=None, ge=0)
    """Streams: tell each token's log-probability, and that of so many of the likeliest."""


def quotable(messages: Chat, sampling: Sampling) -> dict[int, Numbered]:
    """What the answer to a chat may quote, by the number that a citation names."""
    return citable_texts(messages[-1]["content"]) if sampling.guided_quotes else {}


class Generation(NamedTuple):
    """One generated text. `finish_reason` is `stop` (end token) or `length`."""

    text: str
    finish_reason: str
    num_prompt_tokens: int
    num_tokens: int


class Token(NamedTuple):
    """A token, as it was generated or given.

    `logprob` (nats) is the model's own, before temperature, nucleus and guidance; None where it was
    not asked for, and for a text's first token, which nothing precedes. `top` holds the likeliest
    tokens with theirs, best first.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class EngineLoad(NamedTuple):
    """What an engine has to do, and what it was spared."""

    waiting: int
    """Answers whose turn has not come."""
    active: int
    cached_tokens: int
    """Tokens of prompts that were found in the cache, as another prompt's beginning, since the
    engine was started."""


class TokenStreams(Protocol):
    """An engine that answers many prompts at a time, each as a stream of tokens."""

    def tokens(
        self,
        prompt: list[int],
        sampling: Sampling,
        citable: Mapping[int, Numbered],
        done: Sequence[int] = (),
        /,
    ) -> AsyncGenerator[list[Token], None]:
        """Yields the tokens of one answer as they come, an end token the last. Closing the
        generator ends the answer.

        Args:
            done: the answer's first tokens, where another engine was cut short: it goes on from
                there, and draws what that one would have drawn.
        Raises:
            GenerationError: if the engine failed; the message holds no text.
        """
        ...

    def check(self) -> None:
        """Raises GenerationError if nothing can be answered any more."""
        ...

    def load(self) -> EngineLoad | None:
        """What there is to do now; None of an engine that does not tell."""
        ...

    def close(self) -> None:
        """Ends all streams and gives back the memory."""
        ...
