"""Exact Jaccard similarity of character n-gram sets. In: texts. Out: similarities of pairs.

No hash is involved, so a pair that passes is a near-duplicate for certain.
"""

import numpy as np
from scipy.sparse import csr_array

PAIRS_AT_ONCE = 4_096


def ngram_set(text: str, size: int) -> set[str]:
    """The distinct n-grams of `text`; a shorter text is its own only n-gram, "" has none."""
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))} - {""}


def ngram_matrix(texts: list[str], size: int) -> csr_array:
    """One row a text, one column an n-gram, 1 where the text has it."""
    ids: dict[str, int] = {}
    columns: list[int] = []
    starts = [0]
    for text in texts:
        columns += sorted(ids.setdefault(ngram, len(ids)) for ngram in ngram_set(text, size))
        starts.append(len(columns))
    return csr_array(
        (np.ones(len(columns), np.int32), columns, starts), shape=(len(texts), len(ids))
    )


def jaccard(matrix: csr_array, left_P: np.ndarray, right_P: np.ndarray) -> np.ndarray:
    """Similarity of rows left_P[i] and right_P[i] of an n-gram matrix; 0 for two empty rows."""
    sizes_N = np.diff(matrix.indptr)
    shared_P = np.zeros(len(left_P), np.int64)
    for at in range(0, len(left_P), PAIRS_AT_ONCE):
        part = slice(at, at + PAIRS_AT_ONCE)
        shared_P[part] = matrix[left_P[part]].multiply(matrix[right_P[part]]).sum(axis=1)
    return shared_P / np.maximum(1, sizes_N[left_P] + sizes_N[right_P] - shared_P)
