"""The embedding deployment. In: texts of many requests. Out: one unit vector a text, and of
questions the weights of their tokens where the encoder gives any.

Requests that arrive within a few milliseconds share a batch: a BERT encodes 16 short texts in
little more time than one.
"""

import asyncio
from typing import Any

import torch
from ray import serve
from transformers import AutoTokenizer

from medray.retrieval.embed import Embedder
from medray.retrieval.sparse import TokenWeights
from medray.serving.artefacts import Location
from medray.serving.messages import Embedded, QuestionVectors


class Embedding:
    """Embeds with the encoder that also made the index."""

    def __init__(self, encoder: Location) -> None:
        directory = encoder.fetch()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._embedder = Embedder(directory, device=device)
        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self._version = encoder.version

    def status(self) -> dict[str, Any]:
        """What /healthz shows."""
        return {"version": self._version, "dimensions": self._embedder.dim}

    async def embed_question(self, question: str) -> QuestionVectors:
        """What to search with: questions carry the instruction the encoder was trained on."""
        texts = [self._embedder.query_instruction + question]
        embedded, weights_N = await self._batch(texts)
        return QuestionVectors(embedded.vectors[0], dict(weights_N[0]) if weights_N else {})

    async def embed(self, texts: list[str]) -> Embedded:
        """Vectors of texts as they are."""
        return (await self._batch(texts))[0]

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def _batch(self, requests: list[list[str]]) -> list[tuple[Embedded, list[TokenWeights]]]:
        return await asyncio.to_thread(self._encode, requests)

    def _encode(self, requests: list[list[str]]) -> list[tuple[Embedded, list[TokenWeights]]]:
        texts = [text for request in requests for text in request]
        made = self._embedder.encode(texts)
        vectors, weights = iter(made.vectors_ND.tolist()), iter(made.weights_N)
        lengths = iter(self._count(texts))
        return [
            (
                Embedded([next(vectors) for _ in request], sum(next(lengths) for _ in request)),
                [next(weights) for _ in request] if made.weights_N else [],
            )
            for request in requests
        ]

    def _count(self, texts: list[str]) -> list[int]:
        encoded = self._tokenizer(texts, truncation=True, max_length=self._embedder.max_tokens)
        return [len(ids) for ids in encoded["input_ids"]]
