"""General text among the training tokens, so that continued pretraining does not forget.

In: lengths of the general documents. Out: how many tokens of each are read.
Source: Ibrahim et al. 2024 (replay in continued pretraining); Muennighoff et al. 2023: up to four
passes over the same text are worth nearly as much as new text.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from medray.common.split import unit_hash

logger = logging.getLogger(__name__)
MAX_PASSES = 4


def replayed_tokens(
    doc_ids: Sequence[str], lengths: Sequence[int], num_medical: int, fraction: float
) -> np.ndarray:
    """How many tokens of each general document are read beside `num_medical` others.

    Together they are `fraction` of all tokens, to the nearest one: the documents in the order of a
    hash of their ids, the last one cut. Where they are too few they are read again.
    """
    lengths_D = np.array(lengths, np.int64)
    total = int(lengths_D.sum())
    if not total:
        return lengths_D
    passes, rest = divmod(round(num_medical * fraction / (1 - fraction)), total)
    if passes >= MAX_PASSES:
        logger.warning(
            "replay: the general text is read %d times, which teaches it by heart; add more or "
            "lower replay_fraction", passes + bool(rest),
        )  # fmt: skip
    order_D = np.array(
        sorted(range(len(doc_ids)), key=lambda d: (unit_hash(f"replay/{doc_ids[d]}"), doc_ids[d])),
        np.int64,
    )
    before_D = np.cumsum(lengths_D[order_D]) - lengths_D[order_D]
    taken_D = np.empty_like(lengths_D)
    taken_D[order_D] = np.clip(rest - before_D, 0, lengths_D[order_D])
    return passes * lengths_D + taken_D


def replay(documents: Iterable[np.ndarray], taken_D: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the tokens of each document as often as they are read, the rest of it last."""
    for tokens, taken in zip(documents, taken_D.tolist(), strict=True):
        passes, rest = divmod(taken, len(tokens))
        yield from [tokens] * passes
        if rest:
            yield tokens[:rest]
