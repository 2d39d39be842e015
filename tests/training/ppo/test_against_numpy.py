"""PPO's advantages and losses against another implementation: NumPy, a token at a time."""

import numpy as np
import pytest
import torch

from medray.training import losses

GAMMA, LAM, CLIP, BETA = 0.97, 0.9, 0.2, 0.3
LENGTHS = (5, 3, 1, 4)


@pytest.fixture
def drawn() -> dict[str, np.ndarray]:
    """Answers of 5, 3, 1 and 4 tokens, padded to 5 with garbage."""
    rng = np.random.default_rng(7)
    names = ("logprobs", "old", "reference", "values", "old_values")
    arrays = {name: rng.normal(-1, 0.4, (4, 5)) for name in names}
    mask = np.array([[t < length for t in range(5)] for length in LENGTHS], float)
    return arrays | {"scores": rng.normal(size=4), "mask": mask}


def advantages_by_hand(d: dict[str, np.ndarray]) -> tuple[list[list[float]], list[list[float]]]:
    """The sum of discounted one-step advantages, straight from its definition."""
    advantages, returns = [], []
    for b, length in enumerate(LENGTHS):
        reward = [-BETA * (d["logprobs"][b, t] - d["reference"][b, t]) for t in range(length)]
        reward[-1] += d["scores"][b]
        value = [*d["values"][b, :length], 0.0]
        delta = [reward[t] + GAMMA * value[t + 1] - value[t] for t in range(length)]
        row = [
            sum((GAMMA * LAM) ** (k - t) * delta[k] for k in range(t, length))
            for t in range(length)
        ]
        advantages.append(row)
        returns.append([a + v for a, v in zip(row, value, strict=False)])
    return advantages, returns


def test_advantages(drawn: dict[str, np.ndarray]) -> None:
    d = {name: torch.tensor(array) for name, array in drawn.items()}
    rewards = -BETA * losses.kl_k1(d["logprobs"], d["reference"]) * d["mask"]
    rewards[torch.arange(4), d["mask"].sum(-1).long() - 1] += d["scores"]
    ours, returns = losses.gae(rewards, d["values"], d["mask"], gamma=GAMMA, lam=LAM)
    expected, expected_returns = advantages_by_hand(drawn)
    for b, length in enumerate(LENGTHS):
        assert ours[b, :length].tolist() == pytest.approx(expected[b])
        assert returns[b, :length].tolist() == pytest.approx(expected_returns[b])
        assert not ours[b, length:].any() and not returns[b, length:].any()


def test_losses(drawn: dict[str, np.ndarray]) -> None:
    advantages, returns = advantages_by_hand(drawn)
    policy = value = clipped = kl = 0.0
    padded = np.zeros((2, 4, 5))
    for b, length in enumerate(LENGTHS):
        padded[0, b, :length], padded[1, b, :length] = advantages[b], returns[b]
        for t in range(length):
            ratio = np.exp(drawn["logprobs"][b, t] - drawn["old"][b, t])
            a = advantages[b][t]
            limited = min(max(ratio, 1 - CLIP), 1 + CLIP) * a
            policy -= min(ratio * a, limited)
            clipped += limited < ratio * a
            v, old, target = drawn["values"][b, t], drawn["old_values"][b, t], returns[b][t]
            near = min(max(v, old - CLIP), old + CLIP)
            value += max((v - target) ** 2, (near - target) ** 2) / 2
            kl += ratio * np.log(ratio) - ratio + 1
    d = {name: torch.tensor(array) for name, array in drawn.items()}
    ours, num_clipped = losses.ppo_policy_loss(
        d["logprobs"], d["old"], torch.tensor(padded[0]), d["mask"], clip=CLIP
    )
    assert (ours.item(), num_clipped.item()) == (pytest.approx(policy), clipped)
    assert 0 < clipped < sum(LENGTHS)
    ours = losses.value_loss(
        d["values"], d["old_values"], torch.tensor(padded[1]), d["mask"], clip=CLIP
    )
    assert ours.item() == pytest.approx(value)
    ours = (losses.kl_of_ratio(d["logprobs"], d["old"]) * d["mask"]).sum()
    assert ours.item() == pytest.approx(kl)


def test_kl_of_ratio_is_the_kl_and_has_its_gradient() -> None:
    """Summed over all tokens of a small vocabulary, in place of tokens drawn from the old one."""
    generator = torch.Generator().manual_seed(0)
    logits_V = torch.randn(6, generator=generator, dtype=torch.double).requires_grad_()
    old_V = torch.randn(6, generator=generator, dtype=torch.double).log_softmax(-1)
    new_V = logits_V.log_softmax(-1)
    ours = (old_V.exp() * losses.kl_of_ratio(new_V, old_V)).sum()
    exact = (new_V.exp() * (new_V - old_V)).sum()
    assert ours.item() == pytest.approx(exact.item())
    gradients = [torch.autograd.grad(x, logits_V, retain_graph=True)[0] for x in (ours, exact)]
    torch.testing.assert_close(*gradients)
    assert losses.kl_of_ratio(old_V, old_V).abs().max() == 0
