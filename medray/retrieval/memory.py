"""Hybrid search over a few passages that are held in memory and nowhere else.

In: passages, their vectors, a question. Out: hits, best first, ranked as `search` ranks those of an
index. BM25's statistics are those of the few, so that its scores do not compare with an index's.
"""

from collections.abc import Sequence

import numpy as np

from medray.retrieval.embed import passage_text
from medray.retrieval.fusion import UNMEASURED, fused
from medray.retrieval.lexical import LexicalConfig, LexicalIndex


def rank_few(
    titles: Sequence[str],
    texts: Sequence[str],
    vectors_ND: np.ndarray,
    question: str,
    vector_D: np.ndarray,
    dense_weight: float = UNMEASURED,
) -> list[tuple[int, float, float, float]]:
    """(place, score, cosine, BM25) of every passage, best first; one passage at least.

    Args:
        vectors_ND: of `passage_text`, length 1. vector_D: the question's, length 1.
    """
    whole = [passage_text(title, text) for title, text in zip(titles, texts, strict=True)]
    bm25_N = LexicalIndex.build(whole, LexicalConfig()).scores(question)
    cosines_N = vectors_ND @ vector_D
    scores_N = fused(cosines_N, bm25_N, dense_weight)
    return [
        (int(i), float(scores_N[i]), float(cosines_N[i]), float(bm25_N[i]))
        for i in np.argsort(-scores_N, kind="stable")
    ]
