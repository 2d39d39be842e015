"""Sub-task verdicts. In: records, indicators, an engine. Out: one `VerdictRow` per record,
indicator and sub-task, with its evidence.

What is asked stands in `questions`. An answer is the sentence that decides and the verdict; met in
one window of a long record is met. Only `judge` asks: `read` and `combine` say what answers mean,
for those too who ask in another way (`medray.serving.quality`).
A verdict of met without valid evidence is unknown, never met.
Source: [MedQC 4.2]; EVALUATION.md 3.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from medray.common.records import Document, Row
from medray.generation.prompts import VERDICTS, parse_verdict
from medray.quality.evidence import Evidence, cite
from medray.quality.indicators import Indicator
from medray.quality.protocols import ChatEngine, Greedy, ask
from medray.quality.questions import Question, SubTask, halve, place, sub_tasks, whole

Reason = Literal["met", "unmet", "absent", "no_evidence", "unparsed"]
YES = list(VERDICTS).index("是")


class VerdictRow(Row):
    """The verdict on one sub-task. `value` is what the logic sees; None = unknown."""

    doc_id: str
    indicator: str
    task: str
    value: bool | None
    reason: Reason
    p_yes: float | None
    """Probability of yes among yes, no and not mentioned, after the words that a yes or no quoted;
    None where the model was not asked, or its answers alone are wanted."""
    evidence: Evidence | None
    num_windows: int
    """Prompts it took; 0 where the record has none of the sections."""


class Reading(NamedTuple):
    """What one window gave."""

    reason: Reason
    evidence: Evidence | None
    p_yes: float | None


def judge(
    documents: Sequence[Document],
    indicators: Iterable[Indicator],
    engine: ChatEngine,
    notes: Callable[[Indicator, str], list[str]],
    *,
    batch_size: int,
    sampling: Greedy,
) -> list[VerdictRow]:
    """Asks every sub-task of every indicator over every record.

    Args:
        notes: (indicator, task) → texts of the knowledge put into the prompt.
        batch_size: prompts handed to the engine at once; neighbours share their record.
    Returns:
        rows ordered by document, indicator, task.
    """
    asked = sub_tasks(documents, indicators)
    budget = engine.max_tokens - sampling.max_new_tokens
    pending, questions = whole(asked, notes), []
    while pending:
        counts = [engine.count_tokens(question.prompt) for question in pending]
        fitting, pending = halve(pending, counts, budget)
        questions += fitting
    questions.sort(key=place)
    readings: dict[int, list[Reading]] = {}
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        chats = [ask(question.prompt) for question in batch]
        answers = engine.chat(chats, sampling)
        scores = engine.chat_score(chats, [_options(answer.text) for answer in answers])
        for question, answer, logprobs in zip(batch, answers, scores, strict=True):
            reading = read(question, answer.text, softmax(logprobs)[YES])
            readings.setdefault(question.row, []).append(reading)
    return combine(asked, readings)


def values(rows: Iterable[VerdictRow]) -> dict[str, bool | None]:
    """Task → verdict, of the rows of one record and indicator."""
    return {row.task: row.value for row in rows}


def _options(answer: str) -> list[str]:
    """The verdicts that the model could have given after the words that it quoted."""
    verdict = parse_verdict(answer)
    evidence = f"“{verdict.quote}”" if verdict and verdict.quote else ""
    return [evidence + word for word in VERDICTS]


def read(question: Question, text: str, p_yes: float | None = None) -> Reading:
    """What the model's answer to a question says."""
    document, indicator, _ = question.sub_task
    verdict = parse_verdict(text)
    if verdict is None:
        return Reading("unparsed", None, p_yes)
    evidence = cite(document, question.sentences, verdict.quote)
    if verdict.value is None:
        return Reading("absent", None, p_yes)
    if verdict.value and evidence is None and indicator.defaults.evidence == "required":
        return Reading("no_evidence", None, p_yes)
    return Reading("met" if verdict.value else "unmet", evidence, p_yes)


ORDER: tuple[Reason, ...] = ("met", "no_evidence", "unparsed", "unmet", "absent")
"""Over windows the first of these decides: a met that could not be shown keeps unmet in doubt."""


def combine(
    asked: Sequence[SubTask], readings: Mapping[int, Sequence[Reading]]
) -> list[VerdictRow]:
    """The verdict on each sub-task, of what its windows gave, by its place among those asked; none
    where the record has none of the sections."""
    return [_combine(*sub_task, readings.get(row, [])) for row, sub_task in enumerate(asked)]


def _combine(
    document: Document, indicator: Indicator, task: str, readings: Sequence[Reading]
) -> VerdictRow:
    chosen = min(readings, key=lambda reading: ORDER.index(reading.reason), default=None)
    reason: Reason = chosen.reason if chosen else "absent"
    value: Mapping[Reason, bool | None] = {
        "met": True,
        "unmet": False,
        "absent": indicator.absent_value(task),
        "no_evidence": None,
        "unparsed": None,
    }
    return VerdictRow(
        doc_id=document.doc_id,
        indicator=indicator.id,
        task=task,
        value=value[reason],
        reason=reason,
        p_yes=max((r.p_yes for r in readings if r.p_yes is not None), default=None),
        evidence=chosen.evidence if chosen else None,
        num_windows=len(readings),
    )


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Probabilities among the options alone."""
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    return [weight / sum(weights) for weight in weights]
