"""Choices with a price: every clinical choice adds its negative log probability.

In: a key that names the row. Out: choices, and `nll_nats`, their summed -log p.

`nll_nats` bounds -log p(text) from below only while each counted choice can be read off the
text: then every text belongs to one path of counted choices, and p(text) = p(path) x
p(uncounted | path) <= p(path). So the options of a choice must give distinct texts, a choice that
leaves no trace must not be counted (`Sampler.free` is for those, and for patient identifiers), and
a finding is counted when it is written, not when it is drawn.
Source: issue 2, "logs the log-probability of its choices".
"""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

Option = TypeVar("Option")


class Sampler:
    """Counted choices from one seeded stream, uncounted ones (`free`) from another."""

    def __init__(self, key: str) -> None:
        self.rng = random.Random(key)
        self.free = random.Random(f"{key}:free")
        """Stream for identifiers and for choices that the text does not show."""
        self.nll_nats = 0.0

    def count(self, log_p: float) -> None:
        """Adds a choice that was drawn elsewhere and is written now."""
        self.nll_nats -= log_p

    def choice(self, options: Sequence[Option]) -> Option:
        """One of `options`, uniformly."""
        self.nll_nats += math.log(len(options))
        return options[int(self.rng.random() * len(options))]

    def flip(self, p: float) -> bool:
        """True with probability `p`."""
        if p <= 0.0 or p >= 1.0:
            return p >= 1.0
        outcome = self.rng.random() < p
        self.nll_nats -= math.log(p if outcome else 1.0 - p)
        return outcome

    def arrange(self, options: Sequence[Option], num: int) -> list[Option]:
        """`num` different options in random order: each ordered selection equally likely."""
        pool = list(options)
        for i in range(num):
            left = len(pool) - i
            self.nll_nats += math.log(left)
            j = i + int(self.rng.random() * left)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:num]
