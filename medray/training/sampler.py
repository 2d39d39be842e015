"""Which samples make step t: a function of (seed, step), so that any run resumes exactly.

The global batch at step t is the same for any number of workers; its state is one number, the
step. Source: DESIGN.md 3, exact resume.
"""

import hashlib

import numpy as np

from medray.common.errors import DataError


class IndexSampler:
    """Shuffles `num_samples` anew each epoch and cuts the endless sequence into batches."""

    def __init__(self, num_samples: int, batch_size: int, seed: int) -> None:
        if num_samples < 1:
            raise DataError(
                "the training split is empty; look at the counts of the artefact it is read from"
            )
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> list[int]:
        """The sample indices of the global batch at `step` (from 0)."""
        first = step * self.batch_size
        return [self._at(first + k) for k in range(self.batch_size)]

    def share(self, step: int, rank: int, world_size: int) -> list[int]:
        """The part of the batch at `step` that worker `rank` computes."""
        return self.batch(step)[rank::world_size]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.num_samples)
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(self.num_samples)
            self._epoch = epoch
        return int(self._order[place])


def seed_of(*parts: int | str) -> int:
    """A seed that depends on `parts` alone, such as (seed, round, "roll out", rank): with it no
    state of a random generator has to be saved."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
