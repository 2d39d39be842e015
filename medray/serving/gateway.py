"""The ingress: an OpenAI-compatible HTTP API over the deployments behind it.

In: HTTP. Out: JSON, or server-sent events. The number of requests in flight is bounded here, since
Serve's own queue limit counts per handle and refuses bursts; past it the answer is 429 at once.
No text of a request stands in a log line or an error.
"""

import base64
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from medray.common.config import Config
from medray.serving.answer import (
    AnswerConfig,
    Outcome,
    Plan,
    find_passages,
    plan_answer,
    write_answer,
)
from medray.serving.handles import Deployments
from medray.serving.limits import InFlight, Slot
from medray.serving.refusals import add_error_handlers, unavailable
from medray.serving.schema import (
    ApiError,
    ChatRequest,
    EmbeddingRequest,
    RetrieveRequest,
    chunk,
    completion,
    embeddings,
)

logger = logging.getLogger(__name__)
app = FastAPI(title="medray", docs_url=None, redoc_url=None)
add_error_handlers(app)


class GatewayConfig(Config):
    """What the gateway serves, and how much at a time."""

    model_name: str = "medray"
    embedding_name: str = "medray-embedding"
    max_in_flight: int = 32
    """Requests in flight at one gateway replica; more are answered 429."""
    retry_after_s: int = 2
    max_input_chars: int = 200_000
    """Longer requests are refused before a tokenizer sees them."""
    health_timeout_s: float = 5.0
    answer: AnswerConfig = AnswerConfig()


def _log(identity: dict[str, Any], outcome: Outcome) -> None:
    verdicts = [verdict.verdict for verdict in outcome.grounding.verdicts]
    logger.info(
        "%s %s: %d + %d tokens, %d passages, %d sentences, %d left out",
        identity["id"], outcome.finish_reason, outcome.usage.prompt_tokens,
        outcome.usage.completion_tokens, len(outcome.grounding.passages), len(verdicts),
        verdicts.count("failed"),
    )  # fmt: skip


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


