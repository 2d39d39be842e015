"""A ten-line engine behind the protocol, and records to judge."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from medray.common.records import Document, Section
from medray.quality.protocols import Answer, Chat


class FakeEngine:
    """Answers by a function of the prompt; a token is a character."""

    def __init__(self, reply: Callable[[str], str], max_tokens: int = 1000) -> None:
        self.reply, self.max_tokens, self.prompts = reply, max_tokens, []

    def chat(self, conversations: Sequence[Chat], sampling: Any) -> list[Answer]:
        self.prompts += [chat[-1]["content"] for chat in conversations]
        return [Answer(self.reply(chat[-1]["content"])) for chat in conversations]

    def chat_score(self, conversations: Sequence[Chat], options: Any) -> list[list[float]]:
        return [
            [0.0 if self.reply(chat[-1]["content"]).startswith(o) else -3.0 for o in choices]
            for chat, choices in zip(conversations, options, strict=True)
        ]

    def count_tokens(self, text: str) -> int:
        return len(text)


@pytest.fixture
def engine() -> type[FakeEngine]:
    return FakeEngine


@pytest.fixture
def record() -> Callable[..., Document]:
    def make(doc_id: str = "r1", date: str = "2024-03-05", **sections: str) -> Document:
        return Document(
            doc_id=doc_id,
            kind="emr",
            department="心内科",
            date=date,
            source="audit",
            split="dev",
            sections=[Section(heading=h, text=t) for h, t in sections.items()],
        )

    return make
