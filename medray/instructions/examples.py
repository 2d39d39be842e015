"""What every task shares: one exchange of a chat, and how long texts are cut.

A task is a function from a raw row to an `Instruction`, or to the reason why there is none.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from medray.common.records import Message, Section

Task = Literal[
    "diagnosis", "treatment", "differential", "consultation", "dialogue",
    "knowledge_graph", "exam", "grounded", "quality", "instruction", "labelled", "alignment",
]  # fmt: skip
SENTENCE_ENDS = "。；！？;!?\n"

Mask = Callable[[str], str]
"""Free text → the same text without identifiers."""


class Skipped(NamedTuple):
    """No example came of a row; `reason` is counted."""

    reason: str


def exchange(prompt: str, answer: str) -> list[Message]:
    """One question and its answer."""
    return [Message(role="user", content=prompt), Message(role="assistant", content=answer)]


def clip(text: str, max_chars: int) -> str:
    """Cuts `text` to `max_chars`, after the last sentence that fits, else in the middle of one."""
    text = text.strip()
    if len(text) <= max_chars:
        return text
    end = max(text.rfind(mark, 0, max_chars) for mark in SENTENCE_ENDS) + 1
    return text[: end or max_chars].rstrip()


def render_sections(sections: Sequence[Section], headings: Sequence[str], max_chars: int) -> str:
    """Sections under `headings`, in that order, as `主诉：…现病史：…`; at most `max_chars`.

    Too long a record loses from its longest sections first, so that a short, decisive one (the
    laboratory results) is never pushed out by a long history.
    """
    chosen = [s for heading in headings for s in sections if s.heading == heading and s.text]
    overhead = sum(len(s.heading) + 1 for s in chosen)
    limit = _level([len(s.text) for s in chosen], max_chars - overhead)
    return "".join(f"{s.heading}：{clip(s.text, limit)}" for s in chosen if limit > 0)


def _level(lengths: Sequence[int], budget: int) -> int:
    """The greatest cap with sum(min(length, cap)) <= budget; the longest length if all fit."""
    remaining = budget
    for k, length in enumerate(sorted(lengths)):
        left = len(lengths) - k
        if length * left > remaining:
            return max(0, remaining // left)
        remaining -= length
    return max(lengths, default=0)
