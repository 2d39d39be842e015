"""Tokens as an encoder weighs them: against the model by hand, and through an index."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from medray.common.errors import CheckpointError
from medray.common.manifest import Artefact
from medray.common.records import Passage
from medray.common.rows import read_rows, write_rows
from medray.common.storage import Storage, StorageConfig
from medray.retrieval.directory import SPARSE
from medray.retrieval.embed import M3_HEADS, Embedder, copy_heads, passage_text
from medray.retrieval.fusion import fused, word_scores
from medray.retrieval.index import IndexConfig, build_index, refill
from medray.retrieval.passage_vectors import known_vectors
from medray.retrieval.search import open_index
from medray.retrieval.sparse import COLUMN, SparseIndex, weights_column

TEXTS = ["肺炎怎么治疗", "贫血", "肾炎如何处理，肾炎如何处理", "0123"]


def weighed_by_hand(directory: Path, text: str) -> dict[int, float]:
    """[M3-Embedding 3.2]: ReLU of a linear layer on each state, the largest of a token's places."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer(text, return_tensors="pt")
    head = torch.load(directory / M3_HEADS[0], weights_only=True)
    with torch.no_grad():
        states_TD = AutoModel.from_pretrained(directory).eval()(**inputs).last_hidden_state[0]
    weights_T = torch.relu(states_TD @ head["weight"][0] + head["bias"])
    weights: dict[int, float] = {}
    for token, weight in zip(inputs["input_ids"][0].tolist(), weights_T.tolist(), strict=True):
        if weight > 0 and token not in tokenizer.all_special_ids:
            weights[token] = max(weight, weights.get(token, 0.0))
    return weights


def test_weights_are_those_of_the_head(m3_dir: Path, encoder_dir: Path) -> None:
    made = Embedder(m3_dir, batch_size=2).encode(TEXTS)
    for text, weights in zip(TEXTS, made.weights_N, strict=True):
        expected = weighed_by_hand(m3_dir, text)
        assert weights == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert sum(map(len, made.weights_N)) > 10
    plain = Embedder(encoder_dir).encode(TEXTS)
    np.testing.assert_allclose(made.vectors_ND, plain.vectors_ND, atol=1e-5)
    assert plain.weights_N == []


def test_one_head_is_not_enough(m3_dir: Path, tmp_path: Path) -> None:
    """With one alone FlagEmbedding would make up both."""
    shutil.copytree(m3_dir, tmp_path / "m3")
    (tmp_path / "m3" / M3_HEADS[1]).unlink()
    with pytest.raises(CheckpointError, match=r"has sparse_linear\.pt and no colbert_linear\.pt"):
        Embedder(tmp_path / "m3")


def test_heads_come_along(m3_dir: Path, encoder_dir: Path, tmp_path: Path) -> None:
    copy_heads(encoder_dir, tmp_path)
    assert not list(tmp_path.iterdir())
    copy_heads(m3_dir, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*M3_HEADS}


def test_scores_by_hand(tmp_path: Path) -> None:
    passages = tmp_path / "passages"
    passages.mkdir()
    rows = [{3: 0.5, 7: 2.0}, {}, {7: 1.0, 9: 4.0}]
    for number, part in enumerate((rows[:2], rows[2:])):
        table = pa.table({COLUMN: weights_column(part)})
        pq.write_table(table, passages / f"part-0000{number}.parquet")
    built = SparseIndex.build(passages)
    assert built is not None
    built.save(tmp_path / SPARSE)
    for index in (built, SparseIndex.load(tmp_path / SPARSE)):
        # 7 is in the first and the last passage, 9 in the last, 4 and 50 in none
        scores_N = index.scores({7: 0.5, 9: 0.25, 4: 9.0, 50: 9.0})
        np.testing.assert_allclose(scores_N, [0.5 * 2.0, 0, 0.5 * 1.0 + 0.25 * 4.0])
        assert not index.scores({}).any()
    (passages / "part-00001.parquet").unlink()
    pq.write_table(pa.table({"text": ["a"]}), passages / "part-00000.parquet")
    assert SparseIndex.build(passages) is None


