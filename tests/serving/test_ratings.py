"""A round of rating: each once, what is on the disk, and `medray ratings` over it by hand."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medray.cli import main
from medray.common.errors import DataError
from medray.serving.audit_log import read_entries
from medray.serving.gateway_config import GatewayConfig
from medray.serving.observe.metrics import Metrics
from medray.serving.ratings import (
    AlreadyJudged,
    Judgement,
    OtherNumber,
    RatingRound,
    in_order,
)
from medray.serving.service import Service

KEY = bytes(range(32))
TASKS = [
    {"scenario_id": "A", "scenario": "发热三天",
     "responses": [{"response_id": f"A-{k}", "text": text} for k, text in enumerate("甲乙丙")]},
    {"scenario_id": "B", "scenario": "咳嗽",
     "responses": [{"response_id": "B-ppo", "text": "丁"}, {"response_id": "B-sft", "text": "戊"}]},
]  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def round_dir(tmp_path: Path) -> Path:
    write(tmp_path / "responses.jsonl", TASKS)
    return tmp_path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_once_in_the_files_order_and_the_raters_own_order_of_answers(round_dir: Path) -> None:
    round_ = RatingRound(round_dir)
    task, far = round_.next("x")
    assert task is not None and task.scenario_id == "A" and far == (0, 0, 2)
    again, _ = round_.next("x")
    assert again == task  # stable
    stored = round_.task("A")
    assert stored is not None
    orders = {tuple(r.text for r in in_order(stored, f"rater{k}")) for k in range(40)}
    assert len(orders) == 6  # 40 raters see all 3! orders (one missed: 6 · (5/6)^40 = 0.004)
    assert sorted(r.text for r in task.responses) == sorted("甲乙丙")
    # The first shown is the best and gets 9.
    round_.keep(stored, "x", Judgement([9, 4.5, 0], [1, 2, 3], ["好", "", ""]))
    first, second, third = (r.response_id for r in task.responses)
    assert lines(round_dir / "ratings.jsonl") == [
        {"scenario_id": "A", "response_id": first, "rater": "x", "score": 9.0, "rank": 1,
         "comment": "好"},
        {"scenario_id": "A", "response_id": second, "rater": "x", "score": 4.5, "rank": 2},
        {"scenario_id": "A", "response_id": third, "rater": "x", "score": 0.0, "rank": 3},
    ]  # fmt: skip
    with pytest.raises(AlreadyJudged):
        round_.keep(stored, "x", Judgement([9, 4.5, 0], None))
    task, far = round_.next("x")
    assert task is not None and task.scenario_id == "B" and far == (1, 0, 2)
    round_.skip(task, "x")
    with pytest.raises(AlreadyJudged):
        round_.skip(task, "x")
    assert round_.next("x") == (None, (1, 1, 2))
    assert round_.progress("y") == (0, 0, 2)
    # Another replica, and one that starts later, know it all.
    assert RatingRound(round_dir).next("x") == (None, (1, 1, 2))


def test_replicas_share_the_files_and_nobody_judges_twice(round_dir: Path) -> None:
    replicas = [RatingRound(round_dir) for _ in range(4)]
    stored = replicas[0].task("A")
    assert stored is not None

    def keep(attempt: int) -> bool:
        try:
            replicas[attempt % 4].keep(stored, f"r{attempt // 8}", Judgement([1, 2, 3], None))
        except AlreadyJudged:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:  # 5 raters, each tries 8 times on 4 replicas
        kept = list(pool.map(keep, range(40)))
    assert [sum(kept[8 * k : 8 * k + 8]) for k in range(5)] == [1] * 5
    rows = lines(round_dir / "ratings.jsonl")
    assert len(rows) == 15
    assert {(row["rater"], row["response_id"]) for row in rows} == {
        (f"r{k}", f"A-{n}") for k in range(5) for n in range(3)
    }
    assert all(replica.progress("r3") == (1, 0, 2) for replica in replicas)


def test_half_a_line_of_one_that_died_is_cut(round_dir: Path) -> None:
    round_ = RatingRound(round_dir)
    stored = round_.task("B")
    assert stored is not None
    round_.keep(stored, "x", Judgement(None, [2, 1]))
    whole = (round_dir / "ratings.jsonl").read_bytes()
    (round_dir / "ratings.jsonl").write_bytes(whole + b'{"scenario_id": "B", "resp')
    assert round_.progress("x") == (1, 0, 2)
    assert (round_dir / "ratings.jsonl").read_bytes() == whole
    round_.keep(stored, "y", Judgement(None, [1, 1]))
    assert [row["rank"] for row in lines(round_dir / "ratings.jsonl")] == [2, 1, 1, 1]


def test_what_cannot_be_written_is_not_kept(round_dir: Path, monkeypatch) -> None:
    round_ = RatingRound(round_dir)
    stored = round_.task("B")
    assert stored is not None

    def full(handle: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            round_.keep(stored, "x", Judgement([1, 2], None))
    assert (round_dir / "ratings.jsonl").read_bytes() == b""
    assert round_.progress("x") == (0, 0, 2)
    round_.keep(stored, "x", Judgement([1, 2], None))
    assert round_.progress("x") == (1, 0, 2)


@pytest.mark.parametrize(("judgement", "message"), [
    (Judgement([1, 2, 3], None), "there are 2 answers, and 3 are judged"),
    (Judgement([1, 2], [1]), "there are 2 answers, and 1 are judged"),
    (Judgement([1, 2], None, ["a"]), "there are 2 answers, and 1 are judged"),
    (Judgement(None, [1, 3]), "ranks go from 1 to 2"),
])  # fmt: skip
def test_a_judgement_of_other_answers(round_dir: Path, judgement: Judgement, message: str) -> None:
    round_ = RatingRound(round_dir)
    stored = round_.task("B")
    assert stored is not None
    with pytest.raises(OtherNumber, match=message):
        round_.keep(stored, "x", judgement)
    assert (round_dir / "ratings.jsonl").read_bytes() == b""


def test_a_directory_that_is_no_round(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file at .*responses\.jsonl"):
        RatingRound(tmp_path)
    write(tmp_path / "responses.jsonl", [TASKS[0], TASKS[0]])
    with pytest.raises(DataError, match="line 2: an id stands twice"):
        RatingRound(tmp_path)
    # Whose an answer is must not stand there.
    write(tmp_path / "responses.jsonl", [{**TASKS[0], "model": "ppo"}])
    with pytest.raises(DataError, match="line 1: model: Extra inputs"):
        RatingRound(tmp_path)
    write(tmp_path / "responses.jsonl", TASKS)
    write(tmp_path / "ratings.jsonl", [
        {"scenario_id": "Z", "response_id": "Z-0", "rater": "x", "score": 1}
    ])  # fmt: skip
    with pytest.raises(DataError, match=r"its scenario is not in responses\.jsonl"):
        RatingRound(tmp_path)


# --- over HTTP ------------------------------------------------------------------------------------


class Nothing:
    """Deployments that no rating asks."""

    reranks = False


@pytest.fixture
def made_keys(round_dir: Path) -> dict[str, Any]:
    from medray.serving.identity.keys import KeyFile

    file = KeyFile(round_dir / "keys.json")
    names = {"dr_li": "clinician", "dr_wu": "clinician", "qc": "quality", "it": "admin",
             "ward": "patient"}  # fmt: skip
    return {name: file.add(name, role) for name, role in names.items()}  # type: ignore[arg-type]


def served(round_dir: Path, monkeypatch, **settings: Any) -> Service:
    monkeypatch.setenv("MEDRAY_AUDIT_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    config = GatewayConfig.parse(
        {"keys_file": str(round_dir / "keys.json"), "audit_dir": str(round_dir / "audit"),
         **settings}, "test",
    )  # fmt: skip
    return Service(config, Nothing(), Metrics())  # type: ignore[arg-type]


SCORES = {"dr_li": {"甲": 1, "乙": 3, "丙": 4}, "dr_wu": {"甲": 2, "乙": 3, "丙": 4}}
BEST = {"dr_li": "丁", "dr_wu": "戊", "qc": "丁"}


def test_from_the_route_to_medray_ratings(
    round_dir, made_keys, monkeypatch, listening, capsys
) -> None:
    with listening(served(round_dir, monkeypatch, ratings_dir=str(round_dir))) as client:

        def ask(name: str, path: str, body: Any = None) -> Any:
            headers = {"Authorization": f"Bearer {made_keys[name].secret}"}
            method = "GET" if body is None else "POST"
            return client.request(method, f"/v1/ratings{path}", json=body, headers=headers)

        for name in ("dr_li", "dr_wu"):
            shown = ask(name, "/next").json()
            body = {
                "task": "A",
                "scores": [SCORES[name][text] for text in shown["answers"]],
                "comments": ["口语" if text == "甲" else "" for text in shown["answers"]],
            }
            kept = ask(name, "", body)
            assert kept.status_code == 201
            assert kept.json() == {
                "object": "rating_progress",
                "rated": 1,
                "skipped": 0,
                "total": 2,
            }
            assert ask(name, "", body).status_code == 409
        assert ask("qc", "/skip", {"task": "A"}).json()["skipped"] == 1
        for name, best in BEST.items():
            seen = ask(name, "/next")
            # Not a word on whose an answer is, ids of answers with it.
            assert "ppo" not in seen.text and "sft" not in seen.text
            shown = seen.json()
            assert (shown["task"], shown["scenario"]) == ("B", "咳嗽")
            ranks = [1 if text == best else 2 for text in shown["answers"]]
            assert ask(name, "", {"task": "B", "ranks": ranks}).status_code == 201
            assert ask(name, "/next").json()["task"] is None
        assert ask("it", "").json()["rated"] == 0  # admins may rate; patients may not
        for path, body in (("", None), ("/next", None), ("", {"task": "B", "ranks": [1, 2]}),
                           ("/skip", {"task": "B"})):  # fmt: skip
            assert ask("ward", path, body).status_code == 403
        for wrong in ({}, {"scores": [11, 1]}, {"ranks": [0, 1]}, {"ranks": [1, 3]},
                      {"scores": [1]}, {"scores": ["1", 2]}):  # fmt: skip
            assert ask("it", "", {"task": "B", **wrong}).status_code == 400
        assert ask("it", "", {"task": "Z", "ranks": [1]}).json()["error"]["code"] == "no_such_task"

    # Raters are told by the random ids of their keys.
    assert {row["rater"] for row in lines(round_dir / "ratings.jsonl")} == {
        made_keys[name].key.id for name in ("dr_li", "dr_wu", "qc")
    }
    out = round_dir / "rated"
    files = [str(round_dir / name) for name in ("responses.jsonl", "ratings.jsonl")]
    assert main(["ratings", *files, "--out", str(out)]) == 0
    # Means of 1 2, 3 3, 4 4; A's three pairs, and the one of B that two of three prefer. Of scores
    # observed: (1−2)², twice, over 6 values; expected: of 1 2 3 3 4 4 all 30 ordered pairs, 82.
    # Pairs alike: three of A by both; of B's three pairs of raters one. 5 answers were judged.
    alpha = 1 - (2 / 6) / (82 / 30)
    told = capsys.readouterr().out
    assert f"3 scores, 4 pairs; raters 3, responses 5, score_alpha {alpha:.4g}" in told
    assert f"pairs_alike {4 / 6:.4g}, pairs 6" in told
    assert [(row["id"], row["score"]) for row in lines(out / "scores.jsonl")] == [
        ("A-0", 1.5), ("A-1", 3.0), ("A-2", 4.0),
    ]  # fmt: skip
    assert [(row["chosen"], row["rejected"]) for row in lines(out / "preferences.jsonl")] == [
        ("乙", "甲"), ("丙", "甲"), ("丙", "乙"), ("丁", "戊"),
    ]  # fmt: skip

    # The audit log: who was shown and said what; comments encrypted.
    logged = [json.loads(line) for line in read_entries(round_dir / "audit", key=KEY)]
    li = [entry for entry in logged if entry["caller"] == made_keys["dr_li"].key.id]
    assert [(entry["event"], entry["scenario"]) for entry in li] == [
        ("rating_shown", "A"), ("rating", "A"), ("rating_shown", "B"), ("rating", "B"),
    ]  # fmt: skip
    assert li[1]["scores"] == {"A-0": 1.0, "A-1": 3.0, "A-2": 4.0}
    assert json.loads(li[1]["texts"]["comments"]) == {"A-0": "口语"}
    assert li[3]["ranks"] == {"B-ppo": 1, "B-sft": 2}
    assert sum(entry["event"] == "rating_skipped" for entry in logged) == 1
    for path in (round_dir / "audit").iterdir():
        assert "口语" not in path.read_text(encoding="utf-8")


def test_where_nothing_is_rated_that_is_said(round_dir, made_keys, monkeypatch, listening) -> None:
    with listening(served(round_dir, monkeypatch)) as client:
        headers = {"Authorization": f"Bearer {made_keys['qc'].secret}"}
        for path in ("/v1/ratings", "/v1/ratings/next"):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_ratings")
            assert "gateway.ratings_dir" in answer.json()["error"]["message"]
