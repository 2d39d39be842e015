"""The whole corpus job on a tiny hand-made hospital; nobody in it exists."""

import gzip
import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medray.common.errors import CheckpointError, ConfigError, DataError
from medray.common.manifest import Artefact, read_manifest
from medray.common.packing import read_segments
from medray.common.records import Document, Passage
from medray.common.rows import read_rows
from medray.common.storage import Storage, StorageConfig
from medray.corpus import prepare
from medray.corpus.clean import render
from medray.corpus.prepare import CorpusConfig, check_sources, prepare_corpus
from medray.corpus.tokenizer import load_tokenizer
from medray.privacy.audit import read_audit

SETTINGS = {
    "sources": [
        {"name": "ward", "kind": "record", "path": "records/*.jsonl.gz"},
        {"name": "books", "kind": "document", "path": "literature.jsonl", "passages": True,
         "dev_fraction": 0.0},
        {"name": "clinic", "kind": "record", "path": "clinic.csv", "encoding": "gb18030",
         "pretrain": False, "fields": {"record_id": "编号", "patient_id": "病人", "text": "内容"}},
    ],
    "dev_fraction": 0.3,
    "block_tokens": 64,
    "max_rejected_fraction": 0.1,
    "tokenizer": {"vocab_size": 400},
}  # fmt: skip
SYMPTOMS = ("咳嗽", "发热", "胸痛", "头晕", "腹泻", "乏力")


def record(i: int) -> dict:
    symptom = SYMPTOMS[i % 6]
    return {
        "record_id": f"r{i}", "patient_id": f"PAT{i // 2:05d}", "visit_id": "",
        "department": "内科", "hospital": "江城第九医院", "visit_date": "2023-05-17",
        "sections": [
            {"heading": "患者信息", "date": "", "text": "姓名：王建国，电话：13800138000"},
            {"heading": "主诉", "date": "", "text": f"{symptom}{i}天。"},
            {"heading": "现病史", "date": "2023-05-17",
             "text": f"王建国{i}天前出现{symptom}，２０２３年５月１７日至江城第九医院就诊，"
                     "回电13800138000。"},
        ],
    }  # fmt: skip


def write_hospital(data: Path) -> None:
    """40 records in two files with 3 bad lines and a repeated record, 4 texts, a GBK table."""
    (data / "records").mkdir(parents=True)
    lines = [json.dumps(record(i), ensure_ascii=False).encode() for i in range(40)]
    lines[5:5] = [b'{"record_id": "torn', "坏".encode("gb18030")]
    lines += [json.dumps(record(7) | {"record_id": "r7-copy"}).encode(), b'{"record_id": "x"}']
    for name, part in (("a", lines[:20]), ("b", lines[20:])):
        (data / "records" / f"{name}.jsonl.gz").write_bytes(gzip.compress(b"\n".join(part) + b"\n"))
    texts = [
        {"doc_id": f"d{i}", "title": symptom,
         "text": f"【病因】{symptom}的病因很多。【治疗】{symptom}应先治疗本病。",
         "kind": "guideline", "superseded_by": "d0" if i == 3 else None}
        for i, symptom in enumerate(SYMPTOMS[:4])
    ]  # fmt: skip
    (data / "literature.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    (data / "clinic.csv").write_bytes(
        "编号,病人,内容\nc1,p9,咳嗽三天来诊，建议多饮水。\n".encode("gb18030")
    )


def run(config: CorpusConfig, data: Path, root: Path, tokenizer: Path | None = None) -> Artefact:
    storage = Storage(StorageConfig(root=str(root)))
    artefact = Artefact(storage, "corpus", config, key="test")
    prepare_corpus(config, data, artefact, tokenizer)
    return artefact


@pytest.fixture(scope="module")
def hospital(tmp_path_factory) -> Path:
    data = tmp_path_factory.mktemp("hospital")
    write_hospital(data)
    return data


@pytest.fixture(scope="module")
def made(ray_cluster, hospital, tmp_path_factory) -> Artefact:
    return run(CorpusConfig(**SETTINGS), hospital, tmp_path_factory.mktemp("root"))


