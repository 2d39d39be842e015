"""The quality deployment. In: a record's text, ids of indicators. Out: a verdict by each, with the
words that decide and where they stand.

What is asked and what the answers mean is `medray.quality`'s, as in `medray quality`, so that a
record has the same verdicts here and there; here the served policy is asked, a few questions at a
time. Nothing of a record is kept.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

from ray.serve.handle import DeploymentHandle

from medray.common.records import Document, Section
from medray.corpus.readers.headings import section_spans
from medray.generation.sampling import Sampling
from medray.quality.indicators import Indicator
from medray.quality.measure import classify
from medray.quality.protocols import Greedy, ask
from medray.quality.questions import (
    ANSWER_TOKENS,
    Question,
    TooLong,
    halve,
    place,
    sub_tasks,
    whole,
)
from medray.quality.verdict import Reading, VerdictRow, combine, read, values
from medray.serving.handles import RETRIES, Calls, PolicyHandle
from medray.serving.messages import (
    CHANGED,
    Choices,
    Counted,
    Finish,
    Fit,
    Judged,
    Piece,
    Prompt,
    Spent,
)
from medray.serving.observe.metrics import Metrics
from medray.serving.schema.base import ApiError
from medray.serving.schema.quality import IndicatorVerdict, SubTaskVerdict

SAMPLING = Sampling.model_validate(Greedy(max_new_tokens=ANSWER_TOKENS).model_dump())
"""As verdicts in bulk are generated."""
AT_ONCE = 4
"""Questions of one record that are asked together: of the policy's places some stay for chats."""


class Ask(Protocol):
    """The policy: see `medray.serving.policy.Policy`."""

    async def count(self, texts: list[str], /) -> Counted: ...

    def stream(
        self, prompt: Prompt, sampling: Sampling, /
    ) -> AsyncGenerator[Fit | Piece | Finish, None]: ...


class Reply(NamedTuple):
    """The model's answer to a question, the `number`th."""

    number: int
    text: str
    num_prompt_tokens: int
    num_tokens: int
    version: str


class Judge:
    """Judges one record at a time by the indicators that there are."""

    def __init__(self, policies: Mapping[str, Ask], indicators: Iterable[Indicator]) -> None:
        self._policies = policies
        self._indicators = {indicator.id: indicator for indicator in indicators}

    def status(self) -> dict[str, Any]:
        """What /healthz shows."""
        return {"indicators": len(self._indicators)}

    def titles(self) -> dict[str, str]:
        """Id → title of all indicators."""
        return {name: indicator.title for name, indicator in self._indicators.items()}

    async def judge(
        self, policy: str, record: str, ids: Sequence[str]
    ) -> AsyncGenerator[Spent | Judged, None]:
        """What the answers have taken, after each; then the verdicts by the indicators `ids`, or
        why there are none. Closing it stops the model.

        Args:
            policy: name of the one to ask.
        """
        document, starts = document_of(record)
        chosen = [self._indicators[name] for name in ids]
        asked = sub_tasks([document], chosen)
        try:
            questions, counted = await self._plan(whole(asked, lambda *_: []), policy)
        except TooLong as error:
            at = starts[error.sentence.section] + error.sentence.start
            yield Judged([], 0, 0, "", problem=(
                f"the sentence of the record that begins at {at} does not fit into the "
                f"{error.budget} tokens that the model's context has for a question; shorten it"
            ))  # fmt: skip
            return
        replies: list[Reply] = []
        async with aclosing(_all(questions, self._policies[policy])) as answers:
            async for reply in answers:
                replies.append(reply)
                yield _spent(replies, reply.version)
        replies.sort(key=lambda reply: reply.number)
        readings: dict[int, list[Reading]] = {}
        for question, reply in zip(questions, replies, strict=True):
            readings.setdefault(question.row, []).append(read(question, reply.text))
        rows = combine(asked, readings)
        results = [result(i, [r for r in rows if r.indicator == i.id], starts) for i in chosen]
        # A model that was changed meanwhile has written a part.
        versions = dict.fromkeys(reply.version for reply in replies) or [counted.version]
        yield Judged(results, *_spent(replies, ", ".join(versions)))

    async def _plan(self, pending: list[Question], policy: str) -> tuple[list[Question], Counted]:
        """The questions in windows that the policy's context takes, and what it said last."""
        model, questions = self._policies[policy], []
        counted = await model.count([question.prompt for question in pending])
        while pending:
            budget = counted.context_tokens - SAMPLING.max_new_tokens
            fitting, pending = halve(pending, counted.counts, budget)
            questions += fitting
            if pending:
                counted = await model.count([question.prompt for question in pending])
        return sorted(questions, key=place), counted


