"""Searches by pymilvus alone. A part of search_latency.py.

In: a client of the collection that the product filled. Out: the ten best of a question.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from milvus_lite.index.faiss_hnsw import FaissHnswIndex
from pymilvus import AnnSearchRequest, DataType, Function, FunctionType, MilvusClient, RRFRanker
from search_texts import DIM

from medray.common.records import Passage
from medray.retrieval.collection import connect, disconnect
from medray.retrieval.lexical import LexicalIndex
from medray.retrieval.search import PRIVATE

TOP, CANDIDATES, WEIGHT = 10, 100, 0.5
FIELDS = list(Passage.model_fields)


def raw_dense(client: MilvusClient, vector_D: np.ndarray) -> list[str]:
    """The ten nearest by pymilvus."""
    rows = client.search(
        PRIVATE, data=[vector_D.tolist()], limit=TOP, output_fields=FIELDS,
        search_params={"metric_type": "COSINE", "params": {"ef": 128}},
    )[0]  # fmt: skip
    return [row["entity"]["passage_id"] for row in rows]


class ByHand:
    """A hybrid search as it is commonly written."""

    def __init__(self, client: MilvusClient, lexical: LexicalIndex, names: list[str]) -> None:
        self.client, self.lexical, self.names = client, lexical, names
        self.row_of = {name: k for k, name in enumerate(names)}

    def __call__(self, text: str, vector_D: np.ndarray) -> list[str]:
        """The ten best."""
        near = self.client.search(
            PRIVATE, data=[vector_D.tolist()], limit=CANDIDATES, output_fields=FIELDS,
            search_params={"metric_type": "COSINE", "params": {"ef": 128}},
        )[0]  # fmt: skip
        cosines = {row["entity"]["passage_id"]: row["distance"] for row in near}
        bm25_N = self.lexical.scores(text)
        best = [int(k) for k in np.argsort(-bm25_N, kind="stable")[:CANDIDATES] if bm25_N[k] > 0]
        missing = [self.names[k] for k in best if self.names[k] not in cosines]
        if missing:
            rows = self.client.get(PRIVATE, ids=missing, output_fields=[*FIELDS, "vector"])
            for row in rows:
                cosines[row["passage_id"]] = float(np.dot(row["vector"], vector_D))
        most = max(max(cosines.values()) + 1, 1e-9)
        words = {name: float(bm25_N[self.row_of[name]]) for name in cosines}
        many = max(*words.values(), 1e-9)
        score = {
            name: WEIGHT * (cosines[name] + 1) / most + (1 - WEIGHT) * words[name] / many
            for name in cosines
        }
        return sorted(score, key=lambda name: -score[name])[:TOP]


class GraphCalls:
    """How often Lite has searched an HNSW graph.

    It builds the graph behind the call that loads the collection, tells the state `Finished` at
    once, and until then answers by exact search: recall measured too early is 1 whatever the graph.
    """

    def __init__(self) -> None:
        self.num = 0
        search = FaissHnswIndex.search

        def counted(index: Any, *arguments: Any, **named: Any) -> Any:
            self.num += 1
            return search(index, *arguments, **named)

        FaissHnswIndex.search = counted  # pyright: ignore[reportAttributeAccessIssue]

    def wait(self, ask: Callable[[], Any], timeout_s: float = 900.0) -> float:
        """Asks until a graph answers; seconds that it took.

        Raises:
            TimeoutError: if none does.
        """
        began = time.monotonic()
        before = self.num
        while self.num == before:
            if time.monotonic() - began > timeout_s:
                raise TimeoutError(f"no HNSW graph answered within {timeout_s:.0f} s")
            ask()
            time.sleep(0.5)  # Lite tells nothing of when its graph is ready
        return time.monotonic() - began


@contextmanager
def milvus_bm25(
    directory: Path, passages: list[str], vectors_ND: np.ndarray
) -> Iterator[Callable[[str, np.ndarray], Any]]:
    """pymilvus' own hybrid search, its words cut by jieba, over a collection of its own."""
    uri = str(directory / "words.db")
    client = connect(uri)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("passage_id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field(
        "text", DataType.VARCHAR, max_length=65_535, enable_analyzer=True,
        analyzer_params={"tokenizer": "jieba"},
    )  # fmt: skip
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name="bm25", function_type=FunctionType.BM25, input_field_names=["text"],
            output_field_names=["words"],
        )
    )  # fmt: skip
    params = client.prepare_index_params()
    params.add_index("vector", index_type="FLAT", metric_type="COSINE")
    params.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_collection("words", schema=schema, index_params=params)
    for start in range(0, len(passages), 1000):
        rows = [
            {"passage_id": f"P{k:07d}", "text": passages[k], "vector": vectors_ND[k]}
            for k in range(start, min(start + 1000, len(passages)))
        ]
        client.insert("words", rows)
    client.flush("words")
    client.load_collection("words")

    def search(text: str, vector_D: np.ndarray) -> Any:
        near = AnnSearchRequest(
            [vector_D.tolist()], "vector", {"metric_type": "COSINE"}, CANDIDATES
        )
        words = AnnSearchRequest([text], "words", {"metric_type": "BM25"}, CANDIDATES)
        return client.hybrid_search(
            "words", [near, words], RRFRanker(60), limit=TOP, output_fields=["text"]
        )

    yield search
    disconnect(client, uri)
