"""POST /v1/chat/completions.

The guard reads the last message before anything is counted: a cry for help is answered by its rule
whatever limit is reached and however much is in flight, and the emergency switch, which stops the
model, stops no rule.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from medray.serving.answering.answer import Outcome, Plan, plan_answer, without_notice, write_answer
from medray.serving.answering.guard import refusal
from medray.serving.identity.access import CHAT, Caller, may
from medray.serving.routes.events import stream_events
from medray.serving.schema.chat import ChatRequest, chunk, completion
from medray.serving.service import Served, Service, Turn

router = APIRouter()
CRY_CHARS = 4000
"""A cry for help is no longer. Rules read longer questions too, once the limits have let them in:
about 1 µs a character, up to 20 where a text is written to keep them busy."""


@router.post("/v1/chat/completions")
async def chat(
    request: ChatRequest, service: Served, caller: Annotated[Caller, may(CHAT)]
) -> Response:
    """Answers the last message: from passages, by the model alone, or by saying that there is no
    answer; see `retrieval`."""
    service.check_model(request.model, *service.policy_names)
    request.check()
    messages = [message.plain() for message in request.messages]
    service.check_size(sum(len(message["content"]) for message in messages))
    deployed = service.deployed
    asked = {"messages": json.dumps(messages, ensure_ascii=False)}
    question = messages[-1]["content"]
    refused = refusal(question, caller.role) if len(question) <= CRY_CHARS else None
    urgent = refused is not None and refused.kind == "self_harm"
    with ExitStack() as stack:
        model = service.answering(request.model)
        turn = stack.enter_context(
            await service.admit(
                caller, "chatcmpl", asked, model=model, urgent=urgent, by_rule=refused is not None
            )
        )
        policy = turn.meter(deployed.others.get(model, deployed.chats))
        with service.span("plan"):
            plan = await plan_answer(
                request, service.config.answer, deployed.embed_question, deployed.search,
                policy, caller.role, embed_texts=deployed.embed,
            )  # fmt: skip
        turn.note(index_version=plan.index_version, passages=[p.passage_id for p in plan.passages])
        if request.stream:
            options = request.stream_options
            counted = options is not None and options.include_usage
            chunks = _chunks(service, plan, turn, request.model, counted)
            return await stream_events(chunks, stack.pop_all())
        return JSONResponse(await _whole(service, plan, turn, request.model))


async def _whole(service: Service, plan: Plan, turn: Turn, model: str) -> dict[str, Any]:
    texts, tokens, outcome = [], [], None
    async with aclosing(write_answer(plan)) as items:
        async for item in items:
            if isinstance(item, Outcome):
                outcome = item
            else:
                turn.goes_on(item.text)
                texts.append(item.text)
                tokens += item.tokens
    assert outcome is not None
    text = "".join(texts)
    _log(service, turn, text, outcome)
    return completion(_identity(turn, model, outcome), text, tokens, *outcome[:3])


async def _chunks(
    service: Service, plan: Plan, turn: Turn, model: str, counted: bool
) -> AsyncGenerator[dict[str, Any], None]:
    named, texts = turn.identity(model), []
    yield chunk(named, {"role": "assistant", "content": ""})
    async with aclosing(write_answer(plan)) as items:
        async for item in items:
            if not isinstance(item, Outcome):
                turn.goes_on(item.text)
                texts.append(item.text)
                yield chunk(named, {"content": item.text}, item.tokens)
                continue
            _log(service, turn, "".join(texts), item)
            named = _identity(turn, model, item)
            extra = {"medray": item.grounding.model_dump()}
            yield chunk(named, {}, (), item.finish_reason, **extra)
            if counted:
                yield chunk(named, None, usage=item.usage.model_dump())


def _identity(turn: Turn, model: str, outcome: Outcome) -> dict[str, Any]:
    return turn.identity(model) | {"system_fingerprint": outcome.version or None}


def _log(service: Service, turn: Turn, text: str, outcome: Outcome) -> None:
    grounding = outcome.grounding
    verdicts = [verdict.verdict for verdict in grounding.verdicts]
    service.metrics.answered(grounding)
    turn.answered(
        outcome.usage,
        {"answer": without_notice(text)},  # feedback on it becomes training rows
        finish_reason=outcome.finish_reason,
        model_version=outcome.version,
        index_version=grounding.index_version,
        passages=[passage.passage_id for passage in grounding.passages],
        basis=grounding.basis,
        guard=grounding.guard,
        sentences=len(verdicts),
        left_out=verdicts.count("failed"),
    )
