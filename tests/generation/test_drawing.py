"""Tokens are drawn as their probabilities say."""

import math
from typing import Any

import pytest
import torch

from medray.generation.drawing import DrawToken, drawing

PROBABILITIES = [0.5, 0.0, 0.3, 0.15, 0.05, 0.0]
DRAWS = 40_000


def draw(temperature: float = 1.0, top_p: float = 1.0) -> list[float]:
    """Share of draws by token."""
    torch.manual_seed(0)
    scores_BV: Any = torch.tensor([PROBABILITIES]).log().repeat(DRAWS, 1)
    left_BV = drawing(temperature, top_p)(torch.zeros(DRAWS, 1, dtype=torch.long), scores_BV)
    assert torch.equal((left_BV == 0).sum(-1), torch.ones(DRAWS, dtype=torch.long))
    assert torch.equal(left_BV.isneginf().sum(-1), torch.full((DRAWS,), 5))
    counts = torch.bincount(left_BV.argmax(-1), minlength=len(PROBABILITIES))
    return (counts / DRAWS).tolist()


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, PROBABILITIES),
        # Squares, and their sum: 0.25 + 0.09 + 0.0225 + 0.0025 = 0.365.
        (0.5, 1.0, [0.25 / 0.365, 0, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365, 0]),
        (1.0, 0.75, [0.5 / 0.8, 0, 0.3 / 0.8, 0, 0, 0]),  # 0.5 + 0.3 reach 0.75
    ],
)
def test_shares_are_the_probabilities(
    temperature: float, top_p: float, expected: list[float]
) -> None:
    for share, p in zip(draw(temperature, top_p), expected, strict=True):
        assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / DRAWS)


def test_what_cannot_be_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """At both ends of the random numbers, where tokens without probability lie beside."""
    scores_BV: Any = torch.tensor([[0.0, 0.4, 0.6, 0.0]]).log()
    ids: Any = torch.zeros(1, 1, dtype=torch.long)
    for number, token in (0.0, 1), (1.0, 2):
        monkeypatch.setattr(torch, "rand", lambda shape, n=number, **_: torch.full(shape, n))
        assert DrawToken()(ids, scores_BV).argmax().item() == token


def test_greedy_draws_nothing() -> None:
    assert len(drawing(0.0, 0.9)) == 0
