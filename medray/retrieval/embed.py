"""Embeddings. In: texts. Out: float32 vectors of length 1, by FlagEmbedding; of a BGE-M3 the
weights of each text's tokens too.

Source: [C-Pack 3.1]: the [CLS] state, L2-normalised. Any BERT directory serves, BGE included.
M3's weights: Chen et al. 2024, M3-Embedding 3.2.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import AutoConfig

from medray.common.errors import CheckpointError
from medray.retrieval.sparse import TokenWeights

M3_HEADS = ("sparse_linear.pt", "colbert_linear.pt")
"""Beside the weights of a BGE-M3. The second is not used here, but FlagEmbedding makes both up
where either is missing."""
PROMPTS = "config_sentence_transformers.json"
"""Where a model directory keeps the instruction of its questions, as sentence-transformers does."""


def passage_text(title: str, text: str) -> str:
    """Returns what is embedded for a passage, in training, index and baseline alike."""
    return f"{title}\n{text}" if title else text


class Embeddings(NamedTuple):
    """Of N texts, in their order."""

    vectors_ND: np.ndarray
    """float32, L2-normalised."""
    weights_N: list[TokenWeights]
    """Of an encoder that weighs tokens; of others no entry at all."""


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
            CheckpointError: if the directory has no model or no tokenizer, or one head of M3.
        """
        from FlagEmbedding import BGEM3FlagModel, FlagModel  # seconds

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
        self.weighs_tokens = has_heads(self.path)
        model: Any = BGEM3FlagModel if self.weighs_tokens else FlagModel
        self._model = model(
            str(self.path),
            pooling_method="cls",
            normalize_embeddings=True,
            devices=device,
            use_fp16=False,
        )

    def encode(self, texts: list[str]) -> Embeddings:
        """Vectors and weights of the texts, from one pass."""
        vectors_ND = np.empty((len(texts), self.dim), dtype=np.float32)
        weights_N: list[TokenWeights] = [{} for _ in texts] if self.weighs_tokens else []
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            asked: dict[str, Any] = {"return_sparse": True} if self.weighs_tokens else {}
            # A batch size above the number of texts keeps FlagEmbedding's two progress bars
            # out of the logs of every worker.
            made: Any = self._model.encode(
                [texts[i] for i in rows], batch_size=len(rows) + 1, max_length=self.max_tokens,
                **asked,
            )  # fmt: skip
            if not self.weighs_tokens:
                vectors_ND[rows] = made
                continue
            vectors_ND[rows] = made["dense_vecs"]
            for i, weights in zip(rows, made["lexical_weights"], strict=True):
                weights_N[i] = {int(token): float(weight) for token, weight in weights.items()}
        return Embeddings(vectors_ND, weights_N)

    def embed(self, texts: list[str]) -> np.ndarray:
        """Returns vectors_ND alone."""
        return self.encode(texts).vectors_ND

    def encode_queries(self, questions: list[str]) -> Embeddings:
        """Of questions, with the instruction before each."""
        return self.encode([self.query_instruction + question for question in questions])

    def embed_queries(self, questions: list[str]) -> np.ndarray:
        """Returns vectors_ND of questions, with the instruction before each."""
        return self.encode_queries(questions).vectors_ND


def copy_heads(source: Path, target: Path) -> None:
    """Copies a BGE-M3's heads into another model directory, if `source` has them."""
    if has_heads(source):
        for name in M3_HEADS:
            shutil.copyfile(source / name, target / name)


def save_instruction(directory: Path, instruction: str) -> None:
    """Writes the instruction of questions into a model directory."""
    prompts = {"prompts": {"query": instruction, "document": ""}, "similarity_fn_name": "cosine"}
    path = directory / PROMPTS
    path.write_text(json.dumps(prompts, ensure_ascii=False, indent=1), encoding="utf-8")


def has_heads(directory: Path) -> bool:
    """Whether an encoder weighs tokens, as BGE-M3 does.

    Raises:
        CheckpointError: if one of its two heads is missing.
    """
    there = [name for name in M3_HEADS if (directory / name).is_file()]
    if len(there) == 1:
        missing = next(name for name in M3_HEADS if name not in there)
        raise CheckpointError(
            f"{directory} has {there[0]} and no {missing}; copy both of the BGE-M3, or neither"
        )
    return bool(there)


def _saved_instruction(directory: Path) -> str:
    path = directory / PROMPTS
    if not path.is_file():
        return ""
    prompts = json.loads(path.read_text(encoding="utf-8")).get("prompts", {})
    return prompts.get("query", "")
