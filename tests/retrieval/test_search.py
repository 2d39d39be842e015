"""Collections and search against a real Milvus Lite."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from pymilvus import DataType

from medray.common.errors import DataError, ServiceError
from medray.common.records import Passage
from medray.common.rows import arrow_schema
from medray.retrieval.collection import CollectionConfig, connect, disconnect, search_vectors
from medray.retrieval.directory import INFO, ROUTER, read_info
from medray.retrieval.filters import PassageFilter
from medray.retrieval.index import drop_former, refill
from medray.retrieval.measure import Asked, calibrated_threshold
from medray.retrieval.routing import Router
from medray.retrieval.search import open_index
from medray.retrieval.versions import (
    alias_target,
    fill,
    load_version,
    restore,
    switch_alias,
    versions,
)

# Cosine with (1, 0): a 1, b 0.6, c 0, d -1.
VECTORS = {"a": (1.0, 0.0), "b": (0.6, 0.8), "c": (0.0, 1.0), "d": (-1.0, 0.0)}


COLUMNS = {
    "a": {"department": "呼吸内科"},
    "b": {"department": "呼吸内科", "date": "2023-05-01"},
    "c": {"date": "2024-03-01", "superseded_by": "doc-d"},
    "d": {"date": "2024-12-31", "source": '指"南'},
}


def write_index(
    directory: Path, names: str = "abcd", index_type: str = "FLAT", uri: str = "", **info: Any
) -> Path:
    """An index directory with one passage for each letter."""
    rows = [
        Passage(
            passage_id=name, doc_id=f"doc-{name}", start=0, end=1, section="治疗",
            title="肺炎 治疗", text=name, kind="guideline" if name in "bd" else "literature",
            **COLUMNS[name],
        ).model_dump()
        for name in names
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=arrow_schema(Passage))
    flat = np.array([VECTORS[name] for name in names], dtype=np.float32).ravel()
    table = table.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, 2))
    (directory / "passages").mkdir(parents=True)
    pq.write_table(table, directory / "passages" / "part-00000.parquet")
    info = {"uri": uri, "config": {"index_type": index_type}, **info}
    (directory / INFO).write_text(json.dumps(info), encoding="utf-8")
    return directory


@pytest.mark.parametrize("index_type", ["FLAT", "HNSW"])
def test_best_first_with_cosine_and_whole_passages(tmp_path: Path, index_type: str) -> None:
    with open_index(write_index(tmp_path, index_type=index_type)) as searcher:
        hits = searcher.search("", np.array([1.0, 0.0]), top_k=3)
    assert [hit.passage.passage_id for hit in hits] == ["a", "b", "c"]
    assert [hit.cosine for hit in hits] == pytest.approx([1, 0.6, 0], abs=1e-5)
    assert [hit.score for hit in hits] == pytest.approx([0.5, 0.4, 0.25], abs=1e-5)
    assert hits[0].passage == Passage(
        passage_id="a", doc_id="doc-a", start=0, end=1, section="治疗", title="肺炎 治疗",
        text="a", kind="literature", department="呼吸内科",
    )  # fmt: skip


def test_words_bring_a_passage_that_the_vector_does_not(tmp_path: Path) -> None:
    index = write_index(tmp_path, hybrid={"candidates": 1})
    query = np.array([1.0, 0.0])
    with open_index(index) as searcher:
        found = searcher.candidates("d", query)
        assert found.ids == ["a", "d"]  # the nearest, then the one that has the word
        assert found.rows[1] == {"passage_id": "d", "doc_id": "doc-d"}  # texts come with the hits
        assert found.cosines_C == pytest.approx([1, -1], abs=1e-6)
        assert found.bm25_C[0] == 0 < found.bm25_C[1]
        hits = searcher.search("d", query, 2)
        # α 0.5, no question having measured it: each is the best of one half, the least of another
        assert [(hit.passage.passage_id, hit.score) for hit in hits] == [("a", 0.5), ("d", 0.5)]
        assert [hit.passage.passage_id for hit in searcher.search("c", query, 2)] == ["c", "a"]
    for weight, best in ((0.0, "d"), (1.0, "a")):
        index = write_index(tmp_path / best, hybrid={"candidates": 1, "dense_weight": weight})
        with open_index(index) as searcher:
            assert searcher.search("d", query, 1)[0].passage.passage_id == best


def test_a_filter_holds_for_both_rankings(tmp_path: Path) -> None:
    query = np.array([1.0, 0.0])
    with open_index(write_index(tmp_path)) as searcher:
        guidelines = PassageFilter(kinds=["guideline"])
        hits = searcher.search("a c", query, 5, guidelines)
        assert [hit.passage.passage_id for hit in hits] == ["b", "d"]
        for where, names in (
            (PassageFilter(since="2024"), "cd"),
            (PassageFilter(until="2024-03"), "bc"),
            (PassageFilter(since="2023-06", until="2024"), "cd"),
            (PassageFilter(departments=["呼吸内科"]), "ab"),
            (PassageFilter(departments=["呼吸内科"], kinds=["literature"]), "a"),
            (PassageFilter(sources=['指"南']), "d"),
            (PassageFilter(sources=["无"]), ""),
            (PassageFilter(superseded=False), "abd"),
            (PassageFilter(superseded=True), "c"),
            (PassageFilter(superseded=False, since="2024"), "d"),
        ):
            hits = searcher.search("a b c d", query, 5, where)
            assert {hit.passage.passage_id for hit in hits} == set(names), where


def test_a_patient_is_left_out_of_both_rankings(tmp_path: Path) -> None:
    """Of a and b, which stem from two patients, and c and d, which stem from none."""
    index = write_index(tmp_path)
    (shard,) = (index / "passages").glob("*.parquet")
    table = pq.read_table(shard)
    place = table.schema.get_field_index("patient_id")
    own = table.set_column(place, "patient_id", [["P1", "P2", "", ""]])
    pq.write_table(own, shard)
    vector = np.array([1.0, 0.0], dtype=np.float32)
    for patient, left in (("P1", "bcd"), ("P2", "acd"), ("", "abcd"), ('P"', "abcd")):
        with open_index(index) as searcher:
            hits = searcher.search("肺炎", vector, 4, PassageFilter(not_patient=patient))
        assert "".join(sorted(hit.passage.passage_id for hit in hits)) == left
    # An index of an earlier version does not say: nothing is left out.
    pq.write_table(table.drop_columns("patient_id"), shard)
    with open_index(index) as searcher:
        assert len(searcher.search("肺炎", vector, 4, PassageFilter(not_patient="P1"))) == 4


def test_a_collection_of_an_earlier_version_is_searched_as_it_is(tmp_path: Path) -> None:
    """It has no field that says what supersedes a passage; a condition on it is refused."""
    uri = str(tmp_path / "milvus.db")
    index = write_index(tmp_path / "index", uri=uri, collection="docs_v1")
    (shard,) = (index / "passages").glob("*.parquet")
    table = pq.read_table(shard).drop_columns("superseded_by")
    pq.write_table(table, shard)
    client = connect(uri)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for name in table.schema.names[:-1]:
        if name in ("start", "end"):
            schema.add_field(name, DataType.INT64)
        else:
            schema.add_field(name, DataType.VARCHAR, is_primary=name == "passage_id", max_length=99)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    params = client.prepare_index_params()
    params.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection("docs_v1", schema=schema, index_params=params)
    client.insert("docs_v1", table.to_pylist())
    client.flush("docs_v1")
    disconnect(client, uri)
    with open_index(index) as searcher:
        vector = np.array([1.0, 0.0], dtype=np.float32)
        hits = searcher.search("d", vector, 2)
        assert [hit.passage.passage_id for hit in hits] == ["a", "d"]
        assert {hit.passage.superseded_by for hit in hits} == {""}
        with pytest.raises(DataError, match="build its index anew"):
            searcher.search("d", vector, 2, PassageFilter(superseded=False))


@pytest.mark.parametrize("date", ["2024-3", "last year", '2024" or kind != "'])
def test_a_filter_takes_dates_only(date: str) -> None:
    with pytest.raises(ValidationError):
        PassageFilter(since=date)


def test_a_condition_that_milvus_refuses_is_repeated_nowhere(tmp_path: Path, capfd: Any) -> None:
    """It is a user's text; Milvus quotes it in what it raises, and its client logs that."""
    with pytest.raises(ValidationError, match="should match pattern"):
        PassageFilter(sources=["张三\0"])
    unchecked = PassageFilter.model_construct(sources=["张三\0"])
    with (
        open_index(write_index(tmp_path)) as searcher,
        pytest.raises(DataError, match="refused a condition: code 6") as refused,
    ):
        searcher.search("？", np.array([1.0, 0.0], dtype=np.float32), 2, unchecked)
    assert "张三" not in str(refused.value) + "".join(capfd.readouterr())


