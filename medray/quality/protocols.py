"""What quality control and evaluation are handed: an engine that answers and scores, a search.

Neither package loads a model. Any object with these methods will do, so their logic is tested
with a ten-line engine, and the same code runs on `medray.generation.engine.HFEngine`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from medray.common.config import Config

Chat = list[dict[str, str]]


class Greedy(Config):
    """How answers that are measured are generated: the fields of an engine's sampling settings.

    Source: not given; greedy, so that a figure can be reproduced.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    guided_quotes: bool = True


class Answer(NamedTuple):
    """One generated text, as an engine returns it (it may return more fields)."""

    text: str
    finish_reason: str = "stop"
    num_prompt_tokens: int = 0
    num_tokens: int = 0


class ChatEngine(Protocol):
    """Answers chats and scores options as answers. Log-probabilities are in nats."""

    @property
    def max_tokens(self) -> int:
        """Longest context, prompt and answer together."""
        ...

    def chat(self, conversations: Sequence[Chat], sampling: Any, /) -> Sequence[Any]: ...

    def chat_score(
        self, conversations: Sequence[Chat], options: Sequence[Sequence[str]], /
    ) -> list[list[float]]: ...

    def count_tokens(self, text: str, /) -> int: ...


class Engine(ChatEngine, Protocol):
    """A chat engine that also continues and scores raw text."""

    def generate(self, prompts: Sequence[str], sampling: Any, /) -> Sequence[Any]: ...

    def score(
        self, prompts: Sequence[str], options: Sequence[Sequence[str]], /
    ) -> list[list[float]]: ...


class Search(Protocol):
    """Finds passages; each result has a `text`, and a `passage_id` where it is known."""

    def search_text(self, query: str, top_k: int, /) -> Sequence[Any]: ...


def ask(text: str) -> Chat:
    """A chat of one user turn."""
    return [{"role": "user", "content": text}]