def test_both_scores_by_words() -> None:
    bm25_C, sparse_C = np.array([8.0, 2.0, 0.0]), np.array([0.0, 0.5, 1.0])
    assert word_scores(bm25_C, sparse_C, 0.0) is bm25_C
    assert word_scores(bm25_C, sparse_C, 0.25) == pytest.approx(
        [0.75 * 1, 0.75 * 0.25 + 0.25 * 0.5, 0.25 * 1]
    )
    assert word_scores(bm25_C, np.zeros(3), 1.0) == pytest.approx([0, 0, 0])
    nothing = np.zeros(0)  # a filter that no passage fits
    assert fused(nothing, word_scores(nothing, nothing, 0.5), 0.5).size == 0


@pytest.mark.cluster
def test_an_index_of_m3(
    ray_cluster, m3_dir: Path, corpus: Path, instructions: Path, tmp_path: Path
) -> None:
    def artefact(name: str) -> Artefact:
        return Artefact(
            Storage(StorageConfig(root=str(tmp_path / name))), "i", IndexConfig(), key="k"
        )

    def opened(built: Artefact) -> list[tuple[str, float]]:
        """Hits of a question, by the weighed tokens alone."""
        made = Embedder(m3_dir).encode_queries(["肺炎怎么治疗？"])
        with open_index(built.dir) as searcher:
            searcher.hybrid = searcher.hybrid.model_copy(
                update={"dense_weight": 0.0, "sparse_weight": 1.0}
            )
            hits = searcher.search(
                "肺炎怎么治疗？", made.vectors_ND[0], 10, weights=made.weights_N[0]
            )
        return [(hit.passage.passage_id, hit.sparse) for hit in hits]

    first = artefact("first")
    build_index(IndexConfig(), m3_dir.parent, corpus, instructions / "questions", first)
    assert first.metrics["sparse/recall@10"] == 1.0  # ten passages in all
    rows = list(read_rows(corpus / "passages", Passage))
    embedder = Embedder(m3_dir)
    asked = embedder.encode_queries(["肺炎怎么治疗？"]).weights_N[0]
    made = embedder.encode([passage_text(row.title, row.text) for row in rows]).weights_N
    expected = {
        row.passage_id: sum(asked.get(token, 0.0) * weight for token, weight in weights.items())
        for row, weights in zip(rows, made, strict=True)
    }
    hits = opened(first)
    assert dict(hits) == pytest.approx(expected, rel=1e-4)
    best_first = sorted(expected.values(), reverse=True)
    assert [score for _, score in hits] == pytest.approx(best_first, rel=1e-4)

    # A corpus that changed: what is kept keeps its weights, in its row.
    new = rows[2].model_copy(update={"passage_id": "new", "text": "肺炎怎么治疗"})
    write_rows(tmp_path / "corpus" / "passages", Passage, [rows[4], new, rows[0]])
    second = artefact("second")
    build_index(IndexConfig(), m3_dir.parent, tmp_path / "corpus", None, second, first.dir)
    assert second.metrics["vectors_kept"] == 2
    weights = embedder.encode([passage_text(new.title, new.text)]).weights_N[0]
    expected["new"] = sum(asked.get(token, 0.0) * weight for token, weight in weights.items())
    names = [rows[4].passage_id, "new", rows[0].passage_id]
    assert dict(opened(second)) == pytest.approx({n: expected[n] for n in names}, rel=1e-4)
    # Of the index of another kind of encoder nothing is kept.
    assert known_vectors(first.dir, IndexConfig().max_tokens, weighed=False) is None

    # As an erasure leaves it: a passage is gone from the shards.
    shard = next((second.dir / "passages").glob("*.parquet"))
    pq.write_table(pq.read_table(shard).slice(1), shard)
    refill(second.dir)
    assert dict(opened(second)) == pytest.approx({n: expected[n] for n in names[1:]}, rel=1e-4)
