"""Rounds of PPO on two workers against NumPy: rewards, length guard, advantages, losses, β.

NumPy is given scores, and the log-probabilities and values that the passes of a round gave.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest

from medray.training.language_model import LoraConfig
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.guards import GuardConfig

pytestmark = pytest.mark.cluster
ROUNDS = 2
PPO = PpoConfig(
    learning_rate=2e-2, rollouts=8, batch_size=4, micro_batch_size=1, epochs=2, gamma=0.97,
    max_new_tokens=8, lora=LoraConfig(rank=4, alpha=16), reward_clip=0.7, clip=0.1, value_clip=0.05,
    kl_target=0.02, guards=GuardConfig(length_tolerance=0.05, repetition_tokens=2),
)  # fmt: skip
SETTINGS = [
    PPO.model_copy(update={"kl": kl, "kl_estimator": estimator, "lam": lam, "whiten": whiten})
    for kl, estimator, lam, whiten in (
        ("reward_sft", "k1", 0.0, True), ("reward_sft", "k3", 0.95, False),
        ("loss_old", "k1", 0.95, True), ("loss_old", "k3", 0.0, False),
        ("both", "k1", 0.0, False), ("both", "k3", 0.95, True),
    )
]  # fmt: skip
"""Every pair of values of two settings stands in one of them."""
ONE_UPDATE = PPO.model_copy(update={"epochs": 1, "batch_size": 8})
WHOLE_PASSES = ONE_UPDATE.model_copy(update={"micro_batch_size": 4})


class Answer(NamedTuple):
    """One answer of A tokens."""

    tokens: tuple[int, ...]
    """Prompt and answer."""
    score: float
    old: np.ndarray
    """[A], as the two below."""
    reference: np.ndarray
    values: np.ndarray


class Pass(NamedTuple):
    """A forward pass in training, and the loss that went backward."""

    rows: list[tuple[tuple[int, ...], np.ndarray, np.ndarray]]
    """Tokens, log-probabilities and values of each answer."""
    loss: float


class Round(NamedTuple):
    """A worker's part of a round."""

    answers: list[Answer]
    passes: list[Pass]
    figures: dict[str, float]


class Part(NamedTuple):
    """All that a worker has done."""

    heldout: list[Answer]
    rounds: list[Round]
    weights: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def played(play_rounds: Any) -> list[list[Part]]:
    """The parts of both workers, for each of the settings."""
    found = play_rounds([*SETTINGS, ONE_UPDATE, WHOLE_PASSES], ROUNDS)
    return [
        [
            Part(
                [Answer(*row) for row in heldout],
                [
                    Round(
                        [Answer(*row) for row in answers], [Pass(*one) for one in passes], figures
                    )
                    for answers, passes, figures in rounds
                ],
                weights,
            )
            for heldout, rounds, weights in parts
        ]
        for parts in found
    ]


def repeated(tokens: tuple[int, ...], n: int) -> float:
    """Share of n-grams that stood before."""
    grams = [tokens[k : k + n] for k in range(len(tokens) - n + 1)]
    return sum(gram in grams[:k] for k, gram in enumerate(grams)) / max(1, len(grams))


def kl_of(answer: Answer, config: PpoConfig) -> np.ndarray:
    """The estimated KL to the reference at each token."""
    x = answer.old - answer.reference
    return x if config.kl_estimator == "k1" else np.exp(-x) - 1 + x


def targets_of(
    answers: list[Answer], heldout: list[Answer], config: PpoConfig, beta: float
) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
    """(advantages, returns) of each answer of all workers, by its tokens."""
    scores = [answer.score for answer in heldout]
    first = np.mean([len(answer.old) for answer in heldout])
    lengths = np.array([len(answer.old) for answer in answers])
    drift = lengths.mean() / first - 1
    excess = max(0, abs(drift) - config.guards.length_tolerance / 2)
    decay = config.gamma * config.lam
    found = {}
    for answer in answers:
        A = len(answer.old)
        rewards = np.zeros(A) if config.kl == "loss_old" else -beta * kl_of(answer, config)
        normal = (answer.score - np.mean(scores)) / np.std(scores)
        rewards[-1] += np.clip(normal, -config.reward_clip, config.reward_clip)
        longer = (A - lengths.mean()) / max(lengths.std(), 1)
        rewards[-1] -= config.guards.length_strength * excess * np.sign(drift) * longer
        share = repeated(answer.tokens[-A:], config.guards.repetition_tokens)
        rewards[-1] -= config.guards.repetition_strength * share
        delta = rewards + config.gamma * np.append(answer.values[1:], 0) - answer.values
        advantages = np.array(
            [sum(decay ** (k - t) * delta[k] for k in range(t, A)) for t in range(A)]
        )
        found[answer.tokens] = (advantages, advantages + answer.values)
    if config.whiten:
        every = np.concatenate([found[answer.tokens][0] for answer in answers])
        found = {
            tokens: ((advantages - every.mean()) / every.std(), returns)
            for tokens, (advantages, returns) in found.items()
        }
    return found


