"""From a chat to a checked answer: embed → search → numbered prompt → stream → check.

In: a chat request and three objects that embed, search and generate. Out: text that may be shown,
then the outcome with citations, passages and verdicts. Nothing here knows of HTTP or Ray.

A question is answered from passages; or, where the nearest lies below `min_cosine`, by
`所给资料中没有答案。`, without asking the model; or, where it is one that passages do not answer
(`medray.retrieval.routing`), by the model alone, which is said first.
Source: DESIGN.md 3, serving graph; `[q; d1; …; dk]` [EMR-LLM 1.5].
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple, Protocol

from medray.generation.prompts import NO_ANSWER, grounded_prompt, shown
from medray.generation.sampling import Chat, Sampling
from medray.serving.answering.citations import CitationGate
from medray.serving.answering.evidence import AnswerConfig, Embed, Evidence, Search, find_evidence
from medray.serving.answering.guard import HAN, Refusal, handed_on, refusal_meanwhile
from medray.serving.identity.keys import Role
from medray.serving.messages import Choices, Finish, Fit, Piece, Prompt
from medray.serving.record.passages import EmbedTexts
from medray.serving.schema.base import ApiError, Usage
from medray.serving.schema.chat import ChatRequest
from medray.serving.schema.grounding import FoundPassage, Grounding, SentenceVerdict

UNSOURCED = (
    "（以下未依据资料，没有出处。）\n",
    "(What follows rests on no source.)\n",
)
"""Said before an answer of the model alone that was not asked for as such."""


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
    notice: str = ""
    """What the reader is told before the model's words."""


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
    the context holds; or refuses, as `guard` has it for who asks. Of the messages before the last
    none reaches the model that would be refused.

    Args:
        embed_texts: for requests that may bring a record.
    Raises:
        ApiError: 400 if the chat does not fit into the model's context, 403 for an answer of the
            model alone to one who gets none.
    """
    messages = [_unmarked(message.plain()) for message in request.messages]
    question = messages[-1]["content"]
    if refused := await refusal_meanwhile(question, role):
        return Plan([], False, refusal=refused)
    messages = [*await handed_on(messages[:-1], role), messages[-1]]
    if request.retrieval is False and role not in config.unsourced_roles:
        raise ApiError(
            403, f"the role {role} is answered from passages; leave retrieval out",
            code="insufficient_permissions", param="retrieval",
        )  # fmt: skip
    evidence = Evidence([], False, "")
    if request.retrieval is not False:
        evidence = await find_evidence(request, question, config, embed, search, role, embed_texts)
        if evidence.looked_up and not evidence.passages:
            return Plan([], True, index_version=evidence.version)
    passages, retrieval, version = evidence
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
    notice = ""
    if request.retrieval is None and not retrieval:
        notice = UNSOURCED[0] if HAN.search(question) else UNSOURCED[1]
    return Plan(shown, retrieval, stream, fit.num_prompt_tokens, version, notice=notice)


async def first_fit(stream: AsyncGenerator[Fit | Piece | Finish, None]) -> Fit:
    """The first item of a stream of `Choices`, which is closed where none of them fits."""
    fit = await anext(stream)
    assert isinstance(fit, Fit)
    if fit.index is None:
        await stream.aclose()
    return fit


async def write_answer(plan: Plan) -> AsyncGenerator[Piece | Outcome, None]:
    """Yields text that may be shown, then one Outcome. Closing it stops the model."""
    if plan.refusal is not None:
        yield Piece(plan.refusal.text)
        usage = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
        grounding = Grounding(retrieval=False, guard=plan.refusal.kind)
        yield Outcome("content_filter", usage, grounding, "")
        return
    gate = CitationGate(plan.passages)
    # Without passages no citation can hold: where none was to be expected they are left out too.
    checked = plan.retrieval or bool(plan.notice)
    finish = Finish("stop", 0)
    if plan.stream is None:
        gate.verdicts.append(SentenceVerdict(verdict="no_answer"))
        yield Piece(NO_ANSWER)
    else:
        notice = plan.notice
        # Only `aclosing` tells the policy at once that its reader has gone.
        async with aclosing(plan.stream) as stream:
            async for item in stream:
                if isinstance(item, Finish):
                    finish = item
                elif isinstance(item, Fit):
                    continue
                elif not checked:
                    if item.text or item.tokens:
                        yield item
                elif text := gate.feed(item.text):
                    yield Piece(notice + text)
                    notice = ""
        if checked and (rest := gate.finish()):
            yield Piece(notice + rest)
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


def without_notice(text: str) -> str:
    """An answer as the model wrote it."""
    for notice in UNSOURCED:
        text = text.removeprefix(notice)
    return text


def _unmarked(message: dict[str, str]) -> dict[str, str]:
    """A message as the model may read it: its own words without what was put before them."""
    if message["role"] != "assistant":
        return message
    return message | {"content": without_notice(message["content"])}


def _with_passages(messages: Chat, passages: list[FoundPassage]) -> Chat:
    if not passages:
        return messages
    numbered = [shown(passage.title, passage.text) for passage in passages]
    question = grounded_prompt(messages[-1]["content"], numbered)
    return [*messages[:-1], {"role": "user", "content": question}]
