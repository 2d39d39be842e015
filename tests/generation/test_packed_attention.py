"""Packed attention is the dense one, and engines use it where they may."""

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from medray.generation.packed_attention import NAME, packed_attention, use_packed_attention

SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8,
    "intermediate_size": 8,
}  # fmt: skip


@pytest.mark.parametrize("num_key_heads", [1, 2, 4])
def test_it_is_attention_with_a_mask_of_all(num_key_heads: int) -> None:
    """A whole prompt, a token of an answer, a stretch of a prompt, an empty place and a token."""
    queries, keys = [5, 1, 3, 0, 1], [5, 7, 9, 0, 1]
    generator = torch.Generator().manual_seed(0)

    def drawn(num_heads: int, num_tokens: int) -> torch.Tensor:
        return torch.randn(num_heads, num_tokens, 8, generator=generator)

    query_HTD = drawn(4, sum(queries))
    key_KSD, value_KSD = drawn(num_key_heads, sum(keys)), drawn(num_key_heads, sum(keys))
    ends_q, ends_k = ([sum(n[:i]) for i in range(len(n) + 1)] for n in (queries, keys))
    mask_TS = torch.zeros(sum(queries), sum(keys), dtype=torch.bool)
    for i in range(len(queries)):
        for at in range(queries[i]):
            seen = keys[i] - queries[i] + at + 1
            mask_TS[ends_q[i] + at, ends_k[i] : ends_k[i] + seen] = True
    repeats = 4 // num_key_heads
    dense = scaled_dot_product_attention(
        query_HTD, key_KSD.repeat_interleave(repeats, 0), value_KSD.repeat_interleave(repeats, 0),
        attn_mask=mask_TS, scale=0.3,
    )  # fmt: skip
    ours = packed_attention(query_HTD, key_KSD, value_KSD, ends_q, ends_k, 0.3)
    torch.testing.assert_close(ours, dense.transpose(0, 1))


def test_sequences_must_be_as_many() -> None:
    heads = torch.zeros(1, 2, 8)
    with pytest.raises(ValueError, match="zip"):
        packed_attention(heads, heads, heads, [0, 1, 2], [0, 2])


def test_windows_keep_transformers_own() -> None:
    """A layer that forgets would need a mask."""
    llama = LlamaForCausalLM(LlamaConfig(**SMALL))
    use_packed_attention(llama)
    assert llama.config._attn_implementation == NAME
    mistral = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4))
    use_packed_attention(mistral)
    assert mistral.config._attn_implementation == "sdpa"