def test_two_searchers_of_one_index_and_nothing_left_behind(tmp_path: Path) -> None:
    index = write_index(tmp_path)
    with open_index(index) as first, open_index(index) as second:
        copies = [Path(searcher.uri).parent for searcher in (first, second)]
        for searcher in (first, second):
            assert searcher.search("", np.array([0.0, 1.0]), 1)[0].passage.passage_id == "c"
    assert copies[0] != copies[1] and not any(copy.exists() for copy in copies)


def test_the_copy_of_a_killed_process_goes_with_the_next_search(tmp_path: Path) -> None:
    index = write_index(tmp_path)
    opened = (
        "import sys; from medray.retrieval.search import open_index; from pathlib import Path; "
    )
    opened += "found = open_index(Path(sys.argv[1])).__enter__(); print(found.uri, flush=True); "
    opened += "sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", opened, str(index)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    left = Path(next(line for line in lines if line.endswith("milvus.db\n")).strip()).parent
    process.kill()
    process.communicate()
    assert left.exists()
    with open_index(index) as searcher:
        assert searcher.search("", np.array([0.0, 1.0]), 1)[0].passage.passage_id == "c"
        assert not left.exists()


def test_a_version_that_was_dropped_is_noticed(tmp_path: Path) -> None:
    with open_index(write_index(tmp_path)) as searcher:
        searcher.check()
        client = connect(searcher.uri)  # a second client of the same server
        client.drop_collection("docs_v1")
        client.close()
        with pytest.raises(ServiceError, match="no collection docs_v1 any more"):
            searcher.check()