@pytest.mark.cluster
def test_every_line_is_accounted_for(made, hospital):
    counts = made.counts
    for operator, count in counts.items():
        count.check(operator)
    assert counts["read/ward"].rows_in == 44
    assert counts["read/ward"].rejected == {
        "malformed_json": 1, "not_utf-8": 1, "missing_field:sections": 1}  # fmt: skip
    assert counts["dedup"].model_dump() == {
        "rows_in": 46, "rows_out": 45, "rejected": {"duplicate_text": 1}}  # fmt: skip
    quarantine = made.dir / "quarantine" / "ward.jsonl"
    rows = [json.loads(line) for line in quarantine.read_text(encoding="utf-8").splitlines()]
    assert [(row["file"], row["line"], row["reason"]) for row in rows] == [
        ("records/a.jsonl.gz", 6, "malformed_json"),
        ("records/a.jsonl.gz", 7, "not_utf-8"),
        ("records/b.jsonl.gz", 23, "duplicate_text"),
        ("records/b.jsonl.gz", 24, "missing_field:sections"),
    ]


@pytest.mark.cluster
def test_no_identifier_is_left_in_any_file(made):
    # Whole patient ids: sealed labels are base64, where four given characters come by chance.
    patients = (f"PAT{number:05d}" for number in range(100))
    secrets = ("王建国", "13800138000", "江城第九医院", "２０２３", "2023年5月17", *patients)
    documents = list(read_rows(made.dir / "documents", Document))
    assert len(documents) == 45
    text = "".join(d.model_dump_json() for d in documents)
    assert [secret for secret in secrets if secret in text] == []
    assert made.metrics["phi"] == {"NAME": 41, "DATE": 41, "HOSPITAL": 41, "PHONE": 41}
    for path in made.dir.rglob("*"):
        if path.is_file() and path.suffix != ".parquet":
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path.name
    assert not list(made.dir.rglob(".*"))


@pytest.mark.cluster
def test_the_audit_labels_name_what_the_documents_no_longer_hold(made):
    key = (made.storage.local_root / "keys" / "audit.key").read_bytes().strip()
    audited = list(read_audit(made.dir / "audit" / "ward.sealed", key))
    texts = {d.doc_id: d for d in read_rows(made.dir / "documents", Document)}
    labels = [label for document in audited for label in document.labels]
    names = {label.original for label in labels if label.phi_class == "NAME"}
    assert "王建国" in names
    for document in audited:
        if document.doc_id not in texts:
            continue  # a duplicate that was left out later
        for label in document.labels:
            section = texts[document.doc_id].sections[label.section]
            surrogate = section.text[label.start : label.end]
            assert surrogate and surrogate != label.original
            assert label.phi_class != "NAME" or "某" in surrogate


@pytest.mark.cluster
def test_patients_stay_on_one_side(made):
    sides: dict[str, set[str]] = {}
    for document in read_rows(made.dir / "documents", Document):
        if document.patient_id:
            sides.setdefault(document.patient_id, set()).add(document.split)
    assert len(sides) == 21
    assert all(len(splits) == 1 for splits in sides.values())


@pytest.mark.cluster
def test_passages_come_from_knowledge_that_is_in_force(made):
    passages = list(read_rows(made.dir / "passages", Passage))
    assert [p.passage_id for p in passages] == [f"d{i}#{k}-0" for i in range(3) for k in range(2)]
    assert passages[1].title == "咳嗽 治疗" and passages[1].text == "咳嗽应先治疗本病。"
    assert made.counts["chunk"].rejected == {"not_knowledge": 41, "superseded": 1}


@pytest.mark.cluster
def test_blocks_hold_every_token_of_every_document_once(made):
    tokenizer = load_tokenizer(made.dir / "tokenizer")
    blocks = made.dir / "blocks"
    expected: dict[str, list[list[int]]] = {"train": [], "heldout": []}
    for document in read_rows(made.dir / "documents", Document):
        if document.source != "clinic":
            name = "train" if document.split == "train" else "heldout"
            ids = tokenizer.encode(render(document), add_special_tokens=False)
            expected[name].append([*ids, tokenizer.eos_token_id])
    for name, documents in expected.items():
        tokens_NT = np.load(blocks / f"{name}.npy")
        segments_NT = np.load(blocks / f"{name}_segments.npy")
        pieces = [list(map(int, piece)) for piece in read_segments(tokens_NT, segments_NT)]
        cut = [d[at : at + 64] for d in documents for at in range(0, len(d), 64)]
        assert sorted(pieces) == sorted(cut)
        assert made.metrics[f"{name}_tokens"] == sum(map(len, documents))
    heldout = pq.read_table(blocks / "heldout_docs.parquet").to_pylist()
    assert sum(row["num_tokens"] for row in heldout) == made.metrics["heldout_tokens"]
    assert 0 < made.metrics["emr_unigram_nats"] < np.log(made.metrics["vocab_size"])


