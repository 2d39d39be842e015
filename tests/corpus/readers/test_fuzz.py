"""10 000 rows with random faults through every reader, de-identification and the filter: nothing
stops, every row becomes a document or is rejected with a reason.
"""

import base64
import csv
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medray.common.sources import Rejected, SourceRow
from medray.corpus.clean import CleanConfig
from medray.corpus.documents import STAGES, Settings, prepare_unit
from medray.corpus.prepared import PREPARED_SCHEMA
from medray.corpus.readers.reading import read_corpus
from medray.corpus.sources import CorpusSource
from medray.corpus.units import work_units

JUNK: list[Any] = [
    None, "", " ", 0, -1, 1e308, 10**30, True, [], {}, [[]], [None], {"a": None}, "\x00", "\ufeff",
    "\u2028行\u2029", "昨天", "2023-13-45", "２０２３年", "0000-00-00", "9999999999", "某甲子",
    "【】", "【主诉】", "：", "主诉：", "x" * 5000, "咳" * 300, "\r\n\r\n", '"', "{", "\\", ",",
    "\t", "姓名：", "身份证号：", "😀", "e\u0301", "Encounter/", "/", "-", "..", "$place",
    {"reference": 1}, [{"reference": "x"}], [{"text": 5}], "urn:uuid:",
]  # fmt: skip
KINDS = ("Condition", "Observation", "Procedure", "DocumentReference", "Composition", "Encounter")


def spoil(chance: random.Random, row: dict[str, Any]) -> dict[str, Any]:
    """The row with up to two fields lost, renamed or replaced, at any depth."""
    spoilt = json.loads(json.dumps(row))
    for _ in range(chance.choice((0, 0, 1, 2))):
        node = spoilt
        while True:
            key = (
                chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
            )
            if not isinstance(node[key], dict | list) or not node[key] or chance.random() < 0.4:
                break
            node = node[key]
        act = chance.choice(("lose", "rename", "junk", "junk"))
        if act == "lose" or (act == "rename" and isinstance(node, list)):
            del node[key]
        elif act == "rename":
            node[f"{key}_"] = node.pop(key)
        else:
            node[key] = chance.choice(JUNK)
        if not spoilt:
            return spoilt
    return spoilt


def record(k: int) -> dict[str, Any]:
    section = {"heading": "主诉", "text": f"标记{k}。咳嗽三天，电话13800138000。"}
    return {"record_id": f"r{k}", "patient_id": f"p{k % 97}", "visit_date": "2023-05-17",
            "sections": [section]}  # fmt: skip


def resources(k: int) -> dict[str, Any]:
    """One of six resources; each holds the mark of its number once."""
    mark, kind, day = f"标记{k}。咳嗽三天来诊。", KINDS[k % 6], "2023-05-17"
    by_kind: dict[str, dict[str, Any]] = {
        "Condition": {"code": {"text": mark}, "recordedDate": day},
        "Observation": {"code": {"text": "所见"}, "valueString": mark, "effectiveDateTime": day},
        "Procedure": {"code": {"text": mark}, "performedPeriod": {"start": "2023-05-17"}},
        "DocumentReference": {"date": "2023-05-17", "content": [{"attachment": {
            "contentType": "text/plain", "data": base64.b64encode(mark.encode()).decode()}}]},
        "Composition": {"date": "2023-05-17", "section": [
            {"title": "Plan", "text": {"div": f"<div><p>{mark}</p></div>"}}]},
        "Encounter": {"period": {"start": "2023-05-17"}},
    }  # fmt: skip
    return {"resourceType": kind, "id": f"x{k}", "subject": {"reference": f"Patient/p{k % 50}"},
            "encounter": {"reference": f"Encounter/e{k % 200}"}, **by_kind[kind]}  # fmt: skip


def prepared(source: CorpusSource, data: Path) -> list[dict[str, Any]]:
    """What the tasks of a source make of it, without Ray."""
    settings = Settings(data, [source], 0.1, CleanConfig(), b"k" * 32, b"a" * 32)
    rows = [row for unit in work_units([source], data) for row in prepare_unit(unit, settings)]
    stages = [{"stage": row["stage"]} for row in rows]
    written = pa.Table.from_pylist(rows, schema=PREPARED_SCHEMA).to_pylist()
    return [stage | row for stage, row in zip(stages, written, strict=True)]


