"""Search. In: a question and its vector. Out: passages, best first.

Candidates are the nearest by cosine (Milvus), the best by words (BM25) and, where the encoder
weighs tokens (BGE-M3), the best by these; each gets all scores, and `fusion` makes one ranking.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field
from pymilvus import MilvusClient

from medray.common.config import Config
from medray.common.errors import ServiceError
from medray.common.records import Passage
from medray.common.scratch import scratch_directory
from medray.retrieval.collection import (
    CollectionConfig,
    check_there,
    connect,
    disconnect,
    get_rows,
    is_there,
    passage_fields,
    search_vectors,
)
from medray.retrieval.directory import ROUTER, SPARSE, open_lexical, read_columns, read_info
from medray.retrieval.filters import COLUMNS, PassageFilter
from medray.retrieval.fusion import UNMEASURED, fused, word_scores
from medray.retrieval.lexical import LexicalIndex
from medray.retrieval.routing import Router
from medray.retrieval.sparse import NONE, SparseIndex, TokenWeights
from medray.retrieval.versions import ALIAS, fill, restore

logger = logging.getLogger(__name__)

EVERYTHING = PassageFilter()
PRIVATE = f"{ALIAS}_v1"
"""A process's own copy in Milvus Lite."""
NAMES = ["passage_id", "doc_id"]
"""Fields of a candidate."""


class HybridConfig(Config):
    """How the rankings become one."""

    candidates: int = Field(default=100, ge=1)
    """Taken from each ranking. Source: not given."""
    dense_weight: float | None = Field(default=None, ge=0, le=1)
    """α, the share of the cosine: 0 is BM25 alone. None: measured when the index is built, on
    held-out questions that its figures leave out."""
    sparse_weight: float | None = Field(default=None, ge=0, le=1)
    """β, the share that an encoder's weights of tokens have in the score by words: 0 is BM25 alone.
    None: measured alike; without such an encoder there is none."""


class Hit(NamedTuple):
    """A passage found."""

    passage: Passage
    score: float
    """Of the fused ranking, 0 to 1; comparable within one search only."""
    cosine: float
    """Of question and passage, -1 to 1."""
    bm25: float
    """With the terms' learned weights, where there are any."""
    sparse: float = 0.0
    """By the encoder's weights of tokens, where it gives any."""


class Candidates(NamedTuple):
    """What the rankings bring, C passages in no order that matters, with all scores of each."""

    rows: list[dict[str, Any]]
    """Their NAMES."""
    cosines_C: np.ndarray
    bm25_C: np.ndarray
    sparse_C: np.ndarray
    """Zeros without an encoder that weighs tokens."""

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
        sparse: SparseIndex | None = None,
        router: Router | None = None,
    ) -> None:
        """Over what is open already; `open_index` opens it.

        Args:
            columns: passage_id and COLUMNS of all passages, in the order of `lexical`.
            info: what collection.json holds. sparse: in the same order.
            router: which questions are looked up; None: all.
        """
        self._client, self.uri, self._collection = client, uri, collection
        self._fields = passage_fields(client, collection)
        self._lexical, self._sparse = lexical, sparse
        self._columns = columns
        self.ids: list[str] = columns["passage_id"].to_pylist()
        self._row_of = {name: row for row, name in enumerate(self.ids)}
        self._config = CollectionConfig.model_validate(info["config"])
        self.hybrid = HybridConfig.model_validate(info.get("hybrid", {}))
        self.min_cosine = float(info.get("min_cosine", -1.0))
        """Below it no passage answers, as held-out questions have it; -1 where none were asked."""
        self._router = router

    def search(
        self,
        question: str,
        vector: np.ndarray,
        top_k: int = 5,
        where: PassageFilter = EVERYTHING,
        weights: TokenWeights = NONE,
    ) -> list[Hit]:
        """Returns at most `top_k` passages, best first.

        Args:
            vector: vector_D of length 1, from `Embedder.encode_queries`, as `weights` is.
        """
        found = self.candidates(question, vector, where, top_k, weights)
        scores_C = self.fused_scores(found)
        order = np.argsort(-scores_C, kind="stable")[:top_k]
        place = {found.rows[i]["passage_id"]: i for i in order}
        # Texts are read last: of some 150 candidates a few are returned.
        rows = get_rows(self._client, self._collection, list(place), self._fields)
        figures = np.stack([scores_C, found.cosines_C, found.bm25_C, found.sparse_C], axis=1)
        return [Hit(Passage(**row), *map(float, figures[place[row["passage_id"]]])) for row in rows]

    def fused_scores(self, found: Candidates) -> np.ndarray:
        """Of each candidate, 0 to 1. [C]"""
        weight = self.hybrid.dense_weight
        words_C = self.word_scores(found)
        return fused(found.cosines_C, words_C, UNMEASURED if weight is None else weight)

    def word_scores(self, found: Candidates) -> np.ndarray:
        """Of each candidate, by words alone. [C]"""
        weight = self.hybrid.sparse_weight if self.weighs_tokens else 0.0
        return word_scores(found.bm25_C, found.sparse_C, UNMEASURED if weight is None else weight)

    def looks_up(self, vector: np.ndarray) -> bool:
        """Whether a question is one that passages answer, and not one for the model alone."""
        return self._router is None or bool(self._router.looks_up(np.asarray(vector)[None])[0])

    @property
    def weighs_tokens(self) -> bool:
        """Whether the index was made by an encoder that weighs tokens."""
        return self._sparse is not None

    def by_bm25(self, question: str, top_k: int) -> list[str]:
        """Ids of the best by plain BM25, to compare with."""
        scores_N = self._lexical.scores(question, weighted=False)
        return [self.ids[row] for row in np.argsort(-scores_N, kind="stable")[:top_k]]

    def check(self) -> None:
        """Raises ServiceError if the collection is gone: an erasure fills another and drops it."""
        check_there(self._client, self._collection)

    def candidates(
        self,
        question: str,
        vector: np.ndarray,
        where: PassageFilter = EVERYTHING,
        fewest: int = 1,
        weights: TokenWeights = NONE,
    ) -> Candidates:
        """The best of each ranking; the nearest by cosine stand first."""
        num = max(self.hybrid.candidates, fewest)
        near = search_vectors(
            self._client, self._collection, np.asarray(vector)[None], num, self._config,
            condition=where.expression(), fields=NAMES,
        )[0]  # fmt: skip
        cosines = [row.pop("distance") for row in near]
        bm25_N = self._lexical.scores(question)
        allowed_N = None if where.is_empty else where.mask(self._columns)
        best, sparse_N = _best(bm25_N, allowed_N, num), np.zeros_like(bm25_N)
        if self._sparse is not None:
            sparse_N = self._sparse.scores(weights)
            best += _best(sparse_N, allowed_N, num)
        known = {row["passage_id"] for row in near}
        missing = [name for row in dict.fromkeys(best) if (name := self.ids[row]) not in known]
        rows = get_rows(self._client, self._collection, missing, [*NAMES, "vector"])
        vectors = [np.array(row.pop("vector"), dtype=np.float32) for row in rows]
        places = [self._row_of[row["passage_id"]] for row in [*near, *rows]]
        return Candidates(
            [*near, *rows],
            np.array([*cosines, *(float(vector_D @ vector) for vector_D in vectors)]),
            bm25_N[places],
            sparse_N[places],
        )


