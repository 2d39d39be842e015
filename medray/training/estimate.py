"""What a stage will need, before it runs. In: a model's shape, the stage's settings. Out: memory
of one GPU, tokens and time of a step.

Parameters are counted on the model itself, made without memory; activations as `activations` says.

    optimiser state   12 bytes a trained parameter: AdamW's two moments, and the fp32 copy that
                      DeepSpeed keeps, in fp32 too; 8 in fp32 without ZeRO, where there is none
    its step          UPDATE bytes more, while there are no activations
    loss              LOSS bytes a logit more, beside the activations that are kept
    buckets           elements that are summed over the workers at a time (ZeRO 1 to 3)
    time              (6 N + 12 L D T) FLOP a token; 4 N with frozen weights, but for adapters;
                      a third of the former more to recompute

Weights, gradients, optimiser state, buckets and LOSS were measured on DeepSpeed engines of a small
decoder on two CPU processes (README); UPDATE was not. Tests hold FLOP against what torch counts.
Source: ZeRO (Rajbhandari et al. 2020, 3 and 5); PaLM (Chowdhery et al. 2022, appendix B) for FLOP.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import PretrainedConfig

from medray.training.activations import Task, activation_bytes, make
from medray.training.language_model import LoraConfig, base_of
from medray.training.optimiser import OptimiserConfig

GIB = 2**30


class Gpu(NamedTuple):
    """A GPU's memory, bf16 peak and bandwidth of its memory. Source: the maker's data sheets (SXM
    modules), without sparsity."""

    memory_gib: float
    flops_per_s: float
    bytes_per_s: float


GPUS = {
    "a100": Gpu(80, 312e12, 2.039e12),
    "h100": Gpu(80, 989e12, 3.35e12),
    "h200": Gpu(141, 989e12, 4.8e12),
}
MFU = 0.4
"""Share of the peak that a step is reckoned with. Source: not given; DESIGN.md 4 aims at 0.5."""
BANDWIDTH = 0.2
"""Share of the memory's bandwidth that token by token generation is reckoned with. Source: not
given; low, because transformers starts each layer's kernels anew for every token."""
UPDATE = 12
"""Bytes a trained parameter that AdamW's step needs for a moment: the gradients in fp32 (4) and two
intermediate results (8, of which fused kernels save some)."""

LOSS = 8
"""Bytes a logit that come and go: as it is, in fp32, and its gradient."""
GATHERED = 10**9
"""Parameters that ZeRO-3 holds whole at a time. Source: DeepSpeed, stage3_max_live_parameters."""


class Passes(NamedTuple):
    """FLOP for each weight and, of attention, for each channel and token that is looked back at: 2
    forward, 2 for gradients of what goes in, 2 for those of what it is multiplied by."""

    weights: int
    attention: int

    @classmethod
    def of(cls, *, adapted: bool, recomputed: bool) -> "Passes":
        """Those of learning. Frozen weights (`adapted`) get no gradients; what attention
        multiplies does."""
        return cls((4 if adapted else 6) + 2 * recomputed, 6 + 2 * recomputed)


FORWARD = Passes(2, 2)


class RollOut(NamedTuple):
    """What one GPU holds and does as it generates, in place of gradients and activations."""

    merged: float
    """Bytes of weights that stand there twice, with their adapters merged."""
    cache: float
    """Bytes of keys and values at the end."""
    flops: float
    bytes_read: float
    """Weights and cache, once for each token that all answers get one more of."""

    def seconds(self, gpu: Gpu, mfu: float) -> float:
        """It waits for memory until there are some hundred answers, then for arithmetic."""
        return max(
            self.flops / (gpu.flops_per_s * mfu), self.bytes_read / (gpu.bytes_per_s * BANDWIDTH)
        )


class Estimate(NamedTuple):
    """One stage on one of `workers` GPUs. Memory in bytes."""

    parameters: int
    trained: int
    weights: float
    gradients: float
    optimiser: float
    activations: float
    tokens_per_step: int
    flops_per_step: float
    """Of all GPUs, without what is in `roll_out`."""
    buckets: float = 0.0
    update: float = 0.0
    """More, while the optimiser steps."""
    beside: float = 0.0
    """Weights of frozen models beside: a teacher, a reward model."""
    roll_out: RollOut | None = None

    @property
    def memory(self) -> float:
        """At its peak, without the allocator's own share."""
        held = self.weights + self.beside + self.optimiser + self.buckets
        learning = self.gradients + max(self.activations, self.update)
        rolling = self.roll_out.merged + self.roll_out.cache if self.roll_out else 0.0
        return held + max(learning, rolling)

    def step_s(self, gpu: Gpu, workers: int, mfu: float = MFU) -> float:
        """Seconds of a step."""
        seconds = self.flops_per_step / (workers * gpu.flops_per_s * mfu)
        return seconds + (self.roll_out.seconds(gpu, mfu) if self.roll_out else 0.0)


