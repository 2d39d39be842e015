"""The retrieval deployment. In: a question and its vector. Out: the best passages.

Milvus Lite locks its file to one process, so each replica fills a private copy from the index's
Parquet when it starts and removes it when it ends.
"""

import asyncio
from contextlib import ExitStack
from typing import Any

import numpy as np

from medray.retrieval.filters import PassageFilter
from medray.retrieval.search import open_index
from medray.serving.artefacts import Location
from medray.serving.messages import Found


class Retrieval:
    """Searches one version of the index."""

    def __init__(self, index: Location) -> None:
        self._open = ExitStack()
        self._searcher = self._open.enter_context(open_index(index.fetch()))
        self._version = index.version

    def status(self) -> dict[str, Any]:
        """What /healthz shows."""
        return {"version": self._version, "min_cosine": round(self._searcher.min_cosine, 4)}

    async def check_health(self) -> None:
        """Serve calls this; a replica that raises is started anew, and reads where the index is."""
        await asyncio.to_thread(self._searcher.check)

    def __del__(self) -> None:
        """Serve calls this when the replica is told to stop; the private copy goes with it."""
        self._open.close()

    async def search(
        self, question: str, vector: list[float], top_k: int, where: PassageFilter
    ) -> Found:
        """The `top_k` best passages."""
        vector_D = np.asarray(vector, dtype=np.float32)
        hits = await asyncio.to_thread(self._searcher.search, question, vector_D, top_k, where)
        found = [
            hit.passage.model_dump() | {"score": hit.score, "cosine": hit.cosine, "bm25": hit.bm25}
            for hit in hits
        ]
        return Found(found, self._searcher.min_cosine)
