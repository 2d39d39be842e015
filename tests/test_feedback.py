"""Feedback out of the audit log, counted by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from medray.common.errors import DataError
from medray.feedback import export_feedback
from medray.instructions.raw import Preference, Score
from medray.serving.audit_log import AuditLog

KEY = bytes(range(32))


def asked(log: AuditLog, request: str, question: str, answer: str, turns: int = 1) -> None:
    messages = json.dumps([{"role": "user", "content": question}] * turns)
    log.append("asked", {"messages": messages}, request=request, caller="p1", role="patient")
    log.append("answered", {"answer": answer}, request=request, caller="p1", role="patient")


def said(log: AuditLog, request: str, caller: str, role: str, score: Any, **texts: str) -> None:
    log.append("feedback", texts, request=request, caller=caller, role=role, score=score)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What two replicas logged; feedback may reach another than the answer came from."""
    one, two = AuditLog(tmp_path / "audit", KEY), AuditLog(tmp_path / "audit", KEY)
    asked(one, "r1", "咳嗽？", "多喝水。")
    asked(two, "r2", "发热？", "退热。")
    asked(one, "r3", "头痛？", "休息。", turns=3)
    said(two, "r1", "d1", "clinician", 2.0, corrected="先做检查。", comment="太短")
    said(two, "r1", "d1", "clinician", 4.0)  # the last of one person's counts, the rest stays
    said(one, "r1", "d2", "quality", 8.0)
    said(one, "r1", "p2", "patient", 0.0)  # somebody else's answer
    said(one, "r2", "p1", "patient", 10.0)
    said(one, "r2", "d1", "clinician", None, comment="好")  # neither a score nor an answer
    said(one, "r3", "d1", "clinician", 5.0)
    said(one, "r9", "d1", "clinician", 5.0)
    one.close()
    two.close()
    return tmp_path / "audit"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_scores_and_preferences(directory: Path, tmp_path: Path) -> None:
    made = export_feedback(directory, tmp_path / "out", KEY)
    assert made[:2] == (2, 1)
    assert made.left_out == {"no_such_answer": 1, "several_turns": 1, "not_their_answer": 1}
    scores = rows(tmp_path / "out" / "scores.jsonl")
    assert scores == [
        {"id": "r1", "scenario": "咳嗽？", "response": "多喝水。", "score": 6.0},  # (4 + 8) / 2
        {"id": "r2", "scenario": "发热？", "response": "退热。", "score": 10.0},
    ]
    pairs = rows(tmp_path / "out" / "preferences.jsonl")
    assert pairs == [
        {"id": "r1-d1", "scenario": "咳嗽？", "chosen": "先做检查。", "rejected": "多喝水。"}
    ]
    # As build_instructions reads them.
    assert [Score.model_validate(row).score for row in scores] == [6.0, 10.0]
    assert Preference.model_validate(pairs[0]).rejected == "多喝水。"
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "out").iterdir())


def test_nothing_is_written_over(directory: Path, tmp_path: Path) -> None:
    export_feedback(directory, tmp_path / "out", KEY)
    with pytest.raises(DataError, match="there already"):
        export_feedback(directory, tmp_path / "out", KEY)


def test_a_log_that_was_edited_gives_nothing(directory: Path, tmp_path: Path) -> None:
    for path in directory.iterdir():  # one of them holds it
        path.write_bytes(path.read_bytes().replace(b'"score":8.0', b'"score":9.0'))
    with pytest.raises(DataError, match="not sound"):
        export_feedback(directory, tmp_path / "out", KEY)
    assert not (tmp_path / "out").exists()


def test_another_key_gives_nothing(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="another key"):
        export_feedback(directory, tmp_path / "out", bytes(32))
