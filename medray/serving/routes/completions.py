"""POST /v1/completions."""

import json
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from medray.serving.answering import complete
from medray.serving.identity.access import MODEL, Caller, may
from medray.serving.meter import Meter
from medray.serving.routes.events import stream_events
from medray.serving.schema.base import Usage
from medray.serving.schema.completions import CompletionRequest, body
from medray.serving.service import Served, Turn

router = APIRouter()


@router.post("/v1/completions")
async def completions(
    request: CompletionRequest, service: Served, caller: Annotated[Caller, may(MODEL)]
) -> Response:
    """Continues texts by the model alone, without passages; with `echo`, scores them."""
    service.check_model(request.model, *service.policy_names)
    request.check()
    service.check_size(request.size())
    asked = {"prompts": json.dumps(request.prompts(), ensure_ascii=False)}
    with ExitStack() as stack:
        model = service.answering(request.model)
        turn = stack.enter_context(await service.admit(caller, "cmpl", asked, model=model))
        policy = turn.meter(service.deployed.others.get(model, service.deployed.policy))
        plan = await complete.plan_completions(request, policy)
        if request.stream:
            options = request.stream_options
            counted = options is not None and options.include_usage
            items = complete.stream(plan, policy)
            chunks = _chunks(items, turn, policy, request.model, counted)
            return await stream_events(chunks, stack.pop_all())
        choices, usage = await turn.unless_stopped(complete.complete(plan, policy))
        turn.goes_on()
        texts = [choice["text"] for choice in choices]
        turn.answered(
            usage, {"completions": json.dumps(texts, ensure_ascii=False)},
            model_version=policy.version,
        )  # fmt: skip
        return JSONResponse(body(turn.identity(request.model), choices, usage))


async def _chunks(
    written: AsyncGenerator[dict[str, Any] | Usage, None],
    turn: Turn,
    policy: Meter,
    model: str,
    counted: bool,
) -> AsyncGenerator[dict[str, Any], None]:
    named, texts = turn.identity(model), []
    async with aclosing(written) as items:
        async for item in items:
            if not isinstance(item, Usage):
                turn.goes_on(item["text"])
                texts.append(item["text"])
                yield body(named, [item], None)
                continue
            turn.answered(
                item, {"completions": json.dumps(["".join(texts)], ensure_ascii=False)},
                model_version=policy.version,
            )  # fmt: skip
            if counted:
                yield body(named, [], item)
