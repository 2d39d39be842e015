"""No patient's words in logs, metrics, the audit log or any other file of a served graph.

`medray serve` runs as its users run it, with every directory that it, Ray and Milvus write to below
one root. Whatever a client can send carries a patient of its own; then all files are searched.
"""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psutil
import pytest
import requests
from replicas import replica

from medray.serving.audit_log import read_entries, verify
from medray.serving.identity.keys import KeyFile

pytestmark = pytest.mark.cluster
AUDIT_KEY = bytes(range(32))
START_S = 240
NEEDLES = {
    "name": "欧阳奎", "number": "33052119490", "phone": "139770652", "address": "柳浪巷北弄",
    "record": "ZYQ2098841",
}  # fmt: skip


def patient(place: int) -> str:
    """What a clinician may write; made up, and another patient in each place."""
    return (
        f"患者{NEEDLES['name']}{chr(0x6800 + place)}，身份证号{NEEDLES['number']}{place:02}174X，"
        f"电话{NEEDLES['phone']}{place:02}，住{NEEDLES['address']}{place}号，"
        f"住院号{NEEDLES['record']}{place:02}，咳嗽三天，如何治疗？"
    )


TOKEN = {"sub": "gonghao-20471", "name": "司徒岚", "email": "situ.lan@hospital.example"}
"""What a token says of its holder; told nowhere either."""


def written(text: str) -> set[bytes]:
    """The ways in which a text may stand in a file, lower case."""
    utf8, gbk = text.encode(), text.encode("gb18030")
    escaped = "".join(f"\\u{ord(c):04x}" if ord(c) > 127 else c for c in text)
    forms = {utf8, gbk, text.encode("utf-16-le"), escaped.encode()}
    for raw in (utf8, gbk):
        forms |= {quote(raw).encode(), repr(raw)[2:-1].encode()}
    for shift in range(3):  # Base64 depends on what stands before
        padded = base64.b64encode(b" " * shift + utf8)
        # Without the characters that hold neighbours' bits too; a part shorter than need be would
        # be met by chance in what is encrypted.
        forms.add(padded[(0, 2, 3)[shift] : len(padded) - (0, 3, 2)[(shift + len(utf8)) % 3]])
    return {form.lower() for form in forms}


def where(needles: dict[str, str], root: Path) -> set[tuple[str, str]]:
    """(needle, file) of all that stands anywhere below a directory, or in a file's name."""
    forms = {form: name for name, text in needles.items() for form in written(text)}
    pattern = re.compile(b"|".join(map(re.escape, forms)))
    found = set()
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        # A text that was quoted twice has its backslashes doubled.
        flat = re.sub(rb"\\+", rb"\\", os.fsencode(name) + b"\n" + content.lower())
        found |= {(forms[match], name) for match in pattern.findall(flat)}
    return found


class Site(NamedTuple):
    """What was served, after all is over."""

    root: Path
    answered: dict[int, str]
    """Place → id of its answer."""
    serve_id: str
    """Serve's own id of a request."""
    refusals: dict[int, str]
    """Place → body of a refusal."""
    tokens: list[str]
    """Of an identity provider: one that holds, one that has expired, one without a role."""


