"""A patient of the sample hospital is erased: from what, with what left, and for good."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from medray import erasure
from medray.common.errors import DataError
from medray.common.lineage import find_outdated
from medray.common.manifest import Artefact, list_files, read_manifest
from medray.common.records import Document, Instruction
from medray.common.rows import read_rows
from medray.common.storage import Storage, StorageConfig
from medray.corpus.clean import render
from medray.corpus.erased import Erased, read_erased, write_erased
from medray.corpus.prepared import CACHE
from medray.corpus.tokenizer import load_tokenizer
from medray.erasure import forget
from medray.instructions.screen.run import QUARANTINE
from medray.job import Job
from medray.launch import import_job, load_profile
from medray.privacy.audit import read_audit
from medray.privacy.surrogates import load_key
from medray.retrieval.collection import CollectionConfig, connect, disconnect
from medray.retrieval.directory import INFO, read_info
from medray.retrieval.index import LITE, refill

SETTINGS = ["sample.num_records=100", "corpus.tokenizer.vocab_size=1500"]
TRAINED = ("encoder", "index", "ppo", "pretrain", "reward", "sft")


def hospital_of(root: Path, *settings: str) -> Job:
    """Sample, corpus and instructions under `root`, and stand-ins for what is trained on them."""
    profile = load_profile("laptop", [f"storage.root={root}", *SETTINGS, *settings])
    # Records serve as knowledge too, as a hospital's case reports do.
    sources = [
        source.model_copy(update={"passages": source.name != "audit"})
        for source in profile.corpus.sources
    ]
    corpus = profile.corpus.model_copy(update={"sources": sources})
    job = Job(profile.model_copy(update={"corpus": corpus}))
    for script in ("generate_sample", "prepare_corpus", "build_instructions"):
        import_job(script).run(job)
    for step in ("encoder", "pretrain", "sft", "reward", "ppo"):
        job.make(step, lambda artefact: None)
    job.make("index", lambda artefact: make_index(job, artefact))
    job.make("quality", lambda artefact: None)
    return job


def make_index(job: Job, artefact: Artefact) -> None:
    """An index of the corpus's passages under vectors of no meaning."""
    table = pq.read_table(job.path("corpus") / "passages")
    vectors_ND = np.random.default_rng(0).normal(size=(len(table), 8)).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), 8)
    (artefact.dir / "passages").mkdir()
    path = artefact.dir / "passages" / "part-00000.parquet"
    pq.write_table(table.append_column("vector", vectors), path)
    info = {"uri": "", "config": CollectionConfig().model_dump(mode="json")}
    (artefact.dir / INFO).write_text(json.dumps(info), encoding="utf-8")
    refill(artefact.dir)


def passage_ids(job: Job) -> set[str]:
    """What the index's Milvus collection holds."""
    info = read_info(job.path("index"))
    uri = str(job.path("index") / LITE)
    client = connect(uri)
    try:
        client.load_collection(info["collection"])
        rows = client.query(info["collection"], filter="", output_fields=["doc_id"], limit=9999)
        return {row["doc_id"] for row in rows}
    finally:
        disconnect(client, uri)


def copy_of(job: Job, root: Path) -> Job:
    """The same hospital under another root."""
    shutil.copytree(job.storage.local_root, root)
    storage = job.profile.storage.model_copy(update={"root": str(root)})
    return Job(job.profile.model_copy(update={"storage": storage}))


