"""A start from which a small decoder learns to copy: one induction circuit, set by hand.

Answers that quote a passage need an attention pattern that looks for an earlier place like the
present one and goes on from there. Trained from usual random weights, a 2 M-parameter decoder did
not find it within 2 M tokens; from this start it copies random text at 0.97 after 0.2 M. Everything
stays trainable, and only one head in each of the first two layers is touched.

    layer 0, head 0   attends to the token before (by position alone) and writes its embedding
                      into a subspace S of the residual stream
    layer 1, head 0   query: the present token, key: S. It attends to tokens whose predecessor is
                      like the present token, and writes their embedding towards the output

Source: induction heads (Olsson et al. 2022); mimetic initialisation (Trockman and Kolter 2023).
The method is silent: it starts from pretrained models, and so does medray with `decoder.path`.
"""

from typing import Any

import torch

FAST_FREQUENCIES = 6  # rotary frequencies that tell neighbouring positions apart
POSITION_GAIN = 4.0  # sharpness of "the token before": its weight is e^5.6 times a neighbour's
MATCH_GAIN = 2.0  # sharpness of the match
OUTPUT_SCALE = 0.05  # of the size of a usual weight


@torch.no_grad()
def set_induction_heads(model: Any, seed: int) -> None:
    """Sets the circuit in a Qwen3 model with `attention_bias`, in place."""
    head, hidden = model.config.head_dim, model.config.hidden_size
    half = head // 2
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(hidden, hidden, generator=generator))
    words, previous = basis[:, :head].T, basis[:, -head:]

    # Rotary attention from position m to n depends on n − m alone where query and key are
    # constant: with key = R₁ query the score is highest at n = m − 1.
    query = torch.zeros(head)
    query[:FAST_FREQUENCIES] = 1
    angles = model.model.rotary_emb.inv_freq.float().repeat(2)
    turned = torch.cat([-query[half:], query[:half]])
    first = model.model.layers[0].self_attn
    for projection, bias in (
        (first.q_proj, query),
        (first.k_proj, query * angles.cos() + turned * angles.sin()),
    ):
        projection.weight[:head] = 0
        projection.bias[:head] = bias
    first.q_norm.weight[:FAST_FREQUENCIES] = POSITION_GAIN
    first.q_norm.weight[half : half + FAST_FREQUENCIES] = POSITION_GAIN
    first.v_proj.weight[:head] = words
    first.o_proj.weight[:, :head] = previous * OUTPUT_SCALE

    second = model.model.layers[1].self_attn
    second.q_proj.weight[:head] = words
    second.k_proj.weight[:head] = previous.T
    second.q_norm.weight[:] = MATCH_GAIN
    second.v_proj.weight[:head] = words
    second.o_proj.weight[:, :head] = words.T * OUTPUT_SCALE
