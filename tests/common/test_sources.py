import gzip
import json
import stat
from pathlib import Path

import pytest

from medray.common.config import ConfigError
from medray.common.errors import DataError
from medray.common.manifest import Counts
from medray.common.records import RawRecord, Row
from medray.common.sources import (
    Rejected,
    Source,
    SourceRow,
    check_rejected,
    check_source,
    dotted,
    read_source,
    to_row,
    write_quarantine,
)


class Question(Row):
    id: str
    question: str
    answer: str = ""


def source(path: str, **settings) -> Source:
    return Source(name="test", kind="any", path=path, **settings)


def write(path: Path, *lines: str, encoding: str = "utf-8") -> None:
    path.write_bytes("".join(line + "\n" for line in lines).encode(encoding))


def test_reads_json_lines_of_all_files_in_order_of_name(tmp_path):
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"id": "2", "q": "问二"}\n')
    write(tmp_path / "a.jsonl", '\ufeff{"id": "1", "q": "问一"}', "", '{"id": "x", "q": "问三"}')
    rows = list(read_source(source("*.jsonl*", fields={"question": "q"}), tmp_path))
    assert [(r.file, r.line) for r in rows] == [("a.jsonl", 1), ("a.jsonl", 3), ("b.jsonl.gz", 1)]
    assert isinstance(rows[2], SourceRow)
    assert rows[2].values == {"id": "2", "q": "问二", "question": "问二"}
    assert to_row(rows[2], Question) == Question(id="2", question="问二")


def test_bad_lines_are_rejected_with_their_place_and_without_their_text(tmp_path):
    good = json.dumps({"id": "1", "question": "咳嗽"}, ensure_ascii=False).encode()
    (tmp_path / "a.jsonl").write_bytes(
        b"\n".join([good, b'{"id": "SECRET"', b"[1]", "秘密".encode("gb18030"), good]) + b"\n"
    )
    rows = list(read_source(source("a.jsonl"), tmp_path))
    assert [r for r in rows if isinstance(r, Rejected)] == [
        Rejected("a.jsonl", 2, "malformed_json"),
        Rejected("a.jsonl", 3, "not_an_object"),
        Rejected("a.jsonl", 4, "not_utf-8"),
    ]
    assert len(rows) == 5


def test_csv_rows_may_span_lines_and_wrong_columns_are_rejected(tmp_path):
    write(tmp_path / "a.csv", "编号,内容", '1,"咳嗽', '三天"', "2", "3,发热,多余")
    rows = list(read_source(source("a.csv", fields={"id": "编号"}), tmp_path))
    assert isinstance(rows[0], SourceRow)
    assert rows[0].values == {"编号": "1", "内容": "咳嗽\n三天", "id": "1"}
    assert rows[1:] == [
        Rejected("a.csv", 4, "wrong_number_of_columns"),
        Rejected("a.csv", 5, "wrong_number_of_columns"),
    ]


def test_gbk_is_refused_until_its_encoding_is_named(tmp_path):
    write(tmp_path / "a.csv", "id,question", "1,咳嗽三天", encoding="gb18030")
    with pytest.raises(DataError, match="set encoding: gb18030 for this source"):
        list(read_source(source("a.csv"), tmp_path))
    (row,) = read_source(source("a.csv", encoding="gb18030"), tmp_path)
    assert isinstance(row, SourceRow) and row.values["question"] == "咳嗽三天"
    write(tmp_path / "a.csv", "id,question", "1,咳嗽三天")
    rows = list(read_source(source("a.csv"), tmp_path))
    assert len(rows) == 1


def test_missing_and_empty_input_says_what_and_where(tmp_path):
    with pytest.raises(DataError, match=r"no data directory at .*absent"):
        list(read_source(source("*.jsonl"), tmp_path / "absent"))
    with pytest.raises(DataError, match=r"source test: no file matches \*\.jsonl"):
        list(read_source(source("*.jsonl"), tmp_path))
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(DataError, match=r"a\.jsonl is empty"):
        list(read_source(source("*.jsonl"), tmp_path))
    write(tmp_path / "a.jsonl", "", "")
    with pytest.raises(DataError, match=r"a\.jsonl holds no line"):
        list(read_source(source("*.jsonl"), tmp_path))
    write(tmp_path / "a.txt", "x")
    with pytest.raises(DataError, match=r"is none of \.jsonl"):
        list(read_source(source("*.txt"), tmp_path))


