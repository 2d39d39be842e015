"""A corpus made in several runs is the one made in one, and nothing is read twice.

Nobody in it exists.
"""

import json
import shutil
from pathlib import Path

import pytest

from medray.common.manifest import Artefact, list_files
from medray.common.storage import Storage, StorageConfig
from medray.corpus import documents
from medray.corpus.prepare import CorpusConfig, prepare_corpus
from medray.corpus.prepared import CACHE
from medray.privacy.audit import KEY_ENV as AUDIT_KEY_ENV
from medray.privacy.surrogates import KeyConfig

SETTINGS = {
    "sources": [
        {"name": "ward", "kind": "record", "path": "ward/*.jsonl"},
        {"name": "books", "kind": "document", "path": "books/*.md", "passages": True},
    ],
    "max_rejected_fraction": 0.2,
    "block_tokens": 64,
    "tokenizer": {"vocab_size": 300},
}
UNITS = 5
"""Four files of records, one run of three documents."""


def write_ward(data: Path, name: str, numbers: range) -> None:
    """Records with a name and a phone number each, one line that cannot be read."""
    rows = [
        {"record_id": f"r{k}", "patient_id": f"PAT{k // 2:05d}", "visit_date": "2023-05-17",
         "text": f"姓名：王建国\n主诉：咳嗽{k}天。\n现病史：{k}天前受凉，回电13800138{k:03d}。"}
        for k in numbers
    ]  # fmt: skip
    path = data / "ward" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join([*lines, "{torn"]) + "\n", encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hospital's export, and keys that all storage roots share."""
    for name, key in ((KeyConfig().key_env, "k" * 32), (AUDIT_KEY_ENV, "a" * 32)):
        (tmp_path / name).write_text(key)
        monkeypatch.setenv(name, str(tmp_path / name))
    data = tmp_path / "data"
    for number in range(4):
        write_ward(data, f"2023-{number}", range(20 * number, 20 * number + 20))
    (data / "books").mkdir()
    for name in ("a", "b", "d"):
        text = f"# {name}\n{name}的病因很多，应先治疗本病。"
        (data / "books" / f"{name}.md").write_text(text, encoding="utf-8")
    return data


def make(data: Path, root: Path, key: str, **settings: object) -> Artefact:
    config = CorpusConfig.parse(SETTINGS | settings, "test")
    artefact = Artefact(Storage(StorageConfig(root=str(root))), "corpus", config, key=key)
    prepare_corpus(config, data, artefact, None)
    return artefact


def read(caplog: pytest.LogCaptureFixture) -> tuple[int, int]:
    """Work units of the last run, and how many of them had been read before."""
    line = [message for message in caplog.messages if message.startswith("read: ")][-1]
    caplog.clear()
    numbers = [int(word) for word in line.replace(",", "").split() if word.isdigit()]
    return numbers[0], numbers[1]


def check_same(artefact: Artefact, data: Path, root: Path) -> None:
    """The artefact is what a run from nothing makes, audit labels included: AES-SIV is
    deterministic."""
    straight = make(data, root, "straight")
    files = list_files(artefact.dir)
    assert files == list_files(straight.dir)
    assert "audit/ward.sealed" in [file.path for file in files]
    assert (artefact.counts, artefact.metrics) == (straight.counts, straight.metrics)


@pytest.mark.cluster
def test_a_new_export_is_all_that_is_read(ray_cluster, data, tmp_path, caplog):
    root = tmp_path / "root"
    make(data, root, "first")
    assert read(caplog) == (UNITS, 0)
    write_ward(data, "2023-1a", range(80, 100))  # among the old ones, and a patient of theirs
    second = make(data, root, "second")
    assert read(caplog) == (UNITS + 1, UNITS)
    check_same(second, data, tmp_path / "straight")
    write_ward(data, "2023-0", range(5))  # exported again
    third = make(data, root, "third")
    read(caplog)
    shutil.rmtree(tmp_path / "straight")
    check_same(third, data, tmp_path / "straight")


@pytest.mark.cluster
def test_other_settings_read_everything_anew_and_clear_the_cache(
    ray_cluster, data, tmp_path, caplog
):
    root = tmp_path / "root"
    make(data, root, "first")
    before = {path.name for path in (root / CACHE).iterdir()}
    assert len(before) == 2 * UNITS
    make(data, root, "second", clean={"min_chars": 12})
    assert read(caplog) == (UNITS, 0)
    after = {path.name for path in (root / CACHE).iterdir()}
    assert len(after) == 2 * UNITS and not before & after
    make(data, root, "third", clean={"min_chars": 12}, block_tokens=32)  # of no matter to reading
    assert read(caplog) == (UNITS, UNITS)


@pytest.mark.cluster
def test_a_run_cut_off_while_reading_goes_on_at_the_last_finished_shard(
    ray_cluster, data, tmp_path, caplog, monkeypatch
):
    in_tasks, root = documents.in_tasks, tmp_path / "root"

    def cut(work, *arguments):
        results = in_tasks(work, *arguments)
        if work.__name__ == "_read_unit":
            yield next(results)
            yield next(results)
            raise KeyboardInterrupt
        yield from results

    with monkeypatch.context() as patch:
        patch.setattr(documents, "in_tasks", cut)
        with pytest.raises(KeyboardInterrupt):
            make(data, root, "first")
    again = make(data, root, "first")
    units, found = read(caplog)
    assert (units, found) == (UNITS, 2)
    check_same(again, data, tmp_path / "straight")


@pytest.mark.cluster
def test_a_damaged_shard_is_read_again(ray_cluster, data, tmp_path, caplog):
    root = tmp_path / "root"
    make(data, root, "first")
    path = max((root / CACHE).glob("*.arrow"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-100])
    caplog.clear()
    again = make(data, root, "second")
    assert read(caplog) == (UNITS, UNITS - 1)
    check_same(again, data, tmp_path / "straight")
