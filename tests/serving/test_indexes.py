"""What a replica holds open, over small indexes in real Milvus Lite."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medray.common.errors import ConfigError, DataError, ServiceError, StorageError
from medray.common.manifest import Manifest, write_manifest
from medray.common.records import Passage
from medray.common.rows import arrow_schema
from medray.retrieval import search
from medray.retrieval.collection import connect, disconnect
from medray.retrieval.directory import INFO
from medray.retrieval.index import refill
from medray.serving import indexes
from medray.serving.alias import IndexAlias, Named
from medray.serving.artefacts import Location, directory
from medray.serving.indexes import OpenIndex, OpenIndexes

QUERY = np.array([1.0, 0.0], dtype=np.float32)


def write_index(place: Path, names: str) -> Location:
    """An index with a passage for each letter, all under one vector."""
    rows = [
        Passage(
            passage_id=name, doc_id=f"doc-{name}", start=0, end=1, section="", title="",
            text=name, kind="guideline",
        ).model_dump()
        for name in names
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=arrow_schema(Passage))
    flat = np.tile(QUERY, len(names))
    table = table.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, 2))
    (place / "passages").mkdir(parents=True)
    pq.write_table(table, place / "passages" / "part-00000.parquet")
    (place / INFO).write_text(json.dumps({"uri": "", "config": {}}), encoding="utf-8")
    return directory(str(place))


def erase_last(index: Location) -> None:
    """As `medray forget` leaves an index: a passage less, under the same name."""
    (shard,) = (Path(index.path) / "passages").glob("*.parquet")
    table = pq.read_table(shard)
    pq.write_table(table.slice(0, len(table) - 1), shard)
    refill(Path(index.path))


def found_in(index: OpenIndex) -> str:
    hits = index.searcher.search("", QUERY, 9)
    return "".join(sorted(hit.passage.passage_id for hit in hits))


async def until(opened: OpenIndexes, reached: Callable[[], bool]) -> None:
    """Searches on until something has come about."""
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline
        with opened.use():
            await asyncio.sleep(0.02)


def copy_of(index: OpenIndex) -> Path:
    return Path(index.searcher.uri).parent


def test_what_was_erased_is_found_no_more_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "LOOK_S", 0.05)
    first, second = (write_index(tmp_path / name, "abc") for name in ("first", "second"))
    alias = IndexAlias(str(tmp_path / "alias.json"), first)

    async def run() -> None:
        opened = OpenIndexes(alias)
        with opened.use() as before:
            erase_last(first)
            await until(opened, lambda: opened.current is not before)
            assert found_in(before) == "abc"  # a search keeps what it began with
            with opened.use() as after:
                assert found_in(after) == "ab"
            assert opened.versions == ["first"] and copy_of(before).exists()
        await until(opened, lambda: not copy_of(before).exists())  # not kept for a roll-back
        # The version before is not gone back to with what was erased of it meanwhile.
        alias.move(second)
        await until(opened, lambda: opened.versions == ["second", "first"])
        erase_last(first)
        await until(opened, lambda: opened.versions == ["second"])
        await until(opened, lambda: not copy_of(after).exists())
        alias.roll_back()
        await until(opened, lambda: opened.current.version == "first")
        with opened.use() as again:
            assert found_in(again) == "a"
        left = [copy_of(index) for index in (again, opened.current)]
        opened.close()
        assert not any(copy.exists() for copy in left)

    asyncio.run(run())


def test_a_replica_starts_although_the_alias_names_what_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, previous = (write_index(tmp_path / name, "a") for name in ("newest", "previous"))
    broken = directory(str(tmp_path / "broken"))
    file = tmp_path / "alias.json"

    def started() -> OpenIndexes:
        return OpenIndexes(IndexAlias(str(file), newest))

    file.write_text(Named(index=broken, previous=broken).model_dump_json())
    opened = started()
    assert opened.versions == ["newest"]
    opened.close()
    file.write_text("{}")
    opened = started()
    assert opened.versions == ["newest"]
    opened.close()

    async def run() -> None:
        opened = started()
        assert opened.versions == ["previous"]
        with opened.use():
            await asyncio.sleep(0)
        assert opened.versions == ["previous"]  # it was tried just now
        write_index(tmp_path / "broken", "ab")
        monkeypatch.setattr(indexes, "RETRY_S", 0.0)
        await until(opened, lambda: opened.versions == ["broken", "previous"])
        opened.close()

    file.write_text(Named(index=broken, previous=previous).model_dump_json())
    asyncio.run(run())
    (tmp_path / "newest" / INFO).unlink()
    file.unlink()
    with pytest.raises(DataError, match="build the index first"):
        started()


def test_a_directory_of_another_encoder_is_refused(tmp_path: Path) -> None:
    def made(name: str, encoder: str) -> Location:
        index = write_index(tmp_path / name, "a")
        manifest = Manifest(
            step="index", key=name, created="", duration_s=0, medray="", git_commit="",
            packages={}, parents={"encoder": encoder}, input="", counts={}, metrics={}, files=[],
        )  # fmt: skip
        write_manifest(tmp_path / name, manifest)
        return index

    alias = IndexAlias(str(tmp_path / "alias.json"), made("first", "one"))
    with pytest.raises(ConfigError, match="other was made by another encoder than first"):
        alias.move(made("other", "two"))
    assert alias.move(made("same", "one"))
    assert alias.move(write_index(tmp_path / "unsaid", "a"))  # nothing is known of it


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_rewritten_artefact_has_another_stamp(tmp_path: Path, scheme: str) -> None:
    """Under a local root and in an object store."""
    place = tmp_path / "index" / "i1"
    place.mkdir(parents=True)
    served = Location(root=f"{scheme}{tmp_path}", step="index", key="i1")
    seen = set[str]()
    for text in ("{}", "{ }"):
        (place / ".manifest.json").write_text(text)
        (place / ".manifest.json").replace(place / "manifest.json")
        assert served.stamp() == served.stamp()
        seen.add(served.stamp())
    assert len(seen) == 2
    if scheme:  # while it is uploaded anew there is no manifest
        (place / "manifest.json").unlink()
        with pytest.raises(StorageError, match="not there"):
            served.stamp()


def test_an_index_whose_collection_is_gone_is_filled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after builds on the cluster that kept the newest alone."""
    # A cluster's server outlives its clients, Lite's would end with the first that leaves.
    monkeypatch.setattr(search, "disconnect", lambda client, uri: client.close())
    index = write_index(tmp_path / "first", "abc")
    uri, path = str(tmp_path / "milvus.db"), tmp_path / "first" / INFO
    path.write_text(json.dumps({"uri": uri, "config": {}, "collection": "docs_v1"}))

    async def run() -> None:
        opened = OpenIndexes(IndexAlias(str(tmp_path / "alias.json"), index))
        before = opened.current
        before.searcher._client.drop_collection("docs_v1")
        with pytest.raises(ServiceError), opened.use() as used:
            found_in(used)
        await until(opened, lambda: opened.current is not before)
        assert found_in(opened.current) == "abc"
        opened.close()

    try:
        asyncio.run(run())
    finally:
        disconnect(connect(uri), uri)