def check(rows: list[dict[str, Any]]) -> Counter[str]:
    """Each row has a document or a reason without text; returns the reasons."""
    for row in rows:
        assert row["stage"] in ("read", "join", *STAGES), row["stage"]
        assert (row["document"] is None) == (row["reason"] is not None)
        assert row["file"] and row["line"] >= 1
    reasons = Counter(row["reason"] or "good" for row in rows)
    assert not any(mark in reason for reason in reasons for mark in ("标记", "咳嗽", "1380"))
    return reasons


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_fuzzed_rows(tmp_path, suffix, monkeypatch):
    chance = random.Random(f"rows/{suffix}")
    monkeypatch.setattr("medray.corpus.units.TASK_BYTES", 200_000)
    rows = [spoil(chance, record(k)) for k in range(1500)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == "json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    else:
        names = list(record(0))
        flat = [{name: row[name] if isinstance(row.get(name), str) else json.dumps(row.get(name))
                 for name in names} for row in rows]  # fmt: skip
        if suffix == "csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(flat[0]))
                writer.writeheader()
                writer.writerows(flat)
        else:
            pq.write_table(pa.Table.from_pylist(flat), path, row_group_size=400)
    fields = {} if suffix in ("jsonl", "json") else {"text": "sections", "sections": "none"}
    source = CorpusSource(name="s", kind="record", path=path.name, fields=fields)
    made = prepared(source, tmp_path)
    reasons = check(made)
    assert len(made) == len({row["line"] for row in made} if suffix != "json" else made) == 1500
    assert reasons["good"] > 600


def note(kind: str, k: int) -> dict[str, Any]:
    """A line of NOTEEVENTS or NOTE, with the mark of its number."""
    text = f"标记{k}。咳嗽三天来诊。"
    if kind == "mimic":
        return {"subject_id": k % 50, "hadm_id": k % 200, "charttime": "2050-01-02", "text": text,
                "iserror": ""}  # fmt: skip
    return {"person_id": k % 50, "visit_occurrence_id": k % 200, "note_id": k,
            "note_date": "2020-01-02", "note_text": text}  # fmt: skip


@pytest.mark.parametrize("kind", ["fhir", "mimic", "omop"])
def test_fuzzed_joins_lose_no_line(tmp_path, kind):
    chance = random.Random(f"joins/{kind}")
    lines = []
    for k in range(1200):
        whole = resources(k) if kind == "fhir" else note(kind, k)
        columns = {} if kind == "fhir" else dict.fromkeys(whole)
        lines.append(columns | spoil(chance, whole))
    (tmp_path / "a.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    values = {"name": "s", "kind": "record", "format": kind, "path": "a.ndjson"}
    source = CorpusSource.parse(values, "profile")
    check(prepared(source, tmp_path))
    rows = list(read_corpus(source, tmp_path))
    rejected = [row.line for row in rows if isinstance(row, Rejected)]
    assert len(set(rejected)) == len(rejected) > 50
    text = str([row.values["sections"] for row in rows if isinstance(row, SourceRow)])
    kept = [k for k in range(1200) if f"标记{k}。" in text]
    assert len(kept) > 600
    for k, line in enumerate(lines):
        if k not in kept and k + 1 not in rejected:
            # Neither in a record nor rejected: then it had nothing to say any more.
            if kind == "fhir":
                assert line != resources(k) or k % 6 == 5
            else:
                assert f"标记{k}。" not in str(line["text" if kind == "mimic" else "note_text"])


def test_fuzzed_documents(tmp_path, jats, cda, make_pdf):
    chance = random.Random("documents")
    whole = {"xml": cda.encode(), "nxml": jats.encode(), "pdf": make_pdf(["Cough for days."] * 3),
             "md": "---\ntitle: 咳嗽\n---\n# 咳嗽\n咳嗽三天来诊，建议多饮水。".encode(),
             "txt": "咳嗽三天来诊，建议多饮水。".encode()}  # fmt: skip
    for k in range(400):
        suffix = chance.choice(list(whole))
        raw = bytearray(whole[suffix])
        for _ in range(chance.choice((0, 1, 5, 20))):
            at = chance.randrange(len(raw))
            raw[at : at + chance.choice((0, 1, 2))] = chance.randbytes(chance.choice((1, 2)))
        (tmp_path / f"{k}.{suffix}").write_bytes(raw[: chance.choice((len(raw), len(raw), 100))])
    for kind in ("document", "record"):
        source = CorpusSource.parse({"name": "s", "kind": kind, "path": "*", "encoding": "auto",
                                     "constants": {"patient_id": "p"}}, "profile")  # fmt: skip
        made = prepared(source, tmp_path)
        reasons = check(made)
        assert len({row["file"] for row in made}) == len(made) == 400
        assert reasons["good"] > 80
