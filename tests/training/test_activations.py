"""What autograd keeps: counted without memory, against a real forward pass."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BloomConfig,
    LlamaConfig,
    PretrainedConfig,
)

from medray.training.activations import Task, activation_bytes
from medray.training.language_model import LoraConfig, add_lora
from medray.training.optimiser import OptimiserConfig

LLAMA = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
    num_attention_heads=2, max_position_embeddings=64, pad_token_id=0, num_labels=1,
)  # fmt: skip
BLOOM = BloomConfig(vocab_size=50, hidden_size=32, n_layer=3, n_head=4, pad_token_id=0)
BERT = BertConfig(  # without dropout of attention, with which CPUs fuse nothing
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
    num_attention_heads=2, num_labels=1, attention_probs_dropout_prob=0,
)  # fmt: skip
FP32 = OptimiserConfig(batch_size=16, micro_batch_size=2)
LENGTH = 48


def measured(shape: PretrainedConfig, lora: LoraConfig | None, task: Task) -> int:
    """Bytes that autograd keeps of a real pass over `LENGTH` tokens."""
    torch.manual_seed(0)
    kind = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    real: Any = kind.from_config(shape)
    if lora is not None:
        real = add_lora(real, lora, 0, task)
    real.train()
    own = {p.data_ptr() for p in real.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.arange(LENGTH)[None] % 50
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if task == "CAUSAL_LM":
            logits = real(**inputs, use_cache=False).logits
            nn.functional.cross_entropy(logits[0], tokens[0])
        else:
            real(**inputs).logits.square().sum()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    ("shape", "lora", "task"),
    [
        (LLAMA, None, "CAUSAL_LM"),
        (LLAMA, LoraConfig(rank=4), "CAUSAL_LM"),
        (LLAMA, LoraConfig(rank=4), "SEQ_CLS"),
        (BLOOM, LoraConfig(rank=4, dropout=0.1), "CAUSAL_LM"),
        (BERT, None, "SEQ_CLS"),
    ],
    ids=["llama", "llama-lora", "llama-ranking", "bloom-lora", "bert"],
)
def test_activations_are_those_of_a_real_forward_pass(
    shape: PretrainedConfig, lora: LoraConfig | None, task: Task
) -> None:
    found = activation_bytes(shape, lora, FP32, LENGTH, task)
    assert found == pytest.approx(measured(shape, lora, task), rel=0.1)


def test_only_attention_that_is_not_fused_grows_with_the_square_of_the_length() -> None:
    def growth(shape: PretrainedConfig) -> float:
        """f(2T) / f(T)"""
        return activation_bytes(shape, None, FP32, 2048) / activation_bytes(shape, None, FP32, 1024)

    assert growth(LLAMA) == pytest.approx(2)
    assert growth(BLOOM) > 3.5


def test_checkpointing_keeps_little_of_a_layer() -> None:
    deep = LlamaConfig(**{**LLAMA.to_dict(), "num_hidden_layers": 20})
    less = FP32.model_copy(update={"activation_checkpointing": True})
    assert activation_bytes(deep, None, less, 64) < activation_bytes(deep, None, FP32, 64) / 5
