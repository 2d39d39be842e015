"""Listwise training of a cross-encoder. In: questions with mined negatives. Out: batches, the loss.

    L = − ln (exp s(q, p⁺) / Σ_{p ∈ {p⁺} ∪ N} exp s(q, p))

N: hard negatives, passages that the search ranks high and that do not answer.
Source: [C-Pack 3.2] and FlagEmbedding's fine-tuning of rerankers.
Shapes: B questions of one worker, C candidates of each.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator
from torch import Tensor, nn

from medray.common.config import Config
from medray.retrieval.embed import passage_text
from medray.retrieval.rerank import encode_pairs
from medray.retrieval.training.order import item_at


class GroupsConfig(Config):
    """Questions with a passage that answers and some that do not."""

    batch_size: int = Field(default=16, ge=1)
    """Questions in the global batch; each brings 1 + `negatives` pairs."""
    negatives: int = Field(default=7, ge=1)
    """Source: FlagEmbedding, train_group_size 8."""
    depth: int = Field(default=50, ge=2)
    """Negatives are drawn from so many of the best passages. Source: not given; FlagEmbedding
    mines from ranks 2 to 200."""
    max_questions: int = Field(default=4000, ge=1)
    """Training questions that are searched for negatives."""
    max_tokens: int = Field(default=256, ge=16)
    """Of question and passage together."""

    @model_validator(mode="after")
    def _fits(self) -> "GroupsConfig":
        if self.negatives >= self.depth:
            raise ValueError(f"depth must be more than negatives {self.negatives}")
        return self


class ListwiseLoss(nn.Module):
    """A cross-encoder's loss over groups of pairs, the first of each the one that answers."""

    def __init__(self, model: nn.Module, num_candidates: int) -> None:
        super().__init__()
        self.model, self.num_candidates = model, num_candidates

    def forward(self, pairs: dict[str, Tensor]) -> Tensor:
        """Mean over the questions, nats."""
        scores_BC = self.model(**pairs).logits.view(-1, self.num_candidates)
        return -scores_BC.log_softmax(1)[:, 0].mean()


class GroupBatches:
    """The global batch of any step, and a worker's share; a pure function of the seed."""

    def __init__(
        self,
        config: "GroupsConfig",
        mined: list[dict[str, Any]],
        passages: pa.Table,
        tokenizer: Any,
        seed: int,
    ) -> None:
        self.config, self.mined, self.tokenizer, self.seed = config, mined, tokenizer, seed
        self._passages = passages
        self._row_of = {name: i for i, name in enumerate(passages["passage_id"].to_pylist())}

    def groups(self, step: int) -> list[list[tuple[str, str]]]:
        """The pairs of each question at `step`."""
        rng = np.random.default_rng([self.seed, 3, step])
        groups = []
        for i in range(self.config.batch_size):
            row = item_at(step * self.config.batch_size + i, len(self.mined), self.seed + 3)
            entry = self.mined[row]
            num, negatives = self.config.negatives, entry["negatives"]
            drawn = rng.choice(len(negatives), num, replace=len(negatives) < num)
            names = [
                entry["gold"][rng.integers(len(entry["gold"]))],
                *(negatives[j] for j in drawn),
            ]
            groups.append([(entry["question"], self.text(name)) for name in names])
        return groups

    def text(self, name: str) -> str:
        """What is read of a passage."""
        row = self._row_of[name]
        title, text = self._passages["title"][row].as_py(), self._passages["text"][row].as_py()
        return passage_text(title, text)

    def batch(self, step: int, rank: int, num_workers: int) -> dict[str, Any]:
        """The arguments of `ListwiseLoss` for worker `rank`."""
        pairs = [pair for group in self.groups(step)[rank::num_workers] for pair in group]
        return {"pairs": dict(encode_pairs(self.tokenizer, pairs, self.config.max_tokens))}
