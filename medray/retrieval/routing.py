"""Which questions are looked up. In: the vector of a question. Out: whether to search passages for
it, or to have the model answer alone.

A policy learns from rows of both kinds: questions with passages, whose answer quotes one, and
consultations, diagnoses from a record and the like, without any. Shown passages with the second
kind it quotes what answers nothing, and how near the nearest passage is does not tell them apart
(sample hospital: cosines of 0.81 to 0.95, as of questions without an answer); how they are asked
does. A logistic regression on the encoder's vector is right for 99 of 100 held-out questions of
either kind. It knows the two kinds only: what lies near neither is looked up as well, since a
search can say that there is no answer and the model alone cannot.
Source: retrieval where a classifier of the question asks for it, as in Adaptive-RAG [Jeong et al.
2024]; there the labels are a model's successes, here how the fine-tuning rows are made.
Shapes: D of a vector, N questions, K centres.
"""

import heapq
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from medray.common.config import Config
from medray.common.records import Instruction
from medray.common.rows import read_rows
from medray.common.split import Split, unit_hash

GROUNDED = "grounded"
"""The task of fine-tuning rows that show passages."""
FEWEST_EXAMPLES = 20
"""Of either kind, to learn from. Source: not given."""
CENTRES = 64
"""Of the vectors of questions for the model alone. Source: not given; of 16, 64 and 128
this let through the fewest questions that were of neither kind (a greeting, English, a poem)."""
EVEN = 0.5


class RouterConfig(Config):
    """Learning which questions are looked up."""

    examples: int = Field(default=1000, ge=0)
    """Training questions of either kind at most; 0: all questions are looked up."""


@dataclass
class Router:
    """The model answers alone where P(looked up | v) = 1 / (1 + exp(-(w · v + b))) is low and v
    lies near what it was taught to answer alone."""

    weights_D: np.ndarray
    bias: float
    least_probability: float
    centres_KD: np.ndarray
    """Of length 1, of the vectors of questions for the model alone."""
    least_cosine: float
    """Of the nearest centre."""

    def probabilities(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Of being a question that passages answer. [N]"""
        return 1 / (1 + np.exp(-(vectors_ND @ self.weights_D + self.bias)))

    def nearest(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Cosine of the nearest centre. [N]"""
        return (vectors_ND @ self.centres_KD.T).max(axis=1)

    def looks_up(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Whether to search passages for each question. [N]"""
        return (self.probabilities(vectors_ND) >= self.least_probability) | (
            self.nearest(vectors_ND) < self.least_cosine
        )

    def save(self, path: Path) -> None:
        """Writes an .npz file."""
        np.savez(path, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Router":
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name][()] for name in arrays.files})


class Examples(NamedTuple):
    """Vectors of questions of both kinds."""

    looked_up_ND: np.ndarray
    alone_ND: np.ndarray


def learn_router(learned: Examples, held_out: Examples, kept: float) -> Router:
    """Both kinds weigh the same, however many examples there are of each.

    Args:
        held_out: other questions, or none. `kept` of each kind at least are to go where they
            belong by the one limit that concerns them, so that where the kinds cannot be told apart
            almost all are looked up.
    """
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression

    vectors_ND = np.concatenate(learned).astype(np.float64)
    labels_N = np.repeat([1, 0], [len(part) for part in learned])
    # The texts of an encoder lie close together, so each direction is scaled by its spread.
    mean_D, spread_D = vectors_ND.mean(0), vectors_ND.std(0) + 1e-9
    model: Any = LogisticRegression(class_weight="balanced", max_iter=1000)  # the stubs say float
    model.fit((vectors_ND - mean_D) / spread_D, labels_N)
    weights_D = model.coef_[0] / spread_D
    bias = float(model.intercept_[0] - weights_D @ mean_D)
    num_centres = min(CENTRES, len(learned.alone_ND))
    clusters: Any = KMeans(num_centres, random_state=0).fit(learned.alone_ND)
    centres_KD = clusters.cluster_centers_
    centres_KD /= np.linalg.norm(centres_KD, axis=1, keepdims=True)
    router = Router(weights_D, bias, EVEN, centres_KD, -1.0)
    if len(held_out.looked_up_ND):
        lowest = np.quantile(router.probabilities(held_out.looked_up_ND), 1 - kept, method="lower")
        router.least_probability = min(EVEN, float(lowest))
    if len(held_out.alone_ND):
        lowest = np.quantile(router.nearest(held_out.alone_ND), 1 - kept, method="lower")
        router.least_cosine = float(lowest)
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