class Api:
    """A client that remembers what it was told."""

    def __init__(self, url: str, secret: str) -> None:
        self.url, self.headers = url, {"Authorization": f"Bearer {secret}"}
        self.answered: dict[int, str] = {}
        self.refusals: dict[int, str] = {}

    def send(self, place: int, path: str, body: Any, status: int = 200, **options: Any) -> Any:
        """POSTs JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = self.headers | {"Content-Type": "application/json"} | options.pop("headers", {})
        response = requests.post(
            f"{self.url}{path}", data=data, headers=headers, timeout=120, **options
        )
        assert response.status_code == status, (place, response.text)
        if status >= 400:
            self.refusals[place] = response.text
        elif "id" in (answer := response.json() if not options.get("stream") else {}):
            self.answered[place] = answer["id"]
        return response


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "medray", "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture(scope="module")
def site(hospital, provider) -> Iterator[Site]:
    """`medray serve` with keys, tokens and an encrypted audit log; asked, watched, and stopped."""
    with tempfile.TemporaryDirectory(prefix="phi-") as name:  # short: Ray's sockets lie below it
        root = Path(name)
        secret = KeyFile(root / "keys.json").add("ward", "clinician").secret
        good, late = provider.token(**TOKEN), provider.token(**TOKEN, exp=time.time() - 3600)
        tokens = [good, late, provider.token(**TOKEN, realm_access={"roles": []})]
        more = f"gateway.oidc={json.dumps(provider.settings())}", "traces.directory=traces"
        with serving(root, hospital.root, *more) as (url, process):
            api = Api(url, secret)
            ask_all(api)
            refuse_all(api)
            for place, status, token in zip((50, 51, 52), (200, 401, 403), tokens, strict=True):
                headers = {"Authorization": f"Bearer {token}"}
                asked = chat(patient(place))
                api.send(place, "/v1/chat/completions", asked, status, headers=headers)
            break_all(api, process)
            serve_id = api.send(0, "/v1/chat/completions", chat(patient(0))).headers["X-Request-ID"]
            (root / "metrics").write_text(scrape(root), encoding="utf-8")
        yield Site(root, api.answered, serve_id, api.refusals, tokens)


@contextlib.contextmanager
def serving(root: Path, storage: Path, *settings: str) -> Iterator[tuple[str, psutil.Process]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (root / "tmp").mkdir()
    directories = {"RAY_TMPDIR": str(root / "ray"), "TMPDIR": str(root / "tmp"), "HOME": str(root)}
    key = {"MEDRAY_AUDIT_KEY": base64.b64encode(AUDIT_KEY).decode()}
    command = [
        sys.executable, "-m", "medray.cli", "serve", "--port", str(port),
        f"storage_root={storage}", "gateway.keys_file=keys.json", "gateway.audit_dir=audit",
        "gateway.max_body_bytes=20000", "gateway.answer.min_cosine=-1", *settings,
    ]  # fmt: skip
    with open(root / "stdout", "wb") as out, open(root / "stderr", "wb") as err:
        served = subprocess.Popen(
            command, cwd=root, env=os.environ | directories | key, stdout=out, stderr=err
        )
    try:
        deadline = time.monotonic() + START_S
        while "stop with Ctrl-C" not in (root / "stdout").read_text(encoding="utf-8"):
            assert served.poll() is None, (root / "stderr").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "not up"
            time.sleep(0.1)  # a pipe would fill; the file has no event
        yield f"http://127.0.0.1:{port}", psutil.Process(served.pid)
    finally:
        served.send_signal(signal.SIGTERM)
        assert served.wait(60) == 0


def ask_all(api: Api) -> None:
    """All that is answered."""
    api.send(0, "/v1/chat/completions", chat(patient(0)))
    with api.send(1, "/v1/chat/completions", chat(patient(1), stream=True), stream=True) as events:
        first, *_, last = (line[6:] for line in events.iter_lines() if line)
    api.answered[1] = json.loads(first)["id"]
    assert last == b"[DONE]"
    history = [
        {"role": "system", "content": patient(2)}, {"role": "user", "content": patient(3)},
        {"role": "assistant", "content": patient(4)}, {"role": "user", "content": "如何治疗？"},
    ]  # fmt: skip
    ignored = {"user": patient(5), "metadata": {patient(6): patient(7)}, patient(8): 1}
    fields = {"retrieval": False, "stop": [patient(9)], "max_tokens": 8}
    api.send(2, "/v1/chat/completions", {**chat(""), "messages": history, **ignored, **fields})
    completion = {"model": "medray", "max_tokens": 4, "echo": True, "logprobs": 1}
    api.send(10, "/v1/completions", {**completion, "prompt": patient(10)})
    streamed = {**completion, "prompt": patient(11), "stream": True}
    with api.send(11, "/v1/completions", streamed, stream=True) as events:
        assert list(events.iter_lines())
    api.send(12, "/v1/embeddings", {"model": "medray-embedding", "input": [patient(12)] * 3})
    sources = {"sources": [f"{patient(14)}\"'\\"]}
    api.send(13, "/v1/retrieve", {"query": patient(13), "filters": sources})
    said = {"request": api.answered[0], "comment": patient(15), "corrected": patient(16)}
    api.send(15, "/v1/feedback", said, 201)
    api.send(17, f"/v1/chat/completions?name={quote(patient(17))}", chat("肺炎如何治疗？"))
    record = {"sections": [{"heading": patient(20), "text": patient(21)}], "patient_id": "患者1"}
    api.send(20, "/v1/chat/completions", chat("肺炎如何治疗？", record=record))
    file = f"主诉：{patient(22)}\n过敏史：{patient(23)}".encode("gbk")
    assert len(api.send(22, "/v1/record", file).json()["record"]["sections"]) == 2
    judged = {"record": f"主诉：{patient(24)}", "indicators": ["af-risk-assessed"]}
    api.send(24, "/v1/quality", judged)
    headers = {"X-Request-ID": quote(patient(18)), "User-Agent": quote(patient(19))}
    # A number fits into a trace's; texts into what travels with it.
    number = f"{NEEDLES['number']}18174"
    headers |= {
        "traceparent": f"00-{number:0>32}-{number[:16]}-01",
        "baggage": headers["User-Agent"],
    }
    headers |= {"tracestate": f"a={number}"}
    api.send(18, "/v1/chat/completions", chat("肺炎如何治疗？"), headers=headers)


def refuse_all(api: Api) -> None:
    """All that is refused."""
    path = "/v1/chat/completions"
    api.send(30, path, f'{{"messages": "{patient(30)}'.encode(), 400)
    api.send(31, path, patient(31).encode("gbk"), 400)
    api.send(32, path, {"model": "medray", "messages": {patient(32): patient(32)}}, 400)
    api.send(33, path, chat(patient(33) * 1000), 413)
    api.send(34, path, chat("", seed=patient(34), filters={patient(34): 1}), 400)
    api.send(35, path, {**chat("肺炎"), "model": patient(35)}, 404)
    api.send(36, path, chat(patient(36) * 60), 400)
    for place, character in ((37, "\0"), (38, "\a"), (39, "\ud83d")):
        broken = {"sources": [patient(place) + character]}
        api.send(place, "/v1/retrieve", {"query": "肺炎", "filters": broken}, 400)
    api.send(40, f"/v1/{quote(patient(40))}", {}, 404)
    wrong = {"Authorization": f"Bearer {quote(patient(41))}"}
    api.send(41, path, chat(patient(41)), 401, headers=wrong)
    api.send(42, "/v1/feedback", {"request": patient(42), "comment": patient(42)}, 400)
    api.send(43, path, chat("肺炎", tools=[{"name": patient(43)}]), 400)
    record = {"sections": [{"text": patient(46), patient(46): 1}], "patient_id": patient(46) * 9}
    api.send(46, path, chat("肺炎", record=record), 400)
    api.send(47, "/v1/record", f'{{"sections": "{patient(47)}'.encode(), 400)
    api.send(48, "/v1/record", json.dumps({patient(48): patient(48)}).encode(), 400)
    api.send(49, "/v1/quality", {"record": patient(49), "indicators": [patient(49)]}, 400)
    endless = {"record": "手术记录：" + patient(29).rstrip("？") * 100}  # one sentence
    api.send(29, "/v1/quality", json.dumps(endless, ensure_ascii=False).encode(), 400)
    named = f"{api.url}/v1/models/{quote(patient(44))}"
    response = requests.get(named, headers=api.headers, timeout=60)
    assert response.status_code == 404
    api.refusals[44] = response.text
    port = int(api.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
        raw.sendall(b"GET /" + patient(45).encode() + b" HTTP/9.9\r\n\r\n")
        api.refusals[45] = raw.recv(65536).decode(errors="replace")


def break_all(api: Api, process: psutil.Process) -> None:
    """A reader that leaves, and a replica that dies while it answers."""
    endless = {"retrieval": False, "max_tokens": 1500, "stream": True}
    for place in (60, 61):
        request = chat(patient(place), **endless)
        with api.send(place, "/v1/chat/completions", request, stream=True) as events:
            lines = events.iter_lines(chunk_size=1)
            first = json.loads(next(line[6:] for line in lines if line))
            api.answered[place] = first["id"]
            if place == 61:
                replica("policy", process).kill()
                assert [line for line in lines if line][-1] == b"data: [DONE]"
    replica("embedding", process).kill()
    api.send(62, "/v1/chat/completions", chat(patient(62)))


def scrape(root: Path) -> str:
    """Ray's metrics, once those of the gateway are among them."""
    (file,) = (root / "ray").glob("ray/session_2*/metrics_export_port_*")
    url = f"http://127.0.0.1:{file.read_text()}/metrics"
    deadline = time.monotonic() + 60
    while "ray_medray_requests_total" not in (text := requests.get(url, timeout=10).text):
        assert time.monotonic() < deadline, "no metrics of the gateway"
        time.sleep(0.2)  # Ray offers no event: its agent takes the figures up every few seconds
    return text


