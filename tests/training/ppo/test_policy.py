"""PPO's forward pass."""

import copy
from typing import Any

import pytest
import torch

from medray.training.language_model import LoraConfig, add_lora
from medray.training.ppo.policy import (
    Experience,
    PolicyWithValue,
    lay_out,
    merged_adapters,
)

PROMPTS = [[5, 6, 7], [8], [9, 10]]
ANSWERS = [[11, 12], [13, 14, 15, 16], [17]]


def test_layout_by_hand() -> None:
    tokens, attention, places, mask = lay_out(PROMPTS, ANSWERS, pad=0)
    assert tokens.tolist() == [[5, 6, 7, 11, 12], [8, 13, 14, 15, 16], [9, 10, 17, 0, 0]]
    assert attention.tolist() == [[1] * 5, [1] * 5, [1, 1, 1, 0, 0]]
    assert places.tolist() == [[3, 4, 1, 1], [1, 2, 3, 4], [2, 1, 1, 1]]
    assert mask.tolist() == [[1, 1, 0, 0], [1] * 4, [1, 0, 0, 0]]


def test_logprobs_are_those_of_a_plain_forward(model: Any) -> None:
    tokens, attention, places, mask = lay_out(PROMPTS, ANSWERS, pad=0)
    policy = PolicyWithValue(model, model.config.hidden_size).eval()
    with torch.no_grad():
        logprobs, values = policy(tokens, attention, places)
        assert values.abs().max() == 0
        for b, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
            logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            for a, token in enumerate(answer):
                expected = logits[len(prompt) + a - 1, token].item()
                assert logprobs[b, a].item() == pytest.approx(expected, abs=1e-5)
                assert mask[b, a] == 1


def test_values_are_read_where_the_token_was_chosen(model: Any) -> None:
    policy = PolicyWithValue(model, model.config.hidden_size).eval()
    torch.nn.init.normal_(policy.value_head.weight)
    with torch.no_grad():
        _, values = policy(*lay_out([[5, 6]], [[7, 8]], pad=0)[:3])
        _, other = policy(*lay_out([[5, 6]], [[7, 99]], pad=0)[:3])
    # V(s_t) does not know the token that is chosen in s_t, let alone a later one.
    assert torch.equal(values, other)
    assert values[0, 0] != values[0, 1]


def test_rows_of_an_experience() -> None:
    laid_out = lay_out(PROMPTS, ANSWERS, pad=0)
    counted_BA = torch.arange(12.0).reshape(3, 4)
    experience = Experience(*laid_out, torch.tensor([7.0, 8.0, 9.0]), *[counted_BA] * 5)
    assert len(experience) == 3
    some = experience.rows([2, 0])  # 3 and 5 tokens, 1 and 2 of them answers
    assert some.tokens_BT.tolist() == [[9, 10, 17, 0, 0], [5, 6, 7, 11, 12]]
    assert some.mask_BA.tolist() == [[1, 0], [1, 1]]
    assert some.advantages_BA.tolist() == [[8, 9], [0, 1]]
    assert some.scores_B.tolist() == [9, 7]
    alone = experience.rows([2])
    assert alone.attention_BT.tolist() == [[1, 1, 1]] and alone.places_BA.tolist() == [[2]]


def test_merged_adapters_say_the_same_and_leave_every_bit(model: Any) -> None:
    policy = add_lora(model, LoraConfig(rank=4, alpha=8), seed=0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    tokens_BT = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        expected = policy(tokens_BT).logits
        query = policy.get_base_model().model.layers[0].self_attn.q_proj
        kept = query.get_base_layer().weight.clone()
        with merged_adapters(policy):
            merged = policy(tokens_BT).logits
            gap = (query.get_base_layer().weight - kept).abs().max()
        assert gap > 0.01
        with policy.disable_adapter():
            base = policy(tokens_BT).logits
        torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
        assert (merged - base).abs().max() > 0.1
        assert torch.equal(policy(tokens_BT).logits, expected)
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())
    assert [name for name, p in policy.named_parameters() if p.requires_grad] == trained


def test_a_separate_critic_does_not_touch_the_policy(model: Any) -> None:
    critic = add_lora(copy.deepcopy(model), LoraConfig(), seed=1)
    policy = PolicyWithValue(add_lora(model, LoraConfig(), seed=0), 32, critic)
    torch.nn.init.normal_(policy.value_head.weight)
    logprobs, values = policy(*lay_out(PROMPTS, ANSWERS, pad=0)[:3])
    values.sum().backward(retain_graph=True)

    def learning(part: Any) -> set[bool]:
        return {p.grad is not None for p in part.parameters() if p.requires_grad}

    assert learning(policy.policy) == {False} and learning(policy.critic) == {True}
    policy.zero_grad()
    logprobs.sum().backward()
    assert learning(policy.policy) == {True} and learning(policy.critic) == {False}
    # At the start both are the same model.
    alone = PolicyWithValue(policy.policy, 32)
    alone.value_head.load_state_dict(policy.value_head.state_dict())
    torch.testing.assert_close(alone(*lay_out(PROMPTS, ANSWERS, pad=0)[:3])[1], values)


@pytest.mark.parametrize(
    "changes",
    [{"dora": True}, {"target_modules": ["embed_tokens", "lm_head"]}],
    ids=["dora", "tied"],
)
def test_what_cannot_be_merged_stays_as_it_is(model: Any, changes: dict[str, Any]) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)  # DoRA takes no rows of zeros
    policy = add_lora(model, LoraConfig(rank=4, alpha=8, **changes), seed=0)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    tokens_BT = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        expected = policy(tokens_BT).logits
        with merged_adapters(policy):
            assert torch.equal(policy(tokens_BT).logits, expected)
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())