@pytest.fixture(scope="module")
def hospital(ray_cluster, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return hospital_of(tmp_path_factory.mktemp("hospital"))


@pytest.fixture
def job(hospital: Job, tmp_path: Path) -> Job:
    return copy_of(hospital, tmp_path / "root")


def audit_key(job: Job) -> bytes:
    return load_key(job.profile.corpus.audit, job.storage.local_root / "keys" / "audit.key")


def audited(job: Job) -> set[str]:
    """The documents whose identifiers the audit labels of the corpus hold."""
    paths = (job.path("corpus") / "audit").glob("*.sealed")
    return {row.doc_id for path in paths for row in read_audit(path, audit_key(job))}


def patient_of(job: Job) -> tuple[str, list[Document]]:
    """A patient of the training split with identifiers in the text: surrogate and records."""
    documents = list(read_rows(job.path("corpus") / "documents", Document))
    sealed = audited(job)
    patient = next(
        d.patient_id
        for d in documents
        if d.split == "train" and d.source == "emr" and d.doc_id in sealed
    )
    return patient, [d for d in documents if d.patient_id == patient]


def packed_tokens(corpus: Path) -> int:
    """Tokens in the training blocks, padding left out."""
    return int((np.load(corpus / "blocks" / "train_segments.npy") > 0).sum())


def files_of(root: Path) -> dict[str, bytes]:
    """Every file that is the same in every run: not manifests (times) and not Milvus' own."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
        and path.name not in ("manifest.json", "erased.json")
        and LITE not in path.parts
    }


@pytest.mark.cluster
def test_a_patient_leaves_everything_and_what_was_trained_is_made_again(job: Job) -> None:
    surrogate, documents = patient_of(job)
    records = {document.doc_id for document in documents}
    corpus, instructions = job.path("corpus"), job.path("instructions")
    before = list(read_rows(corpus / "documents", Document))
    rows = list(read_rows(instructions / "sft", Instruction))
    tokens = packed_tokens(corpus)
    assert any(row.doc_id in records for row in rows)
    known, sealed = passage_ids(job), audited(job)
    assert sealed > records
    assert known > records
    cache = job.storage.local_root / CACHE
    assert any(surrogate.encode() in path.read_bytes() for path in cache.iterdir())
    flags = instructions / "quarantine" / QUARANTINE  # rows of the patient that wait for review
    flags.parent.mkdir(exist_ok=True)
    held = [f'{{"id": "diagnosis-{record}"}}\n' for record in sorted(records)]
    flags.write_text("".join(['{"id": "exam-1"}\n', *held]), encoding="utf-8")

    done = forget(surrogate, job.storage, None, audit_key(job))

    after = list(read_rows(corpus / "documents", Document))
    assert after == [d for d in before if d.patient_id != surrogate]
    kept = [row for row in rows if row.doc_id not in records]
    assert list(read_rows(instructions / "sft", Instruction)) == kept
    name = f"instructions/{job.key('instructions')}/sft"
    assert done.rows[name] == len(rows) - len(kept)
    assert done.rows[f"corpus/{job.key('corpus')}/documents"] == len(before) - len(after)
    assert flags.read_text(encoding="utf-8") == '{"id": "exam-1"}\n'
    for path in (corpus, instructions):
        manifest = read_manifest(path)
        assert manifest.files == list_files(path)
        for operator, counts in manifest.counts.items():
            counts.check(operator)
    tokenizer = load_tokenizer(corpus / "tokenizer")
    gone = [len(tokenizer(render(d), add_special_tokens=False)["input_ids"]) for d in documents]
    assert packed_tokens(corpus) == tokens - sum(gone) - len(gone)  # an end of text each

    assert not cache.exists()
    assert passage_ids(job) == known - records
    assert audited(job) == sealed - records
    assert (done.files_found, done.deleted) == ([], [f"quality/{job.key('quality')}"])
    assert done.files_searched > 10
    assert done.outdated == [f"{step}/{job.key(step)}" for step in TRAINED]
    again = Job(job.profile)
    made: list[str] = []
    for step in ("corpus", "instructions", "pretrain", "encoder", "sft", "reward", "ppo", "index"):
        again.make(step, lambda artefact: made.append(artefact.step))
    # The index was cleared, not made anew, and its encoder came out the same: only here is that so.
    assert sorted(made) == [step for step in TRAINED if step != "index"]
    assert find_outdated(job.storage) == []
    assert forget(surrogate, job.storage, None, audit_key(job)).rows == {}


@pytest.mark.cluster
def test_a_new_export_does_not_bring_the_patient_back(job: Job) -> None:
    surrogate, records = patient_of(job)
    forget(surrogate, job.storage, None, audit_key(job))
    other = hospital_of(job.storage.local_root, "corpus.block_tokens=64")
    documents = list(read_rows(other.path("corpus") / "documents", Document))
    assert documents and not any(d.patient_id == surrogate for d in documents)
    counts = read_manifest(other.path("corpus")).counts["filter"]
    assert counts.rejected["erased"] == len(records)


@pytest.mark.cluster
@pytest.mark.parametrize("cut", ["pack_corpus", "write_manifest", "find_outdated"])
def test_an_erasure_that_was_cut_off_is_finished(
    job: Job, cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    surrogate, _ = patient_of(job)
    straight = copy_of(job, tmp_path / "straight")
    forget(surrogate, straight.storage, None, audit_key(straight))

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(erasure, cut, stop)
        with pytest.raises(KeyboardInterrupt):
            forget(surrogate, job.storage, None, audit_key(job))
    assert read_erased(job.storage)[surrogate].pending
    forget(surrogate, job.storage, None, audit_key(job))
    assert files_of(job.storage.local_root) == files_of(straight.storage.local_root)
    assert read_erased(job.storage)[surrogate] == Erased(read_erased(job.storage)[surrogate].date)


@pytest.mark.cluster
def test_the_search_finds_what_is_left(job: Job) -> None:
    surrogate, _ = patient_of(job)
    before = erasure.search(job.storage, {surrogate})[1]
    assert f"corpus/{job.key('corpus')}/documents/part-00000.parquet" in before
    forget(surrogate, job.storage, None, audit_key(job))
    (job.path("encoder") / "note.txt").write_text("x" * 2**22 + surrogate, encoding="utf-8")
    assert erasure.search(job.storage, {surrogate})[1] == [f"encoder/{job.key('encoder')}/note.txt"]


def test_an_unknown_patient_is_said(tmp_path: Path) -> None:
    job = Job(load_profile("laptop", [f"storage.root={tmp_path}", *SETTINGS]))
    job.make("sample", lambda artefact: None)
    with pytest.raises(DataError, match="no artefact under the storage root knows this patient"):
        forget("P000000000000", job.storage, None, audit_key(job))
    assert read_erased(job.storage) == {}


def test_the_list_of_the_erased_survives_in_a_remote_root(tmp_path: Path) -> None:
    config = StorageConfig(root=f"file://{tmp_path}/remote", cache=str(tmp_path / "cache"))
    storage = Storage(config)
    storage.check_writable()
    write_erased(storage, {"P1": Erased("2026-01-01", ("r1",))})
    elsewhere = Storage(config.model_copy(update={"cache": str(tmp_path / "other")}))
    assert read_erased(elsewhere) == {"P1": Erased("2026-01-01", ("r1",))}


def test_what_an_upload_left_that_broke_off_is_erased_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no manifest, so that no search finds it."""
    root = tmp_path / "remote"
    places = [f"storage.root=file://{root}", f"storage.cache={tmp_path / 'cache'}"]
    job = Job(load_profile("laptop", [*places, *SETTINGS]))
    for step in ("sample", "corpus"):
        job.make(step, lambda artefact: (artefact.dir / "rows").write_text("P1") and None)
    copy = pafs.copy_files

    def break_off(*arguments) -> None:
        copy(*arguments)
        raise OSError("the network is gone")

    monkeypatch.setattr(pafs, "copy_files", break_off)
    with pytest.raises(OSError, match="network"):
        job.storage.update("corpus", job.key("corpus"))
    monkeypatch.undo()
    left = root / "corpus" / job.key("corpus")
    assert [path.name for path in left.iterdir()] != []
    foreign = root / "of-somebody-else" / "file"
    foreign.parent.mkdir()
    foreign.touch()
    write_erased(job.storage, {"P1": Erased("2026-01-01", ("r1",))})
    forget("P1", job.storage, None, audit_key(job))
    assert not left.exists() and foreign.exists()
    assert not any(path.is_file() for path in (root / "unfinished").rglob("*"))
    assert (root / "sample" / job.key("sample") / "manifest.json").exists()
    assert job.storage.remove_unfinished() == []
