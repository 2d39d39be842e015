"""Files of many rows: each format against the same three rows, and what bad files do."""

import csv
import gzip
import json
import random
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medray.common import formats
from medray.common.errors import DataError
from medray.common.formats import Parsed, parse_table
from medray.common.sources import Rejected, Source, SourceRow, read_file, read_source

ROWS = [
    {"id": "1", "text": "咳嗽，三天"},
    {"id": "2", "text": "发热\n两天"},
    {"id": "3", "text": "x"},
]


def values(path: Path, encoding: formats.Encoding = "utf-8") -> list[object]:
    return [row.value for row in parse_table(path, encoding)]


def write_csv(path: Path, delimiter: str, encoding: str = "utf-8") -> None:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def test_every_format_gives_the_same_rows(tmp_path):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (tmp_path / "a.ndjson").write_text(lines, encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "lines.json").write_text(lines, encoding="utf-8")
    (tmp_path / "array.json").write_text(json.dumps(ROWS), encoding="utf-8")
    (tmp_path / "indented.json").write_text(json.dumps(ROWS, indent=2), encoding="utf-8")
    write_csv(tmp_path / "a.csv", ",")
    write_csv(tmp_path / "semicolons.csv", ";", "utf-8-sig")
    write_csv(tmp_path / "a.tsv", "\t")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=2)
    for path in tmp_path.iterdir():
        assert values(path) == ROWS, path.name


def test_lines_of_rows(tmp_path):
    (tmp_path / "a.json").write_text('\n[{"a": 1},\n\n{"a": 2}, [1],\n"x"\n]\n')
    assert list(parse_table(tmp_path / "a.json", "utf-8")) == [
        Parsed(2, {"a": 1}), Parsed(4, {"a": 2}), Parsed(4, {"items": [1]}),
        Parsed(5, "not_an_object")]  # fmt: skip
    write_csv(tmp_path / "a.csv", ",")
    assert [row.line for row in parse_table(tmp_path / "a.csv", "utf-8")] == [2, 3, 5]


def test_json_values_are_found_over_chunks_and_after_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "CHUNK_BYTES", 7)
    rows = [{"n": k, "text": "长" * (k % 50), "list": [1, {"x": "]}\\"}]} for k in range(200)]
    (tmp_path / "a.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert values(tmp_path / "a.json") == rows
    (tmp_path / "b.json").write_text('{"n": 1}\n{"n": tru, "m": 2}\n{"n": 3}\n{"n": "cut')
    assert list(parse_table(tmp_path / "b.json", "utf-8")) == [
        Parsed(1, {"n": 1}), Parsed(2, "malformed_json"), Parsed(3, {"n": 3}),
        Parsed(4, "malformed_json")]  # fmt: skip


def test_auto_decides_by_line_and_counts(tmp_path):
    utf8, gb = "咳嗽".encode(), "发热".encode("gb18030")
    (tmp_path / "a.jsonl").write_bytes(
        b'{"t": "%s"}\n{"t": "%s"}\n{"t": "\xff\xff"}\n{"t": "x"}\n' % (utf8, gb)
    )
    (tmp_path / "a.csv").write_bytes(b"id,t\n1,%s\n2,%s\n3,\xff\xff\n" % (utf8, gb))
    for name in ("a.jsonl", "a.csv"):
        source = Source(name="s", kind="k", path=name, encoding="auto")
        rows = list(read_source(source, tmp_path))
        texts = [row.values["t"] for row in rows if isinstance(row, SourceRow)]
        assert texts[:2] == ["咳嗽", "发热"]
        assert [r.tally for r in rows[:2] if isinstance(r, SourceRow)] == [
            None, {"gb18030_lines": 1}]  # fmt: skip
        bad = rows[2]
        assert isinstance(bad, Rejected) and bad.reason == "not_utf-8_or_gb18030"
    strict = Source(name="s", kind="k", path="a.jsonl")
    with pytest.raises(DataError, match="set encoding: gb18030"):
        list(read_source(strict, tmp_path))


def test_utf_16_and_a_damaged_parquet_file_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("id,t\n1,x\n", encoding="utf-16")
    with pytest.raises(DataError, match="is UTF-16; save it as UTF-8"):
        list(read_source(Source(name="s", kind="k", path="a.csv"), tmp_path))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"a\.parquet is damaged or cut off after 0 lines"):
        list(read_source(Source(name="s", kind="k", path="a.parquet"), tmp_path))


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_LINE_BYTES", 100)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": "' + "x" * 1000 + '"}\n{"a": 2}\n')
    assert values(tmp_path / "a.jsonl") == [{"a": 1}, "line_too_long", {"a": 2}]
    (tmp_path / "a.csv").write_text("a,b\n1,2\n1," + "x" * 1000 + "\n3,4\n")
    assert values(tmp_path / "a.csv") == [
        {"a": "1", "b": "2"}, "line_too_long", {"a": "3", "b": "4"}]  # fmt: skip


