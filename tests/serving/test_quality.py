"""Quality control of a record over HTTP, by a real model in this process; and the same verdicts as
in bulk."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_judge import AF, PCI, audit_record, joined, text_of

from medray.common.records import Document
from medray.generation.batching import BatchingConfig
from medray.generation.engine import HFEngine
from medray.quality.indicators import load_indicators
from medray.quality.protocols import Greedy
from medray.quality.questions import ANSWER_TOKENS
from medray.quality.verdict import judge
from medray.serving.artefacts import Location
from medray.serving.audit_log import read_entries
from medray.serving.identity.keys import KeyFile
from medray.serving.messages import Spent
from medray.serving.policy import Policy
from medray.serving.switch import Switch

pytestmark = pytest.mark.xdist_group("judge")  # one worker makes the model
KEY = bytes(range(32))
RECORDS = {number: audit_record(number)[0] for number in (17, 22, 3, 35)}
"""The policy knows the verdicts on the first by heart, and says something of the others."""
LONG = joined(RECORDS[3], RECORDS[22], RECORDS[35])


@pytest.fixture(scope="module")
def deployed(judge_dir: Path, in_process) -> Iterator[Any]:
    policy = Policy(Location(path=str(judge_dir)), BatchingConfig(max_requests=4))
    yield in_process(policy)
    policy.__del__()


@pytest.fixture(scope="module")
def engine(judge_dir: Path) -> HFEngine:
    """The same model, as the job has it."""
    return HFEngine(judge_dir)


def post(client: Any, secret: str, **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {secret}"}
    return client.post("/v1/quality", json=body, headers=headers)


@pytest.mark.parametrize("document", [*RECORDS.values(), LONG], ids=[*map(str, RECORDS), "long"])
def test_verdicts_are_those_of_the_job(
    client, secrets, engine: HFEngine, document: Document
) -> None:
    indicators = load_indicators()
    rows = judge(
        [document], indicators.values(), engine, lambda *_: [], batch_size=32,
        sampling=Greedy(max_new_tokens=ANSWER_TOKENS),
    )  # fmt: skip
    record = text_of(document)
    response = post(client, secrets["clinician"], record=record, indicators=[*indicators])
    told = {
        (result["indicator"], sub_task["task"]): sub_task
        for result in response.json()["results"]
        for sub_task in result["sub_tasks"]
    }
    assert {key: (t["value"], t["reason"], t["quote"]) for key, t in told.items()} == {
        (row.indicator, row.task): (
            row.value, row.reason, row.evidence.quote if row.evidence else None
        )
        for row in rows
    }  # fmt: skip
    for sub_task in told.values():
        if sub_task["quote"] is not None:
            assert record[sub_task["start"] : sub_task["end"]] == sub_task["quote"]
    if document is LONG:
        assert max(row.num_windows for row in rows) > 1


def test_what_it_knows_is_told_and_logged(client, secrets, place: Path) -> None:
    document, verdicts, shown = audit_record(17)
    record = text_of(document)
    answer = post(client, secrets["clinician"], record=record, indicators=[AF, AF]).json()
    assert (answer["model"], answer["model_version"]) == ("medray", "model")
    [result] = answer["results"]
    assert (result["verdict"], result["applies"], result["deciding"]) == ("met", True, ["T1"])
    assert {t["task"]: t["value"] for t in result["sub_tasks"]} == verdicts
    assert {t["task"]: f"{t['quote']}。" for t in result["sub_tasks"]} == shown
    asked, answered = (
        json.loads(line) for line in read_entries(place / "audit", answer["id"], KEY)
    )
    assert (asked["indicators"], asked["texts"]) == ([AF], {"record": record})
    assert (answered["verdicts"], answered["model_version"]) == ({"met": 1}, "model")
    assert json.loads(answered["texts"]["results"]) == answer["results"]
    assert answered["total_tokens"] == answer["usage"]["total_tokens"] > 0
    for path in (place / "audit").iterdir():
        assert shown["AF"] not in path.read_text(encoding="utf-8")


def test_without_ids_what_does_not_apply_is_left_out(client, secrets) -> None:
    record = "手术记录：\n" + next(
        s.text for s in audit_record(26)[0].sections if s.heading == "手术记录"
    )
    whole = post(client, secrets["clinician"], record=record, indicators=[PCI, AF]).json()
    [pci, _] = whole["results"]
    assert (pci["indicator"], pci["verdict"], pci["deciding"]) == (PCI, "met", ["T1", "T3"])
    chosen = post(client, secrets["clinician"], record="主诉：\n胸痛。", indicators=[PCI]).json()
    assert [r["applies"] for r in chosen["results"]] == [False]
    told = post(client, secrets["clinician"], record="主诉：\n胸痛。").json()["results"]
    assert all(r["indicator"] != PCI and r["applies"] is not False for r in told)


def test_who_may_ask(client, secrets, place: Path) -> None:
    reviewer = KeyFile(place / "keys.json").add("reviewer", "quality").secret
    for secret in (secrets["clinician"], secrets["admin"], reviewer):
        headers = {"Authorization": f"Bearer {secret}"}
        listed = client.get("/v1/quality/indicators", headers=headers).json()["data"]
        titles = {name: indicator.title for name, indicator in load_indicators().items()}
        assert {one["id"]: one["title"] for one in listed} == titles
        assert post(client, secret, record="主诉：痛。", indicators=[PCI]).status_code == 200
    headers = {"Authorization": f"Bearer {secrets['patient']}"}
    for refused in (
        client.get("/v1/quality/indicators", headers=headers),
        post(client, secrets["patient"], record="主诉：痛。"),
    ):
        assert refused.status_code == 403
    assert client.get("/v1/quality/indicators").status_code == 401


def test_limits_hold_for_records_too(client, secrets) -> None:
    record = "手术记录：\n植入支架一枚。"
    assert post(client, secrets["thrifty"], record=record, indicators=[PCI]).status_code == 200
    refused = post(client, secrets["thrifty"], record=record, indicators=[PCI])
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("body", "status", "code", "told"),
    [
        ({"indicators": ["患者甲"]}, 400, "unknown_indicator", f"there are: {AF}, lung-cancer"),
        ({"record": "手术记录：\n" + "龘" * 600}, 400, "context_length_exceeded", "at 6"),
        ({"model": "患者甲"}, 404, "model_not_found", "serves medray"),
        ({"record": " "}, 400, None, "record"),
    ],
)
def test_what_is_refused(client, secrets, body: Any, status: int, code: Any, told: str) -> None:
    response = post(client, secrets["clinician"], **({"record": "主诉：痛。"} | body))
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert told in error["message"]
    assert "患者甲" not in response.text and "龘" not in response.text


def test_the_emergency_switch(client, secrets, place: Path, deployed, monkeypatch) -> None:
    switch = Switch(str(place / "stopped"))
    record = "手术记录：\n植入支架一枚。"
    switch.stop()
    try:
        refused = post(client, secrets["clinician"], record=record)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_stopped")
    finally:
        switch.start()
    own = deployed.judge

    async def stopped_meanwhile(*arguments: Any) -> Any:
        judged = await own(*arguments)
        switch.stop()
        return judged

    monkeypatch.setattr(deployed, "judge", stopped_meanwhile)
    try:
        refused = post(client, secrets["clinician"], record=record, indicators=[PCI])
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_stopped")
    finally:
        switch.start()


def test_a_judgement_under_way_ends_with_the_switch_and_says_what_it_took(
    client, secrets, place: Path, deployed, monkeypatch
) -> None:
    switch = Switch(str(place / "stopped"))
    ended = threading.Event()

    async def stuck(model: str, record: str, ids: list[str], spent: Any) -> None:
        spent(Spent(50, 7, "model"))
        switch.stop()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(deployed, "judge", stuck)
    try:
        refused = post(client, secrets["clinician"], record="手术记录：\n植入支架一枚。")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_stopped")
    finally:
        switch.start()
    assert ended.wait(60)
    entries = [json.loads(line) for line in read_entries(place / "audit", "", KEY)]
    assert (50, 7, "model") in {
        (e["prompt_tokens"], e["completion_tokens"], e["model_version"])
        for e in entries
        if e["event"] == "failed" and "completion_tokens" in e
    }
