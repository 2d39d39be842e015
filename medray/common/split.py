"""Which rows are held out: decided by a hash of a key, never by order or chance."""

import hashlib
from typing import Literal

Split = Literal["train", "dev"]


def split_of(key: str, dev_fraction: float) -> Split:
    """Returns the split of `key` (a patient id, a question id).

    The same key gives the same split in every job and on every machine, and growing
    `dev_fraction` only moves keys from train to dev.
    """
    return "dev" if unit_hash(key) < dev_fraction else "train"


def unit_hash(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
