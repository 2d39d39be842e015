"""Traces of requests (OpenTelemetry): what a chat spent its time on, across processes.

In: the settings. Out: spans as JSON lines in a directory, or to a collector by OTLP over HTTP.
A gateway's span of the request holds those of its parts; the policy's process adds its own, whose
parent comes with the call. Attributes are numbers, versions, routes as they are declared and types
of errors: no text, no filter, no key, and no path as it was asked for.
"""

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from pydantic import Field, model_validator

from medray import __version__
from medray.common.config import Config
from medray.common.errors import ConfigError
from medray.serving.messages import Finish, Fit, Piece
from medray.serving.observe.span_file import FileExporter

DELAY_MS = 1000
ROOT = contexts.create_key("medray-request")
PARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""Source: W3C Trace Context, section 3.2."""
FLAGS = 0b11
"""Sampled, and (level 2) random; others are to be ignored."""
METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS")


class TracesConfig(Config):
    """Where spans go, and of how many requests."""

    directory: str = ""
    """Spans are written to `spans.jsonl` here, for hospitals without a collector."""
    endpoint: str = ""
    """A collector's address for OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; needs
    `pip install medray[traces]`."""
    sample_fraction: float = Field(default=1.0, ge=0, le=1)
    """Of requests that are traced."""
    max_bytes: int = Field(default=50_000_000, ge=10_000)
    """Of the file; one more of that size, the older spans, is kept beside it."""
    accept_parents: bool = False
    """Whether a request's `traceparent` names the trace. The number in it is the client's, and
    stands in the spans: only where all who ask are known to make it up."""

    @model_validator(mode="after")
    def _check(self) -> "TracesConfig":
        if not self.directory and not self.endpoint:
            raise ValueError("set traces.directory or traces.endpoint, or leave traces out")
        return self


class Traces:
    """The spans of one process."""

    def __init__(self, config: TracesConfig) -> None:
        """Opens the exporters.

        Raises:
            ConfigError: if the OTLP exporter is not installed.
        """
        self._accept_parents = config.accept_parents
        ratio = TraceIdRatioBased(config.sample_fraction)
        self._provider = TracerProvider(
            # A client may not have more requests traced than we want; and since the trace's number
            # alone decides, all processes come to the same end.
            sampler=ParentBased(ratio, remote_parent_sampled=ratio,
                                remote_parent_not_sampled=ALWAYS_OFF),
            resource=Resource.create({"service.name": "medray", "service.version": __version__}),
            shutdown_on_exit=False,
        )  # fmt: skip
        for exporter in _exporters(config):
            self._provider.add_span_processor(
                BatchSpanProcessor(exporter, schedule_delay_millis=DELAY_MS)
            )
        self._tracer = self._provider.get_tracer("medray", __version__)

    def close(self) -> None:
        """Writes what is left."""
        self._provider.shutdown()

    @contextmanager
    def span(
        self, name: str, kind: SpanKind = SpanKind.INTERNAL, context: contexts.Context | None = None
    ) -> Iterator[Span]:
        """A part of what is going on in this task. Not across a generator's `yield`."""
        with self._tracer.start_as_current_span(
            name, context, kind, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                failed(span, error)
                raise

    @contextmanager
    def request(self, traceparent: str) -> Iterator[Span]:
        """The whole of a request; `parent` names it from then on."""
        parent = told_parent(traceparent) if self._accept_parents else None
        context = trace.set_span_in_context(NonRecordingSpan(parent)) if parent else None
        with self.span("request", SpanKind.SERVER, context or contexts.Context()) as root:
            token = contexts.attach(contexts.set_value(ROOT, root))
            try:
                yield root
            finally:
                contexts.detach(token)

    def parent(self) -> str:
        """The request's span as another process takes it; empty if there is none or it is not
        traced."""
        root = contexts.get_value(ROOT)
        return traceparent(root) if isinstance(root, Span) and root.is_recording() else ""

    def note(self, **numbers: int | str) -> None:
        """Adds to the request's span."""
        root = contexts.get_value(ROOT)
        if isinstance(root, Span):
            root.set_attributes({f"medray.{name}": value for name, value in numbers.items()})

    async def generation(
        self, items: AsyncGenerator[Fit | Piece | Finish, None], parent: str, waits: str
    ) -> AsyncGenerator[Fit | Piece | Finish, None]:
        """The items of a policy's stream, and spans of what is waited for: `fit` (the prompt is
        built and counted), `first_token` (a place in the batch, then the prompt is read) and
        `decode` (until the answer's end).

        Args:
            waits: the first of them.
        """
        known, tracer = told_parent(parent), self._tracer
        assert known is not None, "the gateway wrote it"
        # Never the current span: a generator's context is its reader's.
        above = trace.set_span_in_context(NonRecordingSpan(known))
        whole = tracer.start_span("generate", above)
        inside = trace.set_span_in_context(whole)
        part = tracer.start_span(waits, inside)
        try:
            async with aclosing(items):
                async for item in items:
                    following = _following(item, waits)
                    if following != waits:
                        part.end()
                        part, waits = tracer.start_span(following, inside), following
                    if isinstance(item, Fit):
                        whole.set_attribute("medray.prompt_tokens", item.num_prompt_tokens)
                    elif isinstance(item, Finish):
                        whole.set_attribute("medray.completion_tokens", item.num_tokens)
                        whole.set_attribute("medray.model_version", item.version)
                    yield item
        except BaseException as error:
            failed(whole, error)
            raise
        finally:
            part.end()
            whole.end()


def _following(item: Fit | Piece | Finish, waits: str) -> str:
    """What is waited for after an item."""
    if isinstance(item, Fit):
        return "first_token"
    return "decode" if isinstance(item, Piece) else waits


class Traced:
    """ASGI middleware: a span for each request to the API, whose `traceparent` the answer has."""

    def __init__(self, app: Any, traces: Traces) -> None:
        self._app, self._traces = app, traces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
        with self._traces.request(given) as root:

            async def send_named(message: Any) -> None:
                if message["type"] == "http.response.start":
                    root.set_attribute("http.response.status_code", message["status"])
                    named = (b"traceparent", traceparent(root).encode())
                    message["headers"] = [*message["headers"], named]
                await send(message)

            try:
                await self._app(scope, receive, send_named)
            finally:
                method = scope["method"] if scope["method"] in METHODS else "_OTHER"
                route = getattr(scope.get("route"), "path", "")
                root.update_name(f"{method} {route}".strip())
                root.set_attributes({"http.request.method": method, "http.route": route})


def _exporters(config: TracesConfig) -> Iterator[SpanExporter]:
    if config.directory:
        yield FileExporter(Path(config.directory).expanduser(), config.max_bytes)
    if config.endpoint:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # pyright: ignore
                OTLPSpanExporter,
            )
        except ImportError:
            raise ConfigError(
                "traces.endpoint needs the OTLP exporter: pip install 'medray[traces]'; or set "
                "traces.directory"
            ) from None
        yield OTLPSpanExporter(endpoint=config.endpoint)


def told_parent(header: str) -> SpanContext | None:
    """A span of another process by its `traceparent`; None if that is none."""
    found = PARENT.fullmatch(header)
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return SpanContext(trace_id, span_id, True, TraceFlags(flags & FLAGS))


def traceparent(span: Span) -> str:
    """A span by W3C Trace Context."""
    told = span.get_span_context()
    return f"00-{told.trace_id:032x}-{told.span_id:016x}-{told.trace_flags:02x}"


def failed(span: Span, error: BaseException) -> None:
    """Marks a span; of the error its type alone, since its message may quote what was asked."""
    span.set_attribute("error.type", type(error).__name__)
    if isinstance(error, Exception):
        span.set_status(trace.StatusCode.ERROR)
