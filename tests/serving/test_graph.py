"""The real graph on local Ray: HTTP, the openai client, tiny models, Milvus Lite."""

import base64
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from replicas import replica

from medray import cli
from medray.common.errors import ServiceError
from medray.generation.prompts import NO_ANSWER
from medray.retrieval.embed import Embedder, passage_text
from medray.retrieval.rerank import Reranker
from medray.serving import client, up
from medray.serving.answering.answer import UNSOURCED
from medray.serving.answering.citations import notice
from medray.serving.artefacts import newest

pytestmark = pytest.mark.cluster
CONFIGS = Path(__file__).parents[2] / "serve_configs"
MAX_IN_FLIGHT = 3


@pytest.fixture(scope="module")
def url(ray_cluster, hospital, reranker: Path, tmp_path_factory) -> Iterator[str]:
    """The application of serve_configs/laptop.yaml over the tiny storage root, and a second model
    by the name of `next`."""
    from ray import serve

    port = free_port()
    second = tmp_path_factory.mktemp("models") / "second"
    shutil.copytree(newest(str(hospital.root), ("ppo", "sft"), part="model").fetch(), second)
    overrides = [
        f"storage_root={hospital.root}", f"gateway.max_in_flight={MAX_IN_FLIGHT}",
        "gateway.answer.top_k=3", "gateway.answer.min_cosine=-1", f"reranker_dir={reranker}",
        "gateway.rerank_candidates=7", f"models.next={second}",
    ]  # fmt: skip
    with up.start(CONFIGS / "laptop.yaml", overrides, port=port) as running:
        yield running.url
    serve.shutdown()


@pytest.fixture
def api(url) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as api:
        yield api


def ask(api: openai.OpenAI, question: str, **fields):
    messages = [{"role": "user", "content": question}]
    return api.chat.completions.create(model="medray", messages=messages, **fields)  # type: ignore[call-overload]


def stream(api: openai.OpenAI, question: str, **fields):
    chunks = list(ask(api, question, stream=True, **fields))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    return text, chunks


