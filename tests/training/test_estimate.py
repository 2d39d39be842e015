"""Memory and time of a stage: against published sizes, a real forward pass, and by hand."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from medray.launch import load_profile
from medray.plan import training_plan
from medray.training.estimate import (
    GIB,
    GPUS,
    SHAPES,
    activation_bytes,
    cache_bytes,
    count_flops,
    estimate,
    flops_per_token,
    make,
    shape_of,
)
from medray.training.language_model import LoraConfig
from medray.training.optimiser import OptimiserConfig

TINY = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
    num_attention_heads=2, max_position_embeddings=64,
)  # fmt: skip
FP32 = OptimiserConfig(batch_size=16, micro_batch_size=2)
BF16 = FP32.model_copy(update={"precision": "bf16"})


@pytest.mark.parametrize(("name", "billions"), [("baichuan2-7b", 7.506), ("bloom-7b", 7.069)])
def test_the_papers_decoders_have_their_published_sizes(name: str, billions: float) -> None:
    found = estimate(SHAPES[name], BF16, LoraConfig(rank=8), 1024, workers=8)
    assert (found.parameters - found.trained) / 1e9 == pytest.approx(billions, abs=5e-4)


def test_a_directory_or_its_name_tells_the_shape(model_dir) -> None:
    shape = shape_of(str(model_dir))
    assert shape is not None and shape.hidden_size == 32
    assert shape_of("/mnt/models/Baichuan2-7B-Base") is SHAPES["baichuan2-7b"]
    assert shape_of("/mnt/models/unheard-of") is None


def test_states_by_hand() -> None:
    whole = estimate(TINY, BF16, None, 64, workers=4)
    num = sum(p.numel() for p in make(TINY, None).parameters())
    assert whole.parameters == whole.trained == num
    # ZeRO-2: weights whole, gradients and optimiser states (4 + 4 + 4 bytes) in four parts.
    assert (whole.weights, whole.gradients, whole.optimiser) == (2 * num, 2 * num / 4, 12 * num / 4)
    sharded = estimate(TINY, BF16.model_copy(update={"zero_stage": 3}), None, 64, workers=4)
    assert sharded.weights == 2 * num / 4
    alone = estimate(TINY, FP32.model_copy(update={"zero_stage": 0}), None, 64, workers=4)
    assert (alone.weights, alone.gradients, alone.optimiser) == (4 * num, 4 * num, 8 * num)
    away = estimate(TINY, BF16.model_copy(update={"offload": "cpu"}), None, 64, workers=4)
    assert away.optimiser == 0
    assert whole.tokens_per_step == 16 * 64


def test_flops_by_hand() -> None:
    # A layer: 4·32² for attention, 3·32·64 for the MLP, 2·32 for norms; the head 32·50, a norm 32.
    read = 3 * (4 * 32**2 + 3 * 32 * 64 + 64) + 32 * 50 + 32
    model = make(TINY, None)
    assert flops_per_token(model, TINY, False, False, 64) == 6 * read + 12 * 3 * 32 * 64
    assert flops_per_token(model, TINY, False, True, 64) == 8 * read + 16 * 3 * 32 * 64


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
def test_activations_are_those_of_a_real_forward_pass(lora: LoraConfig | None) -> None:
    torch.manual_seed(0)
    real = AutoModelForCausalLM.from_config(TINY).train()
    if lora is not None:
        from medray.training.language_model import add_lora

        real = add_lora(real, lora, seed=0)
    own = {p.data_ptr() for p in real.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    length = 48
    tokens = torch.arange(length)[None] % 50
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = real(input_ids=tokens, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits[0], tokens[0])
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / length
    assert activation_bytes(TINY, lora, FP32) == pytest.approx(measured, rel=0.1)


def test_checkpointing_keeps_little_of_a_layer() -> None:
    deep = LlamaConfig(**{**TINY.to_dict(), "num_hidden_layers": 20})
    less = FP32.model_copy(update={"activation_checkpointing": True})
    assert activation_bytes(deep, None, less) < activation_bytes(deep, None, FP32) / 5


def test_a_roll_out_s_cache_by_hand() -> None:
    # Key and value, 2 bytes, 32 layers of 4096: half a MiB a token.
    assert cache_bytes(SHAPES["baichuan2-7b"]) == 2**19


def test_the_published_settings_fit_the_gpus_they_were_published_for() -> None:
    lines = list(training_plan(load_profile("a100x8", []), "a100"))
    assert [line.stage for line in lines] == ["pretrain", "sft", "ppo"]
    assert all(line.fits for line in lines)
    assert "7.51 B parameters, 7.51 B trained" in lines[0].text
    assert "524,288 tokens a step" in lines[0].text  # 128 blocks of 4 096
    heavy = load_profile("a100x8", ["pretrain.micro_batch_size=8"])
    assert not next(training_plan(heavy, "a100")).fits
    unknown = load_profile("a100x8", ["decoder.path=/nowhere"])
    assert [line.text for line in training_plan(unknown, "a100")] == [
        "not known: there is no config.json in /nowhere"
    ]


def test_time_by_hand() -> None:
    found = estimate(TINY, BF16, None, 64, workers=4)
    # Four GPUs of 312 TFLOP/s at 0.4 of it.
    assert found.step_s(GPUS["a100"], 4) == pytest.approx(found.flops_per_step / (4 * 312e12 * 0.4))
    assert GPUS["h200"].memory_gib * GIB > 141e9


def test_a_step_projects_to_the_vocabulary_only_where_there_is_loss() -> None:
    layers = 3 * (4 * 32**2 + 3 * 32 * 64 + 64) + 32
    attention = 12 * 3 * 32 * 64
    flops = count_flops(make(TINY, None))
    # 2 blocks of 64 tokens, 10 of them with loss.
    assert flops(2, 64, 10) == 128 * (6 * layers + attention) + 10 * 6 * 32 * 50
    assert flops(2, 64, 128) == 128 * flops_per_token(make(TINY, None), TINY, False, False, 64)