def _best(scores_N: np.ndarray, allowed_N: np.ndarray | None, num: int) -> list[int]:
    """Rows of at most `num` scores above 0, best first."""
    scores_N = scores_N if allowed_N is None else np.where(allowed_N, scores_N, 0)
    order = np.argsort(-scores_N, kind="stable")[:num]
    return order[scores_N[order] > 0].tolist()


@contextmanager
def open_index(index_dir: Path, unchanged: Callable[[], bool] | None = None) -> Iterator[Searcher]:
    """Opens an index artefact, and closes it at the end.

    Milvus Lite locks its file to one process, so the directory's own is never opened: each process
    fills a private copy from the directory's Parquet and drops it. A cluster is shared by its URI;
    where later builds have dropped the index's collection there, it is filled anew, once.

    Args:
        unchanged: whether what the directory was fetched from is what it was then; None: it was
            not fetched.
    Raises:
        DataError: if the directory is not an index. ServiceError: no Milvus at its URI, or the
            collection cannot be filled.
    """
    info, passages = read_info(index_dir), index_dir / "passages"
    with ExitStack() as stack:
        uri = info["uri"] or str(stack.enter_context(scratch_directory()) / "milvus.db")
        client = connect(uri)
        stack.callback(disconnect, client, uri)
        if not info["uri"]:
            config = CollectionConfig.model_validate(info["config"])
            collection = fill(client, passages, config, PRIVATE)
        else:
            collection = info["collection"]
            unchanged = unchanged or (lambda: read_info(index_dir) == info)
            _open_shared(client, collection, index_dir, info, unchanged)
        columns = read_columns(passages, "passage_id", *COLUMNS)
        lexical, path = open_lexical(index_dir), index_dir / SPARSE
        # Like the index of words, made in memory where an artefact was left without it.
        sparse = SparseIndex.load(path) if path.is_dir() else SparseIndex.build(passages)
        router = Router.load(index_dir / ROUTER) if (index_dir / ROUTER).is_file() else None
        yield Searcher(client, uri, collection, lexical, columns, info, sparse, router)


def _open_shared(
    client: MilvusClient,
    collection: str,
    index_dir: Path,
    info: dict[str, Any],
    unchanged: Callable[[], bool],
) -> None:
    if not is_there(client, collection):
        logger.warning("collection %s is gone; it is filled anew from the index", collection)
        config = CollectionConfig.model_validate(info["config"])
        restore(client, collection, index_dir / "passages", config)
        # An erasure that refilled the index meanwhile dropped the collection: for good.
        stays = False
        try:
            stays = unchanged()
        finally:
            if not stays:
                client.drop_collection(collection)
        if not stays:
            raise ServiceError(f"{index_dir} was refilled meanwhile; open it again")
    client.load_collection(collection)
