"""Which questions are looked up. In: the vector of a question. Out: whether to search passages for
it, or to have the model answer alone.

A policy learns from rows of both kinds: questions with passages, whose answer quotes one, and
consultations, diagnoses from a record and the like, without any. Shown passages with the second
kind it quotes what answers nothing, and how near the nearest passage is does not tell them apart
(sample hospital: cosines of 0.81 to 0.95, as of questions without an answer); how they are asked
does: a logistic regression on the encoder's vector alone is right for 99 of 100 held-out questions
of either kind. It knows the two kinds only: what lies far from what the model was taught to answer
is looked up as well, since a search can say that there is no answer and the model alone cannot.
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

TASKS = ("diagnosis", "differential", "treatment", "consultation", "dialogue", "quality")
"""Of fine-tuning rows that passages do not answer: they ask about a patient. Others without
passages (facts of a knowledge graph, exams, what a hospital brings) may be answered by some."""
FEWEST_EXAMPLES = 20
"""Of either kind, to learn from and held out; with fewer all questions are looked up. Source: not
given."""
CENTRES, FEWEST_MEMBERS = 64, 5
"""Of the vectors of questions for the model alone: at most, and how many each is the mean of, so
that none is a patient's. Source: not given; of 16, 64 and 128 centres 64 let through the fewest
questions that were of neither kind (a greeting, English, a poem)."""
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
        unlike_N = self.probabilities(vectors_ND) < self.least_probability
        return ~(unlike_N & (self.nearest(vectors_ND) >= self.least_cosine))  # NaN too

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
        held_out: other questions. `kept` of each kind at least are to go where they belong by the
            one limit that concerns them, so that where the kinds cannot be told apart almost all
            are looked up.
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
    num_centres = min(CENTRES, len(learned.alone_ND) // FEWEST_MEMBERS)
    clusters: Any = KMeans(num_centres, random_state=0).fit(learned.alone_ND)
    members_K = np.bincount(clusters.labels_, minlength=num_centres)
    centres_KD = clusters.cluster_centers_[members_K >= FEWEST_MEMBERS]
    centres_KD /= np.linalg.norm(centres_KD, axis=1, keepdims=True)
    router = Router(weights_D, bias, EVEN, centres_KD, -1.0)
    probabilities_N = router.probabilities(held_out.looked_up_ND)
    lowest = float(np.quantile(probabilities_N, 1 - kept, method="lower"))
    router.least_probability = min(EVEN, lowest)
    cosines_N = router.nearest(held_out.alone_ND)
    router.least_cosine = float(np.quantile(cosines_N, 1 - kept, method="lower"))
    return router


class Prompt(NamedTuple):
    """What a fine-tuning row asks, and its place among those of its task."""

    rank: int
    task: str
    text: str


def prompts_for_the_model(directory: Path, split: Split, most: int) -> list[Prompt]:
    """What fine-tuning rows of TASKS ask: `most` at most, of each task alike.

    Args:
        directory: of Instruction shards.
    """
    first: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row in read_rows(directory, Instruction):
        if row.split == split and row.task in TASKS:
            kept, item = first[row.task], (-unit_hash(row.id), _asked(row))
            (heapq.heappush if len(kept) < most else heapq.heappushpop)(kept, item)
    ranked = [
        Prompt(rank, task, text)
        for task, kept in first.items()
        for rank, (_, text) in enumerate(sorted(kept, reverse=True))
    ]
    return sorted(ranked)[:most]


def _asked(row: Instruction) -> str:
    """The message that is searched with: the last, or the one that holds what all questions of the
    row share."""
    asked = [message.content for message in row.messages if message.role == "user"]
    return asked[0] if row.shared_chars else asked[-1]
