"""Search in memory against Milvus and the index of words over the same passages."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medray.common.records import Passage
from medray.common.rows import arrow_schema
from medray.retrieval.directory import INFO
from medray.retrieval.memory import rank_few
from medray.retrieval.search import open_index

TEXTS = ["肺炎首选青霉素", "胃炎用奥美拉唑", "青霉素过敏者禁用", "高血压用氨氯地平"]
QUESTION = "青霉素过敏"


def test_few_are_ranked_as_an_index_ranks_them(tmp_path: Path) -> None:
    rows = [
        Passage(
            passage_id=str(k), doc_id="d", start=0, end=len(text), section="治疗",
            title=f"题{k}", text=text, kind="guideline",
        ).model_dump()
        for k, text in enumerate(TEXTS)
    ]  # fmt: skip
    vectors_ND = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    *vectors, vector_D = vectors_ND
    table = pa.Table.from_pylist(rows, schema=arrow_schema(Passage))
    column = pa.FixedSizeListArray.from_arrays(np.concatenate(vectors), 8)
    (tmp_path / "passages").mkdir()
    pq.write_table(table.append_column("vector", column), tmp_path / "passages" / "a.parquet")
    (tmp_path / INFO).write_text(json.dumps({"uri": "", "config": {}}), encoding="utf-8")
    with open_index(tmp_path) as searcher:
        hits = searcher.search(QUESTION, vector_D, len(TEXTS))
    ranked = rank_few([row["title"] for row in rows], TEXTS, np.stack(vectors), QUESTION, vector_D)
    assert [str(place) for place, *_ in ranked] == [hit.passage.passage_id for hit in hits]
    for (_, *scores), hit in zip(ranked, hits, strict=True):
        assert scores == pytest.approx([hit.score, hit.cosine, hit.bm25], abs=1e-5)
