"""Texts of random characters, and near copies of them."""

import random
from collections.abc import Callable

import pytest

LETTERS = [chr(0x4E00 + i) for i in range(2_000)]


@pytest.fixture(scope="session")
def letters() -> list[str]:
    """The characters that texts are made of."""
    return LETTERS


@pytest.fixture(scope="session")
def edited() -> Callable[[str, int, random.Random], str]:
    """(text, edits, rng) → the text with that many characters drawn again."""

    def edit(text: str, edits: int, rng: random.Random) -> str:
        drawn = list(text)
        for place in rng.sample(range(len(text)), edits):
            drawn[place] = rng.choice(LETTERS)
        return "".join(drawn)

    return edit
