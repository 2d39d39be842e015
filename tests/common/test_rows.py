"""Every row model goes to Parquet and back unchanged."""

from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from medray.common import records
from medray.common.errors import DataError
from medray.common.records import ExamQuestion, Message, Row, Scenario, Section
from medray.common.rows import arrow_schema, count_rows, read_rows, write_rows

SECTION = Section(heading="主诉", text="咳嗽三天。", date="2024-01-02")
ROWS: list[list[Row]] = [
    [SECTION],
    [Message(role="user", content="问"), Message(role="assistant", content="")],
    [
        records.RawRecord(record_id="r", patient_id="p", sections=[SECTION]),
        records.RawRecord(record_id="r", patient_id="p", sections=[SECTION] * 2, split="dev"),
    ],
    [
        records.RawDocument(doc_id="d", sections=[SECTION]),
        records.RawDocument(doc_id="d", superseded_by="e", kind="guideline", sections=[SECTION]),
    ],
    [records.Document(doc_id="d", kind="emr", source="s", sections=[], split="train")],
    [
        records.Passage(
            passage_id="p", doc_id="d", start=0, end=2, section="治疗", title="t", text="休息",
            kind="encyclopaedic",
        )
    ],
    [
        records.Instruction(
            id="i", task="t", split="dev", messages=[Message(role="user", content="问")]
        ),
        records.Instruction(id="i", task="t", split="dev", messages=[], answer="肺炎", group="g"),
    ],
    [records.ScoredResponse(id="s", scenario="a", response="b", score=1 / 3, split="train")],
    [records.PreferencePair(id="s", prompt="a", chosen="b", rejected="c", split="train")],
    [Scenario(id="s", prompt="a", split="dev")],
    [records.RetrievalQuestion(id="q", question="?", passage_ids=["a", "b"], split="dev")],
    [
        ExamQuestion(
            id="e", question="?", options={"B": "乙", "A": "甲"}, answer="AB", split="dev"
        ),
        ExamQuestion(id="f", question="?", options={"A": "", "B": "乙"}, answer="B", split="train"),
    ],
]  # fmt: skip


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: type(rows[0]).__name__)
def test_round_trip(tmp_path: Path, rows: list[Row]) -> None:
    row_type = type(rows[0])
    assert write_rows(tmp_path, row_type, rows) == len(rows)
    assert list(read_rows(tmp_path, row_type)) == rows


def test_every_row_model_is_covered() -> None:
    models = {
        value
        for value in vars(records).values()
        if isinstance(value, type) and issubclass(value, Row) and value is not Row
    }
    assert {type(rows[0]) for rows in ROWS} == models


def test_options_keep_their_order(tmp_path: Path) -> None:
    write_rows(tmp_path, ExamQuestion, [row for row in ROWS[-1] if isinstance(row, ExamQuestion)])
    assert list(next(read_rows(tmp_path, ExamQuestion)).options) == ["B", "A"]


def test_shards_are_cut_and_read_in_order(tmp_path: Path) -> None:
    rows = [Scenario(id=str(k), prompt="a", split="dev") for k in range(25)]
    assert write_rows(tmp_path, Scenario, iter(rows), shard_rows=10) == 25
    assert len(list(tmp_path.iterdir())) == 3
    assert [row.id for row in read_rows(tmp_path, Scenario)] == [row.id for row in rows]
    assert count_rows(tmp_path) == 25


def test_no_rows_still_have_a_schema(tmp_path: Path) -> None:
    assert write_rows(tmp_path, Scenario, []) == 0
    assert list(read_rows(tmp_path, Scenario)) == []
    assert arrow_schema(ExamQuestion).field("options").type == pa.map_(pa.string(), pa.string())


def test_missing_shards_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the job that writes them again"):
        list(read_rows(tmp_path, Scenario))


def test_a_foreign_file_is_an_error(tmp_path: Path) -> None:
    write_rows(tmp_path, Section, [SECTION])
    with pytest.raises(ValidationError, match="prompt"):
        list(read_rows(tmp_path, Scenario))
