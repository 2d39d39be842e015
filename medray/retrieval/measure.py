"""Figures of an index on held-out questions, and the weights of its rankings. In: an open
index, its vectors, questions. Out: recall@1/5/10, MRR@10 and nDCG@10 of each ranking.

Half of the questions choose the weights, at most TUNING of them; the figures are of the others.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from medray.retrieval.collection import vectors_of
from medray.retrieval.embed import Embedder, Embeddings
from medray.retrieval.fusion import best_weight, fused, order_of, word_scores
from medray.retrieval.questions import questions_of
from medray.retrieval.recall import exact_top, retrieval_metrics
from medray.retrieval.routing import (
    FEWEST_EXAMPLES,
    Examples,
    Router,
    RouterConfig,
    learn_router,
    prompts_for_the_model,
)
from medray.retrieval.search import Candidates, HybridConfig, Searcher
from medray.retrieval.sparse import NONE, TokenWeights

DEPTH = 10
"""Hits per question that the figures look at."""
SHOWN = 5
"""Passages that a model is shown, as serving has it where nothing else is asked."""
KEPT = 0.95
"""Of the questions that have an answer are to be answered. Source: not given; on one sample
hospital the threshold that tells both kinds apart best (Youden's J) kept 0.74 and refused 0.89,
this one 0.96 and 0.54."""
TUNING = 500
"""Questions that choose the weights at most. Source: not given."""
FEWEST = 20
"""With fewer to choose them the weights are left as they are. Source: not given."""


class Asked(NamedTuple):
    """Questions that the index can answer, with their vectors."""

    texts: list[str]
    gold: list[list[str]]
    vectors_QD: np.ndarray
    weights_Q: Sequence[TokenWeights] = ()
    """Of an encoder that weighs tokens; of others none."""

    @classmethod
    def of(cls, texts: list[str], gold: list[list[str]], made: Embeddings) -> "Asked":
        """With what an encoder makes of the questions."""
        return cls(texts, gold, made.vectors_ND, made.weights_N)

    def part(self, rows: Sequence[int]) -> "Asked":
        """Some of them."""
        return Asked(
            [self.texts[i] for i in rows], [self.gold[i] for i in rows], self.vectors_QD[rows],
            [self.weights_Q[i] for i in rows] if self.weights_Q else (),
        )  # fmt: skip

    def each(self) -> Iterator[tuple[str, np.ndarray, TokenWeights]]:
        """(text, vector_D, weights) of each."""
        weights_Q = self.weights_Q or [NONE] * len(self.texts)
        return zip(self.texts, self.vectors_QD, weights_Q, strict=True)


def split_for_tuning(asked: Asked) -> tuple[Asked, Asked]:
    """(those that choose the weights, those that are measured); the first may be none."""
    num = len(asked.texts)
    tuning = range(0, num, 2)[:TUNING] if num // 2 >= FEWEST else range(0)
    rest = sorted(set(range(num)) - set(tuning))
    return asked.part(list(tuning)), asked.part(rest)


def measured_weights(searcher: Searcher, asked: Asked) -> HybridConfig:
    """The searcher's own, with the weights that rank these questions best where it leaves them
    open: β of the tokens among the words, then α of the cosine."""
    found, hybrid = _candidates(searcher, asked), searcher.hybrid
    names = [one.ids for one in found]
    if searcher.weighs_tokens and hybrid.sparse_weight is None:
        blends = [partial(word_scores, one.bm25_C, one.sparse_C) for one in found]
        weight = best_weight(names, blends, asked.gold)
        hybrid = hybrid.model_copy(update={"sparse_weight": weight})
    if hybrid.dense_weight is None:
        searcher.hybrid = hybrid  # the words with the weight that was just found
        blends = [partial(fused, one.cosines_C, searcher.word_scores(one)) for one in found]
        weight = best_weight(names, blends, asked.gold)
        hybrid = hybrid.model_copy(update={"dense_weight": weight})
    return hybrid


def _candidates(searcher: Searcher, asked: Asked) -> list[Candidates]:
    return [
        searcher.candidates(text, vector_D, weights=weights)
        for text, vector_D, weights in asked.each()
    ]


class Threshold(NamedTuple):
    """The cosine below which no passage answers, and what it gets right: the share of questions
    that the index answers whose best passage lies above, and of those that it does not below."""

    min_cosine: float
    kept_fraction: float
    refused_fraction: float


def calibrated_threshold(searcher: Searcher, asked: Asked) -> Threshold:
    """The highest threshold that keeps KEPT of the questions that have an answer.

    A question is made one without an answer by leaving out every passage of the documents that
    answer it; where another document would answer as well, what is refused is a lower bound.
    """
    with_answer, without = [], []
    for found, gold in zip(_candidates(searcher, asked), asked.gold, strict=True):
        documents = {row["doc_id"] for row in found.rows if row["passage_id"] in set(gold)}
        others_C = np.array([row["doc_id"] not in documents for row in found.rows], bool)
        if documents and others_C.any():
            scores_C = searcher.fused_scores(found)
            with_answer.append(_nearest_shown(found.cosines_C, scores_C))
            without.append(_nearest_shown(found.cosines_C[others_C], scores_C[others_C]))
    if not with_answer:
        return Threshold(-1.0, 1.0, 0.0)
    least = float(np.quantile(with_answer, 1 - KEPT, method="lower"))
    kept = np.mean(np.array(with_answer) >= least)
    return Threshold(least, float(kept), float(np.mean(np.array(without) < least)))


def _nearest_shown(cosines_C: np.ndarray, scores_C: np.ndarray) -> float:
    return float(cosines_C[np.argsort(-scores_C, kind="stable")[:SHOWN]].max())


def measured_router(
    config: RouterConfig,
    embedder: Embedder,
    questions: Path,
    prompts: Path,
    tuning_ND: np.ndarray,
    asked_ND: np.ndarray,
) -> tuple[Router | None, dict[str, float]]:
    """Learns which questions are looked up from the training rows, and what it gets right: the
    share of held-out questions that are looked up, and of held-out prompts that are not. None
    where FEWEST_EXAMPLES of some kind are missing.

    Args:
        questions, prompts: directories of RetrievalQuestion and Instruction shards.
        tuning_ND: vectors of held-out questions that may choose the rule; asked_ND: of others.
    """
    trained = questions_of(questions, "train", config.examples)
    alone = [one.text for one in prompts_for_the_model(prompts, "train", config.examples)]
    others = prompts_for_the_model(prompts, "dev", config.examples)
    # Every other prompt of each task chooses the rule too.
    choosing = [one.text for one in others if one.rank % 2 == 0]
    measured = [one.text for one in others if one.rank % 2]
    if min(len(trained), len(alone), len(tuning_ND), len(choosing)) < FEWEST_EXAMPLES:
        return None, {}
    learned = Examples(*map(embedder.embed_queries, (trained, alone)))
    held_out = Examples(tuning_ND, embedder.embed_queries(choosing))
    router = learn_router(learned, held_out, KEPT)
    figures = {
        "router/looked_up_fraction": router.looks_up(asked_ND).mean(),
        "router/alone_fraction": 1 - router.looks_up(embedder.embed_queries(measured)).mean(),
    }
    return router, {name: round(float(value), 4) for name, value in figures.items()}


def index_figures(searcher: Searcher, asked: Asked, table: pa.Table) -> dict[str, float]:
    """Of what a search returns (no prefix), of Milvus' own ranking (dense/), of exact search by
    cosine (exact/), of the words as they are weighted (words/), of the encoder's weights of tokens
    alone where it gives any (sparse/), and of plain BM25 (bm25/).

    Args:
        table: passage_id and vector of all passages.
    """
    started = time.monotonic()
    hits = [
        searcher.search(text, vector_D, DEPTH, weights=weights)
        for text, vector_D, weights in asked.each()
    ]
    milliseconds = 1000 * (time.monotonic() - started) / len(asked.texts)
    found = _candidates(searcher, asked)
    names = table["passage_id"].to_pylist()
    exact = [
        [names[i] for i in row] for row in exact_top(asked.vectors_QD, vectors_of(table), DEPTH)
    ]
    dense = [_best(one, one.cosines_C) for one in found]
    words = [_best(one, searcher.word_scores(one)) for one in found]
    sparse = [_best(one, one.sparse_C) for one in found]
    agreement = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(dense, exact, strict=True)])
    return {
        **retrieval_metrics([[hit.passage.passage_id for hit in row] for row in hits], asked.gold),
        **retrieval_metrics(dense, asked.gold, "dense/"),
        **retrieval_metrics(exact, asked.gold, "exact/"),
        **retrieval_metrics(words, asked.gold, "words/"),
        **(retrieval_metrics(sparse, asked.gold, "sparse/") if searcher.weighs_tokens else {}),
        **retrieval_metrics(
            [searcher.by_bm25(text, DEPTH) for text in asked.texts], asked.gold, "bm25/"
        ),
        "agreement@10": round(float(agreement), 4),
        "questions": len(asked.texts),
        "time/search_ms": round(milliseconds, 2),
    }


def _best(found: Candidates, scores_C: np.ndarray) -> list[str]:
    return order_of(found.ids, scores_C)[:DEPTH]
