"""Embeddings. In: texts. Out: float32 vectors of length 1, by FlagEmbedding.

Source: [C-Pack 3.1]: the [CLS] state, L2-normalised. Any BERT directory serves, BGE included.
"""

import json
from pathlib import Path

import numpy as np
from transformers import AutoConfig

from medray.common.errors import CheckpointError

PROMPTS = "config_sentence_transformers.json"
"""Where a model directory keeps the instruction of its questions, as sentence-transformers does."""


def passage_text(title: str, text: str) -> str:
    """Returns what is embedded for a passage, in training, index and baseline alike."""
    return f"{title}\n{text}" if title else text


class Embedder:
    """A bi-encoder on one device."""

    def __init__(
        self,
        path: Path | str,
        *,
        device: str = "cpu",
        batch_size: int = 64,
        max_tokens: int = 256,
        query_instruction: str | None = None,
    ) -> None:
        """Loads a Hugging Face directory.

        Args:
            device: "cpu", "cuda", "cuda:1", ...
            max_tokens: longer texts are cut; never more than the model has positions.
            query_instruction: put before questions; None takes the one the directory names.
        Raises:
            CheckpointError: if the directory has no model or no tokenizer.
        """
        from FlagEmbedding import FlagModel  # seconds

        self.path = Path(path)
        for name in ("config.json", "tokenizer.json"):
            if not (self.path / name).is_file():
                raise CheckpointError(
                    f"{self.path} has no {name}; give a Hugging Face model directory with a "
                    "fast tokenizer"
                )
        config = AutoConfig.from_pretrained(self.path)
        self.dim: int = config.hidden_size
        # RoBERTa-style position tables start behind the padding id; two slots to spare for all.
        self.max_tokens = min(max_tokens, config.max_position_embeddings - 2)
        self.batch_size = batch_size
        if query_instruction is None:
            query_instruction = _saved_instruction(self.path)
        self.query_instruction = query_instruction
        self._model = FlagModel(
            str(self.path),
            pooling_method="cls",
            normalize_embeddings=True,
            devices=device,
            use_fp16=False,
        )

    def embed(self, texts: list[str]) -> np.ndarray:
        """Returns vectors_ND of the texts, float32, L2-normalised, in their order."""
        vectors_ND = np.empty((len(texts), self.dim), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            # A batch size above the number of texts keeps FlagEmbedding's two progress bars
            # out of the logs of every worker.
            vectors_ND[rows] = self._model.encode(
                [texts[i] for i in rows], batch_size=len(rows) + 1, max_length=self.max_tokens
            )
        return vectors_ND

    def embed_queries(self, questions: list[str]) -> np.ndarray:
        """Returns vectors_ND of questions, with the instruction before each."""
        return self.embed([self.query_instruction + question for question in questions])


def save_instruction(directory: Path, instruction: str) -> None:
    """Writes the instruction of questions into a model directory."""
    prompts = {"prompts": {"query": instruction, "document": ""}, "similarity_fn_name": "cosine"}
    path = directory / PROMPTS
    path.write_text(json.dumps(prompts, ensure_ascii=False, indent=1), encoding="utf-8")


def _saved_instruction(directory: Path) -> str:
    path = directory / PROMPTS
    if not path.is_file():
        return ""
    prompts = json.loads(path.read_text(encoding="utf-8")).get("prompts", {})
    return prompts.get("query", "")