@pytest.mark.cluster
def test_a_rerun_reuses_every_stage(made, hospital):
    before = {p: p.stat().st_mtime_ns for p in made.dir.rglob("*") if p.is_file()}
    started = time.monotonic()
    again = run(CorpusConfig(**SETTINGS), hospital, made.storage.local_root)
    assert time.monotonic() - started < 3
    after = {p: p.stat().st_mtime_ns for p in made.dir.rglob("*") if p.is_file()}
    config = made.dir / "config.yaml"  # written whenever an artefact is opened
    assert {p: t for p, t in after.items() if p != config} == {
        p: t for p, t in before.items() if p != config}  # fmt: skip
    assert (again.counts, again.metrics) == (made.counts, made.metrics)


@pytest.mark.cluster
def test_a_killed_run_goes_on_to_the_same_result(made, hospital, tmp_path):
    """Same key, another root: a run that lost everything after its documents ends the same."""
    key = made.storage.local_root / "keys" / "surrogates.key"
    config = CorpusConfig(**SETTINGS, privacy={"key_file": str(key)})
    other = run(config, hospital, tmp_path)
    stages = json.loads((other.dir / "stages.json").read_text(encoding="utf-8"))
    (other.dir / "stages.json").write_text(
        json.dumps({name: stages[name] for name in ("read", "duplicates", "documents")})
    )
    (other.dir / ".blocks").mkdir()
    again = run(config, hospital, tmp_path)
    for name in ("train", "train_segments", "heldout", "heldout_segments"):
        ours, theirs = (np.load(a.dir / "blocks" / f"{name}.npy") for a in (made, again))
        np.testing.assert_array_equal(ours, theirs)
    assert again.metrics == made.metrics
    published = again.publish()
    assert read_manifest(published).counts == made.counts


@pytest.mark.cluster
def test_a_run_killed_among_its_duplicates_reads_nothing_again(
    made, hospital, tmp_path, monkeypatch
):
    key = made.storage.local_root / "keys" / "surrogates.key"
    config = CorpusConfig(**SETTINGS, privacy={"key_file": str(key)})

    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "find_duplicates", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, hospital, tmp_path)
        patch.undo()
        patch.setattr(prepare, "read_documents", killed)
        again = run(config, hospital, tmp_path)
    assert (again.counts, again.metrics) == (made.counts, made.metrics)
    for name in ("documents/part-00000.parquet", "quarantine/ward.jsonl"):
        assert (again.dir / name).read_bytes() == (made.dir / name).read_bytes()


