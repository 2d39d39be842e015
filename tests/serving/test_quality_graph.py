"""Quality control of records over the real graph: the job's verdicts, also where replicas die."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from ports import free_port
from replicas import replica
from tiny_judge import AF, audit_record, joined, text_of

from medray.generation.engine import HFEngine
from medray.quality.indicators import load_indicators
from medray.quality.protocols import Greedy
from medray.quality.questions import ANSWER_TOKENS
from medray.quality.verdict import judge
from medray.serving import up

pytestmark = pytest.mark.cluster
CONFIG = Path(__file__).parents[2] / "serve_configs" / "laptop.yaml"
OWN = """
- id: any-fever
  title: 发热记录率
  unit: patient
  populations: {initial-population: FEVER, denominator: FEVER, numerator: FEVER}
  tasks: {FEVER: {ask: 是否发热}}
"""


@pytest.fixture(scope="module")
def url(ray_cluster, hospital, judge_dir: Path, tmp_path_factory) -> Iterator[str]:
    """Beside the usual model one that knows verdicts, and an indicator of one's own."""
    from ray import serve

    own = tmp_path_factory.mktemp("indicators") / "own.yaml"
    own.write_text(OWN, encoding="utf-8")
    shipped = Path(up.__file__).parents[1] / "quality" / "indicators" / "cardiology.yaml"
    overrides = [
        f"storage_root={hospital.root}", f"models.judge={judge_dir}",
        f"indicator_files={json.dumps([str(shipped), str(own)])}",
    ]  # fmt: skip
    with up.start(CONFIG, overrides, port=free_port()) as running:
        yield running.url
    serve.shutdown()


def post(url: str, **body: Any) -> dict[str, Any]:
    response = requests.post(f"{url}/v1/quality", json=body, timeout=300)
    assert response.status_code == 200, response.text
    return response.json()


def test_what_there_is(url) -> None:
    listed = requests.get(f"{url}/v1/quality/indicators", timeout=60).json()["data"]
    assert [one["id"] for one in listed] == ["pci-angio-success", AF, "any-fever"]
    state = requests.get(f"{url}/healthz", timeout=60).json()
    assert state["deployments"]["quality"] == {"ready": True, "indicators": 3}
    assert post(url, record="主诉：\n发热。", indicators=["any-fever"])["model_version"] == "s1"


@pytest.mark.parametrize("dying", [None, "model-judge", "quality"])
def test_verdicts_are_those_of_the_job(url, judge_dir: Path, dying: str | None) -> None:
    document = joined(*(audit_record(number)[0] for number in (3, 22, 17)))
    rows = judge(
        [document], [load_indicators()[AF]], HFEngine(judge_dir), lambda *_: [], batch_size=32,
        sampling=Greedy(max_new_tokens=ANSWER_TOKENS),
    )  # fmt: skip
    record = text_of(document)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, url, model="judge", record=record, indicators=[AF])
        if dying:
            wait_until_asked(url, asked)
            replica(dying).kill()
        answer = asked.result()
    assert (answer["model"], answer["model_version"]) == ("judge", judge_dir.name)
    [result] = answer["results"]
    told = {t["task"]: (t["value"], t["reason"], t["quote"]) for t in result["sub_tasks"]}
    assert told == {
        row.task: (row.value, row.reason, row.evidence.quote if row.evidence else None)
        for row in rows
    }
    assert max(row.num_windows for row in rows) > 1
    for t in result["sub_tasks"]:
        assert t["quote"] is None or record[t["start"] : t["end"]] == t["quote"]


def wait_until_asked(url: str, asked: Any) -> None:
    """Returns once the model answers a question."""
    while not asked.done():
        state = requests.get(f"{url}/healthz", timeout=60).json()
        if state["deployments"]["model-judge"].get("active_streams"):
            return
        time.sleep(0.01)
    raise AssertionError("answered before anything could be killed")
