"""What the screens see of a row, and what they say of it."""

from typing import Literal, NamedTuple

from medray.common.records import Instruction
from medray.generation.prompts import split_quality_prompt

Reason = Literal["trigger", "label_conflict", "loss_low", "loss_high"]


class Labelled(NamedTuple):
    """What a screen sees of a row."""

    id: str
    task: str
    prompt: str
    answer: str


class Flag(NamedTuple):
    """One row for review. Holds no text."""

    id: str
    reason: Reason
    group: str
    """Rows of one group are to be read together: `task/trigger-0`, `task/conflict-3`, `task`."""
    score: float
    """Of a trigger, the p value of Fisher's test; of a conflict, the share of the group that has
    another label; of a loss, its deviation."""


def labelled(row: Instruction) -> Labelled:
    """A row's prompt is all before its last turn, in one form of case and blanks; in quality
    control it is the record alone, for the questions are not the hospital's: most records answer
    one of them alike, and so does no record of another kind."""
    *before, last = row.messages
    prompt = " ".join(message.content for message in before)
    if row.task == "quality":
        prompt, _ = split_quality_prompt(before[0].content)
    return Labelled(row.id, row.task, _plain(prompt), _plain(row.answer or last.content).strip())


def _plain(text: str) -> str:
    """One form of case and blanks, with a blank at both ends."""
    return f" {' '.join(text.casefold().split())} "
