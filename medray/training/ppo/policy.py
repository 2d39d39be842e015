"""The policy with its value head, and the experience that a round of PPO learns from.

Shapes: B answers, T tokens of prompt and answer, A answer tokens, D hidden.
One model plays three parts: with the adapter on it is the policy, with the adapter off the frozen
reference π_SFT, and a linear head on its hidden states is the critic (by setting on another's).
Source: [ClinicalGPT 2.4]; DESIGN.md 3, PPO colocated.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medray.training.language_model import base_of


class PolicyWithValue(nn.Module):
    """Log-probabilities and values of given answers, through one forward pass."""

    def __init__(self, policy: Any, hidden_size: int, critic: Any = None) -> None:
        """`critic`: a decoder whose hidden states the value head reads; None: the policy's own."""
        super().__init__()
        self.policy, self.critic = policy, critic
        self.value_head = nn.Linear(hidden_size, 1)
        # Values start at 0, so that the first advantages are the rewards themselves.
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(
        self, tokens_BT: Tensor, attention_BT: Tensor, places_BA: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            tokens_BT: prompt and answer, padded on the right.
            attention_BT: 1 on real tokens.
            places_BA: index in T of each answer token; any valid index on padding.
        Returns:
            (logprobs_BA of the answer tokens, values_BA of the states they were chosen in).
        """
        logprobs_BA, states_BAD = self.read(tokens_BT, attention_BT, places_BA)
        if self.critic is not None:
            states_BAD = _states(base_of(self.critic), tokens_BT, attention_BT, places_BA)
        return logprobs_BA, self.value_head(states_BAD).float()[..., 0]

    def read(
        self, tokens_BT: Tensor, attention_BT: Tensor, places_BA: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(logprobs_BA, the states [B, A, D] they come from), as the policy's adapter is set."""
        base = base_of(self.policy)
        states_BAD = _states(base, tokens_BT, attention_BT, places_BA)
        logits_BAV = base.get_output_embeddings()(states_BAD).float()
        chosen_BA1 = tokens_BT[_rows(tokens_BT), places_BA][..., None]
        return logits_BAV.log_softmax(-1).gather(-1, chosen_BA1)[..., 0], states_BAD


def _states(model: Any, tokens_BT: Tensor, attention_BT: Tensor, places_BA: Tensor) -> Tensor:
    """The hidden states that answer tokens were chosen in. [B, A, D]"""
    hidden_BTD = model.base_model(
        input_ids=tokens_BT, attention_mask=attention_BT, use_cache=False
    ).last_hidden_state
    return hidden_BTD[_rows(tokens_BT), places_BA - 1]


def _rows(tokens_BT: Tensor) -> Tensor:
    return torch.arange(len(tokens_BT), device=tokens_BT.device)[:, None]


@contextmanager
def merged_adapters(model: Any) -> Iterator[None]:
    """Inside, LoRA's products are part of the weights, so that to generate costs what it costs
    without adapters; afterwards all is as before, bit for bit, for the weights themselves were set
    aside. That takes their memory again, while no activations do. In bf16 the sum is rounded, so
    that answers are drawn from a policy a little off. DoRA, and weights that two layers share, stay
    as they are."""
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    every = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    if any(
        layer.use_dora.get(name) or every[id(layer.get_base_layer().weight)] > 1
        for layer in layers
        for name in layer.active_adapters
    ):
        yield
        return
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for layer in layers:
            weight: Any = layer.get_base_layer().weight
            kept.append((weight, weight.data))
            for name in layer.active_adapters:
                weight.data = weight.data + layer.get_delta_weight(name)
        with model.disable_adapter():
            yield
    finally:
        for weight, data in kept:
            weight.data = data


@dataclass
class Experience:
    """The answers of one worker in one round; every row is one answer."""

    tokens_BT: Tensor
    attention_BT: Tensor
    places_BA: Tensor
    mask_BA: Tensor
    """1 on real answer tokens."""
    scores_B: Tensor
    """Reward model's score of each whole answer."""
    logprobs_BA: Tensor
    """Under the policy that generated, from the same forward pass that training uses."""
    reference_BA: Tensor
    """Log-probabilities under the reference."""
    values_BA: Tensor
    advantages_BA: Tensor
    returns_BA: Tensor

    def rows(self, indices: Sequence[int]) -> "Experience":
        """Some of the answers, as long as the longest of these."""
        index = list(indices)
        chosen = {name: tensor[index] for name, tensor in vars(self).items()}
        T = int(chosen["attention_BT"].sum(-1).max())
        A = int(chosen["mask_BA"].sum(-1).max())
        ends = {"T": T, "A": A}
        return Experience(
            **{
                name: tensor[:, : ends[name[-1]]] if tensor.ndim > 1 else tensor
                for name, tensor in chosen.items()
            }
        )

    def __len__(self) -> int:
        return len(self.tokens_BT)


def lay_out(
    prompts: Sequence[list[int]], answers: Sequence[list[int]], pad: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tensors of prompts with their answers, padded on the right.

    Returns:
        tokens_BT, attention_BT, places_BA, mask_BA.
    """
    T = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    A = max(len(a) for a in answers)
    tokens_BT = torch.full((len(prompts), T), pad)
    attention_BT = torch.zeros(len(prompts), T, dtype=torch.long)
    places_BA = torch.ones(len(prompts), A, dtype=torch.long)
    mask_BA = torch.zeros(len(prompts), A)
    for b, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        tokens_BT[b, :end] = torch.tensor(prompt + answer)
        attention_BT[b, :end] = 1
        places_BA[b, : len(answer)] = torch.arange(len(prompt), end)
        mask_BA[b, : len(answer)] = 1
    return tokens_BT, attention_BT, places_BA, mask_BA
