"""The reranking deployment. In: a question and passages. Out: how well each answers.

Pairs of requests that arrive within a few milliseconds share a batch.
"""

import asyncio
from typing import Any

import numpy as np
import torch
from ray import serve

from medray.retrieval.embed import passage_text
from medray.retrieval.rerank import Reranker, blended
from medray.serving.artefacts import Location


class Reranking:
    """A cross-encoder, see `medray.retrieval.rerank`."""

    def __init__(self, reranker: Location) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._reranker = Reranker(reranker.fetch(), device=device)
        self._version = reranker.version

    def status(self) -> dict[str, Any]:
        """What /healthz shows."""
        return {"version": self._version, "weight": self._reranker.settings.weight}

    async def relevance(self, question: str, texts: list[str]) -> list[float]:
        """How well each text answers, 0 to 1."""
        return await self._batch([(question, text) for text in texts])

    async def look_again(self, question: str, hits: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A search's hits, best first by both scores; `score` is the blend of both."""
        texts = [passage_text(hit["title"], hit["text"]) for hit in hits]
        relevance = await self.relevance(question, texts)
        fused_C = np.array([hit["score"] for hit in hits])
        scores_C = blended(fused_C, np.array(relevance), self._reranker.settings.weight)
        order = np.argsort(-scores_C, kind="stable")
        return [hits[i] | {"score": float(scores_C[i]), "relevance": relevance[i]} for i in order]

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def _batch(self, requests: list[list[tuple[str, str]]]) -> list[list[float]]:
        pairs = [pair for request in requests for pair in request]
        scores = iter((await asyncio.to_thread(self._reranker.scores, pairs)).tolist())
        return [[next(scores) for _ in request] for request in requests]
