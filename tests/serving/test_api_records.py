"""A patient's record in the HTTP API: a file, a chat that brings one."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from http_api import bearer, chat, entries, post

from medray.serving.gateway_config import GatewayConfig
from medray.serving.observe.metrics import Metrics
from medray.serving.service import Service

pytestmark = pytest.mark.xdist_group("hospital")  # one worker makes the models
RECORD = {
    "sections": [
        {"heading": "主诉", "text": "咳嗽三天。\n无发热。"},
        {"heading": "过敏史", "text": "青霉素过敏，用后全身皮疹。"},
    ]
}


def test_a_file_becomes_a_chats_record(client, hospital, secrets) -> None:
    raw = "主诉：咳嗽三天\n化验结果：白细胞 12.3 ×10^9/L (3.5-9.5)".encode("gbk")
    read = client.post("/v1/record", data=raw, headers=bearer(secrets["patient"]))
    assert read.status_code == 200
    body = read.json()
    # 2 + 4, and 4 + 26: the heading under its common name, 辅助检查
    assert (body["encoding"], body["num_chars"], body["max_chars"]) == ("gbk", 36, 30_000)
    assert body["abnormal"] == [{"section": 1, "start": 4, "end": 8, "direction": "high"}]
    request = chat("肺炎患者咳嗽几天？", record=body["record"], max_tokens=4)
    answer = post(client, "chat/completions", request, secrets["patient"])
    shown = {p["title"] for p in answer.json()["medray"]["passages"] if p["kind"] == "record"}
    assert "患者病历 主诉" in shown
    refused = client.post("/v1/record", data=b"\0", headers=bearer(secrets["patient"]))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_text")
    assert client.post("/v1/record", data=raw).status_code == 401


def test_a_file_counts_as_a_request(client, deployed, listening, secrets) -> None:
    def send(client: Any) -> Any:
        return client.post("/v1/record", data=b"a", headers=bearer(secrets["filing"]))

    # One a minute with this key.
    assert [send(client).status_code for _ in range(2)] == [200, 429]
    config = GatewayConfig.parse({"max_in_flight": 0}, "test")
    with listening(Service(config, deployed, Metrics())) as full:
        refused = send(full)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")


def test_a_record_is_shown_beside_the_index_through_openai(client, secrets, place: Path) -> None:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{client.port}/v1", api_key=secrets["clinician"]
    ) as api:
        answer = api.chat.completions.create(
            model="medray", messages=[{"role": "user", "content": "肺炎患者对青霉素过敏吗？"}],
            max_tokens=4, extra_body={"record": RECORD, "top_k": 4},
        )  # fmt: skip
    passages = answer.model_extra["medray"]["passages"]  # type: ignore[index]
    assert [p["kind"] for p in passages] == ["guideline", "record"] * 2
    shown = passages[1]  # it has the question's words
    assert (shown["passage_id"], shown["title"]) == ("record#1-0", "患者病历 过敏史")
    assert shown["text"] == RECORD["sections"][1]["text"][shown["start"] : shown["end"]]
    # The audit log keeps the question, and of the record the passages' names alone.
    asked, answered = entries(place, answer.id)
    assert "record#1-0" in answered["passages"]
    assert "皮疹" not in json.dumps([asked, answered["passages"]], ensure_ascii=False)


def test_a_record_is_gone_with_its_answer(client, secrets) -> None:
    request = chat("青霉素过敏？", max_tokens=4)
    with_it = post(client, "chat/completions", request | {"record": RECORD}, secrets["patient"])
    assert "record" in {p["kind"] for p in with_it.json()["medray"]["passages"]}
    without = post(client, "chat/completions", request, secrets["patient"])
    assert {p["kind"] for p in without.json()["medray"]["passages"]} == {"guideline"}


@pytest.mark.parametrize(
    ("record", "fields", "message"),
    [
        ({"sections": []}, {}, "record.sections: List should have at least 1 item"),
        ({"sections": [{"text": " "}]}, {}, "record.sections.0.text"),
        ({"sections": [{"text": "病"}] * 65}, {}, "at most 64 items"),
        ({"sections": [{"text": "病"}], "name": "张三"}, {}, "record: Extra inputs"),
        (RECORD, {"retrieval": False}, "leave retrieval on"),
    ],
)
def test_a_record_that_cannot_be_read(client, secrets, record, fields, message: str) -> None:
    request = chat("肺炎如何治疗？", record=record, **fields)
    refused = post(client, "chat/completions", request, secrets["clinician"])
    assert refused.status_code == 400
    assert message in refused.json()["error"]["message"]
    assert "张三" not in refused.text
