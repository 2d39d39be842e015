"""The served graph as a hospital runs it: HTTPS, tokens of its identity provider, an audit log,
traces."""

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from ports import free_port

from medray.serving import up
from medray.serving.audit_log import read_entries
from medray.serving.identity.oidc import pseudonym

pytestmark = pytest.mark.cluster
CONFIG = Path(__file__).parents[2] / "serve_configs" / "laptop.yaml"


class Site(NamedTuple):
    url: str
    place: Path

    def ask(
        self, question: str, token: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> requests.Response:
        body = {"model": "medray", "messages": [{"role": "user", "content": question}], **fields}
        return requests.post(
            f"{self.url}/v1/chat/completions", json=body, timeout=120,
            headers={"Authorization": f"Bearer {token}", **(headers or {})},
            verify=str(self.place / "certificate.pem"),
        )  # fmt: skip


@pytest.fixture(scope="module")
def site(ray_cluster, hospital, reranker, provider, certify, tmp_path_factory) -> Iterator[Site]:
    from ray import serve

    place = tmp_path_factory.mktemp("secured")
    certificate, key = certify(place)
    overrides = [
        f"storage_root={hospital.root}", "gateway.answer.min_cosine=-1",
        f"gateway.audit_dir={place / 'audit'}", f"traces.directory={place / 'traces'}",
        f"reranker_dir={reranker}", f"gateway.oidc={json.dumps(provider.settings())}",
    ]  # fmt: skip
    with up.start(CONFIG, overrides, port=free_port(), certificate=certificate, key=key) as running:
        yield Site(running.url, place)
    serve.shutdown()


def test_a_handshake_and_a_request(site) -> None:
    assert site.url.startswith("https://127.0.0.1:")
    port = int(site.url.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(site.place / "certificate.pem"))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        assert secure.version() in ("TLSv1.2", "TLSv1.3")
    answer = requests.get(
        f"{site.url}/healthz", verify=str(site.place / "certificate.pem"), timeout=60
    )
    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{site.url}/healthz", timeout=60)  # nobody whom we trust signed it
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/healthz", timeout=60)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_as_the_readme_has_it(site) -> None:
    url = site.url.replace("127.0.0.1", "localhost")
    command = ["curl", "-s", "--cacert", str(site.place / "certificate.pem"), f"{url}/healthz"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["status"] == "ok"


def test_a_token_opens_the_graph_and_its_holder_has_limits(site, provider, hospital) -> None:
    portal = {"sub": "patient-1", "realm_access": {"roles": ["portal"]}}
    answers = [site.ask(hospital.questions["true"], provider.token(**portal)) for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 429]  # two a minute, by the settings
    assert answers[0].json()["choices"][0]["message"]["content"] == hospital.answers["true"]
    assert site.ask("肺炎", provider.token(exp=1)).status_code == 401
    assert site.ask("肺炎", "medray-00000000-x").status_code == 401
    (asked, answered) = map(json.loads, read_entries(site.place / "audit", answers[0].json()["id"]))
    assert asked["caller"] == answered["caller"] == pseudonym(provider.issuer, "patient-1", None)
    assert asked["role"] == "patient"


def spans_of(place: Path, trace_id: str, names: set[str]) -> list[dict[str, Any]]:
    """A trace's spans, once all of `names` are there: processes write every second."""
    deadline = time.monotonic() + 30
    while True:
        path = place / "traces" / "spans.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        spans = [json.loads(line) for line in lines]
        found = [span for span in spans if span["context"]["trace_id"] == f"0x{trace_id}"]
        if names <= {span["name"] for span in found}:
            return found
        assert time.monotonic() < deadline, {span["name"] for span in found}
        time.sleep(0.1)  # a file has no event


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_makes_one_tree_of_spans(site, provider, hospital, stream: bool) -> None:
    theirs = "0af7651916cd43dd8448eb211c80319c"
    answer = site.ask(
        hospital.questions["true"], provider.token(), stream=stream,
        headers={"traceparent": f"00-{theirs}-b7ad6b7169203331-01"},
    )  # fmt: skip
    assert answer.status_code == 200
    _, trace_id, root_id, flags = answer.headers["traceparent"].split("-")
    assert int(flags, 16) & 1 and trace_id != theirs  # not unless accept_parents is set
    parents = {
        "POST /v1/chat/completions": None, "plan": "POST /v1/chat/completions",
        "embed": "plan", "search": "plan", "rerank": "plan",
        "generate": "POST /v1/chat/completions",
        "fit": "generate", "first_token": "generate", "decode": "generate",
    }  # fmt: skip
    spans = spans_of(site.place, trace_id, set(parents))
    by_id = {span["context"]["span_id"]: span for span in spans}
    assert len(spans) == len(by_id) == len(parents)
    for span in spans:
        above = by_id.get(span["parent_id"])
        assert (above and above["name"]) == parents[span["name"]]
        if above is not None and span["name"] != "generate":
            assert above["start_time"] <= span["start_time"] <= span["end_time"]
    root = by_id[f"0x{root_id}"]
    said = root["attributes"]
    assert said["http.route"] == "/v1/chat/completions"
    assert said["http.response.status_code"] == 200
    assert said["medray.passages"] == 3 and said["medray.index_version"] == "i1"
    generated = next(span["attributes"] for span in spans if span["name"] == "generate")
    assert generated["medray.completion_tokens"] == said["medray.completion_tokens"] > 1
    assert generated["medray.prompt_tokens"] == said["medray.prompt_tokens"]
    allowed = {"http.request.method", "http.route", "http.response.status_code"}
    for span in spans:
        assert {name for name in span["attributes"] if not name.startswith("medray.")} <= allowed
        assert span["events"] == [] and span["links"] == []
