"""What one task reads, and what decides whether it was read before."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from medray.corpus.clean import CleanConfig
from medray.corpus.decontaminate import DecontaminationConfig, EvaluationIndex
from medray.corpus.documents import Settings
from medray.corpus.readers.joins import Part
from medray.corpus.sources import CorpusSource
from medray.corpus.units import Unit, hash_of, unit_key, work_units

WARD = CorpusSource(name="ward", kind="record", path="*.jsonl")


def files_of(units: list[Unit]) -> list[tuple[str, ...]]:
    return [unit.files for unit in units]


def test_a_big_file_is_shared_by_several_tasks(tmp_path: Path, monkeypatch) -> None:
    for name, size in (("a.jsonl", 100), ("b.jsonl", 250)):
        (tmp_path / name).write_bytes(b"x" * size)
    monkeypatch.setattr("medray.corpus.units.TASK_BYTES", 100)
    # 1 + 100 // 100 = 2 and 1 + 250 // 100 = 3
    parts = [Part(0, 2), Part(1, 2), Part(0, 3), Part(1, 3), Part(2, 3)]
    names = [("a.jsonl",)] * 2 + [("b.jsonl",)] * 3
    assert work_units([WARD], tmp_path) == [
        Unit(WARD, name, part) for name, part in zip(names, parts, strict=True)
    ]
    limited = WARD.model_copy(update={"limit": 3})  # counts over both files
    assert work_units([limited], tmp_path) == [Unit(limited, ("a.jsonl", "b.jsonl"), Part())]


def test_a_join_is_read_with_its_tables(tmp_path: Path, monkeypatch) -> None:
    for name in ("notes.csv", "adm.csv"):
        (tmp_path / name).write_text("x" * 30)
    monkeypatch.setattr("medray.corpus.units.JOIN_BYTES", 50)  # 1 + 60 // 50 = 2
    values = {"name": "m", "kind": "record", "format": "mimic", "path": "notes.csv",
              "tables": {"admissions": "adm.csv"}}  # fmt: skip
    source = CorpusSource.parse(values, "profile")
    files = ("notes.csv", "adm.csv")
    assert work_units([source], tmp_path) == [Unit(source, files, Part(k, 2)) for k in range(2)]


def test_a_new_document_changes_its_own_run_alone(tmp_path: Path) -> None:
    source = CorpusSource(name="books", kind="document", path="*.md")
    names = [f"{k:04d}.md" for k in range(400)]
    for name in names:
        (tmp_path / name).write_text(name)
    before = files_of(work_units([source], tmp_path))
    assert [name for run in before for name in run] == names
    assert 400 / 16 < len(before) < 400 / 4  # 8 on average
    for new in ("0200a.md", "9999.md"):
        (tmp_path / new).write_text(new)
        after = files_of(work_units([source], tmp_path))
        assert len(set(before) - set(after)) <= 1
        (tmp_path / new).unlink()
    assert all(unit.part == Part() for unit in work_units([source], tmp_path))


def test_the_key_follows_what_shapes_the_rows(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        directory.mkdir()
        (directory / "a.jsonl").write_text("same")
        (directory / "b.jsonl").write_text("same")
    unit = Unit(WARD, ("a.jsonl",), Part())
    key = unit_key(unit, "settings", one)
    assert unit_key(unit, "settings", other) == key
    later = WARD.model_copy(update={"pretrain": False, "passages": True})  # uses of the rows
    assert unit_key(unit._replace(source=later), "settings", one) == key
    mapped = WARD.model_copy(update={"fields": {"text": "t"}})
    keys = {
        key,
        unit_key(unit._replace(source=mapped), "settings", one),
        unit_key(unit._replace(files=("b.jsonl",)), "settings", one),
        unit_key(unit._replace(part=Part(0, 2)), "settings", one),
        unit_key(unit, "others", one),
    }
    (other / "a.jsonl").write_text("more")
    assert len({*keys, unit_key(unit, "settings", other)}) == 6


def test_every_setting_counts_but_the_place_of_the_data(tmp_path: Path) -> None:
    arrays = (np.array([3], np.uint64), np.zeros(1, np.int32), np.ones(1, np.int32))
    index = EvaluationIndex(DecontaminationConfig(), *arrays, np.zeros(1, np.int32), {})
    base = Settings(tmp_path, [WARD], 0.1, CleanConfig(), b"k" * 16, b"a" * 16, index)
    moved = base._replace(data=tmp_path / "x", sources=[])
    assert moved.hash() == base.hash()
    others = [
        base._replace(dev_fraction=0.2),
        base._replace(clean=CleanConfig(min_chars=11)),
        base._replace(key=b"l" * 16),
        base._replace(audit_key=b"b" * 16),
        base._replace(evaluation=None),
        base._replace(evaluation=index._replace(hashes_G=np.array([4], np.uint64))),
        base._replace(erased=frozenset({"P1"})),
    ]
    assert len({base.hash(), *(other.hash() for other in others)}) == 8


def test_a_hash_knows_no_order_of_sets_and_no_unknown_type() -> None:
    assert hash_of({"b", "a"}) == hashlib.sha256(json.dumps(["a", "b"]).encode()).hexdigest()
    with pytest.raises(TypeError, match="cannot hash a object"):
        hash_of([object()])
