"""Attention of the sequences that a continuous batch packs into one, each over its own keys.

transformers gives a batch of R sequences one [queries, keys] mask, where there is no flash
attention: every sequence is multiplied with the keys of all, R times what is needed, and the mask
of a large cache takes a hundred megabytes. Here a batch is a loop over its sequences.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.generation.continuous_batching.cache import group_layers_by_attn_type
from transformers.generation.continuous_batching.cache_allocators import FULL_ATTENTION

NAME = "medray_packed"


def use_packed_attention(model: Any) -> None:
    """Makes a model that is about to run in continuous batches on the CPU attend this way, if all
    its layers see everything before them. On a GPU transformers' choice stands."""
    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa":
        return
    if set(group_layers_by_attn_type(model.config)) == {FULL_ATTENTION}:
        AttentionInterface.register(NAME, _forward)
        AttentionMaskInterface.register(NAME, _no_mask)
        model.set_attn_implementation(NAME)


def packed_attention(
    query_HTD: Tensor,
    key_KSD: Tensor,
    value_KSD: Tensor,
    ends_q: Sequence[int],
    ends_k: Sequence[int],
    scale: float | None = None,
) -> Tensor:
    """[T, H, D]: causal attention of each sequence, whose queries are the last of its keys.

    Args:
        query_HTD: of H heads, T tokens of all sequences.
        key_KSD, value_KSD: of K heads, each for H / K of the queries'; S tokens.
        ends_q, ends_k: 0, then where each sequence ends.
    """
    num_heads, num_tokens, size = query_HTD.shape
    num_groups = num_heads // len(key_KSD)
    output_THD = query_HTD.new_empty(num_tokens, num_heads, size)
    for (q, q_end), (k, k_end) in zip(pairwise(ends_q), pairwise(ends_k), strict=True):
        num_q, num_k = q_end - q, k_end - k
        query, key, value = query_HTD[:, q:q_end], key_KSD[:, k:k_end], value_KSD[:, k:k_end]
        if num_q == 1:  # heads that share keys stand as queries of one
            query = query.reshape(len(key), num_groups, size)
            heads = scaled_dot_product_attention(query, key, value, scale=scale)
            output_THD[q] = heads.reshape(num_heads, size)
        elif num_q:
            mask = None  # a stretch of a prompt sees those before it whole
            if num_k > num_q:
                mask = torch.ones(num_q, num_k, dtype=torch.bool).tril(num_k - num_q)
            heads = scaled_dot_product_attention(
                query[None], key[None], value[None],
                attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=num_groups > 1,
            )  # fmt: skip
            output_THD[q:q_end] = heads[0].transpose(0, 1)
    return output_THD


def _forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, *, cache: Any, cu_seq_lens_q: Tensor, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As transformers calls it, with tensors [1, heads, tokens, D]. `cache.update` writes what is
    new, reads the sequences whole, and sets `cu_seq_lens_k` to those of this layer."""
    key, value = cache.update(key, value, module.layer_idx, kwargs)
    ends_k = kwargs["cu_seq_lens_k"].tolist()
    output_THD = packed_attention(
        query[0], key[0], value[0], cu_seq_lens_q.tolist(), ends_k, scaling
    )
    return output_THD[None], None


def _no_mask(*_: Any, **__: Any) -> None:
    """None is needed."""
