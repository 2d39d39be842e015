"""Which questions are looked up at all. In: the vector of a question. Out: whether it is one that
passages answer, or one that the model was fine-tuned to answer alone.

A policy learns from rows of both kinds: questions with passages, whose answer quotes one, and
consultations, diagnoses from a record and the like, without any. Shown passages with the second
kind it quotes what answers nothing, and how near the nearest passage is does not tell them apart
(sample hospital: cosines of 0.81 to 0.95 where questions without an answer have the same); how they
are asked does. A logistic regression on the encoder's vector is enough: on held-out questions of
the sample hospital it is right for 99 of 100 of either kind.
Source: retrieval where it helps, decided by a classifier of the question, as in Adaptive-RAG [Jeong
et al. 2024]; there the labels are a model's successes, here how the fine-tuning rows are made.
Shapes: D of a vector, N questions.
"""

import heapq
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from medray.common.config import Config
from medray.common.records import Instruction
from medray.common.rows import read_rows
from medray.common.split import Split, unit_hash

GROUNDED = "grounded"
"""The task of fine-tuning rows that show passages."""
FEWEST_EXAMPLES = 20
"""Of either kind, to learn from. Source: not given."""
EVEN = 0.5


class RouterConfig(Config):
    """Learning which questions are looked up."""

    examples: int = Field(default=1000, ge=0)
    """Training questions of either kind at most; 0: all questions are looked up."""


class Router(BaseModel):
    """A linear rule: P(looked up | v) = 1 / (1 + exp(-(w · v + b)))."""

    weights: list[float]
    bias: float
    least: float = EVEN
    """Probability from which a question is looked up."""

    def probabilities(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Of being a question that passages answer. [N]"""
        return 1 / (1 + np.exp(-(vectors_ND @ np.array(self.weights) + self.bias)))

    def looks_up(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Whether to search passages for each question. [N]"""
        return self.probabilities(vectors_ND) >= self.least


def learn_router(
    looked_up_ND: np.ndarray, alone_ND: np.ndarray, held_out_ND: np.ndarray, kept: float
) -> Router:
    """Learns from vectors of questions of both kinds, which weigh the same however many there are.

    Args:
        held_out_ND: other questions that passages answer; `kept` of them at least are to be looked
            up, so that where the kinds cannot be told apart almost all questions are.
    """
    from sklearn.linear_model import LogisticRegression

    vectors_ND = np.concatenate([looked_up_ND, alone_ND]).astype(np.float64)
    labels_N = np.repeat([1, 0], [len(looked_up_ND), len(alone_ND)])
    # The texts of an encoder lie close together, so each direction is scaled by its spread.
    mean_D, spread_D = vectors_ND.mean(0), vectors_ND.std(0) + 1e-9
    model: Any = LogisticRegression(class_weight="balanced", max_iter=1000)  # the stubs say float
    model.fit((vectors_ND - mean_D) / spread_D, labels_N)
    weights_D = model.coef_[0] / spread_D
    bias = float(model.intercept_[0] - weights_D @ mean_D)
    router = Router(weights=[round(float(w), 6) for w in weights_D], bias=round(bias, 6))
    if len(held_out_ND):
        probabilities_N = router.probabilities(held_out_ND)
        router.least = min(EVEN, float(np.quantile(probabilities_N, 1 - kept, method="lower")))
    return router


def prompts_without_passages(directory: Path, split: Split, most: int) -> list[str]:
    """What fine-tuning rows ask without passages: `most` at most, of each task alike.

    Args:
        directory: of Instruction shards.
    """
    first: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row in read_rows(directory, Instruction):
        if row.split == split and row.task != GROUNDED:
            kept, item = first[row.task], (-unit_hash(row.id), _prompt(row))
            (heapq.heappush if len(kept) < most else heapq.heappushpop)(kept, item)
    ranked = [
        (rank, task, prompt)
        for task, kept in first.items()
        for rank, (_, prompt) in enumerate(sorted(kept, reverse=True))
    ]
    return [prompt for _, _, prompt in sorted(ranked)[:most]]


def _prompt(row: Instruction) -> str:
    """The message that is searched with: the last, or the one that holds what all questions of the
    row share."""
    asked = [message.content for message in row.messages if message.role == "user"]
    return asked[0] if row.shared_chars else asked[-1]