def test_versions_alias_and_rollback(tmp_path: Path) -> None:
    uri, config = str(tmp_path / "milvus.db"), CollectionConfig(keep_versions=2)
    query = np.array([[1.0, 0.0]])
    client = connect(uri)
    try:
        for number, names in enumerate(("abcd", "bcd", "cd"), start=1):
            directory = write_index(tmp_path / names, names) / "passages"
            assert load_version(client, directory, config) == f"docs_v{number}"
            best = search_vectors(client, "docs", query, 1, config)[0][0]
            assert best["passage_id"] == names[0]
        assert versions(client) == ["docs_v2", "docs_v3"]
        switch_alias(client, "docs_v2")
        assert search_vectors(client, "docs", query, 1, config)[0][0]["passage_id"] == "b"
    finally:
        disconnect(client, uri)
    client = connect(uri)  # the lock is free again in the same process
    assert versions(client) == ["docs_v2", "docs_v3"]
    disconnect(client, uri)


def test_what_a_killed_build_left_is_no_version_and_goes_with_the_next(tmp_path: Path) -> None:
    uri, config = str(tmp_path / "milvus.db"), CollectionConfig(keep_versions=2)
    whole, half = (write_index(tmp_path / names, names) / "passages" for names in ("abcd", "ab"))
    client = connect(uri)
    try:
        assert load_version(client, whole, config) == "docs_v1"
        left = {fill(client, half, config) for _ in range(3)}  # never finished
        assert set(client.list_collections()) == {"docs_v1", *left}
        assert versions(client) == ["docs_v1"]
        assert load_version(client, whole, config) == "docs_v2"
        assert sorted(client.list_collections()) == ["docs_v1", "docs_v2"]
        # What is refused on the way leaves nothing at all.
        long = write_index(tmp_path / "long", "a") / "passages"
        (shard,) = long.glob("*.parquet")
        table = pq.read_table(shard)
        place = table.schema.get_field_index("title")
        pq.write_table(table.set_column(place, "title", [["长" * 30_000]]), shard)
        with pytest.raises(DataError, match="field title holds more than 65535 bytes"):
            load_version(client, long, config)
        assert sorted(client.list_collections()) == ["docs_v1", "docs_v2"]
    finally:
        disconnect(client, uri)


def test_an_index_whose_collection_was_dropped_fills_it_anew(tmp_path: Path) -> None:
    """On a shared Milvus: its three later builds kept two versions."""
    uri, config = str(tmp_path / "milvus.db"), CollectionConfig(keep_versions=2)
    index = write_index(tmp_path / "first", "bcd", uri=uri, collection="docs_v1")
    client = connect(uri)
    load_version(client, index / "passages", config)
    for names in ("a", "ab", "abc"):
        load_version(client, write_index(tmp_path / names, names) / "passages", config)
    assert versions(client) == ["docs_v3", "docs_v4"]
    disconnect(client, uri)
    for _ in range(2):  # the second time it is there
        with open_index(index) as searcher:
            hits = searcher.search("", np.array([1.0, 0.0]), 4)
            assert [hit.passage.passage_id for hit in hits] == ["b", "c", "d"]
            searcher.check()
            client = connect(uri)
            assert versions(client) == ["docs_v1", "docs_v3", "docs_v4"]
            assert alias_target(client) == "docs_v4"
            assert len(client.list_collections()) == 3
            client.close()


