"""The ingress: an OpenAI-compatible HTTP API over the deployments behind it.

In: HTTP. Out: JSON, or server-sent events. The number of requests in flight is bounded here, since
Serve's own queue limit counts per handle and refuses bursts; past it the answer is 429 at once.
No text of a request stands in a log line or an error.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from medray.serving.body import BoundedBody
from medray.serving.gateway_config import GatewayConfig
from medray.serving.handles import Deployments
from medray.serving.observe.metrics import Metrics
from medray.serving.observe.traces import Traced, Traces, TracesConfig
from medray.serving.refusals import add_error_handlers
from medray.serving.routes import (
    attend,
    chat,
    completions,
    consult,
    feedback,
    quality,
    ratings,
    record,
    state,
    vectors,
)
from medray.serving.service import Service


@asynccontextmanager
async def _closing(service: Service, _: FastAPI) -> AsyncGenerator[None, None]:
    yield
    service.close()


def build_api(service: Service) -> FastAPI:
    """The HTTP API of one gateway replica."""
    app = FastAPI(title="medray", docs_url=None, redoc_url=None)
    app.state.service = service
    app.router.lifespan_context = partial(_closing, service)
    add_error_handlers(app)
    config = service.config
    app.add_middleware(
        BoundedBody, max_bytes=config.max_body_bytes, timeout_s=config.body_timeout_s
    )
    if service.traces is not None:
        app.add_middleware(Traced, traces=service.traces)
    answering = (chat, completions, vectors, quality, consult, attend)
    for routes in (*answering, record, feedback, ratings, state):
        app.include_router(routes.router)
    return app


@serve.ingress()
class Gateway:
    """A gateway replica."""

    def __init__(
        self,
        config: GatewayConfig,
        handles: dict[str, DeploymentHandle],
        traces: TracesConfig | None = None,
    ) -> None:
        metrics, traced = Metrics(), Traces(traces) if traces else None
        deployed = Deployments(
            handles, metrics, config.rerank_candidates, config.canary, traced,
            config.request_timeout_s,
        )  # fmt: skip
        self._service = Service(config, deployed, metrics, traced)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Serve calls this after the constructor."""
        return build_api(self._service)
