"""The index job end to end: Ray Data actors, Parquet, Milvus Lite, figures."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medray.common.errors import DataError, ServiceError
from medray.common.manifest import Artefact
from medray.common.records import Instruction, Message, Passage, RetrievalQuestion
from medray.common.rows import read_rows, write_rows
from medray.common.storage import Storage, StorageConfig
from medray.retrieval.collection import vectors_of
from medray.retrieval.embed import Embedder, passage_text
from medray.retrieval.index import IndexConfig, build_index, refill
from medray.retrieval.passage_vectors import known_vectors
from medray.retrieval.search import open_index


def open_artefact(root: Path) -> Artefact:
    return Artefact(Storage(StorageConfig(root=str(root))), "index", IndexConfig(), key="k")


@pytest.mark.cluster
def test_build_publish_search_and_rebuild(
    ray_cluster, encoder_dir: Path, corpus: Path, instructions: Path, tmp_path: Path
) -> None:
    artefact = open_artefact(tmp_path)
    questions = instructions / "questions"
    build_index(IndexConfig(), encoder_dir.parent, corpus, questions, artefact)

    table = pq.read_table(sorted((artefact.dir / "passages").glob("*.parquet"))[0])
    source = [pq.read_table(path) for path in sorted((corpus / "passages").glob("*.parquet"))]
    ids = [name for part in source for name in part["passage_id"].to_pylist()]
    assert table["passage_id"].to_pylist() == ids  # order kept
    texts = [
        passage_text(row["title"], row["text"])
        for row in table.select(["title", "text"]).to_pylist()
    ]
    expected = Embedder(encoder_dir).embed(texts)
    np.testing.assert_allclose(vectors_of(table), expected, atol=1e-5)

    metrics = artefact.metrics
    assert metrics["questions"] == 5 and metrics["agreement@10"] == 1.0
    assert metrics["recall@10"] == metrics["exact/recall@10"] == 1.0  # ten passages in all
    assert metrics["dense/recall@5"] == metrics["exact/recall@5"]
    # A disease's name stands in its two passages alone: 1 and 2 are theirs.
    assert metrics["bm25/recall@5"] == 1.0 and metrics["bm25/mrr@10"] >= 0.5
    assert "dense_weight" not in metrics  # five questions choose none
    assert artefact.counts["questions"].rejected == {"split_train": 5}
    assert artefact.counts["embed"].rows_out == 10

    # a second call in the same directory keeps the vectors and fills a new version
    written = (artefact.dir / "passages" / "part-00000.parquet").stat().st_mtime_ns
    build_index(IndexConfig(), encoder_dir.parent, corpus, questions, artefact)
    assert (artefact.dir / "passages" / "part-00000.parquet").stat().st_mtime_ns == written

    published = artefact.publish()
    with open_index(published) as searcher:
        hits = searcher.search(texts[3], expected[3], top_k=1)
    assert hits[0].passage.passage_id == ids[3]
    assert hits[0].cosine == pytest.approx(1, abs=1e-5)
    assert hits[0].score == pytest.approx(1, abs=1e-5)


@pytest.mark.cluster
def test_an_index_knows_which_questions_are_looked_up(
    ray_cluster, encoder_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    """48 questions of each split; as many rows that are asked without a passage."""
    questions, prompts = [], []
    for split in ("train", "dev"):
        for k in range(48):
            disease, name = ("肺炎", "哮喘", "胃炎")[k % 3], f"{split}{k}"
            asked = RetrievalQuestion(
                id=name, question=f"{disease}{k}怎么治疗？", passage_ids=[f"{disease}-治疗"],
                split=split,
            )  # fmt: skip
            user = Message(role="user", content=f"症状{k}，症状{k}。症状。")
            said = Message(role="assistant", content=disease)
            questions.append(asked)
            prompts.append(
                Instruction(id=name, task="diagnosis", messages=[user, said], split=split)
            )
    write_rows(tmp_path / "questions", RetrievalQuestion, questions)
    write_rows(tmp_path / "sft", Instruction, prompts)
    artefact = open_artefact(tmp_path)
    build_index(
        IndexConfig(), encoder_dir.parent, corpus, tmp_path / "questions", artefact,
        prompts=tmp_path / "sft",
    )  # fmt: skip
    assert artefact.metrics["router/looked_up_fraction"] == 1.0
    assert artefact.metrics["router/alone_fraction"] >= 0.7  # of 24
    vectors = Embedder(encoder_dir).embed_queries(["哮喘怎么治疗？", "症状7，症状7。症状。"])
    published = artefact.publish()
    with open_index(published) as searcher:
        assert [searcher.looks_up(vector_D) for vector_D in vectors] == [True, False]
    refill(published)  # an erasure leaves nothing that was learned from records
    with open_index(published) as searcher:
        assert searcher.looks_up(vectors[1])


@pytest.mark.cluster
def test_a_corpus_that_changed_keeps_the_vectors_of_the_rest(
    ray_cluster, encoder_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    first = open_artefact(tmp_path / "first")
    build_index(IndexConfig(), encoder_dir.parent, corpus, None, first)
    assert first.metrics["vectors_kept"] == 0
    earlier = first.publish()
    # Vectors that no encoder gives show where they come from.
    shard = next((earlier / "passages").glob("*.parquet"))
    table = pq.read_table(shard)
    marked_ND = np.arange(table.num_rows, dtype=np.float32)[:, None] + vectors_of(table)
    column = pa.FixedSizeListArray.from_arrays(marked_ND.ravel(), marked_ND.shape[1])
    place = table.column_names.index("vector")
    pq.write_table(table.set_column(place, "vector", column), shard)

    rows = list(read_rows(corpus / "passages", Passage))
    edited = rows[1].model_copy(update={"text": rows[1].text + "复查。"})
    added = rows[2].model_copy(update={"passage_id": "new", "text": "新的一段。"})
    renamed = rows[3].model_copy(update={"passage_id": "renamed"})
    now = [rows[0], edited, added, renamed, *rows[5:]]  # 2 and 4 are gone
    write_rows(tmp_path / "corpus" / "passages", Passage, now)
    second = open_artefact(tmp_path / "second")
    build_index(
        IndexConfig(), encoder_dir.parent, tmp_path / "corpus", None, second, earlier=earlier
    )
    assert second.metrics["vectors_kept"] == 7
    made = pq.read_table(sorted((second.dir / "passages").glob("*.parquet"))[0])
    assert made["passage_id"].to_pylist() == [row.passage_id for row in now]
    vectors_ND = vectors_of(made)
    np.testing.assert_array_equal(
        vectors_ND[[0, 3, *range(4, 9)]], marked_ND[[0, 3, *range(5, 10)]]
    )
    texts = [passage_text(row.title, row.text) for row in (edited, added)]
    np.testing.assert_allclose(vectors_ND[1:3], Embedder(encoder_dir).embed(texts), atol=1e-5)
    # Cut at another length, a passage has another vector.
    assert known_vectors(earlier, 128, weighed=False) is None


def test_no_passage_and_no_milvus_are_said_before_the_work(
    encoder_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "empty" / "passages", Passage, [])
    with pytest.raises(DataError, match="holds no passage"):
        build_index(
            IndexConfig(), encoder_dir.parent, tmp_path / "empty", None, open_artefact(tmp_path)
        )
    config = IndexConfig(uri="http://127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"start the Milvus cluster"):
        build_index(config, encoder_dir.parent, corpus, None, open_artefact(tmp_path))