def test_a_cut_off_gzip_file_is_an_error(tmp_path):
    packed = gzip.compress(b'{"id": "1"}\n' * 10_000)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="damaged or cut off after"):
        list(read_source(source("a.jsonl.gz"), tmp_path))


def test_limit_counts_lines_over_files(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.jsonl", '{"id": "1"}', '{"id": "2"}')
    rows = list(read_source(source("*.jsonl", limit=3), tmp_path))
    assert [(r.file, r.line) for r in rows] == [("a.jsonl", 1), ("a.jsonl", 2), ("b.jsonl", 1)]


def test_to_row_names_the_field_that_is_wrong():
    def reason(**values):
        row = to_row(SourceRow("f", 7, values), RawRecord)
        assert isinstance(row, Rejected) and (row.file, row.line) == ("f", 7)
        return row.reason

    sections = [{"heading": "主诉", "text": "咳嗽"}]
    assert reason(record_id="1", sections=sections) == "missing_field:patient_id"
    assert reason(record_id="1", patient_id="", sections=sections) == "invalid_field:patient_id"
    assert reason(record_id="1", patient_id="2", sections=[{"heading": "主诉", "text": 3}]) == (
        "invalid_field:sections.*.text"
    )
    row = to_row(
        SourceRow("f", 1, {"record_id": 5, "patient_id": 6, "department": None, "other": 1,
                           "sections": sections}), RawRecord)  # fmt: skip
    assert isinstance(row, RawRecord)
    assert (row.record_id, row.patient_id, row.department) == ("5", "6", "")


def test_check_source_finds_a_key_that_is_nowhere(tmp_path):
    write(tmp_path / "a.jsonl", '{"id": "1", "text": "问"}')
    with pytest.raises(DataError, match="question ← frage; keys found: id, text"):
        check_source(source("a.jsonl", fields={"question": "frage"}), tmp_path)
    with pytest.raises(DataError, match=r"makes a Question \(missing_field:question\)"):
        check_source(source("a.jsonl"), tmp_path, Question)
    check_source(source("a.jsonl", fields={"question": "text"}), tmp_path, Question)


def test_constants_win_and_dotted_keys_reach_inside(tmp_path):
    write(tmp_path / "a.jsonl", '{"id": "1", "record": {"主诉": "咳嗽"}, "kind": "x"}')
    settings = {"fields": {"question": "record.主诉"}, "constants": {"kind": "emr"}}
    (row,) = read_source(source("a.jsonl", **settings), tmp_path)
    assert isinstance(row, SourceRow)
    assert (row.values["question"], row.values["kind"]) == ("咳嗽", "emr")
    assert dotted({"turns": [{"text": "a"}]}, "turns.0.text") == "a"
    assert dotted({"turns": []}, "turns.0.text") is None
    assert dotted({"a.b": 1}, "a.b") == 1


def test_quarantine_is_private_and_too_many_rejected_stop_the_job(tmp_path):
    path = tmp_path / "quarantine" / "test.jsonl"
    assert write_quarantine(path, [Rejected("a.jsonl", 2, "malformed_json")]) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "file": "a.jsonl", "line": 2, "reason": "malformed_json"}  # fmt: skip
    # 3 of 100 lines: 3 % is allowed at 0.03 and not at 0.02.
    counts = Counts(rows_in=100, rows_out=97, rejected={"malformed_json": 2, "not_utf-8": 1})
    check_rejected("test", counts, 0.03, path)
    with pytest.raises(DataError, match=r"3 of 100 lines rejected \(3.0%.*malformed_json 2"):
        check_rejected("test", counts, 0.02, path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/*.jsonl"])
def test_a_source_stays_below_the_data_directory(path):
    with pytest.raises(ConfigError, match="below the data directory"):
        Source.parse({"name": "test", "kind": "any", "path": path}, "profile")
