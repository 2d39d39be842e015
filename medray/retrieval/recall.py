"""Retrieval figures. In: ranked passages and gold passages. Out: recall@k, MRR@10, nDCG@10."""

from collections.abc import Sequence

import numpy as np

DEPTH = 10


def recall_at(ranked: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], k: int) -> float:
    """Mean over questions of the share of gold passages among the first `k`. Empty: nan."""
    if not gold:
        return float("nan")
    shares = [
        len(set(found[:k]) & set(wanted)) / len(set(wanted))
        for found, wanted in zip(ranked, gold, strict=True)
    ]
    return float(np.mean(shares))


def mean_reciprocal_rank(ranked: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> float:
    """Mean over questions of 1 / rank of the first gold passage, 0 beyond rank 10. Empty: nan."""
    if not gold:
        return float("nan")
    total = 0.0
    for found, wanted in zip(ranked, gold, strict=True):
        ranks = [i for i, name in enumerate(found[:DEPTH], start=1) if name in set(wanted)]
        total += 1 / ranks[0] if ranks else 0.0
    return total / len(gold)


def ndcg(ranked: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> float:
    """Mean over questions of nDCG@10 where a passage is gold or is not. Empty: nan.

    Source: Järvelin and Kekäläinen 2002, discounted by log2(rank + 1) as trec_eval does.
    """
    if not gold:
        return float("nan")
    discounts = 1 / np.log2(np.arange(DEPTH) + 2)
    shares = []
    for found, wanted in zip(ranked, gold, strict=True):
        gains = [name in set(wanted) for name in found[:DEPTH]]
        best = discounts[: len(set(wanted))].sum()
        shares.append(discounts[: len(gains)] @ np.array(gains, float) / best)
    return float(np.mean(shares))


def retrieval_metrics(
    ranked: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], prefix: str = ""
) -> dict[str, float]:
    """Returns recall@1, @5, @10, mrr@10 and ndcg@10, keys with `prefix` before them."""
    figures = {f"{prefix}recall@{k}": recall_at(ranked, gold, k) for k in (1, 5, 10)}
    figures[f"{prefix}mrr@10"] = mean_reciprocal_rank(ranked, gold)
    figures[f"{prefix}ndcg@10"] = ndcg(ranked, gold)
    return {name: round(value, 4) for name, value in figures.items()}


def exact_top(queries_QD: np.ndarray, vectors_ND: np.ndarray, k: int) -> np.ndarray:
    """Returns rows_QK of the largest inner products, best first; ties by row. Exhaustive."""
    k = min(k, len(vectors_ND))
    top = np.empty((len(queries_QD), k), dtype=np.int64)
    for start in range(0, len(queries_QD), 256):
        scores_QN = queries_QD[start : start + 256] @ vectors_ND.T
        top[start : start + 256] = np.argsort(-scores_QN, axis=1, kind="stable")[:, :k]
    return top
