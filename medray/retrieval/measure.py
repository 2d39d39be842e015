"""Figures of an index on held-out questions, and the weight of its two rankings. In: an open
index, its vectors, questions. Out: recall@1/5/10, MRR@10 and nDCG@10 of each ranking.

Half of the questions choose the weight, at most TUNING of them; the figures are of the others.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from medray.common.manifest import Counts
from medray.common.records import RetrievalQuestion
from medray.common.rows import read_rows
from medray.retrieval.collection import vectors_of
from medray.retrieval.fusion import best_weight, fused, order_of
from medray.retrieval.recall import exact_top, retrieval_metrics
from medray.retrieval.search import Candidates, Searcher

DEPTH = 10
"""Hits per question that the figures look at."""
SHOWN = 5
"""Passages that a model is shown, as serving has it where nothing else is asked."""
KEPT = 0.95
"""Of the questions that have an answer are to be answered. Source: not given; on the sample
hospital the threshold that tells both kinds apart best (Youden's J) kept 0.74 and refused 0.89,
this one 0.96 and 0.54."""
TUNING = 500
"""Questions that choose the weight at most. Source: not given."""
FEWEST = 20
"""With fewer to choose it the weight is left as it is. Source: not given."""


class Asked(NamedTuple):
    """Questions that the index can answer, with their vectors."""

    texts: list[str]
    gold: list[list[str]]
    vectors_QD: np.ndarray

    def part(self, rows: Sequence[int]) -> "Asked":
        """Some of them."""
        return Asked(
            [self.texts[i] for i in rows], [self.gold[i] for i in rows], self.vectors_QD[rows]
        )


def held_out_questions(
    directory: Path, known: set[str], most: int
) -> tuple[list[RetrievalQuestion], Counts]:
    """Questions of split dev in id order. One whose passages are not all indexed is left out and
    counted."""
    counts, asked = Counts(), []
    for question in sorted(read_rows(directory, RetrievalQuestion), key=lambda row: row.id):
        counts.rows_in += 1
        if question.split != "dev":
            counts.reject("split_train")
        elif not known.issuperset(question.passage_ids):
            counts.reject("passage_not_indexed")
        elif len(asked) == most:
            counts.reject("beyond_max_questions")
        else:
            asked.append(question)
            counts.rows_out += 1
    return asked, counts


def split_for_tuning(asked: Asked) -> tuple[Asked, Asked]:
    """(those that choose the weight, those that are measured); the first may be none."""
    num = len(asked.texts)
    tuning = range(0, num, 2)[:TUNING] if num // 2 >= FEWEST else range(0)
    rest = sorted(set(range(num)) - set(tuning))
    return asked.part(list(tuning)), asked.part(rest)


def measured_weight(searcher: Searcher, asked: Asked) -> float:
    """The share of the cosine that ranks these questions best."""
    found = [
        searcher.candidates(text, vector_D)
        for text, vector_D in zip(asked.texts, asked.vectors_QD, strict=True)
    ]
    return best_weight(
        [one.ids for one in found],
        [partial(fused, one.cosines_C, one.bm25_C) for one in found],
        asked.gold,
    )


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
    for text, vector_D, gold in zip(asked.texts, asked.vectors_QD, asked.gold, strict=True):
        found = searcher.candidates(text, vector_D)
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


def index_figures(searcher: Searcher, asked: Asked, table: pa.Table) -> dict[str, float]:
    """Of what a search returns (no prefix), of Milvus' own ranking (dense/), of exact search by
    cosine (exact/), of the words as they are weighted (words/) and of plain BM25 (bm25/).

    Args:
        table: passage_id and vector of all passages.
    """
    started = time.monotonic()
    hits = [
        searcher.search(text, vector_D, DEPTH)
        for text, vector_D in zip(asked.texts, asked.vectors_QD, strict=True)
    ]
    milliseconds = 1000 * (time.monotonic() - started) / len(asked.texts)
    found = [
        searcher.candidates(text, vector_D)
        for text, vector_D in zip(asked.texts, asked.vectors_QD, strict=True)
    ]
    names = table["passage_id"].to_pylist()
    exact = [
        [names[i] for i in row] for row in exact_top(asked.vectors_QD, vectors_of(table), DEPTH)
    ]
    dense = [_best(one, one.cosines_C) for one in found]
    agreement = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(dense, exact, strict=True)])
    return {
        **retrieval_metrics([[hit.passage.passage_id for hit in row] for row in hits], asked.gold),
        **retrieval_metrics(dense, asked.gold, "dense/"),
        **retrieval_metrics(exact, asked.gold, "exact/"),
        **retrieval_metrics([_best(one, one.bm25_C) for one in found], asked.gold, "words/"),
        **retrieval_metrics(
            [searcher.by_bm25(text, DEPTH) for text in asked.texts], asked.gold, "bm25/"
        ),
        "agreement@10": round(float(agreement), 4),
        "questions": len(asked.texts),
        "time/search_ms": round(milliseconds, 2),
    }


def _best(found: Candidates, scores_C: np.ndarray) -> list[str]:
    return order_of(found.ids, scores_C)[:DEPTH]
