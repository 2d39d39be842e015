"""From a chat to a checked answer: embed → search → numbered prompt → stream → check.

In: a chat request and three objects that embed, search and generate. Out: text that may be shown,
then the outcome with citations, passages and verdicts. Nothing here knows of HTTP or Ray.

Where the nearest passage lies below `min_cosine` the answer is `所给资料中没有答案。`, and the
model is not asked.
Source: DESIGN.md 3, serving graph; `[q; d1; …; dk]` [EMR-LLM 1.5].
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

from pydantic import Field

from medray.common.config import Config
from medray.generation.prompts import NO_ANSWER, grounded_prompt, shown
from medray.generation.sampling import Chat, Sampling
from medray.retrieval.filters import PassageFilter
from medray.serving.citations import CitationGate
from medray.serving.guard import Refusal, refusal
from medray.serving.identity.keys import Role
from medray.serving.messages import (
    Choices,
    Finish,
    Fit,
    Found,
    Piece,
    Prompt,
    QuestionVectors,
)
from medray.serving.record.passages import EmbedTexts, beside, record_hits
from medray.serving.schema.base import ApiError, Usage
from medray.serving.schema.chat import ChatRequest
from medray.serving.schema.grounding import FoundPassage, Grounding, SentenceVerdict


class AnswerConfig(Config):
    """How questions are answered, where the request does not say."""

    top_k: int = 5
    """Passages shown to the model. Source: not given; [EMR-LLM 1.5] leaves k open. Best as many as
    the grounded examples hold that it was fine-tuned on."""
    min_cosine: float | None = Field(default=None, ge=-1, le=1)
    """Where the nearest passage has a lower cosine, the answer is that there is none. None: as
    held-out questions had it when the index was built (`threshold/` in its metrics)."""
    max_tokens: int = 256


class Embed(Protocol):
    """A question → what to search with."""

    async def __call__(self, question: str, /) -> QuestionVectors: ...


class Search(Protocol):
    """Question, its vectors, k, filter → passages, best first."""

    async def __call__(
        self, question: str, vectors: QuestionVectors, top_k: int, where: PassageFilter, /
    ) -> Found: ...


class Generate(Protocol):
    """The policy: see `medray.serving.policy.Policy`."""

    def stream(
        self, prompt: Prompt, sampling: Sampling, /
    ) -> AsyncGenerator[Fit | Piece | Finish, None]: ...


class Plan(NamedTuple):
    """A request that has passed every check and is being answered."""

    passages: list[FoundPassage]
    retrieval: bool
    stream: AsyncGenerator[Fit | Piece | Finish, None] | None = None
    """Of the policy, behind what fits; None where it is not asked."""
    num_prompt_tokens: int = 0
    index_version: str = ""
    refusal: Refusal | None = None


class Outcome(NamedTuple):
    """What stands at the end of an answer."""

    finish_reason: str
    usage: Usage
    grounding: Grounding
    version: str
    """Of the model; empty where it was not asked."""


async def plan_answer(
    request: ChatRequest,
    config: AnswerConfig,
    embed: Embed,
    search: Search,
    policy: Generate,
    role: Role = "clinician",
    *,
    embed_texts: EmbedTexts | None = None,
) -> Plan:
    """Finds passages, of the patient's record too, and builds the prompt, with as many of them as
    the context holds; or refuses, as `guard` has it for who asks.

    Args:
        embed_texts: for requests that may bring a record.
    Raises:
        ApiError: 400 if the chat does not fit into the model's context.
    """
    messages = [message.plain() for message in request.messages]
    if refused := refusal(messages[-1]["content"], role):
        return Plan([], False, refusal=refused)
    retrieval = request.retrieval is not False
    passages: list[FoundPassage] = []
    version = ""
    if retrieval:
        passages, version = await _to_show(request, config, embed, search, embed_texts)
        if not passages:
            return Plan([], True, index_version=version)
    # The worst passage is left out first; a grounded question keeps at least one.
    counts = range(len(passages), 0, -1) if passages else [0]
    conversations = [_with_passages(messages, passages[:count]) for count in counts]
    asked = request.max_completion_tokens or request.max_tokens
    max_tokens = asked or config.max_tokens
    sampling = Sampling(
        max_new_tokens=max_tokens,
        temperature=request.temperature or 0.0,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=request.seed or 0,
        stop=request.stops(),
        num_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )
    stream = policy.stream(Choices(conversations, asked is not None), sampling)
    fit = await first_fit(stream)
    if fit.index is None:
        raise ApiError(
            400,
            f"the model's context is {fit.context_tokens} tokens, but the messages"
            f"{' with one passage' if passages else ''} take {fit.num_prompt_tokens} and the "
            f"answer up to {max_tokens}; shorten the messages or lower max_tokens",
            code="context_length_exceeded",
            param="messages",
        )
    shown = passages[: counts[fit.index]]
    return Plan(shown, retrieval, stream, fit.num_prompt_tokens, version)


async def first_fit(stream: AsyncGenerator[Fit | Piece | Finish, None]) -> Fit:
    """The first item of a stream of `Choices`, which is closed where none of them fits."""
    fit = await anext(stream)
    assert isinstance(fit, Fit)
    if fit.index is None:
        await stream.aclose()
    return fit


async def _to_show(
    request: ChatRequest,
    config: AnswerConfig,
    embed: Embed,
    search: Search,
    embed_texts: EmbedTexts | None,
) -> tuple[list[FoundPassage], str]:
    """Passages of the index, if the nearest is near enough, and of the record; the version."""
    question, top_k = request.messages[-1].plain()["content"], request.top_k or config.top_k
    where, record = request.filters, request.record
    if record is not None and record.patient_id:
        where = where.model_copy(update={"not_patient": record.patient_id})
    vectors = await embed(question)
    found = await search(question, vectors, top_k, where)
    least = found.min_cosine if config.min_cosine is None else config.min_cosine
    nearest = max((hit["cosine"] for hit in found.hits), default=least)
    hits = found.hits if nearest >= least else []
    if record is not None:
        assert embed_texts is not None, "a record is ranked by meaning too"
        ranked = await record_hits(record, question, vectors.vector, embed_texts)
        hits = beside(hits, ranked, top_k)
    return numbered(hits), found.version


async def find_passages(
    question: str, top_k: int, where: PassageFilter, embed: Embed, search: Search
) -> tuple[list[FoundPassage], str]:
    """The best passages, and the version of the index."""
    found = await search(question, await embed(question), top_k, where)
    return numbered(found.hits), found.version


def numbered(hits: list[dict[str, Any]]) -> list[FoundPassage]:
    """Passages, from 1 on."""
    return [FoundPassage.model_validate(hit | {"number": k}) for k, hit in enumerate(hits, 1)]


async def write_answer(plan: Plan) -> AsyncGenerator[Piece | Outcome, None]:
    """Yields text that may be shown, then one Outcome. Closing it stops the model."""
    if plan.refusal is not None:
        yield Piece(plan.refusal.text)
        usage = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
        grounding = Grounding(retrieval=False, guard=plan.refusal.kind)
        yield Outcome("content_filter", usage, grounding, "")
        return
    gate = CitationGate(plan.passages)
    finish = Finish("stop", 0)
    if plan.stream is None:
        gate.verdicts.append(SentenceVerdict(verdict="no_answer"))
        yield Piece(NO_ANSWER)
    else:
        # Only `aclosing` tells the policy at once that its reader has gone.
        async with aclosing(plan.stream) as stream:
            async for item in stream:
                if isinstance(item, Finish):
                    finish = item
                elif isinstance(item, Fit):
                    continue
                elif not plan.retrieval:
                    if item.text or item.tokens:
                        yield item
                elif text := gate.feed(item.text):
                    yield Piece(text)
        if plan.retrieval and (rest := gate.finish()):
            yield Piece(rest)
    yield Outcome(
        finish.finish_reason,
        Usage(
            prompt_tokens=plan.num_prompt_tokens,
            completion_tokens=finish.num_tokens,
            total_tokens=plan.num_prompt_tokens + finish.num_tokens,
        ),
        Grounding(
            retrieval=plan.retrieval,
            index_version=plan.index_version,
            passages=plan.passages,
            citations=gate.citations,
            verdicts=gate.verdicts,
        ),
        finish.version,
    )


def _with_passages(messages: Chat, passages: list[FoundPassage]) -> Chat:
    if not passages:
        return messages
    numbered = [shown(passage.title, passage.text) for passage in passages]
    question = grounded_prompt(messages[-1]["content"], numbered)
    return [*messages[:-1], {"role": "user", "content": question}]
