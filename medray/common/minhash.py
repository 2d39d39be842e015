"""MinHash signatures and their bands. In: n-gram hashes. Out: one key a band and text.

Two texts whose n-gram sets have Jaccard similarity s agree in one minimum with probability s, in
all r minima of a band with s**r, and in at least one of b bands with 1 - (1 - s**r)**b.
Source: Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.3 and 3.4.
Differs: a permutation is x -> a*x + b modulo 2**32 with a odd, on hashes that are spread over all
bits already; it needs no division, and numpy does it at the speed of memory.
"""

import math
from typing import NamedTuple

import numpy as np

from medray.common.ngrams import mix

CHUNK = 1_024
"""n-grams hashed at once: 200 permutations of them stay within a core's cache."""


class Bands(NamedTuple):
    """How the minima of a signature are grouped."""

    bands: int
    rows: int
    """Minima in a band."""

    def probability(self, similarity: float) -> float:
        """Chance that a pair of this similarity shares a band, and so is compared."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def plan_bands(threshold: float, recall: float, max_hashes: int) -> Bands:
    """The most selective bands that still find a pair at `threshold` with probability `recall`.

    1 - (1 - t**r)**b >= p  gives  b = ceil(ln(1 - p) / ln(1 - t**r)); of all r with r*b <=
    `max_hashes` the greatest is taken, for then the fewest dissimilar pairs are compared.
    At t = 0.8, p = 0.99: r = 8 has t**r = 0.1678, so b = ceil(4.605 / 0.1837) = 26, 208 minima;
    r = 9 has t**r = 0.1342, b = ceil(4.605 / 0.1441) = 32, 288 minima, more than 256.
    A pair of similarity 0.5 is then compared with probability 0.097, one of 0.3 with 0.0017.

    Raises:
        ValueError: if no number of rows fits.
    """
    for rows in range(max_hashes, 0, -1):
        bands = math.ceil(math.log1p(-recall) / math.log1p(-(threshold**rows)))
        if rows * bands <= max_hashes:
            return Bands(bands, rows)
    raise ValueError(f"no bands of {max_hashes} hashes find pairs at {threshold} with probability "
                     f"{recall}; raise max_hashes or threshold, or lower recall")  # fmt: skip


def signature(hashes: np.ndarray, num_hashes: int) -> np.ndarray:
    """The minimum of each of `num_hashes` permutations over a set of n-gram hashes.

    Args:
        hashes: uint64, repeats allowed, at least one.
    Returns:
        uint32 of length `num_hashes`.
    """
    seeds_H = np.arange(2 * num_hashes, dtype=np.uint64)
    random_H = (mix(seeds_H) >> np.uint64(32)).astype(np.uint32)
    factor_H1, shift_H1 = random_H[:num_hashes, None] | np.uint32(1), random_H[num_hashes:, None]
    values_G = (hashes >> np.uint64(32)).astype(np.uint32)
    least_H = np.full(num_hashes, 2**32 - 1, np.uint32)
    for at in range(0, len(values_G), CHUNK):
        permuted_HG = factor_H1 * values_G[at : at + CHUNK]
        permuted_HG += shift_H1
        np.minimum(least_H, permuted_HG.min(axis=1), out=least_H)
    return least_H


def band_keys(signatures_NH: np.ndarray, bands: Bands) -> np.ndarray:
    """One uint64 a text and band, [N, bands]; equal where all minima of the band are."""
    minima_NBR = signatures_NH[:, : bands.bands * bands.rows].reshape(-1, *bands)
    keys_NB = np.zeros(minima_NBR.shape[:2], np.uint64)
    for row in range(bands.rows):
        keys_NB = mix(keys_NB ^ minima_NBR[:, :, row])
    return keys_NB
