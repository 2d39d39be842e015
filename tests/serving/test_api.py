"""The HTTP API over the real models, search and key file, in this process: no Serve between."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from http_api import KEY, chat, entries, post

from medray.common.errors import ConfigError
from medray.generation.engine import HFEngine
from medray.generation.prompts import NO_ANSWER
from medray.generation.sampling import Sampling
from medray.serving.answering.answer import UNSOURCED
from medray.serving.audit_log import verify
from medray.serving.gateway_config import GatewayConfig
from medray.serving.identity.oidc import pseudonym
from medray.serving.messages import Piece
from medray.serving.meter import Meter
from medray.serving.observe.metrics import Metrics
from medray.serving.schema.base import ApiError
from medray.serving.service import Service

pytestmark = pytest.mark.xdist_group("hospital")  # one worker makes the models


@pytest.fixture(scope="module")
def engine(hospital) -> HFEngine:
    """The model that is served, for what is to be expected."""
    return HFEngine(hospital.root / "sft" / "s1" / "model")


def test_a_question_for_the_model_alone(client, hospital, secrets, place: Path) -> None:
    body = chat(hospital.long_question, max_tokens=6)
    told = post(client, "chat/completions", body, secrets["clinician"]).json()
    text = told["choices"][0]["message"]["content"]
    assert text.startswith(UNSOURCED[0]) and len(text) > len(UNSOURCED[0])
    assert (told["medray"]["basis"], told["medray"]["index_version"]) == ("model", "i1")
    answered = entries(place, told["id"])[1]
    assert answered["basis"] == "model"
    assert answered["texts"]["answer"] == text.removeprefix(UNSOURCED[0])  # the model's words
    told = post(client, "chat/completions", body, secrets["patient"]).json()
    assert told["medray"]["retrieval"] and len(told["medray"]["passages"]) == 3
    refused = post(client, "chat/completions", {**body, "retrieval": False}, secrets["patient"])
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "insufficient_permissions"


def test_an_answer_is_grounded_and_logged(client, hospital, secrets, place: Path) -> None:
    answer = post(client, "chat/completions", chat(hospital.questions["true"]), secrets["patient"])
    assert answer.status_code == 200
    body = answer.json()
    assert body["choices"][0]["message"]["content"] == hospital.answers["true"]
    asked, answered = entries(place, body["id"])
    assert (asked["event"], answered["event"]) == ("asked", "answered")
    assert json.loads(asked["texts"]["messages"])[0]["content"] == hospital.questions["true"]
    assert answered["texts"] == {"answer": hospital.answers["true"]}
    assert asked["role"] == "patient"
    assert answered["basis"] == body["medray"]["basis"] == "passages"
    assert answered["passages"] == [p["passage_id"] for p in body["medray"]["passages"]]
    assert answered["total_tokens"] == body["usage"]["total_tokens"]
    assert answered["model_version"] == body["system_fingerprint"] == "model"
    for path in (place / "audit").iterdir():
        assert hospital.questions["true"] not in path.read_text(encoding="utf-8")


def test_a_stream_is_logged_whole(client, hospital, secrets, place: Path) -> None:
    request = chat(hospital.questions["true"], stream=True)
    with client.events("/v1/chat/completions", request, secrets["clinician"]) as events:
        lines = list(events)
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    asked, answered = entries(place, chunks[0]["id"])
    assert answered["texts"] == {"answer": hospital.answers["true"]}
    assert asked["event"] == "asked"


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer nothing", "Basic abc", "Bearer medray-00000000-xyz"]
)
def test_without_a_key_that_holds_nothing_is_told(client, secrets, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for response in (
        client.post("/v1/chat/completions", json=chat("肺炎"), headers=headers),
        client.get("/v1/models", headers=headers),
    ):
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    assert post(client, "chat/completions", chat("肺炎"), secrets["gone"]).status_code == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [("completions", {"model": "medray", "prompt": "肺炎"}), ("retrieve", {"query": "肺炎"}),
     ("embeddings", {"model": "medray-embedding", "input": "肺炎"})],
)  # fmt: skip
def test_patients_have_the_chat_alone(client, secrets, path: str, body: Any) -> None:
    refused = post(client, path, body, secrets["patient"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        403, "insufficient_permissions",
    )  # fmt: skip
    assert post(client, path, body, secrets["clinician"]).status_code == 200


def test_limits_of_a_key(client, hospital, secrets) -> None:
    answers = [
        post(client, "chat/completions", chat(hospital.questions["none"]), secrets["hurried"])
        for _ in range(3)
    ]
    assert [a.status_code for a in answers] == [200, 200, 429]
    assert 0 < int(answers[2].headers["Retry-After"]) <= 60
    plain = chat(hospital.long_question, retrieval=False, max_tokens=4)
    answers = [post(client, "chat/completions", plain, secrets["thrifty"]) for _ in range(2)]
    assert [a.status_code for a in answers] == [200, 429]
    assert int(answers[1].headers["Retry-After"]) > 80_000


def test_holders_of_tokens_have_roles_limits_and_names_of_their_own(
    client, provider, hospital, secrets, place: Path
) -> None:
    def ask(token: str) -> Any:
        return post(client, "chat/completions", chat(hospital.questions["none"]), token)

    portal = {"realm_access": {"roles": ["portal"]}}
    mine, theirs = (provider.token(sub=sub, **portal) for sub in ("patient-1", "patient-2"))
    # Two a minute for each patient, whichever of their tokens it is.
    answers = [ask(mine), ask(provider.token(sub="patient-1", jti="another", **portal)), ask(mine)]
    assert [a.status_code for a in answers] == [200, 200, 429]
    other = ask(theirs)
    assert other.status_code == 200
    assert post(client, "retrieve", {"query": "肺炎"}, theirs).status_code == 403
    assert post(client, "retrieve", {"query": "肺炎"}, provider.token()).status_code == 200
    logged = [entries(place, answer.json()["id"])[0] for answer in (*answers[:2], other)]
    names = [pseudonym(provider.issuer, sub, KEY) for sub in ("patient-1", "patient-2")]
    assert [e["caller"] for e in logged] == [names[0], names[0], names[1]]
    assert {e["role"] for e in logged} == {"patient"}
    kept = "".join(path.read_text(encoding="utf-8") for path in (place / "audit").iterdir())
    for secret in ("patient-1", "zhang.wei", "张伟", mine, mine.rpartition(".")[2]):
        assert secret not in kept


def test_completions_score_what_they_are_given(client, engine, secrets) -> None:
    text = "一二三四五六七八九十一二"
    body = {"model": "medray", "prompt": text, "echo": True, "max_tokens": 1, "logprobs": 2}
    answer = post(client, "completions", body, secrets["clinician"]).json()
    choice, told = answer["choices"][0], answer["choices"][0]["logprobs"]
    ids = engine.tokenizer(text)["input_ids"]
    expected = engine.score_texts([ids], 2)[0]
    assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
    assert told["token_logprobs"][1 : len(ids)] == pytest.approx([t.logprob for t in expected[1:]])
    assert len(told["tokens"]) == len(ids) + 1
    assert choice["text"].startswith(text)
    assert "".join(told["tokens"][: len(ids)]) == text
    for offset, token in zip(told["text_offset"], told["tokens"], strict=True):
        assert choice["text"][offset:].startswith(token)
    assert answer["usage"] == {
        "prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": len(ids) + 1,
    }  # fmt: skip
    same = post(client, "completions", body | {"prompt": ids}, secrets["clinician"]).json()
    assert same["choices"][0]["logprobs"]["token_logprobs"] == pytest.approx(
        told["token_logprobs"], nan_ok=True
    )


def test_completions_continue_stream_and_stop(client, engine, secrets) -> None:
    start = "一二三四五六七八九十一二三"
    whole = engine.generate([start], Sampling(max_new_tokens=20))[0].text
    fields = {"model": "medray", "max_tokens": 20, "stop": [whole[len(whole) // 2], "没有"]}
    answer = post(
        client, "completions", {**fields, "prompt": [start, "肺炎"]}, secrets["clinician"]
    )
    first, second = answer.json()["choices"]
    assert (first["index"], second["index"]) == (0, 1)
    assert first["finish_reason"] == "stop"
    assert first["text"] == whole.split(fields["stop"][0])[0]
    request = {**fields, "prompt": start, "stream": True, "stream_options": {"include_usage": True}}
    with client.events("/v1/completions", request, secrets["clinician"]) as events:
        lines = list(events)
    chunks = [json.loads(line) for line in lines[:-1]]
    assert "".join(c["choices"][0]["text"] for c in chunks if c["choices"]) == first["text"]
    assert chunks[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"prompt": ""}, "holds no token"), ({"prompt": [10**6]}, "outside 0 to"),
     ({"prompt": [-1]}, "outside 0 to"),
     ({"prompt": "一", "max_tokens": 10**6}, "context is 4096")],
)  # fmt: skip
def test_prompts_that_no_model_can_read(client, secrets, fields: Any, message: str) -> None:
    refused = post(client, "completions", {"model": "medray", **fields}, secrets["clinician"])
    assert refused.status_code == 400
    assert message in refused.json()["error"]["message"]


def test_log_probabilities_of_a_chat(client, hospital, secrets) -> None:
    request = chat(
        hospital.long_question, retrieval=False, max_tokens=6, logprobs=True, top_logprobs=2
    )
    choice = post(client, "chat/completions", request, secrets["clinician"]).json()["choices"][0]
    told = choice["logprobs"]["content"]
    assert len(told) == 6
    assert "".join(token["token"] for token in told) == choice["message"]["content"]
    # The policy knows this answer by heart, greedily: each token is the likeliest.
    assert all(token["top_logprobs"][0]["token"] == token["token"] for token in told)
    assert all(-1 < token["logprob"] <= 0 for token in told)


def test_stop_strings_end_a_chat(client, hospital, secrets) -> None:
    request = chat(hospital.long_question, retrieval=False, max_tokens=50, stop="四五")
    choice = post(client, "chat/completions", request, secrets["clinician"]).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("一二三", "stop")


def test_what_cannot_be_logged_is_not_answered(deployed, hospital, listening, place: Path) -> None:
    config = GatewayConfig.parse({"audit_dir": str(place / "other")}, "test")
    service = Service(config, deployed, Metrics())
    with listening(service) as client:
        service._audit._file, handle = 10**6, service._audit._file  # type: ignore[union-attr]
        refused = client.post("/v1/chat/completions", json=chat(hospital.questions["none"]))
        assert refused.status_code == 500
        assert "OSError" in refused.json()["error"]["message"]
        assert service.in_flight.count == 0
        service._audit._file = handle  # type: ignore[union-attr]
        with type(client)(client.port) as again:  # the server closed the other's connection
            answer = again.post("/v1/chat/completions", json=chat(hospital.questions["none"]))
            assert answer.json()["choices"][0]["message"]["content"] == NO_ANSWER
            # No key for texts: feedback would be lost, so it is refused.
            said = {"request": answer.json()["id"], "score": 3}
            assert again.post("/v1/feedback", json=said).status_code == 404
    assert verify(place / "other").faults == []


def test_a_reader_that_leaves_is_charged_and_logged(
    client, deployed, hospital, secrets, place: Path
) -> None:
    request = chat(hospital.long_question, retrieval=False, max_tokens=2000, stream=True)
    deployed.spent.clear()
    with client.events("/v1/chat/completions", request, secrets["leaver"]) as events:
        name = json.loads(next(events))["id"]
        shown = next(
            text for line in events if (text := json.loads(line)["choices"][0]["delta"]["content"])
        )
    assert deployed.spent.wait(60)
    refused = post(client, "chat/completions", chat("肺炎"), secrets["leaver"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    asked, failed = entries(place, name)
    assert (asked["model"], failed["event"], failed["reason"]) == ("medray", "failed", "left")
    assert failed["texts"]["answer"].startswith(shown)
    assert (failed["model_version"], failed["passages"]) == ("model", [])
    assert 0 < failed["completion_tokens"] < 2000 and failed["prompt_tokens"] > 0


def test_an_answer_that_takes_too_long_ends() -> None:
    class Stuck:
        async def stream(self, *_: Any) -> AsyncGenerator[Piece, None]:
            yield Piece("咳", (), (4, 5), "v1")
            await asyncio.Event().wait()

    async def read() -> None:
        meter = Meter(Stuck(), limit_s=0.05)  # type: ignore[arg-type]
        with pytest.raises(ApiError) as raised:
            async for _ in meter.stream([1, 2, 3], Sampling()):
                pass
        assert (raised.value.status, raised.value.code) == (504, "timeout")
        assert meter.usage.model_dump() == {
            "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
        }  # fmt: skip

    asyncio.run(read())


def test_a_prompt_that_is_scored_and_continued_counts_once() -> None:
    class Policy:
        async def score(self, *_: Any) -> list[Any]:
            return []

        async def stream(self, *_: Any) -> AsyncGenerator[Piece, None]:
            yield Piece("咳", (), (4, 5), "v1")

    async def read() -> Meter:
        meter = Meter(Policy(), limit_s=9)  # type: ignore[arg-type]
        await meter.score([[1, 2, 3], [6]], 0)
        for prompt in ([1, 2, 3], [7, 8]):
            async for _ in meter.stream(prompt, Sampling()):
                pass
        return meter

    usage = asyncio.run(read()).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3 + 1 + 2, 4)


def test_feedback_is_kept_beside_its_answer(client, hospital, secrets, place: Path) -> None:
    question = chat(hospital.questions["none"])
    answer = post(client, "chat/completions", question, secrets["patient"]).json()
    said = {"request": answer["id"], "score": 3, "comment": "太短", "corrected": "请就诊。"}
    kept = post(client, "feedback", said, secrets["clinician"])
    assert (kept.status_code, kept.json()) == (
        201, {"object": "feedback", "request": answer["id"]},
    )  # fmt: skip
    *_, entry = entries(place, answer["id"])
    assert (entry["event"], entry["score"], entry["role"]) == ("feedback", 3.0, "clinician")
    assert entry["texts"] == {"comment": "太短", "corrected": "请就诊。"}
    for wrong in ({"request": answer["id"]}, {"request": "r1", "score": 3},
                  {"request": answer["id"], "score": 11}):  # fmt: skip
        assert post(client, "feedback", wrong, secrets["clinician"]).status_code == 400


def test_where_no_reranker_is_served_that_is_said(client, secrets) -> None:
    body = {"model": "medray-reranker", "query": "肺炎", "documents": ["肺炎"]}
    answer = post(client, "rerank", body, secrets["clinician"])
    assert answer.status_code == 404 and "reranker_dir" in answer.json()["error"]["message"]
    assert post(client, "rerank", body, secrets["patient"]).status_code == 403


def test_the_log_of_all_this_is_sound(client, hospital, secrets, place: Path) -> None:
    before = verify(place / "audit")
    question = chat(hospital.questions["none"])
    for _ in range(2):
        assert post(client, "chat/completions", question, secrets["patient"]).status_code == 200
    found = verify(place / "audit")
    assert (before.faults, found.faults) == ([], [])
    assert found.num_entries == before.num_entries + 4  # asked and answered, twice


def test_a_key_file_that_is_missing_is_told_at_the_start(deployed, tmp_path: Path) -> None:
    config = GatewayConfig.parse({"keys_file": str(tmp_path / "none.json")}, "test")
    with pytest.raises(ConfigError, match="medray keys --file"):
        Service(config, deployed, Metrics())
