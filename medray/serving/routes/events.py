"""Server-sent events: a JSON object each, `[DONE]` last, and the place given back in any case."""

import json
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Any

from fastapi.responses import StreamingResponse
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from medray.serving.refusals import unavailable
from medray.serving.schema.base import ApiError


async def stream_events(
    bodies: AsyncGenerator[dict[str, Any], None], turn: ExitStack
) -> StreamingResponse:
    """The response that sends `bodies`; its end closes them and `turn`."""
    events = _events(bodies, turn)
    first = await anext(events)  # a generator once begun ends its turn for sure
    return StreamingResponse(
        _chain(first, events),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _events(
    bodies: AsyncGenerator[dict[str, Any], None], turn: ExitStack
) -> AsyncGenerator[str, None]:
    try:
        with turn:
            async with aclosing(bodies) as items:
                async for body in items:
                    yield _event(body)
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield _event(error.body())
    except (RayError, RayServeException) as error:
        yield _event(unavailable(error).body())


async def _chain(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(rest) as events:
        yield first
        async for event in events:
            yield event


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
