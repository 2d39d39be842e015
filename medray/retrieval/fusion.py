"""One ranking of two, or three: by meaning (cosine) and by words (BM25).

    fused = α (cosine + 1) / (largest cosine + 1) + (1 − α) words / largest words

words is BM25, or, where the encoder weighs tokens too (BGE-M3), the sum of both with weights β and
1 − β, each divided by its largest. Largest values are those of the question's candidates, the
lowest ones what the score can be at least. β and then α are measured on held-out questions when an
index is built: an encoder that knows the hospital's language gets most of the weight, one that does
not can do no harm. Reciprocal ranks [RRF, Cormack et al. 2009], which need no α, let a weak encoder
pull a good ranking down: in a trial on a public set 0.172 where BM25 alone had 0.214 (nDCG@10) and
the weighted sum 0.229.
Source: Bruch, Gai and Ingber 2023, An Analysis of Fusion Functions for Hybrid Retrieval, 4 and 5.
Shapes: C candidates.
"""

from collections.abc import Callable, Sequence

import numpy as np

from medray.retrieval.recall import ndcg

STEP = 0.05
UNMEASURED = 0.5
"""α and β where there is no question to measure them on. Source: not given."""


def fused(cosines_C: np.ndarray, words_C: np.ndarray, dense_weight: float) -> np.ndarray:
    """Scores of one question's candidates, 0 to 1. [C]"""
    return dense_weight * largest_is_one(cosines_C + 1) + (1 - dense_weight) * largest_is_one(
        words_C
    )


def word_scores(bm25_C: np.ndarray, sparse_C: np.ndarray, sparse_weight: float) -> np.ndarray:
    """One score of two by words: BM25, and an encoder's own weights of tokens (`sparse`), each
    divided by its largest. Without the second it is BM25 as it was. [C]"""
    if not sparse_weight:
        return bm25_C
    return sparse_weight * largest_is_one(sparse_C) + (1 - sparse_weight) * largest_is_one(bm25_C)


def largest_is_one(values_C: np.ndarray) -> np.ndarray:
    """Divided by the largest, which makes that 1; zeros where none is above 0. [C]"""
    largest = float(values_C.max(initial=0))
    return values_C.astype(float) / largest if largest > 0 else np.zeros(len(values_C))


def best_weight(
    candidates: Sequence[list[str]],
    blends: Sequence[Callable[[float], np.ndarray]],
    gold: Sequence[Sequence[str]],
) -> float:
    """The weight with the highest nDCG@10; of equal ones the one in the middle. One entry a
    question; `blends`: a weight → scores_C."""
    grid = np.arange(0, 1 + STEP / 2, STEP).round(2)
    figures = []
    for weight in grid:
        ranked = [
            order_of(names, blend(float(weight)))
            for names, blend in zip(candidates, blends, strict=True)
        ]
        figures.append(ndcg(ranked, gold))
    best = np.flatnonzero(np.isclose(figures, np.max(figures), atol=1e-9))
    return float(grid[best[len(best) // 2]])


def order_of(names: list[str], scores_C: np.ndarray) -> list[str]:
    """Names by falling score, equal ones in their order."""
    return [names[i] for i in np.argsort(-scores_C, kind="stable")]
