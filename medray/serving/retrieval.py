"""The retrieval deployment. In: a question and its vector. Out: the best passages.

Milvus Lite locks its file to one process, so each replica fills a private copy from the index's
Parquet when it opens a version and removes it when it ends. All passages of an answer are of one
version, which is named with them.
"""

import asyncio
from typing import Any

import numpy as np

from medray.retrieval.filters import PassageFilter
from medray.retrieval.search import Hit
from medray.serving.alias import IndexAlias
from medray.serving.artefacts import Location
from medray.serving.indexes import OpenIndexes
from medray.serving.messages import Found, QuestionVectors


class Retrieval:
    """Searches the version of the index that the alias names."""

    def __init__(self, index: Location, alias_file: str = "") -> None:
        self._indexes = OpenIndexes(IndexAlias(alias_file, index))

    def status(self) -> dict[str, Any]:
        """What /healthz shows."""
        current = self._indexes.current
        return {
            "version": current.version,
            "min_cosine": round(current.searcher.min_cosine, 4),
            "open": self._indexes.versions,
        }

    async def check_health(self) -> None:
        """Serve calls this; a replica that raises is started anew, and reads where the index is."""
        with self._indexes.use() as index:
            await asyncio.to_thread(index.searcher.check)

    def __del__(self) -> None:
        """Serve calls this when the replica is told to stop; the private copies go with it."""
        if indexes := getattr(self, "_indexes", None):
            indexes.close()

    async def search(
        self, question: str, vectors: QuestionVectors, top_k: int, where: PassageFilter
    ) -> Found:
        """The `top_k` best passages."""
        vector, weights = vectors
        vector_D = np.asarray(vector, dtype=np.float32)
        with self._indexes.use() as index:
            hits = await asyncio.to_thread(
                index.searcher.search, question, vector_D, top_k, where, weights
            )
            found = list(map(hit_fields, hits))
            looked_up = index.searcher.looks_up(vector_D)
            return Found(found, index.searcher.min_cosine, index.version, looked_up)


def hit_fields(hit: Hit) -> dict[str, Any]:
    """As `Found` has it."""
    scores = {"score": hit.score, "cosine": hit.cosine, "bm25": hit.bm25, "sparse": hit.sparse}
    return hit.passage.model_dump() | scores
