"""The written hospital: same bytes for the same seed, truth that fits the text."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from medray.common.errors import ConfigError
from medray.sample.hospital import (
    SampleConfig,
    num_shards,
    write_hospital,
    write_knowledge,
    write_shard,
)
from medray.sample.identity import check_digit
from medray.sample.knowledge import load_knowledge
from medray.sample.shards import read_rows

CONFIG = SampleConfig(num_records=200, shard_records=70, misspelling_rate=0.05)
PHI_CLASSES = {"NAME", "ID", "PHONE", "ADDRESS", "MRN", "DATE", "HOSPITAL", "DOCTOR"}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hospital")
    write_hospital(CONFIG, directory)
    return directory


def rows(hospital: Path, pattern: str) -> list[dict[str, Any]]:
    return [row for path in sorted(hospital.glob(pattern)) for row in read_rows(path)]


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_shards_in_any_order_give_the_same_bytes(hospital: Path, tmp_path: Path) -> None:
    write_knowledge(CONFIG, tmp_path)
    for shard in reversed(range(num_shards(CONFIG))):
        write_shard(CONFIG, tmp_path, shard)
    whole = digests(hospital)
    whole.pop("hospital.json")
    assert digests(tmp_path) == whole


def test_rows_do_not_depend_on_the_shard_size(hospital: Path, tmp_path: Path) -> None:
    other = CONFIG.model_copy(update={"shard_records": 200})
    write_shard(other, tmp_path, 0)
    assert rows(tmp_path, "records/*.gz") == rows(hospital, "records/*.gz")


def test_another_seed_gives_other_records(hospital: Path, tmp_path: Path) -> None:
    write_shard(CONFIG.model_copy(update={"seed": 8}), tmp_path, 0)
    first = rows(tmp_path, "records/*.gz")[0]
    assert first != rows(hospital, "records/*.gz")[0]


@pytest.mark.parametrize("kind", ["records", "audit_records"])
def test_identifier_offsets_are_exact(hospital: Path, kind: str) -> None:
    truths = {t["record_id"]: t for t in rows(hospital, f"truth/{kind}-*.gz")}
    seen = set()
    for record in rows(hospital, f"{kind}/*.gz"):
        for span in truths[record["record_id"]]["phi"]:
            text = record["sections"][span["section"]]["text"][span["start"] : span["end"]]
            seen.add(span["class"])
            if span["class"] == "ID":
                assert len(text) == 18 and check_digit(text[:17]) == text[17]
            elif span["class"] == "PHONE":
                assert len(text) == 11 and text.isdigit()
            elif span["class"] == "MRN":
                assert text.startswith("ZY") and len(text) == 10
            elif span["class"] == "HOSPITAL":
                assert "市" in text and text.endswith(("医院",))
            elif span["class"] == "DATE":
                assert text[:2] == "20"
            elif span["class"] == "ADDRESS":
                assert text.endswith("室")
            else:
                assert 2 <= len(text) <= 3
    assert seen == PHI_CLASSES


def test_diagnosis_is_the_disease_name_first(hospital: Path) -> None:
    truths = {t["record_id"]: t for t in rows(hospital, "truth/records-*.gz")}
    for record in rows(hospital, "records/*.gz"):
        truth = truths[record["record_id"]]
        text = next(s["text"] for s in record["sections"] if s["heading"] == "诊断")
        assert text == f"{truth['disease']}（{truth['icd10']}）"


def test_summary(hospital: Path) -> None:
    summary = write_hospital(CONFIG, hospital)
    truths = rows(hospital, "truth/records-*.gz")
    mean = sum(t["posterior_max"] for t in truths) / len(truths)
    assert summary["ceiling"] == pytest.approx(mean) and 0.9 < mean < 1
    assert summary["n"] == 200 and summary["diseases"] >= 44
    assert 180 <= summary["mean_chars"] <= 280
    assert all(t["nll_nats"] > 0 for t in truths)
    rate = summary["misspelt_characters"] / summary["eligible_characters"]
    assert rate == pytest.approx(0.05, abs=0.02)
    right = sum(t["bayes_disease"] == t["disease"] for t in truths) / 200
    assert right == pytest.approx(mean, abs=0.05)


def test_counts_grow_with_the_records(hospital: Path) -> None:
    expected = {
        "consultations": 200,
        "scores": 200,
        "preferences": 100,
        "scenarios": 100,
        "dialogues": 50,
        "grounded": 200,
        "quality_labels": 50,
    }
    for name, num in expected.items():
        assert len(rows(hospital, f"{name}.jsonl.gz")) == num
    assert len(rows(hospital, "audit_records/*.gz")) == 50


def test_some_sections_are_missing_and_never_the_diagnosis(hospital: Path) -> None:
    headings = [{s["heading"] for s in r["sections"]} for r in rows(hospital, "records/*.gz")]
    assert all("诊断" in h and "患者信息" in h for h in headings)
    missing = sum("既往史" not in h for h in headings) / len(headings)
    assert 0.01 < missing < 0.15


def test_every_department_is_there() -> None:
    knowledge = load_knowledge()
    assert len(knowledge.departments) == 9 and len(knowledge.diseases) >= 44
    names = [d.name for d in knowledge.diseases]
    assert len(set(names)) == len(names)


def test_too_few_records_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="num_records"):
        SampleConfig.parse({"num_records": 5}, "test")
