"""Losses and estimators by hand-worked numbers."""

import math

import pytest
import torch
from torch import tensor

from medray.training import losses

MASK = tensor([[1.0, 1.0, 1.0]])
REWARDS = tensor([[0.0, 0.0, 1.0]])
VALUES = tensor([[0.5, 0.25, 0.5]])


def test_zero_logits_give_ln_v() -> None:
    loss = losses.token_nll_sum(torch.zeros(3, 7), tensor([0, 3, 6]), tensor([1.0, 0.5, 2.0]))
    assert loss.item() == pytest.approx(3.5 * math.log(7))


def test_gae_by_hand() -> None:
    # γ = 1, λ = ½. δ₂ = 1 − 0.5 = 0.5, δ₁ = 0.5 − 0.25 = 0.25, δ₀ = 0.25 − 0.5 = −0.25.
    # A₂ = 0.5, A₁ = 0.25 + ½·0.5 = 0.5, A₀ = −0.25 + ½·0.5 = 0; returns = A + V.
    advantages, returns = losses.gae(REWARDS, VALUES, MASK, gamma=1.0, lam=0.5)
    assert advantages.tolist() == [[0.0, 0.5, 0.5]]
    assert returns.tolist() == [[0.5, 0.75, 1.0]]


def test_lambda_0_is_the_one_step_advantage() -> None:
    # s_t + γ V(s_{t+1}) − V(s_t) with γ = 0.9: 0.225 − 0.5, 0.45 − 0.25, 1 − 0.5.
    advantages, _ = losses.gae(REWARDS, VALUES, MASK, gamma=0.9, lam=0.0)
    assert advantages[0].tolist() == pytest.approx([-0.275, 0.2, 0.5])


def test_lambda_1_is_the_return_less_the_value() -> None:
    _, returns = losses.gae(REWARDS, VALUES, MASK, gamma=1.0, lam=1.0)
    assert returns.tolist() == [[1.0, 1.0, 1.0]]


def test_padding_changes_nothing_and_gets_nothing() -> None:
    short = losses.gae(REWARDS[:, :2], VALUES[:, :2], MASK[:, :2], gamma=0.9, lam=0.8)
    garbage = tensor([[9.0, 9.0]])
    long = losses.gae(
        torch.cat([REWARDS[:, :2], garbage], 1),
        torch.cat([VALUES[:, :2], garbage], 1),
        tensor([[1.0, 1.0, 0.0, 0.0]]),
        gamma=0.9,
        lam=0.8,
    )
    for one, other in zip(short, long, strict=True):
        assert torch.equal(one, other[:, :2])
        assert other[:, 2:].abs().sum() == 0


def test_equal_policies_have_ratio_1_and_clip_nothing() -> None:
    logprobs = -torch.rand(2, 5)
    advantages = torch.randn(2, 5)
    mask = torch.ones(2, 5)
    loss, clipped = losses.ppo_policy_loss(logprobs, logprobs, advantages, mask, clip=0.2)
    assert loss.item() == pytest.approx(-advantages.sum().item())
    assert clipped.item() == 0


def test_clipping_by_hand() -> None:
    # Ratios 1.5, 0.5, 1.5, 0.5 with ε = 0.2 and advantages 1, 1, −1, −1:
    #   min(1.5, 1.2) = 1.2 clipped; min(0.5, 0.8) = 0.5; min(−1.5, −1.2) = −1.5;
    #   min(−0.5, −0.8) = −0.8 clipped. Sum −0.6; the fifth token is padding.
    ratio = tensor([[1.5, 0.5, 1.5, 0.5, 100.0]])
    advantages = tensor([[1.0, 1.0, -1.0, -1.0, 1.0]])
    mask = tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    loss, clipped = losses.ppo_policy_loss(
        ratio.log(), torch.zeros(1, 5), advantages, mask, clip=0.2
    )
    assert loss.item() == pytest.approx(0.6)
    assert clipped.item() == 2


def test_a_clipped_token_has_no_gradient() -> None:
    logprobs = tensor([[0.5, 0.0]], requires_grad=True)
    loss, _ = losses.ppo_policy_loss(
        logprobs, torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2), clip=0.2
    )
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.0, -1.0]]


def test_value_loss_by_hand() -> None:
    # V = 1, old 0, R = 1, clip 0.2: near = 0.2; max(0, 0.64) = 0.64.
    # V = 0.1, old 0, R = 1: near = V; 0.81. Half the sum: 0.725. The third is padding.
    loss = losses.value_loss(
        tensor([[1.0, 0.1, 7.0]]), torch.zeros(1, 3), torch.ones(1, 3),
        tensor([[1.0, 1.0, 0.0]]), clip=0.2,
    )  # fmt: skip
    assert loss.item() == pytest.approx(0.725)


def test_kl_estimators() -> None:
    logprobs, reference = -torch.rand(1000) * 3, -torch.rand(1000) * 3
    assert losses.kl_k1(logprobs, logprobs).abs().max() == 0
    assert losses.kl_k3(logprobs, logprobs).abs().max() == 0
    assert losses.kl_k3(logprobs, reference).min() >= 0
    assert losses.kl_k1(logprobs, reference).min() < 0
    # π_ref = 2π: log-ratio ln 2; k1 = −ln 2, k3 = 2 − 1 − ln 2.
    one, two = tensor([math.log(0.25)]), tensor([math.log(0.5)])
    assert losses.kl_k1(one, two).item() == pytest.approx(-math.log(2))
    assert losses.kl_k3(one, two).item() == pytest.approx(1 - math.log(2))


def test_both_estimators_are_unbiased() -> None:
    # Over a whole distribution, Σ π·k equals the KL itself.
    p = torch.randn(50, dtype=torch.float64).log_softmax(-1)
    q = torch.randn(50, dtype=torch.float64).log_softmax(-1)
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum").item()
    for estimate in (losses.kl_k1, losses.kl_k3):
        assert (p.exp() * estimate(p, q)).sum().item() == pytest.approx(kl)


@pytest.mark.parametrize(
    ("kl", "beta"),
    [
        (4.0, 0.1),  # on target
        (4.4, 0.1 * 1.01),  # error 0.1 × rate 0.1
        (40.0, 0.1 * 1.02),  # error cut to 0.2
        (0.0, 0.1 * 0.98),  # error −1 cut to −0.2
    ],
)
def test_beta_follows_the_kl(kl: float, beta: float) -> None:
    assert losses.adapt_kl_coefficient(0.1, kl, 4.0, rate=0.1) == pytest.approx(beta)


def test_whitened_values_have_mean_0_and_variance_1() -> None:
    values, mask = torch.randn(4, 50) * 3 + 7, (torch.rand(4, 50) > 0.3).float()
    kept = values[mask == 1]
    white = losses.whiten(values, mask, kept.mean(), kept.var(unbiased=False))
    assert white[mask == 0].abs().sum() == 0
    assert losses.masked_mean(white, mask).item() == pytest.approx(0, abs=1e-5)
    assert losses.masked_mean(white**2, mask).item() == pytest.approx(1, abs=1e-4)


def test_mean_of_nothing_is_0() -> None:
    assert losses.masked_mean(torch.ones(3), torch.zeros(3)) == 0
