"""Shards of prepared rows: whole or not there, found again by their key."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medray.corpus import prepared
from medray.corpus.prepared import (
    BATCH_ROWS,
    CACHE,
    PREPARED,
    Note,
    Shards,
    prepared_table,
    shard_of,
)


def rows(count: int, source: str = "ward") -> Iterator[dict[str, Any]]:
    """Every fourth row rejected, each good one with two names."""
    for k in range(count):
        row = {"source": source, "file": "a.jsonl", "line": k + 1, "stage": "filter"}
        if k % 4 == 3:
            yield row | {"reason": "too_short", "tally": {"gb18030_lines": 1}}
        else:
            yield row | {"reason": None, "doc_id": f"r{k}", "phi": {"NAME": 2}, "chars": 5,
                         "overlaps": ["exam"], "audit": b"sealed"}  # fmt: skip


def shards_of(root: Path, corpus: str) -> Shards:
    shards = Shards(root / corpus / PREPARED, root / CACHE)
    for directory in shards:
        directory.mkdir(parents=True, exist_ok=True)
    return shards


def write(shards: Shards, place: int, key: str, unit_rows: Iterable[dict[str, Any]]) -> Note:
    shard, note = shard_of(unit_rows)
    shards.write(place, key, shard, note)
    return note


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return shards_of(tmp_path, "one")


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_shard_is_written_counted_and_found(shards: Shards, tmp_path: Path) -> None:
    count = 2 * BATCH_ROWS + 400
    note = write(shards, 3, "key", rows(count))
    assert note.rows == {"filter": {"": count * 3 // 4, "too_short": count // 4}}
    assert (note.phi, note.tally) == ({"NAME": count * 3 // 2}, {"gb18030_lines": count // 4})
    assert note.overlaps == {"exam": count * 3 // 4}
    assert shards.find(3, "key") == note
    assert shards.find(2, "key") == note  # in the cache
    assert shards.find(3, "other") is None
    assert names(shards.cache) == ["key.arrow", "key.json"]
    assert stat.S_IMODE((shards.own / "000003-key.arrow").stat().st_mode) == 0o600
    shards.settle(["x", "y", "z", "key"])
    table = prepared_table(tmp_path / "one")
    assert [len(batch) for batch in table.to_batches()] == [BATCH_ROWS, BATCH_ROWS, 400]
    assert table.column("line").to_pylist() == list(range(1, count + 1))


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shards = Shards(tmp_path / name, tmp_path / f"{name}-cache")
        for directory in shards:
            directory.mkdir()
        write(shards, 0, "key", rows(50))
    for name in ("000000-key.arrow", "000000-key.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_rows_keep_the_order_of_their_units(shards: Shards, tmp_path: Path) -> None:
    for place in (10, 2, 0):
        write(shards, place, f"key{place}", rows(4, f"s{place}"))
    assert prepared_table(tmp_path / "one").column("source").unique().to_pylist() == [
        "s0", "s2", "s10"]  # fmt: skip


def test_what_is_not_whole_is_not_there(shards: Shards) -> None:
    write(shards, 0, "key", rows(8))
    (shards.own / "000000-key.json").unlink()
    (shards.cache / "key.json").unlink()
    assert shards.find(0, "key") is None
    write(shards, 0, "key", rows(8))
    path = shards.own / "000000-key.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)  # the cache has the same file under another name
    assert shards.find(0, "key") is None
    assert names(shards.own) == names(shards.cache) == []
    write(shards, 0, "key", rows(8))
    (shards.own / "000000-key.json").write_text("{")
    assert shards.find(0, "key") is None


def test_a_torn_write_leaves_nothing_that_counts(shards: Shards, monkeypatch) -> None:
    """A full disk, after the rows and before their note."""
    replace = os.replace

    def full(source: str, target: Path) -> None:
        if target.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(prepared.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write(shards, 0, "key", rows(5))
    monkeypatch.undo()
    assert shards.find(0, "key") is None
    note = write(shards, 0, "key", rows(5))
    shards.settle(["key"])
    assert names(shards.own) == ["000000-key.arrow", "000000-key.json"]
    assert shards.find(0, "key") == note


def test_the_cache_keeps_what_corpora_in_the_making_use(tmp_path: Path) -> None:
    finished, other, latest = (shards_of(tmp_path, name) for name in ("a", "b", "c"))
    for shards, key in ((finished, "both"), (finished, "gone"), (other, "mine")):
        write(shards, 0, key, rows(4))
    for path in finished.own.iterdir():  # as when a corpus is finished
        path.unlink()
    assert latest.find(0, "both") is not None
    latest.settle(["both"])
    assert names(other.cache) == ["both.arrow", "both.json", "mine.arrow", "mine.json"]
    assert (latest.own / "000000-both.arrow").samefile(other.cache / "both.arrow")


def test_a_file_system_with_one_name_a_file_has_no_cache(shards: Shards, monkeypatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError

    monkeypatch.setattr(prepared.os, "link", refuse)
    note = write(shards, 0, "key", rows(4))
    assert shards.find(0, "key") == note
    assert names(shards.cache) == [] and shards.find(1, "key") is None
