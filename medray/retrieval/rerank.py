"""The second look at what a search found. In: a question and passages. Out: how well each answers.

A cross-encoder reads question and passage together, which a search over all passages could not
afford. Any directory of a sequence classifier with one output serves: one of `medray run reranker`,
or a BGE reranker.

    score = (1 − β) · fused / largest fused + β · sigmoid(logit)

β is measured on held-out questions where the reranker was trained here, and is 1 for others.
Source: [C-Pack 3.2] on the reranker; DESIGN.md 3, retrieval.
Shapes: C candidates.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from medray.common.config import Config
from medray.common.errors import CheckpointError
from medray.generation.directory import check_trainable, load_options
from medray.retrieval.fusion import largest_is_one

SETTINGS = "rerank.json"


class RerankSettings(Config):
    """What a reranker's directory says of its use."""

    weight: float = Field(default=1.0, ge=0, le=1)
    """β."""
    max_tokens: int = Field(default=512, ge=8)
    """Of question and passage together; the longer is cut."""


class Reranker:
    """A cross-encoder on one device."""

    def __init__(self, path: Path | str, *, device: str = "cpu", batch_size: int = 32) -> None:
        """Loads a Hugging Face directory.

        Raises:
            CheckpointError: if it holds no such model, or pickled weights only.
        """
        self.path = check_trainable(Path(path))
        file = self.path / SETTINGS
        self.settings = RerankSettings.model_validate_json(
            file.read_text(encoding="utf-8") if file.exists() else "{}"
        )
        self._tokenizer = AutoTokenizer.from_pretrained(self.path)
        self._model = AutoModelForSequenceClassification.from_pretrained(
            self.path, use_safetensors=True, **load_options()
        )
        if self._model.config.num_labels != 1:
            raise CheckpointError(
                f"{self.path} classifies into {self._model.config.num_labels} labels; a reranker "
                "has one output: give a BGE reranker, or one of medray run reranker"
            )
        self._model.eval().to(device)
        self._device, self._batch_size = device, batch_size
        positions = getattr(self._model.config, "max_position_embeddings", 514)
        # RoBERTa-style position tables start behind the padding id; two slots to spare for all.
        self.max_tokens = min(self.settings.max_tokens, positions - 2)

    @torch.inference_mode()
    def scores(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """How well the passage of each pair answers its question, 0 to 1. [C]"""
        scores_C = np.empty(len(pairs), np.float32)
        by_length = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        for start in range(0, len(pairs), self._batch_size):
            rows = by_length[start : start + self._batch_size]
            encoded = encode_pairs(self._tokenizer, [pairs[i] for i in rows], self.max_tokens)
            logits_C1 = self._model(**encoded.to(self._device)).logits
            scores_C[rows] = logits_C1.float().sigmoid().squeeze(1).cpu().numpy()
        return scores_C


def encode_pairs(tokenizer: Any, pairs: Sequence[tuple[str, str]], max_tokens: int) -> Any:
    """Question and passage as one sequence, the longer one cut, padded to the longest pair."""
    questions, passages = zip(*pairs, strict=True)
    return tokenizer(
        list(questions), list(passages), padding=True, truncation="longest_first",
        max_length=max_tokens, return_tensors="pt",
    )  # fmt: skip


def blended(fused_C: np.ndarray, relevance_C: np.ndarray, weight: float) -> np.ndarray:
    """The score of each candidate, 0 to 1. [C]"""
    return (1 - weight) * largest_is_one(fused_C) + weight * relevance_C