def terms(
    answer: Answer, new: np.ndarray, values: np.ndarray, targets: Any, config: PpoConfig
) -> np.ndarray:
    """Policy loss, value loss, clipped tokens, KL to the policy that rolled out; sums. [4]"""
    sums = np.zeros(4)
    for t, old in enumerate(answer.old):
        advantage, goal = targets[0][t], targets[1][t]
        ratio = np.exp(new[t] - old)
        clipped = np.clip(ratio, 1 - config.clip, 1 + config.clip) * advantage
        moved = np.clip(values[t] - answer.values[t], -config.value_clip, config.value_clip)
        near = answer.values[t] + moved
        sums += [
            -min(ratio * advantage, clipped),
            max((values[t] - goal) ** 2, (near - goal) ** 2) / 2,
            clipped < ratio * advantage,
            ratio * np.log(ratio) - ratio + 1,
        ]
    return sums


def check_round(
    rounds: list[Round], heldout: list[Answer], config: PpoConfig, beta: float
) -> tuple[np.ndarray, float]:
    """Compares both workers' parts of a round; returns means of the terms, and the next β."""
    answers = [answer for part in rounds for answer in part.answers]
    by_tokens = {answer.tokens: answer for answer in answers}
    targets = targets_of(answers, heldout, config, beta)
    num_passes = config.batch_size // len(rounds) // config.micro_batch_size
    num_updates = config.rollouts // config.batch_size
    means = []
    for first in range(0, config.epochs * num_updates * num_passes, num_passes):
        learnt = [one for part in rounds for one in part.passes[first : first + num_passes]]
        rows = [row for one in learnt for row in one.rows]
        assert len(rows) == config.batch_size
        num_tokens = sum(len(by_tokens[row[0]].old) for row in rows)
        total = np.zeros(4)
        for one in learnt:
            part = np.sum(
                [terms(by_tokens[row[0]], *row[1:], targets[row[0]], config) for row in one.rows], 0
            )
            loss = part[0] + config.value_coefficient * part[1]
            loss += beta * part[3] * (config.kl != "reward_sft")
            # DeepSpeed takes the mean over workers and passes.
            expected = loss / num_tokens * len(rounds) * num_passes
            assert one.loss == pytest.approx(expected, rel=1e-4, abs=1e-5)
            total += part
        means.append(total / num_tokens)
    length = np.mean([len(answer.old) for answer in answers])
    kl = np.mean([kl_of(answer, config).sum() for answer in answers])
    kl_old = np.mean(means[-num_updates:], 0)[3] * length
    policy, value, clipped, _ = np.mean(means, 0)
    expected = {
        "ppo/reward": np.mean([answer.score for answer in answers]), "ppo/kl": kl,
        "ppo/kl_old": kl_old, "ppo/beta": beta, "ppo/length": length,
        "ppo/policy_loss": policy, "ppo/value_loss": value, "ppo/clip_fraction": clipped,
    }  # fmt: skip
    for part in rounds:
        assert part.figures == pytest.approx(expected, rel=1e-4, abs=1e-5)
    steered = kl_old if config.kl == "loss_old" else kl
    error = np.clip(steered / config.kl_target - 1, -0.2, 0.2)
    return np.mean(means, 0), beta * (1 + config.kl_rate * error)


def test_rounds_are_those_of_numpy(played: list[list[Part]]) -> None:
    clipped = 0.0
    for config, parts in zip(SETTINGS, played[: len(SETTINGS)], strict=True):
        heldout = [answer for part in parts for answer in part.heldout]
        beta = config.kl_coefficient
        for number in range(ROUNDS):
            rounds = [part.rounds[number] for part in parts]
            means, beta = check_round(rounds, heldout, config, beta)
            clipped += means[2]
            assert means[3] > 0
            assert len({len(answer.old) for part in rounds for answer in part.answers}) > 1
    assert clipped > 0


def test_the_first_update_finds_the_ratio_at_1(played: list[list[Part]]) -> None:
    for config, parts in zip([*SETTINGS, ONE_UPDATE, WHOLE_PASSES], played, strict=True):
        num_passes = config.batch_size // 2 // config.micro_batch_size
        for one in (one for part in parts for one in part.rounds):
            old = {answer.tokens: answer.old for answer in one.answers}
            gaps = [
                max(np.abs(new[: len(old[tokens])] - old[tokens]).max() for tokens, new, _ in rows)
                for rows, _ in one.passes
            ]
            assert max(gaps[:num_passes]) == 0
            assert all(gap > 0 for gap in gaps[num_passes:])
            if len(gaps) == num_passes:
                assert one.figures["ppo/kl_old"] == one.figures["ppo/clip_fraction"] == 0


def test_a_batch_is_the_same_in_passes_of_1_and_of_4(played: list[list[Part]]) -> None:
    (one, _), (whole, _) = played[-2:]
    assert one.rounds[0].figures == pytest.approx(whole.rounds[0].figures, rel=1e-5, abs=1e-5)
    gaps = [float(np.abs(one.weights[n] - whole.weights[n]).max()) for n in one.weights]
    assert max(gaps) < 1e-4
