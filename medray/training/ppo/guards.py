"""What keeps PPO from winning the reward model's favour by form alone: length, repetition.

A reward model has seen few answers much shorter or longer than those it was trained on, and what it
says of them is chance. On the sample hospital one policy of many found that it liked the shortest
answers (34 tokens → 10, reward +2.2 standard deviations, true score 6.6 → 3.7). Both guards add to
an answer's normalised score, in standard deviations of the scores at the start.
Shapes: B answers. Source: DESIGN.md 3; length as the first thing that reward hacking finds: Singhal
et al. 2023 (A Long Way to Go). The rules are ours.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from medray.common.config import Config


class GuardConfig(Config):
    """How strong the guards are; 0 takes one away."""

    length_tolerance: float = Field(default=0.2, gt=0)
    """Share of its first mean that the mean length of answers may change by."""
    length_strength: float = Field(default=20.0, ge=0)
    """Source: not given; at the tolerance an answer one standard deviation longer than the others
    then gains or loses 2 standard deviations of the score."""
    repetition_strength: float = Field(default=5.0, ge=0)
    """What an answer of nothing but repeated n-grams loses. Source: not given."""
    repetition_tokens: int = Field(default=4, ge=2)
    """n of the n-grams."""


def length_guard(
    lengths_B: Tensor, mean: float, spread: float, first: float, config: GuardConfig
) -> Tensor:
    """Once the mean length has drifted by half of what is tolerated, answers gain by how much they
    lead back, the more the further it has drifted.

    Args:
        mean, spread: mean and standard deviation of the round's lengths, over all workers.
        first: mean length of the answers at the start.
    """
    drift = mean / first - 1
    excess = max(0.0, abs(drift) - config.length_tolerance / 2)
    back = -1.0 if drift > 0 else 1.0
    return config.length_strength * excess * back * (lengths_B - mean) / max(spread, 1.0)


def repetition_guard(answers: Sequence[Sequence[int]], config: GuardConfig) -> Tensor:
    """−strength × the share of each answer's n-grams that stood in it before. [B]"""
    shares = [repeated_share(answer, config.repetition_tokens) for answer in answers]
    return -config.repetition_strength * torch.tensor(shares)


def repeated_share(tokens: Sequence[int], n: int) -> float:
    """Share of the n-grams of `tokens` that stood before; 0 if there is none.

    >>> repeated_share([1, 2, 1, 2, 1], 2)
    0.5
    """
    grams = [tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
