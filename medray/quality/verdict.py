"""Sub-task verdicts. In: records, indicators, an engine. Out: one `VerdictRow` per record,
indicator and sub-task, with its evidence.

A prompt is `<sub-task, knowledge, record>`, an answer the sentence that decides and the verdict. A
record too long for the engine is read in windows of whole sentences, none left out: met in one
window is met.
A verdict of met without valid evidence is unknown, never met.
Source: [MedQC 4.2]; EVALUATION.md 3.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from medray.common.errors import QualityError
from medray.common.records import Document, Row
from medray.common.sentences import Sentence, numbered_sentences
from medray.generation.prompts import VERDICTS, parse_verdict, quality_prompt
from medray.quality.evidence import Evidence, cite
from medray.quality.indicators import Indicator
from medray.quality.protocols import ChatEngine, Greedy, ask

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
    None where the model was not asked."""
    evidence: Evidence | None
    num_windows: int
    """Prompts it took; 0 where the record has none of the sections."""


class _Question(NamedTuple):
    """One prompt: a task over one window of a record."""

    row: int
    sentences: list[Sentence]
    prompt: str


class _Reading(NamedTuple):
    """What one window gave."""

    reason: Reason
    evidence: Evidence | None
    p_yes: float


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
    asked = [
        (document, indicator, task)
        for document in documents
        for indicator in indicators
        for task in indicator.tasks
    ]
    questions = [
        question
        for row, (document, indicator, task) in enumerate(asked)
        for question in _questions(
            row, document, indicator, task, notes(indicator, task), engine, sampling
        )
    ]
    readings: dict[int, list[_Reading]] = {}
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        chats = [ask(question.prompt) for question in batch]
        answers = engine.chat(chats, sampling)
        scores = engine.chat_score(chats, [_options(answer.text) for answer in answers])
        for question, answer, logprobs in zip(batch, answers, scores, strict=True):
            document, indicator, _ = asked[question.row]
            reading = _read(answer.text, document, question.sentences, indicator, logprobs)
            readings.setdefault(question.row, []).append(reading)
    return [
        _combine(document, indicator, task, readings.get(row, []))
        for row, (document, indicator, task) in enumerate(asked)
    ]


def values(rows: Iterable[VerdictRow]) -> dict[str, bool | None]:
    """Task → verdict, of the rows of one record and indicator."""
    return {row.task: row.value for row in rows}


def _questions(
    row: int,
    document: Document,
    indicator: Indicator,
    task: str,
    notes: list[str],
    engine: ChatEngine,
    sampling: Greedy,
) -> Iterator[_Question]:
    sentences = numbered_sentences(document.sections, indicator.sections(task))
    if not sentences:
        return
    question = indicator.tasks[task].question
    budget = engine.max_tokens - sampling.max_new_tokens

    def prompt(window: Sequence[Sentence]) -> str:
        return quality_prompt(question, notes, [sentence.text for sentence in window])

    def cost(window: Sequence[Sentence]) -> int:
        return engine.count_tokens(prompt(window)) + CHAT_TOKENS

    pending = [sentences]
    while pending:
        window = pending.pop()
        if cost(window) <= budget:
            yield _Question(row, window, prompt(window))
        elif len(window) == 1:
            raise QualityError(
                f"indicator {indicator.id}, task {task}: a sentence of record {document.doc_id} "
                f"(section {window[0].section}, offset {window[0].start}) does not fit into "
                f"{budget} tokens with its question; lower knowledge.top_k or use a longer context"
            )
        else:
            middle = len(window) // 2
            pending += [window[middle:], window[:middle]]


def _options(answer: str) -> list[str]:
    """The verdicts that the model could have given after the words that it quoted."""
    verdict = parse_verdict(answer)
    evidence = f"“{verdict.quote}”" if verdict and verdict.quote else ""
    return [evidence + word for word in VERDICTS]


CHAT_TOKENS = 16
"""Room for the turn marks of a chat template (ChatML takes 7)."""


def _read(
    text: str,
    document: Document,
    sentences: Sequence[Sentence],
    indicator: Indicator,
    logprobs: Sequence[float],
) -> _Reading:
    p_yes = softmax(logprobs)[YES]
    verdict = parse_verdict(text)
    if verdict is None:
        return _Reading("unparsed", None, p_yes)
    evidence = cite(document, sentences, verdict.quote)
    if verdict.value is None:
        return _Reading("absent", None, p_yes)
    if verdict.value and evidence is None and indicator.defaults.evidence == "required":
        return _Reading("no_evidence", None, p_yes)
    return _Reading("met" if verdict.value else "unmet", evidence, p_yes)


ORDER: tuple[Reason, ...] = ("met", "no_evidence", "unparsed", "unmet", "absent")
"""Over windows the first of these decides: a met that could not be shown keeps unmet in doubt."""


def _combine(
    document: Document, indicator: Indicator, task: str, readings: Sequence[_Reading]
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
        p_yes=max((reading.p_yes for reading in readings), default=None),
        evidence=chosen.evidence if chosen else None,
        num_windows=len(readings),
    )


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Probabilities among the options alone."""
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    return [weight / sum(weights) for weight in weights]
