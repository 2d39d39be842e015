"""Terms and units in the corpus job: texts, audit labels, metrics and the page."""

import json
from pathlib import Path

import pytest

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.records import Document
from medray.common.rows import read_rows
from medray.common.storage import Storage, StorageConfig
from medray.corpus.prepare import CorpusConfig, check_sources, prepare_corpus
from medray.corpus.report import write_report
from medray.privacy.audit import read_audit

TERMS = {
    "units": True,
    "dictionaries": [
        {"name": "own", "path": "terms/own.csv", "format": "terms", "replace": True},
        {"name": "icd", "path": "terms/icd.jsonl", "format": "icd10", "link": True},
    ],
}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 records, each with a name, a synonym and a unit before it."""
    data = tmp_path_factory.mktemp("hospital")
    (data / "terms").mkdir()
    (data / "terms" / "own.csv").write_text(
        "concept,preferred,term\nO1,腹部疼痛,腹疼\n", encoding="utf-8"
    )
    codes = [{"code": "K80", "name": "胆囊结石伴急性胆囊炎"}, {"code": "R10", "name": "腹痛"}]
    (data / "terms" / "icd.jsonl").write_text("\n".join(map(json.dumps, codes)), encoding="utf-8")
    rows = [
        {
            "record_id": f"r{k}", "patient_id": f"PAT{k:05d}",
            "sections": {
                "现病史": f"腹疼{k}天，血钾4umol/l，联系人王建国陪同，腹痛加重。",
                "诊断": "1.胆囊结石伴急性胆囊炎（K80）；2.胆囊结石急性胆囊炎；3.失眠",
            },
        }
        for k in range(12)
    ]  # fmt: skip
    (data / "emr.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data


def config(**terms) -> CorpusConfig:
    return CorpusConfig.model_validate({
        "sources": [{"name": "ward", "kind": "record", "path": "emr.jsonl"}],
        "near_duplicates": None, "tokenizer": {"vocab_size": 300}, "block_tokens": 32,
        "terms": {**TERMS, **terms},
    })  # fmt: skip


def test_a_missing_dictionary_shows_before_the_work(hospital: Path) -> None:
    check_sources(config(), hospital)
    lost = [{"name": "icd", "path": "terms/lost.csv", "format": "icd10"}]
    with pytest.raises(DataError, match=r"no file at .*lost\.csv; mend its path"):
        check_sources(config(dictionaries=lost), hospital)


@pytest.mark.cluster
def test_terms_in_the_corpus_job(ray_cluster, hospital: Path, tmp_path: Path) -> None:
    artefact = Artefact(Storage(StorageConfig(root=str(tmp_path))), "corpus", config(), key="terms")
    prepare_corpus(config(), hospital, artefact, None)
    documents = {d.doc_id: d for d in read_rows(artefact.dir / "documents", Document)}
    assert len(documents) == 12
    for number in range(12):
        text = documents[f"r{number}"].sections[0].text
        assert text.startswith(f"腹部疼痛{number}天，血钾4μmol/L，")
    key = (tmp_path / "keys" / "audit.key").read_bytes().strip()
    labels = [
        documents[audited.doc_id].sections[label.section].text[label.start : label.end]
        for audited in read_audit(artefact.dir / "audit" / "ward.sealed", key)
        for label in audited.labels
        if label.original == "王建国"
    ]
    assert len(labels) == 12 and all(len(text) == 4 and text[1] == "某" for text in labels)
    # In each record: 腹部疼痛, 腹痛, and the first diagnosis by name; the second is linked to it.
    assert artefact.metrics["units"] == {"μmol/L": 12}
    terms = artefact.metrics["terms"]
    assert terms["sources"]["ward"]["with_terms"] == 12
    assert terms["sources"]["ward"]["covered_chars"] == 12 * (4 + 2 + 10)
    assert terms["dictionaries"] == {
        "own": {"matched": 12, "ambiguous": 0, "replaced": 12, "entry_matched": 0,
                "entry_linked": 0, "names_too_short": 0},
        "icd": {"matched": 24, "ambiguous": 0, "replaced": 0, "entry_matched": 12,
                "entry_linked": 12, "names_too_short": 0},
    }  # fmt: skip
    assert terms["entries"] == {"matched": 12, "linked": 12, "ambiguous": 0, "unmatched": 12}
    assert terms["concepts"][0] == {
        "dictionary": "icd", "id": "K80", "name": "胆囊结石伴急性胆囊炎", "times": 24,
    }  # fmt: skip
    write_report(artefact.publish(), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    share = 12 * 16 / terms["sources"]["ward"]["chars"]
    assert f"<td>ward</td><td class='n'>12</td><td>100.0%</td><td>{share:.1%}</td>" in page
    assert "12 linked to the nearest name, 0 ambiguous, 12 unmatched" in page
    assert "<td>胆囊结石伴急性胆囊炎</td><td>K80</td><td>icd</td><td class='n'>24</td>" in page
    assert "<td>μmol/L</td><td class='n'>12</td>" in page
