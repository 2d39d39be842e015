"""Spans: whose they are, how many are kept, and what they do not say."""

import asyncio
import gzip
import http.server
import importlib.util
import json
import multiprocessing
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from medray.common.errors import ConfigError
from medray.serving.gateway import build_api
from medray.serving.gateway_config import GatewayConfig
from medray.serving.handles import Calls
from medray.serving.messages import Finish, Fit, Piece
from medray.serving.observe.metrics import Metrics
from medray.serving.observe.span_file import FileExporter
from medray.serving.observe.traces import (
    Traced,
    Traces,
    TracesConfig,
    told_parent,
    traceparent,
)
from medray.serving.service import Service

THEIRS = "0af7651916cd43dd8448eb211c80319c"
HEADER = f"00-{THEIRS}-b7ad6b7169203331-01"


def read(place: Path) -> list[dict[str, Any]]:
    path = place / "spans.jsonl"
    return [json.loads(line) for line in path.open()] if path.exists() else []


def settings(place: Path, **more: Any) -> TracesConfig:
    return TracesConfig.parse({"directory": str(place), **more}, "test")


@pytest.mark.parametrize(
    "header",
    ["", HEADER.upper(), HEADER[:-1], HEADER + "0", "01" + HEADER[2:], HEADER[:-2] + "0g",
     f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{THEIRS}-{'0' * 16}-01", HEADER.replace("-", "_"),
     f"00-患者{THEIRS[2:]}-b7ad6b7169203331-01", HEADER + "\n"],
)  # fmt: skip
def test_what_is_no_traceparent_is_none(header: str) -> None:
    assert told_parent(header) is None


def test_a_parent_is_accepted_where_that_is_set(tmp_path: Path) -> None:
    known = told_parent(HEADER)
    assert known is not None and f"{known.trace_id:032x}" == THEIRS
    for accept, sampled in ((False, "01"), (True, "01"), (True, "00")):
        place = tmp_path / f"{accept}{sampled}"
        traces = Traces(settings(place, accept_parents=accept))
        with traces.request(HEADER[:-2] + sampled) as root:
            assert (traceparent(root).split("-")[1] == THEIRS) is accept
            assert traces.parent() == (traceparent(root) if sampled == "01" else "")
            handed = told_parent(traceparent(root))  # as the policy reads it
            assert handed is not None and handed.span_id == root.get_span_context().span_id
            assert handed.trace_flags.sampled is (sampled == "01")
        assert traces.parent() == ""
        traces.close()
        parents = [span["parent_id"] for span in read(place)]
        assert parents == ([] if sampled == "00" else ["0xb7ad6b7169203331" if accept else None])


def test_how_many_are_traced_is_ours_to_say(tmp_path: Path) -> None:
    """Of 400 with probability 0.25: 100 expected, sd 8.7; below 57 or above 143 once in 10^6."""
    traces = Traces(settings(tmp_path, sample_fraction=0.25, accept_parents=True))
    for number in range(400):
        with traces.request("" if number % 2 else f"00-{number + 1:032x}-b7ad6b7169203331-00"):
            pass
    for _ in range(400):
        with traces.request(""):
            pass
    traces.close()
    # 200 of a client that wants none, 600 of ours: 150 expected, sd 10.6.
    assert 100 < len(read(tmp_path)) < 200


def test_an_error_leaves_its_type_alone(tmp_path: Path) -> None:
    traces = Traces(settings(tmp_path))
    with pytest.raises(ValueError), traces.request(""), traces.span("plan"):
        raise ValueError("患者欧阳奎")
    traces.close()
    told = (tmp_path / "spans.jsonl").read_text(encoding="utf-8")
    assert "欧阳" not in told and "\\u6b27" not in told
    for span in read(tmp_path):
        assert span["attributes"]["error.type"] == "ValueError"
        assert span["status"] == {"status_code": "ERROR"} and span["events"] == []


async def _answer(end: Any) -> AsyncGenerator[Fit | Piece | Finish, None]:
    yield Fit(0, 7, 5, 20)
    yield Piece("一", ids=(1,))
    yield Piece("二", ids=(2,))
    yield end


