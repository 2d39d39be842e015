"""A ten-line engine behind the protocol."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from medray.common.records import Document, Section
from medray.quality.protocols import Answer, Chat


class FakeEngine:
    """Answers by a function of the prompt; a token is a character and costs 2 nats."""

    def __init__(self, reply: Callable[[str], str], max_tokens: int = 1000) -> None:
        self.reply, self.max_tokens = reply, max_tokens

    def generate(self, prompts: Sequence[str], sampling: Any) -> list[Answer]:
        return [Answer(self.reply(prompt)[: sampling.max_new_tokens]) for prompt in prompts]

    def chat(self, conversations: Sequence[Chat], sampling: Any) -> list[Answer]:
        return self.generate([chat[-1]["content"] for chat in conversations], sampling)

    def score(self, prompts: Sequence[str], options: Any) -> list[list[float]]:
        return [
            [0.0 if option == self.reply(prompt) else -2.0 * len(option) for option in choices]
            for prompt, choices in zip(prompts, options, strict=True)
        ]

    def chat_score(self, conversations: Sequence[Chat], options: Any) -> list[list[float]]:
        return self.score([chat[-1]["content"] for chat in conversations], options)

    def count_tokens(self, text: str) -> int:
        return len(text)


@pytest.fixture
def engine() -> type[FakeEngine]:
    return FakeEngine


@pytest.fixture
def record() -> Callable[..., Document]:
    def make(doc_id: str = "r1", split: Any = "dev", **sections: str) -> Document:
        return Document(
            doc_id=doc_id,
            kind="emr",
            department="呼吸内科",
            source="records",
            split=split,
            sections=[Section(heading=h, text=t) for h, t in sections.items()],
        )

    return make
