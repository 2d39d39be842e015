"""How near answers are to what would be right. A part of rag_gain.py.

In: questions with references and gold passages, answers with and without retrieval. Out: means,
paired differences and their 95 % intervals.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from medray.evaluation.bootstrap import paired_difference
from medray.evaluation.figures import mean
from medray.evaluation.text import character_f1, rouge_l
from medray.generation.prompts import replace_citations

METRICS = (
    "f1", "rouge_l", "citation_precision", "citation_recall", "abstains", "alone", "too_long",
)  # fmt: skip


class Case(NamedTuple):
    """A question with what would be right."""

    question: str
    references: list[str]
    gold: Sequence[str] = ()
    """Passages that answer it."""
    without: frozenset[str] = frozenset()
    """Documents that are not to be found."""


class Reply(NamedTuple):
    """What was answered; passages cited."""

    text: str
    cited: list[str]
    abstained: bool
    too_long: bool = False
    """The service refused it: question and passage exceed the model's context."""
    alone: bool = False
    """By the model, without passages."""


def scores(case: Case, reply: Reply) -> dict[str, float | None]:
    """METRICS of one answer; None where there is nothing to judge."""
    text, gold = said(reply.text), set(case.gold)
    right = [name in gold for name in reply.cited]
    return {
        "f1": max(character_f1(text, one) for one in case.references),
        "rouge_l": max(rouge_l(text, one) for one in case.references),
        "citation_precision": sum(right) / len(right) if right and gold else None,
        "citation_recall": len(gold & {*reply.cited}) / len(gold) if gold else None,
        "abstains": float(reply.abstained),
        "alone": float(reply.alone),
        "too_long": float(reply.too_long),
    }


def said(text: str) -> str:
    """An answer without the heads of its citations: what it quotes, not where that stands."""
    return replace_citations(text, lambda citation: citation.quote)


def compare(cases: Sequence[Case], replies: tuple[list[Reply], list[Reply]]) -> dict[str, Any]:
    """Metric → means of both sides with their intervals, and the paired difference."""
    sides = [
        [scores(case, reply) for case, reply in zip(cases, side, strict=True)] for side in replies
    ]
    found: dict[str, Any] = {"n": len(cases)}
    for metric in METRICS:
        rag, alone = ([row[metric] for row in side] for side in sides)
        found[metric] = {"rag": interval(rag), "alone": interval(alone)}
        pairs = [(a, b) for a, b in zip(alone, rag, strict=True) if a is not None and b is not None]
        if pairs:
            difference = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
            found[metric]["difference"] = [round(x, 4) for x in difference[:3]]
    return found


def abstention(
    answerable: Sequence[Reply], unanswerable: Sequence[Reply]
) -> dict[str, list[float] | None]:
    """Precision and recall of saying that the passages hold no answer."""
    said_none = [0.0] * sum(reply.abstained for reply in answerable)
    said_none += [1.0] * sum(reply.abstained for reply in unanswerable)
    return {
        "precision": interval(said_none),
        "recall": interval([float(reply.abstained) for reply in unanswerable]),
    }


def interval(values: Sequence[float | None]) -> list[float] | None:
    """[mean, low, high] of those that are there."""
    figure = mean("", "", [value for value in values if value is not None])
    if figure.value is None:
        return None
    return [round(float(x), 4) for x in (figure.value, figure.low or 0.0, figure.high or 0.0)]
