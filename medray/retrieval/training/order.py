"""The order of training items: a function of the seed, so that a step can be made again."""

from functools import lru_cache

import numpy as np


def item_at(position: int, num_items: int, seed: int) -> int:
    """Returns the index of the `position`-th item drawn, each once an epoch in a new order."""
    epoch, place = divmod(position, num_items)
    return int(_permutation(num_items, seed, epoch)[place])


@lru_cache(maxsize=4)
def _permutation(num_items: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_items)
