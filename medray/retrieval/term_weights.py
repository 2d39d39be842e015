"""How much each term of a question says, learned from questions and their passages.

In: an index of words, training questions with the rows of the passages that answer them. Out:
a weight for each term.

BM25 knows how rare a term is in passages, not whether it says what is asked: 请问 and 怎么办 are
rare in answers and mean nothing. A score stays a sum over the question's terms,

    score(q, p) = Σ_t w_t · BM25(t, p),

and the weights w > 0, which start at 1, learn to rank the passage that answers above those that
plain BM25 ranks first (softmax cross-entropy over them), with w near 1 where there is little to
learn from. Part of the questions is held out, and chooses how long to learn: not at all where that
is no better. On public questions nDCG@10 of the words rose from 0.286 to 0.312 (1 500 Chinese ones)
and from 0.569 to 0.632 (1 376 English ones); benchmarks/retrieval_quality.py.
Source: term weighting learned by ranking as in DeepCT [Dai and Callan 2019] and the lexical weights
of [BGE-M3 2.2], here one weight a term, so that no model runs at search time.
Shapes: B questions, C candidates of each, K terms, V terms of the index.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medray.common.config import Config
from medray.retrieval.lexical import LexicalIndex

logger = logging.getLogger(__name__)


class TermWeightsConfig(Config):
    """Learning."""

    epochs: int = Field(default=4, ge=0)
    """Over the questions; 0 learns nothing. Source: not given; after 3 to 5 held-out questions are
    ranked best, on both public sets."""
    max_questions: int = Field(default=10_000, ge=1)
    """Learned from at most; each costs one search by words."""
    min_questions: int = Field(default=200, ge=10)
    """With fewer nothing is learned. Source: not given."""
    candidates: int = Field(default=100, ge=2)
    """Ranked for a question: the passage that answers, and what plain BM25 finds."""
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.02, gt=0)
    """Of Adam. Source: not given; tried with `pull`."""
    pull: float = Field(default=0.02, ge=0)
    """On (ln w)² of the terms in a batch, towards w = 1. Source: not given; of 0.02, 0.1, 0.3 and 1
    the least was best on both public sets."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Of the questions."""
    seed: int = 0


class Ranking(NamedTuple):
    """One question's terms, and its candidates' scores for each; candidate 0 answers it."""

    rows_K: np.ndarray
    scores_CK: np.ndarray


def learn_term_weights(
    index: LexicalIndex, questions: Sequence[tuple[str, Sequence[int]]], config: TermWeightsConfig
) -> np.ndarray | None:
    """weights_V; None if there is too little to learn from, or held-out questions gain nothing.

    Args:
        questions: text, rows of the passages that answer it.
    """
    rng = np.random.default_rng(config.seed)
    chosen = rng.permutation(len(questions))[: config.max_questions]
    if not config.epochs or len(chosen) < config.min_questions:
        return None
    rankings = [rank(index, questions[i][0], questions[i][1], config.candidates) for i in chosen]
    rankings = [one for one in rankings if one is not None]
    if len(rankings) < config.min_questions:
        return None
    num_held_out = round(config.held_out * len(rankings))
    held_out, rankings = rankings[:num_held_out], rankings[num_held_out:]

    log_weights_V = torch.zeros(index.scores_NV.shape[1], requires_grad=True)
    log_scale = torch.zeros((), requires_grad=True)
    adam = torch.optim.Adam([log_weights_V, log_scale], lr=config.learning_rate)
    best, best_weights_V = reciprocal_rank(held_out, log_weights_V), None
    before = best
    for _ in range(config.epochs):
        order = rng.permutation(len(rankings))
        for start in range(0, len(order), config.batch_size):
            batch = [rankings[i] for i in order[start : start + config.batch_size]]
            rows_BK, scores_BCK, filler_BC = padded(batch)
            logits_BC = weighted(rows_BK, scores_BCK, log_weights_V) * log_scale.exp()
            logits_BC = logits_BC.masked_fill(filler_BC, -torch.inf)
            loss = -logits_BC.log_softmax(1)[:, 0].mean()
            pull = log_weights_V[rows_BK.unique()].square().sum() / len(batch)
            adam.zero_grad()
            (loss + config.pull * pull).backward()
            adam.step()
        if (reached := reciprocal_rank(held_out, log_weights_V)) > best:
            best, best_weights_V = reached, log_weights_V.detach().exp().numpy()
    logger.info(
        "term weights of %d questions: MRR of %d held out %.4f, was %.4f",
        len(rankings), len(held_out), best, before,
    )  # fmt: skip
    return best_weights_V


def rank(
    index: LexicalIndex, question: str, gold: Sequence[int], num_candidates: int
) -> Ranking | None:
    """A passage that answers, then the best others by plain BM25; None if no term is known."""
    rows_K, counts_K = index.terms(question)
    scores_N = index.scores(question, weighted=False)
    scores_N[list(gold)] = 0
    # Passages that share no term have score 0 whatever the weights are: they teach nothing.
    found = np.argsort(-scores_N, kind="stable")[: num_candidates - 1]
    found = found[scores_N[found] > 0]
    if not len(rows_K) or not len(found):
        return None
    candidates = np.concatenate([gold[:1], found])
    scores_CK = index.scores_NV[:, rows_K].tocsr()[candidates].toarray() * counts_K
    return Ranking(rows_K, scores_CK)


def padded(batch: Sequence[Ranking]) -> tuple[Tensor, Tensor, Tensor]:
    """(rows_BK, scores_BCK, filler_BC: which candidates are none); terms filled up score 0."""
    num_candidates = max(len(one.scores_CK) for one in batch)
    num_terms = max(len(one.rows_K) for one in batch)
    rows_BK = torch.zeros(len(batch), num_terms, dtype=torch.long)
    scores_BCK = torch.zeros(len(batch), num_candidates, num_terms)
    filler_BC = torch.ones(len(batch), num_candidates, dtype=torch.bool)
    for i, one in enumerate(batch):
        num, terms = one.scores_CK.shape
        rows_BK[i, :terms] = torch.from_numpy(one.rows_K)
        scores_BCK[i, :num, :terms] = torch.from_numpy(one.scores_CK)
        filler_BC[i, :num] = False
    return rows_BK, scores_BCK, filler_BC


def weighted(rows_BK: Tensor, scores_BCK: Tensor, log_weights_V: Tensor) -> Tensor:
    """The candidates' scores. [B, C]"""
    return torch.einsum("bck,bk->bc", scores_BCK, log_weights_V[rows_BK].exp())


@torch.no_grad()
def reciprocal_rank(rankings: Sequence[Ranking], log_weights_V: Tensor) -> float:
    """The mean of 1 / rank of the passage that answers, among the candidates; equal ones count as
    ranked above it."""
    weights_V = log_weights_V.exp().numpy()
    total = 0.0
    for one in rankings:
        scores_C = one.scores_CK @ weights_V[one.rows_K]
        total += 1 / int((scores_C >= scores_C[0]).sum())
    return total / len(rankings)
