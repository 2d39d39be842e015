"""Physicians' ratings to scores, pairs and agreement, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from medray.common.errors import DataError
from medray.instructions.ratings import import_ratings
from medray.instructions.raw import Preference, Score

TASKS = [
    {"scenario_id": "A", "scenario": "发热三天",
     "responses": [{"response_id": f"A-{k}", "text": text} for k, text in enumerate("甲乙丙")]},
    {"scenario_id": "B", "scenario": "咳嗽",
     "responses": [{"response_id": "B-0", "text": "丁"}, {"response_id": "B-1", "text": "戊"}]},
]  # fmt: skip


def rated(rater: str, response: str, **values: Any) -> dict[str, Any]:
    return {"scenario_id": response[0], "response_id": response, "rater": rater, **values}


# x scores 1, 3, 4; y scores 2, 3, 4: both order alike. B is ranked, and they disagree.
RATINGS = [
    rated("x", "A-0", score=1), rated("y", "A-0", score=2),
    rated("x", "A-1", score=3), rated("y", "A-1", score=3),
    rated("x", "A-2", score=4), rated("y", "A-2", score=4),
    rated("x", "B-0", rank=1), rated("x", "B-1", rank=2),
    rated("y", "B-0", rank=2), rated("y", "B-1", rank=1), rated("z", "B-0", rank=1),
    rated("z", "B-1", rank=2, comment="ok"),
]  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    return write(tmp_path / "responses.jsonl", TASKS)


def test_scores_pairs_and_agreement(responses: Path, tmp_path: Path) -> None:
    out = tmp_path / "rated"
    found = import_ratings(responses, write(tmp_path / "ratings.jsonl", RATINGS), out)
    assert [(row["id"], row["score"]) for row in found.scores] == [
        ("A-0", 1.5), ("A-1", 3.0), ("A-2", 4.0),
    ]  # fmt: skip
    assert [(row["chosen"], row["rejected"]) for row in found.preferences] == [
        ("乙", "甲"), ("丙", "甲"), ("丙", "乙"), ("丁", "戊"),  # two of three prefer B-0
    ]  # fmt: skip
    agreement = found.agreement
    # Observed: (1−2)², twice, over 6 values; expected: of 1 2 3 3 4 4 all 30 ordered pairs, 82.
    assert agreement["score_alpha"] == pytest.approx(1 - (2 / 6) / (82 / 30))
    # Three pairs of A by x and y alike; of B's three pairs of raters only x and z are.
    assert (agreement["pairs_alike"], agreement["pairs"]) == (pytest.approx(4 / 6), 6)
    assert agreement["rank_alpha"] is not None and agreement["rank_alpha"] < 0.2
    assert (agreement["raters"], agreement["responses"]) == (3, 5)
    # What was written is what instructions read as sources.
    for name, model in (("scores", Score), ("preferences", Preference)):
        lines = (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [model.model_validate_json(line) for line in lines]
    assert json.loads((out / "agreement.json").read_text()) == agreement
    assert not list(out.glob(".*"))


def test_one_rater_agrees_with_nobody(responses: Path, tmp_path: Path) -> None:
    alone = write(tmp_path / "ratings.jsonl", [rated("x", "A-0", score=7.5)])
    found = import_ratings(responses, alone, tmp_path / "rated")
    assert found.scores[0]["score"] == 7.5 and not found.preferences
    assert found.agreement["score_alpha"] is found.agreement["pairs_alike"] is None


def test_even_votes_and_equal_scores_give_no_pair(responses: Path, tmp_path: Path) -> None:
    rows = [
        rated("x", "B-0", rank=1), rated("x", "B-1", rank=2),
        rated("y", "B-0", rank=2), rated("y", "B-1", rank=1),
        rated("x", "A-0", score=5), rated("x", "A-1", score=5),
    ]  # fmt: skip
    path = write(tmp_path / "ratings.jsonl", rows)
    assert import_ratings(responses, path, tmp_path / "rated").preferences == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (rated("x", "A-9", score=1), "line 1: no answer 'A-9' to scenario 'A' was handed out"),
        (rated("x", "A-0"), "line 1: line: Value error, a rating needs a score or a rank"),
        (rated("x", "A-0", score=11), "line 1: score: Input should be less than or equal to 10"),
        (rated("x", "A-0", rank=0), "line 1: rank: Input should be greater than or equal to 1"),
    ],
)
def test_bad_ratings(responses: Path, tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        import_ratings(responses, write(tmp_path / "r.jsonl", [row]), tmp_path / "rated")
    assert not (tmp_path / "rated").exists()


def test_bad_files(responses: Path, tmp_path: Path) -> None:
    twice = write(tmp_path / "twice.jsonl", [rated("x", "A-0", score=1)] * 2)
    with pytest.raises(DataError, match="line 2: rater 'x' has judged 'A-0' before"):
        import_ratings(responses, twice, tmp_path / "rated")
    with pytest.raises(DataError, match="no file at"):
        import_ratings(responses, tmp_path / "none.jsonl", tmp_path / "rated")
    gbk = tmp_path / "gbk.jsonl"
    gbk.write_bytes('{"scenario": "发热"}'.encode("gbk"))
    with pytest.raises(DataError, match=r"gbk\.jsonl, line 1: line: Invalid JSON"):
        import_ratings(gbk, twice, tmp_path / "rated")