async def _chain(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(rest) as events:
        yield first
        async for event in events:
            yield event


# Wrapped here, not where the graph is built: each replica imports this module, and must find the
# routes bound to the class. Wrapping copies the methods with the names defined so far, so the class
# stands last in this file.
@serve.ingress(app)
class Gateway:
    """Routes of the API."""

    def __init__(
        self, config: GatewayConfig, index_version: str, policy: DeploymentHandle,
        embedding: DeploymentHandle, retrieval: DeploymentHandle,
    ) -> None:  # fmt: skip
        self._config, self._index_version = config, index_version
        self._deployed = Deployments(policy, embedding, retrieval)
        self._in_flight = InFlight(config.max_in_flight, config.retry_after_s)
        self._created = int(time.time())

    @app.post("/v1/chat/completions")
    async def chat(self, request: ChatRequest) -> Response:
        """Answers the last message, grounded unless `retrieval` is false."""
        self._check_model(request.model, self._config.model_name)
        request.check()
        self._check_size(sum(len(message.plain()["content"]) for message in request.messages))
        slot, deployed = self._in_flight.take(), self._deployed
        try:
            plan = await plan_answer(
                request, self._config.answer, deployed.embed_question, deployed.search,
                deployed.policy,
            )  # fmt: skip
            identity = {
                "id": f"chatcmpl-{uuid.uuid4().hex}",
                "created": int(time.time()),
                "model": request.model,
            }
            if request.stream:
                options = request.stream_options
                events = self._events(
                    plan, identity, slot, options is not None and options.include_usage
                )
                first = await anext(events)  # a generator once begun gives back its slot for sure
                return StreamingResponse(
                    _chain(first, events),
                    media_type="text/event-stream",
                    headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
                )
            return JSONResponse(await self._whole(plan, identity, slot))
        except BaseException:
            slot.free()
            raise

    @app.post("/v1/embeddings")
    async def embed(self, request: EmbeddingRequest) -> Response:
        """Unit vectors of the texts, as floats or base64 of little-endian float32."""
        self._check_model(request.model, self._config.embedding_name)
        texts = request.texts()
        self._check_size(sum(map(len, texts)))
        slot = self._in_flight.take()
        try:
            vectors, num_tokens = await self._deployed.embed(texts)
        finally:
            slot.free()
        if request.dimensions not in (None, len(vectors[0])):
            raise ApiError(
                400, f"this model has {len(vectors[0])} dimensions; leave dimensions out",
                code="unsupported_parameter", param="dimensions",
            )  # fmt: skip
        if request.encoding_format == "base64":
            vectors = [base64.b64encode(np.array(v, "<f4").tobytes()).decode() for v in vectors]
        return JSONResponse(embeddings(request.model, vectors, num_tokens))

    @app.post("/v1/retrieve")
    async def retrieve(self, request: RetrieveRequest) -> dict[str, Any]:
        """The best passages for a question, with what ranked them; no model is asked."""
        self._check_size(len(request.query))
        slot = self._in_flight.take()
        try:
            found = await find_passages(
                request.query, request.top_k, request.filters, self._deployed.embed_question,
                self._deployed.search,
            )  # fmt: skip
        finally:
            slot.free()
        data = [passage.model_dump() for passage in found]
        return {"object": "list", "index_version": self._index_version, "data": data}

    @app.get("/v1/models")
    async def models(self) -> dict[str, Any]:
        """The two models by name."""
        names = (self._config.model_name, self._config.embedding_name)
        return {"object": "list", "data": [self._model(name) for name in names]}

    @app.get("/v1/models/{name}")
    async def model(self, name: str) -> dict[str, Any]:
        """One model by name."""
        self._check_model(name, self._config.model_name, self._config.embedding_name)
        return self._model(name)

    @app.get("/healthz")
    async def health(self) -> Response:
        """200 if every deployment answers, else 503; versions of what is served."""
        deployments = await self._deployed.states(self._config.health_timeout_s)
        ready = all(state["ready"] for state in deployments.values())
        body = {
            "status": "ok" if ready else "unready",
            "model": self._config.model_name,
            "index_version": self._index_version,
            "in_flight": self._in_flight.count,
            "deployments": deployments,
        }
        return JSONResponse(body, status_code=200 if ready else 503)

    @app.get("/", response_class=HTMLResponse)
    async def page(self) -> str:
        """A page to ask questions on."""
        text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        return text.replace('"MODEL_NAME"', json.dumps(self._config.model_name))

    def _write(self, plan: Plan) -> AsyncGenerator[str | Outcome, None]:
        return write_answer(plan, self._deployed.policy, self._index_version)

    async def _whole(self, plan: Plan, identity: dict[str, Any], slot: Slot) -> dict[str, Any]:
        pieces: list[str] = []
        outcome = None
        async with aclosing(self._write(plan)) as items:
            async for item in items:
                if isinstance(item, Outcome):
                    outcome = item
                else:
                    pieces.append(item)
        assert outcome is not None
        slot.free()
        _log(identity, outcome)
        return completion(identity, "".join(pieces), *outcome)

    async def _events(
        self, plan: Plan, identity: dict[str, Any], slot: Slot, include_usage: bool
    ) -> AsyncGenerator[str, None]:
        try:
            yield _event(chunk(identity, {"role": "assistant", "content": ""}))
            async with aclosing(self._write(plan)) as items:
                async for item in items:
                    if isinstance(item, str):
                        yield _event(chunk(identity, {"content": item}))
                        continue
                    _log(identity, item)
                    extra = {"medray": item.grounding.model_dump()}
                    yield _event(chunk(identity, {}, item.finish_reason, **extra))
                    if include_usage:
                        yield _event(chunk(identity, None, usage=item.usage.model_dump()))
            yield "data: [DONE]\n\n"
        except (RayError, RayServeException) as error:
            yield _event(unavailable(error).body())
        finally:
            slot.free()

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "medray"}

    def _check_model(self, name: str, *served: str) -> None:
        if name not in served:
            raise ApiError(
                404, f"no such model here; this endpoint serves {' and '.join(served)}",
                code="model_not_found", param="model",
            )  # fmt: skip

    def _check_size(self, num_chars: int) -> None:
        limit = self._config.max_input_chars
        if num_chars > limit:
            raise ApiError(400, f"the input is {num_chars} characters, more than {limit}",
                           code="input_too_long")  # fmt: skip
