"""Passages by the words that an encoder weighs: the sparse vectors of BGE-M3. In: weights of each
passage's tokens. Out: a score of every passage.

A text has one weight for each different token, the largest of its places; question and passage
score the sum of the products over the tokens that they share. Kept and searched like the index of
words (`lexical`), whose statistics an encoder's weights stand beside, not in place of.
Source: Chen et al. 2024, M3-Embedding 3.2, lexical retrieval.
Shapes: N passages, P weights of all of them, V token ids.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csc_matrix, csr_matrix

from medray.retrieval.lexical import add_postings

TokenWeights = Mapping[int, float]
"""Of a text, by token id; without those that weigh nothing."""
NONE: TokenWeights = {}
COLUMN = "token_weights"
"""Of an index's Parquet."""
TYPE = pa.map_(pa.int32(), pa.float32())
PARTS = ("data", "indices", "indptr")


def weights_column(rows: Sequence[TokenWeights]) -> pa.Array:
    """The column of so many passages."""
    return pa.array([list(row.items()) for row in rows], TYPE)


class SparseIndex:
    """Passages by their tokens, in the order they were given."""

    def __init__(self, weights_NV: Any) -> None:
        self.weights_NV = weights_NV
        """A csc_matrix, whose stubs know no shape."""

    @classmethod
    def build(cls, passages: Path) -> Self | None:
        """From the Parquet of an index, in its order; None where its encoder weighs no tokens."""
        if COLUMN not in pq.ParquetDataset(passages).schema.names:
            return None
        column = pq.read_table(passages, columns=[COLUMN])[COLUMN].combine_chunks()
        ends_N = column.offsets.to_numpy()
        stored = slice(ends_N[0], ends_N[-1])  # a part of a table shares the whole one's values
        tokens_P, weights_P = column.keys.to_numpy()[stored], column.items.to_numpy()[stored]
        shape = (len(column), int(tokens_P.max(initial=0)) + 1)
        return cls(csr_matrix((weights_P, tokens_P, ends_N - ends_N[0]), shape=shape).tocsc())

    def save(self, directory: Path) -> None:
        """Into a directory that is made."""
        directory.mkdir()
        for name in PARTS:
            np.save(directory / f"{name}.npy", getattr(self.weights_NV, name))
        np.save(directory / "shape.npy", np.array(self.weights_NV.shape))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """What `save` wrote, its arrays mapped into memory."""
        parts = tuple(np.load(directory / f"{name}.npy", mmap_mode="r") for name in PARTS)
        rows, columns = np.load(directory / "shape.npy").tolist()
        return cls(csc_matrix(parts, shape=(rows, columns), copy=False))

    def scores(self, question: TokenWeights) -> np.ndarray:
        """scores_N, float32, 0 where a passage shares no token with the question."""
        known = {row: w for row, w in question.items() if row < self.weights_NV.shape[1]}
        return add_postings(
            self.weights_NV, np.array([*known], np.int64), np.array([*known.values()], np.float32)
        )
