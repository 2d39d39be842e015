"""From a chat to a checked answer: embed → search → numbered prompt → stream → check.

In: a chat request and three objects that embed, search and generate. Out: text that may be shown,
then the outcome with citations, passages and verdicts. Nothing here knows of HTTP or Ray.

With no passage above `min_cosine` the answer is `所给资料中没有答案。` and the model is not asked.
Source: DESIGN.md 3, serving graph; `[q; d1; …; dk]` [EMR-LLM 1.5].
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

from medray.common.config import Config
from medray.generation.engine import Chat, Sampling
from medray.generation.prompts import NO_ANSWER, Numbered, grounded_prompt
from medray.retrieval.filters import PassageFilter
from medray.serving.citations import CitationGate
from medray.serving.policy import Finish, Fit
from medray.serving.schema import (
    ApiError,
    ChatRequest,
    FoundPassage,
    Grounding,
    SentenceVerdict,
    Usage,
)


class AnswerConfig(Config):
    """How questions are answered, where the request does not say."""

    top_k: int = 5
    """Passages shown to the model. Source: not given; [EMR-LLM 1.5] leaves k open. Best as many as
    the grounded examples hold that it was fine-tuned on."""
    min_cosine: float = 0.0
    """Passages with a lower cosine are not shown to the model.
    Source: not given; 0 refuses only what points away from the question. Not calibrated."""
    max_tokens: int = 256


class Embed(Protocol):
    """A question → its unit vector."""

    async def __call__(self, question: str, /) -> list[float]: ...


class Search(Protocol):
    """Question, its vector, k, filter → passage fields with `score`, `cosine` and `bm25`, best
    first."""

    async def __call__(
        self, question: str, vector: list[float], top_k: int, where: PassageFilter, /
    ) -> list[dict[str, Any]]: ...


class Generate(Protocol):
    """The policy: see `medray.serving.policy.Policy`."""

    async def fit(self, conversations: list[Chat], max_new_tokens: int, exact: bool, /) -> Fit: ...

    def stream(
        self, messages: Chat, sampling: Sampling, /
    ) -> AsyncGenerator[str | Finish, None]: ...


class Plan(NamedTuple):
    """A request that has passed every check and can be answered."""

    messages: Chat
    passages: list[FoundPassage]
    retrieval: bool
    num_prompt_tokens: int
    sampling: Sampling


class Outcome(NamedTuple):
    """What stands at the end of an answer."""

    finish_reason: str
    usage: Usage
    grounding: Grounding


async def plan_answer(
    request: ChatRequest, config: AnswerConfig, embed: Embed, search: Search, policy: Generate
) -> Plan:
    """Finds passages and builds the prompt, with as many of them as the context holds.

    Raises:
        ApiError: 400 if the chat does not fit into the model's context.
    """
    messages = [message.plain() for message in request.messages]
    retrieval = request.retrieval is not False
    passages: list[FoundPassage] = []
    if retrieval:
        passages = await find_passages(
            messages[-1]["content"], request.top_k or config.top_k, request.filters, embed, search,
            config.min_cosine,
        )  # fmt: skip
    # The worst passage is left out first; a grounded question keeps at least one.
    counts = range(len(passages), 0, -1) if passages else [0]
    conversations = [_with_passages(messages, passages[:count]) for count in counts]
    asked = request.max_completion_tokens or request.max_tokens
    max_tokens = asked or config.max_tokens
    fit = await policy.fit(conversations, max_tokens, asked is not None)
    if fit.index is None:
        raise ApiError(
            400,
            f"the model's context is {fit.context_tokens} tokens, but the messages"
            f"{' with one passage' if passages else ''} take {fit.num_prompt_tokens} and the "
            f"answer up to {max_tokens}; shorten the messages or lower max_tokens",
            code="context_length_exceeded",
            param="messages",
        )
    sampling = Sampling(
        max_new_tokens=fit.max_new_tokens,
        temperature=request.temperature or 0.0,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=request.seed or 0,
    )
    shown = passages[: counts[fit.index]]
    return Plan(conversations[fit.index], shown, retrieval, fit.num_prompt_tokens, sampling)


async def find_passages(
    question: str,
    top_k: int,
    where: PassageFilter,
    embed: Embed,
    search: Search,
    min_cosine: float = -math.inf,
) -> list[FoundPassage]:
    """The best passages, numbered from 1."""
    hits = await search(question, await embed(question), top_k, where)
    kept = [hit for hit in hits if hit["cosine"] >= min_cosine]
    return [FoundPassage.model_validate(hit | {"number": k}) for k, hit in enumerate(kept, 1)]


async def write_answer(
    plan: Plan, policy: Generate, index_version: str
) -> AsyncGenerator[str | Outcome, None]:
    """Yields text that may be shown, then one Outcome. Closing it stops the model."""
    gate = CitationGate(plan.passages)
    finish = Finish("stop", 0)
    if plan.retrieval and not plan.passages:
        gate.verdicts.append(SentenceVerdict(verdict="no_answer"))
        yield NO_ANSWER
    else:
        # Only `aclosing` tells the policy at once that its reader has gone.
        async with aclosing(policy.stream(plan.messages, plan.sampling)) as stream:
            async for item in stream:
                if not isinstance(item, str):
                    finish = Finish(*item)
                elif text := gate.feed(item) if plan.retrieval else item:
                    yield text
        if plan.retrieval and (rest := gate.finish()):
            yield rest
    asked_model = not plan.retrieval or bool(plan.passages)
    num_prompt_tokens = plan.num_prompt_tokens if asked_model else 0
    yield Outcome(
        finish.finish_reason,
        Usage(
            prompt_tokens=num_prompt_tokens,
            completion_tokens=finish.num_tokens,
            total_tokens=num_prompt_tokens + finish.num_tokens,
        ),
        Grounding(
            retrieval=plan.retrieval,
            index_version=index_version if plan.retrieval else "",
            passages=plan.passages,
            citations=gate.citations,
            verdicts=gate.verdicts,
        ),
    )


def _with_passages(messages: Chat, passages: list[FoundPassage]) -> Chat:
    if not passages:
        return messages
    numbered = [Numbered(passage.title, passage.text) for passage in passages]
    question = grounded_prompt(messages[-1]["content"], numbered)
    return [*messages[:-1], {"role": "user", "content": question}]