def health(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/healthz", timeout=60) as response:
        return json.load(response)


def wait_until_idle(url: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        state = health(url)
        busy = state["in_flight"], state["deployments"]["policy"]["active_streams"]
        if busy == (0, 0):
            return
        assert time.monotonic() < deadline, f"still busy after {timeout_s} s: {busy}"
        time.sleep(0.05)


def post(url: str, body: bytes) -> tuple[int, dict]:
    request = urllib.request.Request(f"{url}/v1/chat/completions", data=body)
    request.add_header("Content-Type", "application/json")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=120)
    return caught.value.code, json.load(caught.value)["error"]


def consult(url: str, path: str, **body) -> dict:
    request = urllib.request.Request(
        f"{url}/v1/consult{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


def test_grounded_answer_with_a_citation_that_holds(api, hospital):
    answer = ask(api, hospital.questions["true"])
    assert answer.choices[0].message.content == hospital.answers["true"]
    assert answer.choices[0].finish_reason == "stop"
    grounding = answer.model_extra["medray"]
    [citation] = grounding["citations"]
    cited = grounding["passages"][1]
    assert citation["ok"]
    assert (citation["number"], citation["passage_id"]) == (2, cited["passage_id"])
    assert cited["text"] == hospital.cited.text
    # Offsets are of the document's section; the passage begins at 10 there.
    begin, end = citation["start"] - cited["start"], citation["end"] - cited["start"]
    assert cited["text"][begin:end] == citation["quote"]
    assert [p["number"] for p in grounding["passages"]] == [1, 2, 3]
    scores = [p["score"] for p in grounding["passages"]]
    assert scores == sorted(scores, reverse=True)
    assert grounding["verdicts"] == [{"verdict": "supported", "faults": []}]
    assert grounding["index_version"] == "i1"
    # The policy's tokenizer writes this answer in at most one token a character, then the end.
    assert 1 < answer.usage.completion_tokens <= len(hospital.answers["true"]) + 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("name", ["true", "false", "none"])
def test_stream_is_the_same_answer(api, hospital, name):
    whole = ask(api, hospital.questions[name])
    text, chunks = stream(api, hospital.questions[name], stream_options={"include_usage": True})
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    *_, last, usage = chunks
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.model_extra["medray"] == whole.model_extra["medray"]
    assert usage.choices == []
    assert usage.usage == whole.usage


def test_invented_citation_never_reaches_the_client(api, hospital):
    text, chunks = stream(api, hospital.questions["false"])
    assert text == notice(1)
    [citation] = chunks[-1].model_extra["medray"]["citations"]
    assert (citation["ok"], citation["fault"]) == (False, "no_such_passage")


def test_no_answer_is_passed_on(api, hospital):
    answer = ask(api, hospital.questions["none"])
    assert answer.choices[0].message.content == NO_ANSWER
    assert answer.model_extra["medray"]["verdicts"] == [{"verdict": "no_answer", "faults": []}]


def test_plain_chat_and_length(api, hospital):
    fields = {"extra_body": {"retrieval": False}, "max_tokens": 8}
    answer = ask(api, hospital.long_question, **fields)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.model_extra["medray"]["retrieval"] is False
    assert answer.model_extra["medray"]["passages"] == []


def test_top_k_of_the_request(api, hospital):
    answer = ask(api, hospital.questions["none"], extra_body={"top_k": 1}, max_tokens=4)
    assert len(answer.model_extra["medray"]["passages"]) == 1


def retrieve(url: str, **fields) -> dict:
    request = urllib.request.Request(f"{url}/v1/retrieve", data=json.dumps(fields).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def test_passages_alone_with_what_ranked_them(url, hospital):
    found = retrieve(url, query="肺炎首选药物", top_k=4)
    assert found["index_version"] == "i1"
    passages = found["data"]
    assert [p["number"] for p in passages] == [1, 2, 3, 4]
    assert [p["score"] for p in passages] == sorted((p["score"] for p in passages), reverse=True)
    words = max(passages, key=lambda p: p["bm25"])
    assert words["passage_id"] == "doc0:治疗"  # it has every word of the question
    assert all(-1 <= p["cosine"] <= 1 for p in passages)


def test_filters_of_a_request(api, url):
    assert retrieve(url, query="肺炎", filters={"until": "2023"})["data"] == []
    with pytest.raises(urllib.error.HTTPError, match="400"):
        retrieve(url, query=" ")
    assert len(retrieve(url, query="肺炎", filters={"kinds": ["guideline"]})["data"]) == 10
    answer = ask(api, "肺炎如何治疗？", extra_body={"filters": {"sources": ["别的"]}})
    assert answer.choices[0].message.content == NO_ANSWER  # nothing may be shown
    with pytest.raises(openai.BadRequestError, match=r"filters\.since"):
        ask(api, "肺炎如何治疗？", extra_body={"filters": {"since": "去年"}})


def test_embeddings_are_the_embedder_s(api, hospital):
    texts = [f"{disease}如何治疗？" for disease in ("肺炎", "哮喘", "胃炎")]
    expected = Embedder(hospital.encoder).embed(texts)
    for encoding in ("float", "base64"):
        answer = api.embeddings.create(
            model="medray-embedding", input=texts, encoding_format=encoding
        )
        vectors = [
            np.frombuffer(base64.b64decode(d.embedding), "<f4")
            if isinstance(d.embedding, str)
            else d.embedding
            for d in answer.data
        ]
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    # [CLS] and [SEP] around seven characters, three times.
    assert answer.usage.prompt_tokens == 27


def test_many_embeddings_at_once_keep_their_order(api, hospital):
    texts = [f"每日{k}次" for k in range(10)] * 2
    expected = Embedder(hospital.encoder).embed(texts)

    def one(text: str) -> list[float]:
        with_retry = api.with_options(max_retries=20)  # twenty at once are more than the limit
        return with_retry.embeddings.create(model="medray-embedding", input=text).data[0].embedding

    with ThreadPoolExecutor(10) as pool:
        np.testing.assert_allclose(list(pool.map(one, texts)), expected, atol=1e-5)


def test_a_reranker_looks_again_at_what_a_search_found(api, reranker: Path):
    """It is told to leave the order as it is."""
    question = "肺炎如何治疗？"
    body = {"query": question, "top_k": 3}
    found = api.post("/retrieve", body=body, cast_to=dict)["data"]
    pairs = [(question, passage_text(hit["title"], hit["text"])) for hit in found]
    assert [hit["relevance"] for hit in found] == pytest.approx(
        Reranker(reranker).scores(pairs).tolist(), abs=1e-5
    )
    assert [hit["score"] for hit in found] == sorted((h["score"] for h in found), reverse=True)
    assert found[0]["score"] == 1.0 and len(found) == 3

    documents = [f"{disease}首选药物。" for disease in ("肺炎", "哮喘", "胃炎", "肝炎")]
    scores = Reranker(reranker).scores([(question, text) for text in documents])
    body = {"model": "medray-reranker", "query": question, "documents": documents, "top_n": 3,
            "return_documents": True}  # fmt: skip
    results = api.post("/rerank", body=body, cast_to=dict)["results"]
    best = np.argsort(-scores, kind="stable")[:3].tolist()
    assert [result["index"] for result in results] == best
    for result in results:
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=1e-5)
        assert result["document"]["text"] == documents[result["index"]]
    with pytest.raises(openai.NotFoundError, match="serves medray-reranker"):
        api.post("/rerank", body=body | {"model": "medray"}, cast_to=dict)
    with pytest.raises(openai.BadRequestError):
        api.post("/rerank", body=body | {"documents": []}, cast_to=dict)


def test_models_and_health(api, url, reranker: Path):
    assert [model.id for model in api.models.list()] == [
        "medray", "next", "medray-embedding", "medray-reranker"
    ]  # fmt: skip
    assert api.models.retrieve("medray").id == "medray"
    state = health(url)
    assert (state["status"], state["index_version"]) == ("ok", "i1")
    assert {k: d["version"] for k, d in state["deployments"].items() if "version" in d} == {
        "policy": "s1", "embedding": "e1", "retrieval": "i1", "reranking": reranker.name,
        "model-next": "second",
    }  # fmt: skip
    with urllib.request.urlopen(url) as page:
        assert "medray" in page.read().decode()


def test_another_model_answers_by_its_name(api, hospital):
    messages = [{"role": "user", "content": hospital.questions["true"]}]
    answer = api.chat.completions.create(model="next", messages=messages)
    assert (answer.model, answer.system_fingerprint) == ("next", "second")
    assert answer.choices[0].message.content == hospital.answers["true"]
    assert ask(api, hospital.questions["true"]).system_fingerprint == "s1"
    completion = api.completions.create(model="next", prompt="肺炎", max_tokens=2)
    assert completion.usage.completion_tokens > 0


def test_errors_have_openai_shape_and_no_text(api, url):
    secret = "张三身份证"
    with pytest.raises(openai.NotFoundError) as missing:
        api.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": secret}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as overflow:
        ask(api, secret * 4000, extra_body={"retrieval": False})
    assert overflow.value.code == "context_length_exceeded"
    bodies = [
        json.dumps({"model": "medray", "messages": secret}),
        json.dumps({"model": "medray", "messages": [{"role": "user", "content": {"a": secret}}]}),
        f'{{"model": "medray", "messages": {secret}',
        json.dumps({"model": "medray"}),
    ]
    for body in bodies:
        status, error = post(url, body.encode())
        assert status == 400
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert secret not in json.dumps(error, ensure_ascii=False)
    for problem in (missing.value, overflow.value):
        assert secret not in str(problem)
    with pytest.raises(urllib.error.HTTPError) as unknown:
        urllib.request.urlopen(f"{url}/v1/nothing")
    assert unknown.value.code == 404
    assert json.load(unknown.value)["error"]["message"] == "Not Found"


def test_overload_is_429_and_leaving_frees_the_slot(api, url, hospital):
    wait_until_idle(url, 10)
    fields = {"extra_body": {"retrieval": False}, "max_tokens": 3500, "stream": True}
    streams = [ask(api, hospital.long_question, **fields) for _ in range(MAX_IN_FLIGHT)]
    try:
        first = next(chunk for chunk in streams[0] if chunk.choices[0].delta.content)
        assert first.choices[0].delta.content
        with pytest.raises(openai.RateLimitError) as refused:
            ask(api, hospital.questions["true"])
        assert refused.value.code == "overloaded"
        assert int(refused.value.response.headers["Retry-After"]) > 0
        state = health(url)  # health checks are answered while all slots are taken
        assert state["in_flight"] == MAX_IN_FLIGHT
        assert state["deployments"]["policy"]["active_streams"] == MAX_IN_FLIGHT
    finally:
        for opened in streams:
            opened.close()
    # Three answers of 3500 tokens would take far longer to end by themselves.
    wait_until_idle(url, 5)
    assert ask(api, hospital.questions["none"]).choices[0].message.content == NO_ANSWER


def test_completions_score_a_prompt(api):
    scored = api.completions.create(
        model="medray", prompt="一二三四五", echo=True, logprobs=1, max_tokens=1
    )
    told = scored.choices[0].logprobs
    assert told.token_logprobs[0] is None
    assert all(value <= 0 for value in told.token_logprobs[1:])
    assert "".join(told.tokens).startswith("一二三四五")


def test_a_stream_goes_on_when_its_replica_dies(api, url, hospital):
    fields = {"extra_body": {"retrieval": False}, "max_tokens": 300}
    whole = ask(api, hospital.long_question, **fields)
    chunks = ask(api, hospital.long_question, stream=True, **fields)
    texts = [next(c for c in chunks if c.choices[0].delta.content).choices[0].delta.content]
    replica("policy").kill()
    texts += [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert len(texts) > 2
    wait_until_idle(url, 60)


def test_metrics_are_at_rays_endpoint(api, url, hospital):
    """Counted, and without a word of what was asked."""
    import ray

    ask(api, hospital.questions["true"])
    (node,) = ray.nodes()
    endpoint = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = {
        "ray_medray_requests_total", "ray_medray_request_seconds_bucket",
        "ray_medray_first_text_seconds_bucket", "ray_medray_stage_seconds_bucket",
        "ray_medray_tokens_total", "ray_medray_sentences_total", "ray_medray_best_cosine_bucket",
        "ray_medray_in_flight", "ray_medray_refused_total",
    }  # fmt: skip
    found: dict[str, list] = {}
    deadline = time.monotonic() + 60
    while not wanted <= set(found) and time.monotonic() < deadline:
        with urllib.request.urlopen(endpoint, timeout=10) as response:
            text = response.read().decode()
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample)
        time.sleep(0.2)  # Ray offers no event: its agent takes the figures up every few seconds
    assert wanted <= set(found), wanted - set(found)
    answered = [
        s for s in found["ray_medray_requests_total"]
        if (s.labels["endpoint"], s.labels["outcome"]) == ("chatcmpl", "answered")
    ]  # fmt: skip
    assert sum(s.value for s in answered) >= 10
    assert {s.labels["stage"] for s in found["ray_medray_stage_seconds_bucket"]} >= {
        "embed", "search",
    }  # fmt: skip
    for secret in (*hospital.questions.values(), hospital.long_question, hospital.cited.text):
        assert secret not in text


def test_ask_of_the_command_line(url, hospital, capsys):
    for streamed in (True, False):
        pieces = list(client.ask(hospital.questions["true"], url, stream=streamed))
        assert "".join(piece.text for piece in pieces) == hospital.answers["true"]
        assert pieces[-1].grounding["citations"][0]["ok"]
    assert cli.main(["ask", hospital.questions["true"], "--url", url]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(hospital.answers["true"])
    assert f"✓ [2] 《{hospital.cited.title}》" in printed
    assert cli.main(["ask", hospital.long_question, "--url", url]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith(UNSOURCED[0]) and alone.count("没有出处") == 1
    assert cli.main(["ask", hospital.long_question, "--no-retrieval", "--url", url]) == 0
    chosen = capsys.readouterr().out
    assert not chosen.startswith(UNSOURCED[0]) and chosen.count("没有出处") == 1
    assert cli.main(["ask", hospital.long_question, "--retrieval", "--url", url]) == 0
    assert "没有出处" not in capsys.readouterr().out


def test_taken_port_is_told_before_anything_starts(url, hospital):
    port = int(url.rpartition(":")[2])
    with pytest.raises(ServiceError, match=f"cannot listen on 127.0.0.1:{port}.*--port {port + 1}"):
        up.start(CONFIGS / "laptop.yaml", [f"storage_root={hospital.root}"], port=port)


def test_a_consultation_over_the_deployments(url, hospital):
    """Held by one replica for all gateways; its turns end whether or not they are answered."""
    told = consult(url, "", background="45岁，男", content="咳嗽三天")
    where = f"/{told['id']}"
    for question, answer in hospital.exchanges:
        assert told["messages"][-1]["content"] == question
        told = consult(url, f"{where}/messages", content=answer)
    assert told["status"] == "judged"
    assert hospital.answers["true"] in told["messages"][-1]["content"]
    other = consult(url, "", content="胸痛，出了一身冷汗")
    assert (other["status"], other["red_flag"]) == ("urgent", "chest_pain")
    assert health(url)["deployments"]["consultations"]["open"] == 2
    assert consult(url, f"/{other['id']}/take-over")["status"] == "clinician"
    with pytest.raises(urllib.error.HTTPError) as caught:
        consult(url, f"{where}/messages", content="还有呢")
    assert caught.value.code == 409
