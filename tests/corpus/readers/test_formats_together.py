"""The corpus job on one hospital that delivers every format at once; nobody in it exists."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medray.common.manifest import Artefact
from medray.common.records import Document
from medray.common.rows import read_rows
from medray.common.storage import Storage, StorageConfig
from medray.corpus.prepare import CorpusConfig, check_sources, prepare_corpus

SECRETS = ("王建国", "13800138000", "P0007")
NOTE = "姓名：王建国\n主诉：咳嗽{k}天。\n病史：王建国{k}天前受凉，回电13800138000。"


def write_hospital(data: Path) -> None:
    for name in ("lit", "mimic", "P0007"):
        (data / name).mkdir(parents=True)
    (data / "lit/a.md").write_text("# 咳嗽\n咳嗽的病因很多，应先治疗本病。", encoding="utf-8")
    (data / "lit/b.txt").write_bytes("发热的病因很多，应先治疗本病。".encode("gb18030"))
    (data / "lit/c.txt").write_text("", encoding="utf-8")
    (data / "P0007/r1.txt").write_text(NOTE.format(k=1), encoding="utf-8")
    rows = [
        {"record_id": f"q{k}", "patient_id": "P0007", "visit_date": day, "text": NOTE.format(k=k)}
        for k, day in enumerate(("2023-05-17", "昨天", ""), 2)
    ]
    pq.write_table(pa.Table.from_pylist(rows), data / "ward.parquet")
    header = "subject_id,hadm_id,charttime,text\n"
    (data / "mimic/discharge.csv").write_text(
        header + '7,70,2050-01-05,"Chief Complaint:\nCough and fever"\n8,71,,\n', encoding="utf-8"
    )
    (data / "mimic/admissions.csv").write_text(
        "subject_id,hadm_id,admittime\n7,70,2050-01-01\n7,72,2051-01-01\n", encoding="utf-8"
    )


SETTINGS = {
    "sources": [
        {"name": "lit", "kind": "document", "path": "lit/*", "encoding": "auto"},
        {"name": "folders", "kind": "record", "path": "P*/*.txt",
         "fields": {"patient_id": "folder", "record_id": "stem"}},
        {"name": "ward", "kind": "record", "path": "ward.parquet"},
        {"name": "mimic", "kind": "record", "format": "mimic", "path": "mimic/discharge.csv",
         "tables": {"admissions": "mimic/admissions.csv"}},
    ],
    "max_rejected_fraction": 0.6,
    "block_tokens": 64,
    "tokenizer": {"vocab_size": 300},
}  # fmt: skip


@pytest.mark.cluster
def test_every_format_goes_through_the_job(ray_cluster, tmp_path):
    data, config = tmp_path / "data", CorpusConfig.parse(SETTINGS, "profile")
    write_hospital(data)
    check_sources(config, data)
    artefact = Artefact(Storage(StorageConfig(root=str(tmp_path / "root"))), "corpus", config,
                        key="test")  # fmt: skip
    prepare_corpus(config, data, artefact, None)
    made = {d.doc_id: d for d in read_rows(artefact.dir / "documents", Document)}
    assert set(made) == {"lit/a.md", "lit/b.txt", "r1", "q2", "q3", "q4", "70"}
    assert [s.heading for s in made["q2"].sections] == ["", "主诉", "现病史"]
    text = "".join(document.model_dump_json() for document in made.values())
    assert [secret for secret in SECRETS if secret in text] == []
    assert made["q2"].patient_id == made["r1"].patient_id and made["q3"].date == ""
    assert artefact.metrics["reading"] == {
        "lit/gb18030_lines": 1, "ward/unreadable_visit_dates": 1}  # fmt: skip
    counts = {name: count.model_dump() for name, count in artefact.counts.items()}
    assert counts["read/lit"] == {"rows_in": 3, "rows_out": 2, "rejected": {"no_text": 1}}
    assert counts["read/mimic"] == {"rows_in": 2, "rows_out": 1, "rejected": {"no_text": 1}}
    assert counts["join/mimic"] == {"rows_in": 3, "rows_out": 2, "rejected": {"no_note": 1}}
    for operator, count in artefact.counts.items():
        count.check(operator)
    quarantine = (artefact.dir / "quarantine/mimic.jsonl").read_text(encoding="utf-8")
    assert {json.loads(line)["reason"] for line in quarantine.splitlines()} == {
        "no_text", "no_note"}  # fmt: skip