def test_what_was_refilled_meanwhile_is_not_filled_anew(tmp_path: Path) -> None:
    """An index was fetched, and before its collection was filled a patient was erased from it."""
    uri = str(tmp_path / "milvus.db")
    index = write_index(tmp_path / "index", uri=uri, collection="docs_v1")
    with (
        pytest.raises(ServiceError, match="refilled meanwhile"),
        open_index(index, unchanged=lambda: False),
    ):
        pass
    client = connect(uri)
    assert versions(client) == []
    disconnect(client, uri)


def test_a_refill_drops_the_collection_of_its_own_index_alone(tmp_path: Path) -> None:
    uri, config = str(tmp_path / "milvus.db"), CollectionConfig()
    client = connect(uri)
    indexes = []
    for number, names in enumerate(("abcd", "bcd"), start=1):
        index = write_index(tmp_path / names, names, uri=uri, collection=f"docs_v{number}")
        load_version(client, index / "passages", config)
        indexes.append(index)
    disconnect(client, uri)
    for index in indexes:
        (shard,) = (index / "passages").glob("*.parquet")
        table = pq.read_table(shard)
        pq.write_table(table.slice(0, len(table) - 1), shard)  # without d
        refill(index)
    client = connect(uri)
    try:
        assert versions(client) == ["docs_v3", "docs_v4"]
        assert [read_info(index)["collection"] for index in indexes] == versions(client)
        # The alias stood for the second index, and still does.
        assert alias_target(client) == "docs_v4"
        for name, ids in (("docs_v3", {"a", "b", "c"}), ("docs_v4", {"b", "c"})):
            client.load_collection(name)
            rows = client.query(name, filter="", output_fields=["passage_id"], limit=9)
            assert {row["passage_id"] for row in rows} == ids
        # A replica that had not heard of the refill has filled the old one anew, with d.
        restore(client, "docs_v1", write_index(tmp_path / "old") / "passages", config)
    finally:
        disconnect(client, uri)
    drop_former(indexes[0])
    client = connect(uri)
    assert versions(client) == ["docs_v3", "docs_v4"]
    disconnect(client, uri)


def test_repeated_ids_are_refused_and_leave_no_version(tmp_path: Path) -> None:
    directory = write_index(tmp_path / "index", "aab") / "passages"
    uri = str(tmp_path / "milvus.db")
    client = connect(uri)
    try:
        with pytest.raises(DataError, match="1 of its passage ids"):
            load_version(client, directory, CollectionConfig())
        assert versions(client) == []
    finally:
        disconnect(client, uri)


def test_wrong_places_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="build the index first"), open_index(tmp_path):
        pass
    index = write_index(tmp_path / "index", uri="http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="start the Milvus cluster"), open_index(index):
        pass


def test_the_threshold_that_keeps_the_questions_with_an_answer(tmp_path: Path) -> None:
    """Questions point at a and at b. Nearest with and without the document that answers them:
    (1, 0): 1 and 0.6; (0.6, 0.8): 1 and 0.8."""
    with open_index(write_index(tmp_path, "abc")) as searcher:
        vectors_QD = np.array([[1.0, 0.0], [0.6, 0.8]])
        threshold = calibrated_threshold(searcher, Asked(["", ""], [["a"], ["b"]], vectors_QD))
        assert threshold == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)
        # A question whose document is not found says nothing; without any, nothing is refused.
        nowhere = Asked(["", ""], [["x"], ["y"]], vectors_QD)
        assert calibrated_threshold(searcher, nowhere) == (-1.0, 1.0, 0.0)
        # 30 questions at b, and one between c and d, 0.8 from c, that c answers: the lowest of 31
        # may be refused, the second may not. Without c its nearest is b, at 0.28.
        vectors_QD = np.array([[0.6, 0.8]] * 30 + [[-0.6, 0.8]])
        many = Asked([""] * 31, [["b"]] * 30 + [["c"]], vectors_QD)
        threshold = calibrated_threshold(searcher, many)
        assert threshold == pytest.approx((1.0, 30 / 31, 1.0), abs=1e-6)
    told = write_index(tmp_path / "told", "ab", min_cosine=0.25)
    centres_KD = np.array([[0.0, 1.0]])
    Router(np.array([1.0, -1.0]), 0.0, 0.5, centres_KD, 0.9).save(told / ROUTER)
    with open_index(told) as searcher:
        assert searcher.min_cosine == 0.25
        assert [searcher.looks_up(np.array(v)) for v in ([1.0, 0.0], [0.0, 1.0])] == [True, False]
    with open_index(write_index(tmp_path / "untold", "ab")) as searcher:
        assert searcher.looks_up(np.array([0.0, 1.0]))  # without a rule all are