@pytest.mark.cluster
def test_near_duplicates_and_evaluation_items_are_left_out(ray_cluster, tmp_path):
    """Two near copies of a text that is held out; a text with an exam question in it."""
    data = tmp_path / "data"
    write_hospital(data)
    long = "".join(chr(0x4E00 + 7 * i) for i in range(200))
    question = "急性心肌梗死最常见的心律失常是什么"
    texts = [
        {"doc_id": "near-a", "text": long[:-1] + "甲", "split": "train"},
        {"doc_id": "near-b", "text": long, "split": "dev"},
        {"doc_id": "near-c", "text": long[:-1] + "乙", "split": "train"},
        {"doc_id": "leak", "text": f"复习题选编。{question}？室性早搏多见。"},
    ]
    (data / "web.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    (data / "exam.jsonl").write_text(json.dumps({"question": question}), encoding="utf-8")
    settings = SETTINGS | {
        "sources": [*SETTINGS["sources"], {"name": "web", "kind": "document", "path": "web.jsonl"}],
        "decontamination": {
            "sets": [{"name": "exam", "path": "exam.jsonl", "texts": ["question"]}]},
    }  # fmt: skip
    config = CorpusConfig(**settings)
    check_sources(config, data)
    artefact = run(config, data, tmp_path / "root")
    for operator, count in artefact.counts.items():
        count.check(operator)
    assert artefact.counts["decontaminate"].rejected == {"contaminated": 1}
    assert artefact.counts["dedup"].rows_in == artefact.counts["decontaminate"].rows_out == 49
    assert artefact.counts["near_duplicates"].model_dump() == {
        "rows_in": 48, "rows_out": 46, "rejected": {"near_duplicate": 2}}  # fmt: skip
    assert artefact.metrics["overlaps"] == {"exam": 1} and artefact.metrics["documents"] == 46
    quarantine = (artefact.dir / "quarantine" / "web.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in quarantine.splitlines()]
    assert [(row["line"], row["reason"]) for row in rows] == [
        (1, "near_duplicate"), (3, "near_duplicate"), (4, "contaminated")]  # fmt: skip
    documents = read_rows(artefact.dir / "documents", Document)
    assert [d.doc_id for d in documents if d.source == "web"] == ["near-b"]
    kept = CorpusConfig(**settings | {"near_duplicates": {"keep": ["web"]}})
    artefact = run(kept, data, tmp_path / "kept")
    assert artefact.counts["near_duplicates"].rejected == {}
    near = CorpusConfig(**settings | {"near_duplicates": None})
    assert "near_duplicates" not in run(near, data, tmp_path / "near").counts


@pytest.mark.cluster
def test_a_models_own_tokenizer_takes_the_place(made, hospital, tmp_path):
    artefact = run(CorpusConfig(**SETTINGS), hospital, tmp_path, made.dir / "tokenizer")
    assert not (artefact.dir / "tokenizer").exists()
    assert artefact.metrics["train_blocks"] > 0


@pytest.mark.cluster
def test_bad_input_stops_the_job_and_leaves_no_documents(ray_cluster, hospital, tmp_path):
    strict = CorpusConfig(**(SETTINGS | {"max_rejected_fraction": 0.05}))
    with pytest.raises(DataError, match=r"source ward: 3 of 44 lines rejected \(6.8%"):
        run(strict, hospital, tmp_path)
    partial = tmp_path / "corpus" / ".test.partial"
    assert (partial / "quarantine" / "ward.jsonl").exists()
    assert not (partial / "documents").exists()
    broken = tmp_path / "broken"
    write_hospital(broken)
    file = broken / "records" / "b.jsonl.gz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"b\.jsonl\.gz is damaged or cut off") as caught:
        run(CorpusConfig(**SETTINGS), broken, tmp_path / "other")
    assert type(caught.value) is DataError  # as the worker raised it, without Ray's traceback
    with pytest.raises(CheckpointError, match="no model directory"):
        run(CorpusConfig(**SETTINGS), hospital, tmp_path / "third", tmp_path / "absent")


def test_check_sources_finds_faults_before_the_work(hospital, tmp_path):
    check_sources(CorpusConfig(**SETTINGS), hospital)
    with pytest.raises(DataError, match="no data directory"):
        check_sources(CorpusConfig(**SETTINGS), tmp_path / "absent")
    gbk = {
        **SETTINGS,
        "sources": [{**SETTINGS["sources"][2], "encoding": "utf-8", "pretrain": True}],
    }
    with pytest.raises(DataError, match="set encoding: gb18030"):
        check_sources(CorpusConfig(**gbk), hospital)
    write_hospital(tmp_path / "data")
    (tmp_path / "data" / "records" / "c.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match=r"c\.jsonl\.gz holds no line"):
        check_sources(CorpusConfig(**SETTINGS), tmp_path / "data")
    wrong = {**SETTINGS, "sources": [{**SETTINGS["sources"][1], "kind": "record"}]}
    with pytest.raises(DataError, match="none of the first 4 lines makes a record"):
        check_sources(CorpusConfig(**wrong), hospital)


def test_sources_need_different_names_and_one_to_train_on():
    source = SETTINGS["sources"][0]
    with pytest.raises(ConfigError, match="keep names sources that there are not: absent"):
        CorpusConfig.parse(
            {"sources": [source], "near_duplicates": {"keep": ["absent"]}}, "profile"
        )
    with pytest.raises(ConfigError, match="need different names"):
        CorpusConfig.parse({"sources": [source, source]}, "profile")
    with pytest.raises(ConfigError, match="nothing to train on"):
        CorpusConfig.parse({"sources": [{**source, "pretrain": False}]}, "profile")
