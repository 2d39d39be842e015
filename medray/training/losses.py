"""The losses and the small mathematics of every training stage, as pure functions.

Shapes: B batch, T tokens, V vocabulary, A answer tokens.
Source: [EMR-LLM 1.2-1.4], [ClinicalGPT 2.3-2.4].
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def token_nll_sum(logits_NV: Tensor, labels_N: Tensor, weights_N: Tensor) -> Tensor:
    """Weighted sum of −log P(label) over N tokens, in nats [EMR-LLM 1.2]."""
    return weights_N @ F.cross_entropy(logits_NV.float(), labels_N, reduction="none")


def distillation_sum(
    logits_NV: Tensor, taught_NV: Tensor, weights_N: Tensor, temperature: float
) -> Tensor:
    """Weighted sum of τ² KL(q_τ ‖ p_τ) over N tokens, in nats: p of `logits_NV`, q of the teacher's
    `taught_NV`, both softened by τ. τ² keeps its gradient as large as at τ = 1.

    Source: Hinton et al. 2015, 2.
    """
    log_p_NV, log_q_NV = (
        F.log_softmax(part.float() / temperature, dim=-1) for part in (logits_NV, taught_NV)
    )
    kl_N = F.kl_div(log_p_NV, log_q_NV, reduction="none", log_target=True).sum(-1)
    return temperature**2 * (weights_N @ kl_N)


def gae(
    rewards_BA: Tensor, values_BA: Tensor, mask_BA: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalised advantage estimation.

    With `lam=0` this is the published one-step advantage A_t = s_t + γ V(s_{t+1}) − V(s_t).

    Args:
        rewards_BA: reward per answer token; padding is ignored.
        values_BA: V(s_t) at each answer token.
        mask_BA: 1 on real answer tokens, which come first; 0 on padding.
    Returns:
        (advantages_BA, returns_BA), not whitened, 0 on padding.
    Source: [EMR-LLM 1.4]; GAE is the general form, by setting.
    """
    advantages_BA = torch.zeros_like(rewards_BA)
    running_B = torch.zeros_like(rewards_BA[:, 0])
    next_value_B = torch.zeros_like(running_B)
    for t in reversed(range(rewards_BA.shape[1])):
        real_B = mask_BA[:, t]
        delta_B = rewards_BA[:, t] + gamma * next_value_B - values_BA[:, t]
        running_B = (delta_B + gamma * lam * running_B) * real_B
        advantages_BA[:, t] = running_B
        next_value_B = values_BA[:, t] * real_B
    return advantages_BA, (advantages_BA + values_BA) * mask_BA


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the places where `mask` is 1."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Values with the given mean and variance taken out; 0 where `mask` is 0."""
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def ppo_policy_loss(
    logprobs_BA: Tensor, old_logprobs_BA: Tensor, advantages_BA: Tensor, mask_BA: Tensor,
    *, clip: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sum over tokens of −min(ρA, clip(ρ, 1−ε, 1+ε)A), and the number of clipped tokens.

    Source: [EMR-LLM 1.4].
    """
    ratio_BA = (logprobs_BA - old_logprobs_BA).exp()
    plain_BA = ratio_BA * advantages_BA
    clipped_BA = ratio_BA.clamp(1 - clip, 1 + clip) * advantages_BA
    loss = -(torch.minimum(plain_BA, clipped_BA) * mask_BA).sum()
    return loss, ((clipped_BA < plain_BA) * mask_BA).sum()


def value_loss(
    values_BA: Tensor, old_values_BA: Tensor, returns_BA: Tensor, mask_BA: Tensor, *, clip: float
) -> Tensor:
    """Sum over tokens of ½ max((V−R)², (clip(V)−R)²), V kept within `clip` of its old value.

    Source: [ClinicalGPT 2.4] names a value function without its loss; this is the usual one.
    """
    near_BA = old_values_BA + (values_BA - old_values_BA).clamp(-clip, clip)
    worst_BA = torch.maximum((values_BA - returns_BA) ** 2, (near_BA - returns_BA) ** 2)
    return 0.5 * (worst_BA * mask_BA).sum()


def kl_k1(logprobs_BA: Tensor, reference_BA: Tensor) -> Tensor:
    """log π − log π_ref per token: the unbiased sample estimate of the KL, may be negative."""
    return logprobs_BA - reference_BA


def kl_k3(logprobs_BA: Tensor, reference_BA: Tensor) -> Tensor:
    """(ρ − 1) − log ρ with ρ = π_ref / π per token: unbiased, never negative, less variance."""
    log_ratio_BA = reference_BA - logprobs_BA
    return log_ratio_BA.exp() - 1 - log_ratio_BA


def kl_of_ratio(logprobs_BA: Tensor, old_logprobs_BA: Tensor) -> Tensor:
    """ρ log ρ − (ρ − 1) with ρ = π / π_old per token: estimates KL(π ‖ π_old) on tokens that π_old
    chose, unbiased (E_old[ρ] = 1) and never negative. Its gradient is that of the KL.

    Source: the KL of [EMR-LLM 1.4], whose estimate is not given.
    """
    log_ratio_BA = logprobs_BA - old_logprobs_BA
    ratio_BA = log_ratio_BA.exp()
    return ratio_BA * log_ratio_BA - (ratio_BA - 1)


def adapt_kl_coefficient(
    beta: float, kl: float, target: float, *, rate: float, clip: float = 0.2
) -> float:
    """β for the next round: raised when the KL per answer was above its target, else lowered.

    Source: adaptive β of [EMR-LLM 1.4], whose rule is not given; the proportional controller
    β ← β (1 + rate · clip(KL/target − 1)) is the usual one.
    """
    error = max(-clip, min(clip, kl / target - 1))
    return beta * (1 + rate * error)