def estimate(
    shape: PretrainedConfig,
    config: OptimiserConfig,
    lora: LoraConfig | None,
    length: int,
    workers: int,
    task: Task = "CAUSAL_LM",
    per_sample: int = 1,
) -> Estimate:
    """Memory and work of a stage that reads sequences.

    Args:
        length: tokens of a sequence; all are taken to be as long as the longest may be.
        per_sample: sequences of one sample: two where the better response is learned.
    """
    model = make(shape, lora, task)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameters = sum(p.numel() for p in model.parameters())
    size = bytes_of(config)
    shards = {stage: workers if config.zero_stage >= stage else 1 for stage in (1, 2, 3)}
    states = 8 if size == 4 and config.zero_stage == 0 else 12
    sequences = per_sample * config.micro_batch_size
    tokens = per_sample * config.batch_size * length
    passes = Passes.of(adapted=lora is not None, recomputed=config.activation_checkpointing)
    away = config.offload == "cpu"
    gathered = min(parameters, GATHERED) if config.zero_stage == 3 and workers > 1 else 0
    kept = activation_bytes(shape, lora, config, length, task)
    passing = LOSS * shape.vocab_size * length if task == "CAUSAL_LM" else 0
    return Estimate(
        parameters,
        trained,
        weights=size * (parameters / shards[3] + gathered),
        gradients=size * trained / shards[2],
        optimiser=0 if away else states * trained / shards[1],
        activations=(kept + passing) * sequences,
        tokens_per_step=tokens,
        flops_per_step=tokens * flops_of(model, shape, passes, length),
        buckets=size * config.bucket_elements if config.zero_stage else 0,
        update=0 if away else UPDATE * trained / shards[1],
    )


def bytes_of(config: OptimiserConfig) -> int:
    """Bytes of a weight."""
    return 2 if config.precision == "bf16" else 4


def peak_flops() -> float | None:
    """The bf16 peak of this process's GPU, FLOP/s; None without one, or for one not in GPUS."""
    name = torch.cuda.get_device_name().lower() if torch.cuda.is_available() else ""
    return next((gpu.flops_per_s for known, gpu in GPUS.items() if known in name), None)


def count_flops(model: Any) -> Callable[[int, int, int], float]:
    """(blocks, tokens of a block, tokens that the loss falls on) → FLOP of a step of `model`.

    The projection to the vocabulary runs for the tokens with loss only. What is computed again for
    checkpointed activations is not counted, as MFU has it.
    """
    base = base_of(model)
    adapted = any(not p.requires_grad for p in model.parameters())
    head = (4 if adapted else 6) * base.get_output_embeddings().weight.numel()
    # Counted before the weights are sharded (ZeRO-3), when they lose their sizes.
    weights, all_of_one = (
        flops_per_token(model, base.config, adapted, False, length) for length in (0, 1)
    )

    def flops(num_blocks: int, length: int, num_labels: int) -> float:
        tokens = num_blocks * length
        each = weights + (all_of_one - weights) * length
        return tokens * each - head * (tokens - num_labels)

    return flops


def flops_per_token(
    model: Any, shape: PretrainedConfig, adapted: bool, checkpointed: bool, length: int
) -> float:
    """FLOP of forward and backward pass for one token in a block of `length`.

    Args:
        adapted: the weights themselves are frozen, so that their gradients are not computed.
    """
    return flops_of(model, shape, Passes.of(adapted=adapted, recomputed=checkpointed), length)


def flops_of(model: Any, shape: PretrainedConfig, passes: Passes, length: int) -> float:
    """FLOP for one token in a sequence of `length`."""
    base = base_of(model)
    embeddings = base.get_input_embeddings().weight.numel()
    read = sum(p.numel() for p in model.parameters()) - embeddings
    if base.get_output_embeddings() is not None and shape.tie_word_embeddings:
        read += embeddings  # read as the projection to the vocabulary
    adapters = 0
    if passes.weights < passes.attention:
        adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    attention = 2 * passes.attention * shape.num_hidden_layers * shape.hidden_size * length
    return passes.weights * read + 2 * adapters + attention


def cache_bytes(shape: PretrainedConfig, size: int = 2) -> int:
    """Keys and values of one token, as a roll-out keeps them, of `size` bytes a number."""
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    return 2 * size * shape.num_hidden_layers * heads * width


def days(seconds: float) -> str:
    """Seconds in a unit that reads well.

    >>> days(90), days(7200), days(200000)
    ('2 minutes', '2.0 hours', '2.3 days')
    """
    if seconds < 3600:
        return f"{math.ceil(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 86400 else f"{seconds / 86400:.1f} days"
