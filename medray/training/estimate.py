"""What a stage will need, before it runs. In: a decoder's shape, the stage's settings. Out: memory
of one GPU, tokens and time of a step.

Parameters are counted on the model itself, made without memory (torch's meta device), and so are
activations: what autograd keeps of one forward pass, of which the part that grows with the square
of the length is left out, since attention on GPUs keeps none of it.

    optimiser state   12 bytes a trained parameter in bf16 (fp32 copy, two moments), 8 in fp32
    time              (6 N + 12 L D T) FLOP a token; 4 N with frozen weights, 2 N more to recompute

Source: ZeRO (Rajbhandari et al. 2020, 3 and 5); PaLM (Chowdhery et al. 2022, appendix B) for FLOP.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    LlamaConfig,
    PretrainedConfig,
)

from medray.training.language_model import LoraConfig, add_lora, base_of
from medray.training.optimiser import OptimiserConfig, checkpoint_activations

GIB = 2**30
SHAPES: dict[str, PretrainedConfig] = {
    "baichuan2-7b": LlamaConfig(
        vocab_size=125_696, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32,
        num_attention_heads=32, max_position_embeddings=4096,
    ),
    "bloom-7b": BloomConfig(vocab_size=250_880, hidden_size=4096, n_layer=30, n_head=32),
}  # fmt: skip
"""Decoders of the papers, for a profile whose directory is not on this machine."""


class Gpu(NamedTuple):
    """A GPU's memory and its bf16 peak. Source: the maker's data sheets, without sparsity."""

    memory_gib: float
    flops_per_s: float


GPUS = {"a100": Gpu(80, 312e12), "h100": Gpu(80, 989e12), "h200": Gpu(141, 989e12)}
MFU = 0.4
"""Share of the peak that a step is reckoned with. Source: not given; DESIGN.md 4 aims at 0.5."""


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

    @property
    def memory(self) -> float:
        """All of it, without the allocator's own share."""
        return self.weights + self.gradients + self.optimiser + self.activations

    def step_s(self, gpu: Gpu, workers: int) -> float:
        """Seconds of a step at `MFU`."""
        return self.flops_per_step / (workers * gpu.flops_per_s * MFU)


def shape_of(path: str) -> PretrainedConfig | None:
    """The shape of a decoder directory, or of the published one that its name begins with."""
    directory = Path(path).expanduser()
    if (directory / "config.json").is_file():
        return AutoConfig.from_pretrained(directory)
    name = directory.name.lower()
    return next((shape for known, shape in SHAPES.items() if name.startswith(known)), None)


def estimate(
    shape: PretrainedConfig,
    config: OptimiserConfig,
    lora: LoraConfig | None,
    block_tokens: int,
    workers: int,
) -> Estimate:
    """Memory and work of a language-model stage."""
    model = make(shape, lora)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameters = sum(p.numel() for p in model.parameters())
    size = 2 if config.precision == "bf16" else 4
    shards = {stage: workers if config.zero_stage >= stage else 1 for stage in (1, 2, 3)}
    optimiser = trained * (12 if size == 2 else 8) / shards[1]
    tokens = config.micro_batch_size * block_tokens
    return Estimate(
        parameters,
        trained,
        weights=size * parameters / shards[3],
        gradients=size * trained / shards[2],
        optimiser=0 if config.offload == "cpu" else optimiser,
        activations=activation_bytes(shape, lora, config) * tokens,
        tokens_per_step=config.batch_size * block_tokens,
        flops_per_step=config.batch_size
        * block_tokens
        * flops_per_token(
            model, shape, lora is not None, config.activation_checkpointing, block_tokens
        ),
    )


def make(shape: PretrainedConfig, lora: LoraConfig | None) -> Any:
    """The model without memory for its weights."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
        return model if lora is None else add_lora(model, lora, seed=0)


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
    embeddings = base_of(model).get_input_embeddings().weight.numel()
    read = sum(p.numel() for p in model.parameters()) - embeddings
    if shape.tie_word_embeddings:
        read += embeddings  # read as the projection to the vocabulary
    passes = (4 if adapted else 6) + 2 * checkpointed
    attention = 2 * passes * shape.num_hidden_layers * shape.hidden_size * length
    return passes * read + attention


PROBE = 32
"""Tokens of the shorter probe."""


def activation_bytes(
    shape: PretrainedConfig, lora: LoraConfig | None, config: OptimiserConfig
) -> float:
    """Bytes that autograd keeps for one token of a micro-batch, the loss on it included."""
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    few, more = (kept_bytes(shape, lora, config, dtype, layers, PROBE) for layers in (1, 2))
    few_long, more_long = (
        kept_bytes(shape, lora, config, dtype, layers, 2 * PROBE) for layers in (1, 2)
    )
    # a T + b T²: from two lengths, a = (4 f(T) − f(2T)) / 2T.
    rest, layer = (
        (4 * short - long) / (2 * PROBE)
        for short, long in ((2 * few - more, 2 * few_long - more_long),
                            (more - few, more_long - few_long))
    )  # fmt: skip
    return rest + shape.num_hidden_layers * layer


def kept_bytes(
    shape: PretrainedConfig,
    lora: LoraConfig | None,
    config: OptimiserConfig,
    dtype: torch.dtype,
    layers: int,
    length: int,
) -> int:
    """What autograd keeps of a forward pass and a loss on all tokens, weights left out."""
    small = copy.deepcopy(shape)
    small.num_hidden_layers = layers
    small.use_cache = False
    model = make(small, lora).to(dtype).train()
    if config.activation_checkpointing:
        checkpoint_activations(torch.nn.ModuleList([model]))
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, tuple[torch.Tensor, int]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            # The tensor is held, so that no other takes its storage's place.
            kept[storage._cdata] = (tensor, storage.nbytes())
        return tensor

    tokens = torch.zeros(1, length, dtype=torch.long, device="meta")
    # A mask of our own, as training has one: transformers would look into the values of one.
    mask = torch.ones(1, 1, length, length, dtype=torch.bool, device="meta")
    if shape.model_type == "bloom":  # counts positions in it
        mask = torch.ones(1, length, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[0].float(), tokens[0])
    del loss
    return sum(size for _, size in kept.values())


def cache_bytes(shape: PretrainedConfig) -> int:
    """Keys and values of one token in bf16, as a roll-out keeps them."""
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    return 2 * 2 * shape.num_hidden_layers * heads * width


def days(seconds: float) -> str:
    """Seconds in a unit that reads well.

    >>> days(90), days(7200), days(200000)
    ('2 minutes', '2.0 hours', '2.3 days')
    """
    if seconds < 3600:
        return f"{math.ceil(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 86400 else f"{seconds / 86400:.1f} days"