class Quality(Judge):
    """The deployment: asks the served policies."""

    def __init__(self, policies: dict[str, DeploymentHandle], indicators: list[Indicator]) -> None:
        """`policies` by the names that the gateway has for their handles."""
        call = Calls(Metrics())
        handles = {
            name: PolicyHandle(handle.options(_by_reference=False), call)
            for name, handle in policies.items()
        }
        super().__init__(handles, indicators)


def document_of(record: str) -> tuple[Document, list[int]]:
    """A text cut at its headings, and where each section begins in it."""
    spans = section_spans(record, is_record=True)
    sections = [Section(heading=heading, text=record[a:b]) for heading, a, b in spans]
    document = Document(doc_id="record", kind="emr", source="", sections=sections, split="dev")
    return document, [start for _, start, _ in spans]


def result(
    indicator: Indicator, rows: Sequence[VerdictRow], starts: Sequence[int]
) -> IndicatorVerdict:
    """The verdict by an indicator, of those on its sub-tasks."""
    case = classify(indicator, values(rows))
    status = case.status
    return IndicatorVerdict(
        indicator=indicator.id,
        title=indicator.title,
        verdict="unknown" if status in ("undetermined", "excluded") else status,
        applies=None if status == "undetermined" else status != "excluded",
        deciding=list(case.deciding),
        sub_tasks=[_sub_task(indicator, row, starts) for row in rows],
    )


def _sub_task(indicator: Indicator, row: VerdictRow, starts: Sequence[int]) -> SubTaskVerdict:
    told = SubTaskVerdict(
        task=row.task,
        question=indicator.tasks[row.task].question,
        value=row.value,
        reason=row.reason,
    )
    if (evidence := row.evidence) is None:
        return told
    at = starts[evidence.section]
    told.quote, told.start, told.end = evidence.quote, at + evidence.start, at + evidence.end
    return told


def _spent(replies: Sequence[Reply], version: str) -> Spent:
    return Spent(
        sum(reply.num_prompt_tokens for reply in replies),
        sum(reply.num_tokens for reply in replies),
        version,
    )


async def _all(questions: Sequence[Question], policy: Ask) -> AsyncGenerator[Reply, None]:
    """The replies as they come."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Reply:
        async with places:
            return await _reply(number, questions[number], policy)

    tasks = [asyncio.ensure_future(one(number)) for number in range(len(questions))]
    try:
        for reply in asyncio.as_completed(tasks):
            yield await reply
    finally:
        for task in tasks:
            task.cancel()  # if another failed, or the client has gone


async def _reply(number: int, question: Question, policy: Ask) -> Reply:
    """Asks one question; anew where the model is changed meanwhile, for nothing was shown yet."""
    for _ in range(RETRIES):
        try:
            return await _written(number, question, policy)
        except ApiError as error:
            if error.code != CHANGED:
                raise
    return await _written(number, question, policy)


async def _written(number: int, question: Question, policy: Ask) -> Reply:
    """A chat template that takes more room than was kept leaves the answer less, and an answer that
    is cut short is no verdict."""
    texts, num_prompt_tokens, finish = [], 0, Finish("length", 0)
    prompt = Choices([ask(question.prompt)], exact=False)
    async with aclosing(policy.stream(prompt, SAMPLING)) as items:
        async for item in items:
            if isinstance(item, Fit):
                num_prompt_tokens = item.num_prompt_tokens
            elif isinstance(item, Finish):
                finish = item
            else:
                texts.append(item.text)
    return Reply(number, "".join(texts), num_prompt_tokens, finish.num_tokens, finish.version)
