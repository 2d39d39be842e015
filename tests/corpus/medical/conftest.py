"""Texts of two invented vocabularies; nobody wrote them."""

import random
from collections.abc import Callable
from functools import partial

import pytest

from medray.corpus.medical.train import Example, FilterTraining

MEDICAL = "".join(chr(0x5000 + 7 * k) for k in range(80))
GENERAL = "".join(chr(0x6000 + 7 * k) for k in range(80))
SHARED = "".join(chr(0x7000 + 7 * k) for k in range(80))


def make_text(vocabulary: str, rng: random.Random, num_chars: int = 120) -> str:
    """Characters of a vocabulary and of the one that both sides share, in halves."""
    return "".join(rng.choices(vocabulary + SHARED, k=num_chars)) + "。"


@pytest.fixture(scope="session")
def medical_text() -> Callable[[random.Random], str]:
    """rng → a medical text."""
    return partial(make_text, MEDICAL)


@pytest.fixture(scope="session")
def general_text() -> Callable[[random.Random], str]:
    """rng → a general text."""
    return partial(make_text, GENERAL)


@pytest.fixture
def training() -> FilterTraining:
    return FilterTraining(medical=["books"], general=["news"])


@pytest.fixture
def separable() -> Callable[..., list[Example]]:
    """Examples of two vocabularies, `size` of each side."""

    def make(size: int = 200, seed: int = 0) -> list[Example]:
        rng = random.Random(seed)
        return [
            Example(make_text(words, rng), is_medical, source, f"{source}{k}")
            for words, is_medical, source in ((MEDICAL, True, "books"), (GENERAL, False, "news"))
            for k in range(size)
        ]

    return make
