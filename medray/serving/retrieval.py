"""The retrieval deployment. In: a question's vector. Out: the nearest passages.

Milvus Lite locks its file to one process, so each replica fills a private copy from the index's
Parquet when it starts and removes it when it ends.
"""

import asyncio
from typing import Any

import numpy as np

from medray.retrieval.search import Searcher
from medray.serving.artefacts import Location


class Retrieval:
    """Searches one version of the index."""

    def __init__(self, index: Location) -> None:
        self._searcher = Searcher(index.fetch())
        self._version = index.version

    def status(self) -> dict[str, Any]:
        """What /healthz shows."""
        return {"version": self._version}

    def __del__(self) -> None:
        """Serve calls this when the replica is told to stop; the private copy goes with it."""
        if hasattr(self, "_searcher"):  # absent if the index could not be opened
            self._searcher.close()

    async def search(self, vector: list[float], top_k: int) -> list[dict[str, Any]]:
        """The `top_k` nearest passages, best first: fields of `Passage` and `score` (cosine)."""
        vector_D = np.asarray(vector, dtype=np.float32)
        hits = await asyncio.to_thread(self._searcher.search, vector_D, top_k)
        return [hit.passage.model_dump() | {"score": hit.score} for hit in hits]