def test_no_patient_stands_in_any_file(site) -> None:
    assert where(NEEDLES, site.root) == set()


def test_no_holder_of_a_token_stands_in_any_file(site) -> None:
    parts = {f"{place}{k}": part for place, token in enumerate(site.tokens)
             for k, part in enumerate(token.split(".")[1:])}  # fmt: skip
    assert where(TOKEN | parts, site.root) == set()


def test_a_refusal_repeats_nothing(site, tmp_path) -> None:
    for place, body in site.refusals.items():
        (tmp_path / str(place)).write_text(body, encoding="utf-8")
    assert where(NEEDLES | TOKEN, tmp_path) == set()


def test_what_must_be_found_is_found(site) -> None:
    """The search reaches audit log, Serve's logs and metrics; and the texts were kept, sealed."""
    ids = {str(place): answer for place, answer in site.answered.items() if place < 60}
    found = where(ids | {"serve": site.serve_id, "metric": "medray_refused_total"}, site.root)
    assert {name for name, _ in found} == {*ids, "serve", "metric"}
    files = {file for name, file in found if name == "serve"}
    assert any(re.search(r"logs/serve/replica_medray_gateway", file) for file in files)
    spans = [json.loads(line) for line in (site.root / "traces" / "spans.jsonl").open()]
    assert {"POST /v1/chat/completions", "plan", "search", "generate", "decode"} <= {
        span["name"] for span in spans
    }
    assert verify(site.root / "audit").faults == []
    for place in (0, 1, 2, 10, 24, 60, 61, 62):
        (asked, *_) = read_entries(site.root / "audit", site.answered[place], AUDIT_KEY)
        assert patient(place) in str(json.loads(asked)["texts"])


@pytest.mark.parametrize(
    "write",
    [str.encode, lambda t: t.encode("gbk"), lambda t: json.dumps(t).encode(),
     lambda t: json.dumps(json.dumps(t)).encode(), lambda t: quote(t).encode(),
     lambda t: quote(t.encode("gbk")).lower().encode(), lambda t: repr(t.encode()).encode(),
     lambda t: base64.b64encode(t.encode()), lambda t: base64.b64encode(b"1" + t.encode() + b"1"),
     lambda t: base64.b64encode(b"12" + t.encode() + b"12")],
)  # fmt: skip
def test_the_search_knows_each_way_of_writing(tmp_path, write) -> None:
    (tmp_path / "log").write_bytes(b"\x00 " + write(patient(3)) + b" \xff")
    (tmp_path / "other").write_bytes("患者王一".encode())
    assert where(NEEDLES, tmp_path) == {(name, "log") for name in NEEDLES}