def test_what_cannot_be_written_again_is_no_row(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"a": "\\ud83d\\ude00"}\n{"a": "\\ud83d"}\n{"a": 1' + "0" * 5000 + "}\n" + "[" * 100_000
    )
    assert values(tmp_path / "a.jsonl") == [
        {"a": "😀"}, "malformed_json", "malformed_json", "malformed_json"]  # fmt: skip


def test_parquet_values_become_those_of_json(tmp_path):
    table = pa.table({
        "day": pa.array([date(2023, 5, 17)]),
        "text": pa.array(["咳嗽".encode()]),
        "sections": pa.array([[("主诉", "咳嗽")]], pa.map_(pa.string(), pa.string())),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == [
        {"day": "2023-05-17", "text": "咳嗽", "sections": {"主诉": "咳嗽"}}]  # fmt: skip


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_the_parts_of_a_file_are_all_of_it(tmp_path, suffix):
    rows = [{"n": str(k)} for k in range(1000)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=300)
    elif suffix == "csv":
        path.write_text("n\n" + "\n".join(row["n"] for row in rows))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    source = Source(name="s", kind="k", path="a.*")
    parts = [
        list(read_file(source, path, tmp_path, lambda place, k=k: place // 7 % 3 == k))
        for k in range(3)
    ]
    # 142 runs of 7 and one of 6, in turn: 48 runs, 47 and the short one, 47.
    assert [len(part) for part in parts] == [336, 335, 329]
    found = sorted((row for part in parts for row in part), key=lambda row: row.line)
    assert found == list(read_file(source, path, tmp_path))


def test_nested_fields_and_rows_without_an_id(tmp_path):
    (tmp_path / "a.csv").write_text(",Question,A,B,Answer\n0,哪项,甲,乙,B\n", encoding="utf-8")
    fields = {"id": "$place", "question": "Question", "options.A": "A", "options.B": "B"}
    (row,) = read_source(Source(name="s", kind="k", path="a.csv", fields=fields), tmp_path)
    assert isinstance(row, SourceRow)
    assert (row.values["id"], row.values["options"]) == ("a.csv:2", {"A": "甲", "B": "乙"})


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv"])
def test_fuzzed_lines_never_stop_a_file(tmp_path, suffix):
    """2 000 rows a format, each with bytes changed, dropped or doubled at random."""
    chance = random.Random(suffix)
    if suffix in ("csv", "tsv"):
        sign = "," if suffix == "csv" else "\t"
        rows = [f'{k}{sign}"咳嗽{k}天{sign}发热"{sign}内科'.encode() for k in range(2000)]
    else:
        rows = [json.dumps({"id": k, "text": f"咳嗽{k}天", "n": [k]}, ensure_ascii=False).encode()
                for k in range(2000)]  # fmt: skip
    lines = []
    for row in rows:
        raw = bytearray(row)
        for _ in range(chance.choice((0, 1, 3))):
            at = chance.randrange(len(raw))
            raw[at : at + chance.choice((0, 1))] = chance.choice(
                (b"", b"\x00", b"\xff", b"\r", b'"', b"{", b"\\", b"\\ud800", bytes([raw[at]]) * 2)
            )
        lines.append(bytes(raw).replace(b"\n", b""))
    header = b"" if suffix in ("json", "jsonl") else rows[0].replace(b"0", b"h") + b"\n"
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(header + b"\n".join(lines) + b"\n")
    for encoding in ("utf-8", "auto"):
        parsed = list(parse_table(path, encoding))
        good = sum(isinstance(row.value, dict) for row in parsed)
        assert 500 < good < len(parsed)
        assert all(isinstance(row.value, dict) or row.value for row in parsed)
        if suffix == "jsonl":
            assert [row.line for row in parsed] == list(range(1, 2001))
