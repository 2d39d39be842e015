"""What autograd keeps of a forward pass. In: a model's shape, a stage's settings. Out: bytes.

Counted on the model itself, made without memory (torch's meta device) with one layer and with two,
at two lengths: a T + b T² of each layer and of all that is not a layer. Where attention is one
fused operation, GPUs keep nothing that grows with T², so b is left out; an architecture that
transformers gives no such operation (BLOOM) keeps its scores.
Source: Korthikanti et al. 2022 (Reducing Activation Recomputation, 4.1) count the same by hand.
"""

import copy
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)

from medray.training.language_model import LoraConfig, add_lora
from medray.training.optimiser import OptimiserConfig, checkpoint_activations

PROBE = 32
"""Tokens of the shorter probe."""
Task = Literal["CAUSAL_LM", "SEQ_CLS"]
"""A language model with its loss on all tokens, or a classifier of one output."""


def make(shape: PretrainedConfig, lora: LoraConfig | None, task: Task = "CAUSAL_LM") -> Any:
    """The model without memory for its weights."""
    with torch.device("meta"):
        if task == "CAUSAL_LM":
            model: Any = AutoModelForCausalLM.from_config(shape)
        else:
            classifier = copy.deepcopy(shape)
            classifier.num_labels = 1
            classifier.pad_token_id = classifier.pad_token_id or 0
            model = AutoModelForSequenceClassification.from_config(classifier)
        return model if lora is None else add_lora(model, lora, 0, task)


def activation_bytes(
    shape: PretrainedConfig,
    lora: LoraConfig | None,
    config: OptimiserConfig,
    length: int,
    task: Task = "CAUSAL_LM",
) -> float:
    """Bytes that autograd keeps of one sequence of `length` tokens, the loss included."""
    (few, few_long), (more, more_long) = (
        [kept_bytes(shape, lora, config, layers, tokens, task) for tokens in (PROBE, 2 * PROBE)]
        for layers in (1, 2)
    )
    layer, layer_long = more - few, more_long - few_long
    fused = make(_of_layers(shape, 1), None, task).config._attn_implementation != "eager"

    def at_length(short: float, long: float) -> float:
        # f(T) = a T + b T², from f(P) and f(2P).
        a = (4 * short - long) / (2 * PROBE)
        b = (long - 2 * short) / (2 * PROBE**2)
        return a * length + (0 if fused else b * length**2)

    rest = at_length(few - layer, few_long - layer_long)
    return rest + shape.num_hidden_layers * at_length(layer, layer_long)


def kept_bytes(
    shape: PretrainedConfig,
    lora: LoraConfig | None,
    config: OptimiserConfig,
    layers: int,
    length: int,
    task: Task,
) -> int:
    """The same, of a model with some of the layers, as it is; weights left out."""
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    model = make(_of_layers(shape, layers), lora, task).to(dtype).train()
    if config.activation_checkpointing:
        checkpoint_activations(nn.ModuleList([model]))
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
        logits = model(input_ids=tokens, attention_mask=mask, **_no_cache(task)).logits
        if task == "CAUSAL_LM":
            loss = nn.functional.cross_entropy(logits[0].float(), tokens[0])
        else:
            loss = logits.float().square().sum()
    del loss
    return sum(size for _, size in kept.values())


def _no_cache(task: Task) -> dict[str, bool]:
    return {"use_cache": False} if task == "CAUSAL_LM" else {}


def _of_layers(shape: PretrainedConfig, layers: int) -> PretrainedConfig:
    small = copy.deepcopy(shape)
    small.num_hidden_layers = layers
    small.use_cache = False
    return small