def test_parts_of_a_generation(tmp_path: Path) -> None:
    traces = Traces(settings(tmp_path))

    async def run() -> list[Any]:
        stream = _answer(Finish("stop", 3, "m1"))
        return [item async for item in traces.generation(stream, HEADER, "fit")]

    async def leave() -> None:
        items = traces.generation(_answer(None), HEADER, "fit")
        await anext(items)
        await items.aclose()

    assert len(asyncio.run(run())) == 4
    asyncio.run(leave())
    traces.close()
    spans = read(tmp_path)
    assert [span["name"] for span in spans] == [
        "fit", "first_token", "decode", "generate", "fit", "first_token", "generate",
    ]  # fmt: skip
    whole, left = spans[3], spans[6]
    assert {span["parent_id"] for span in spans[:3]} == {f"0x{whole['context']['span_id'][2:]}"}
    assert whole["parent_id"] == "0xb7ad6b7169203331"
    assert whole["attributes"] == {
        "medray.prompt_tokens": 7, "medray.completion_tokens": 3, "medray.model_version": "m1",
    }  # fmt: skip
    assert left["attributes"]["error.type"] == "GeneratorExit"
    assert left["status"]["status_code"] == "UNSET"  # a reader that leaves is no error


def _write(directory: Path, count: int, max_bytes: int) -> None:
    exporter, tracer = FileExporter(directory, max_bytes), TracerProvider().get_tracer("test")
    for number in range(count):
        with tracer.start_as_current_span(f"s{number}") as span:
            pass
        exporter.export([span])  # type: ignore[list-item]


def test_the_file_is_bounded_and_shared(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, 200, 1 << 30)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read(tmp_path)) == 600  # whole lines, none lost
    small = tmp_path / "small"
    writers = [context.Process(target=_write, args=(small, 200, 10_000)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {path.name for path in small.iterdir()} == {"spans.jsonl", "spans.1.jsonl"}
    for path in small.iterdir():
        assert path.stat().st_size <= 10_000
        assert all(json.loads(line) for line in path.open())


def test_off_nothing_is_made() -> None:
    service = Service(GatewayConfig(), SimpleNamespace(reranks=False), Metrics())  # type: ignore[arg-type]
    assert Traced not in [entry.cls for entry in build_api(service).user_middleware]
    assert service.span("plan") is service.span("answer")
    assert Calls(Metrics())._traces is None


def test_a_collector_gets_them_by_otlp() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="medray[traces]")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    got = ExportTraceServiceRequest()

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            got.MergeFromString(gzip.decompress(body) if packed else body)
            self.send_response(200)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        traces = Traces(TracesConfig(endpoint=f"http://127.0.0.1:{server.server_port}/v1/traces"))
        with traces.request("") as root, traces.span("plan"):
            traces.note(passages=3, index_version="i1")
            named = traceparent(root)
        traces.close()
        server.shutdown()
    spans = {span.name: span for scope in got.resource_spans[0].scope_spans for span in scope.spans}
    whole, plan = spans["request"], spans["plan"]
    assert named.startswith(f"00-{whole.trace_id.hex()}-{whole.span_id.hex()}-")
    assert plan.parent_span_id == whole.span_id and plan.trace_id == whole.trace_id
    said = {a.key: a.value.int_value or a.value.string_value for a in whole.attributes}
    assert said == {"medray.passages": 3, "medray.index_version": "i1"}


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.exporter.otlp") is not None, reason="it is installed"
)
def test_a_collector_without_the_exporter_is_told_how() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'medray\[traces\]'"):
        Traces(TracesConfig(endpoint="http://127.0.0.1:4318/v1/traces"))


def test_settings_that_lead_nowhere() -> None:
    with pytest.raises(ConfigError, match=r"traces\.directory or traces\.endpoint"):
        TracesConfig.parse({}, "test")
    with pytest.raises(ConfigError, match="sample_fraction"):
        TracesConfig.parse({"directory": "x", "sample_fraction": 2}, "test")
