"""Search. In: a question and its vector. Out: passages, best first.

Candidates are the nearest by cosine (Milvus) and the best by words (BM25); each gets both scores,
and `fusion` makes one ranking of them.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from pymilvus import MilvusClient

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.records import Passage
from medray.common.scratch import scratch_directory
from medray.retrieval.collection import (
    CollectionConfig,
    check_there,
    connect,
    disconnect,
    get_rows,
    is_lite,
    load_version,
    search_vectors,
)
from medray.retrieval.embed import passage_text
from medray.retrieval.filters import COLUMNS, PassageFilter
from medray.retrieval.fusion import UNMEASURED, fused
from medray.retrieval.lexical import LexicalConfig, LexicalIndex

INFO = "collection.json"
LEXICAL = "lexical"
EVERYTHING = PassageFilter()
NAMES = ["passage_id", "doc_id"]
"""Fields of a candidate."""


class HybridConfig(Config):
    """How the two rankings become one."""

    candidates: int = Field(default=100, ge=1)
    """Taken from each ranking. Source: not given."""
    dense_weight: float | None = Field(default=None, ge=0, le=1)
    """α, the share of the cosine: 0 is BM25 alone. None: measured when the index is built, on
    held-out questions that its figures leave out."""


class Hit(NamedTuple):
    """A passage found."""

    passage: Passage
    score: float
    """Of the fused ranking, 0 to 1; comparable within one search only."""
    cosine: float
    """Of question and passage, -1 to 1."""
    bm25: float


class Candidates(NamedTuple):
    """What both rankings bring, C passages in no order that matters, with both scores of each."""

    rows: list[dict[str, Any]]
    """Their NAMES."""
    cosines_C: np.ndarray
    bm25_C: np.ndarray

    @property
    def ids(self) -> list[str]:
        """Of the passages."""
        return [row["passage_id"] for row in self.rows]


class Searcher:
    """Hybrid search over one version of an index; `hybrid` may be set anew."""

    def __init__(
        self,
        client: MilvusClient,
        uri: str,
        collection: str,
        lexical: LexicalIndex,
        columns: pa.Table,
        info: dict[str, Any],
    ) -> None:
        """Over what is open already; `open_index` opens it.

        Args:
            columns: passage_id and COLUMNS of all passages, in the order of `lexical`.
            info: what collection.json holds.
        """
        self._client, self.uri, self._collection = client, uri, collection
        self._lexical = lexical
        self._columns = columns
        self._ids: list[str] = columns["passage_id"].to_pylist()
        self._row_of = {name: row for row, name in enumerate(self._ids)}
        self._config = CollectionConfig.model_validate(info["config"])
        self.hybrid = HybridConfig.model_validate(info.get("hybrid", {}))
        self.min_cosine = float(info.get("min_cosine", -1.0))
        """Below it no passage answers, as held-out questions have it; -1 where none were asked."""

    def search(
        self,
        question: str,
        vector: np.ndarray,
        top_k: int = 5,
        where: PassageFilter = EVERYTHING,
    ) -> list[Hit]:
        """Returns at most `top_k` passages, best first.

        Args:
            vector: vector_D of length 1, from `Embedder.embed_queries`.
        """
        found = self.candidates(question, vector, where, top_k)
        scores_C = self.fused_scores(found)
        order = np.argsort(-scores_C, kind="stable")[:top_k]
        place = {found.rows[i]["passage_id"]: i for i in order}
        # Texts are read last: of some 150 candidates a few are returned.
        rows = get_rows(self._client, self._collection, list(place))
        figures = np.stack([scores_C, found.cosines_C, found.bm25_C], axis=1)
        return [Hit(Passage(**row), *map(float, figures[place[row["passage_id"]]])) for row in rows]

    def fused_scores(self, found: Candidates) -> np.ndarray:
        """Of each candidate, 0 to 1. [C]"""
        weight = self.hybrid.dense_weight
        return fused(found.cosines_C, found.bm25_C, UNMEASURED if weight is None else weight)

    def check(self) -> None:
        """Raises ServiceError if the collection is gone: an erasure fills another and drops it."""
        check_there(self._client, self._collection)

    def candidates(
        self,
        question: str,
        vector: np.ndarray,
        where: PassageFilter = EVERYTHING,
        fewest: int = 1,
    ) -> Candidates:
        """The best of each ranking; the nearest by cosine stand first."""
        num = max(self.hybrid.candidates, fewest)
        near = search_vectors(
            self._client, self._collection, np.asarray(vector)[None], num, self._config,
            condition=where.expression(), fields=NAMES,
        )[0]  # fmt: skip
        cosines = [row.pop("distance") for row in near]
        bm25_N = self._lexical.scores(question)
        allowed_N = bm25_N if where.is_empty else np.where(where.mask(self._columns), bm25_N, 0)
        best = np.argsort(-allowed_N, kind="stable")[:num]
        known = {row["passage_id"] for row in near}
        missing = [self._ids[row] for row in best if allowed_N[row] > 0]
        missing = [name for name in missing if name not in known]
        rows = get_rows(self._client, self._collection, missing, [*NAMES, "vector"])
        vectors = [np.array(row.pop("vector"), dtype=np.float32) for row in rows]
        return Candidates(
            [*near, *rows],
            np.array([*cosines, *(float(vector_D @ vector) for vector_D in vectors)]),
            np.array([bm25_N[self._row_of[row["passage_id"]]] for row in [*near, *rows]]),
        )


@contextmanager
def open_index(index_dir: Path) -> Iterator[Searcher]:
    """Opens an index artefact, and closes it at the end.

    Milvus Lite locks its file to one process, so the directory's own is never opened: each process
    fills a private copy from the directory's Parquet and drops it. A cluster is shared by its URI.

    Raises:
        DataError: if the directory is not an index. ServiceError: no Milvus at its URI.
    """
    info, passages = read_info(index_dir), index_dir / "passages"
    with ExitStack() as stack:
        uri, collection = info["uri"], info.get("collection", "")
        if not uri:
            uri = str(stack.enter_context(scratch_directory()) / "milvus.db")
        client = connect(uri)
        stack.callback(disconnect, client, uri)
        if is_lite(uri):
            collection = load_version(
                client, passages, CollectionConfig.model_validate(info["config"])
            )
        columns = pq.read_table(passages, columns=["passage_id", *COLUMNS])
        lexical = open_lexical(index_dir)
        yield Searcher(client, uri, collection, lexical, columns, info)


def open_lexical(index_dir: Path) -> LexicalIndex:
    """The index of words; of an artefact that was built without one it is made in memory."""
    if (index_dir / LEXICAL).is_dir():
        return LexicalIndex.load(index_dir / LEXICAL)
    return build_lexical(index_dir / "passages", LexicalConfig())


def build_lexical(passages: Path, config: LexicalConfig) -> LexicalIndex:
    """From the Parquet of an index, in its order."""
    table = pq.read_table(passages, columns=["title", "text"])
    rows = zip(table["title"].to_pylist(), table["text"].to_pylist(), strict=True)
    return LexicalIndex.build((passage_text(title, text) for title, text in rows), config)


def read_info(index_dir: Path) -> dict[str, Any]:
    """Reads collection.json of an index directory.

    Raises:
        DataError: if there is none.
    """
    path = index_dir / INFO
    if not path.is_file():
        raise DataError(f"{index_dir} has no {INFO}; build the index first (build_index)")
    return json.loads(path.read_text(encoding="utf-8"))
