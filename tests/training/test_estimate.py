"""Memory and time of a stage: published sizes, and by hand."""

import pytest
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, BertConfig, LlamaConfig

from medray.training.activations import activation_bytes, make
from medray.training.estimate import (
    FORWARD,
    GIB,
    GPUS,
    LOSS,
    UPDATE,
    RollOut,
    cache_bytes,
    count_flops,
    estimate,
    flops_of,
    flops_per_token,
)
from medray.training.language_model import LanguageModelLoss, LoraConfig, add_lora
from medray.training.optimiser import OptimiserConfig
from medray.training.packed import PackedBlocks, Tokens
from medray.training.shapes import SHAPES

TINY = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
    num_attention_heads=2, max_position_embeddings=64,
)  # fmt: skip
FP32 = OptimiserConfig(batch_size=16, micro_batch_size=2, bucket_elements=100)
BF16 = FP32.model_copy(update={"precision": "bf16"})


@pytest.mark.parametrize(("name", "billions"), [("baichuan2-7b", 7.506), ("bloom-7b", 7.069)])
def test_the_papers_decoders_have_their_published_sizes(name: str, billions: float) -> None:
    found = estimate(SHAPES[name], BF16, LoraConfig(rank=8), 1024, workers=8)
    assert (found.parameters - found.trained) / 1e9 == pytest.approx(billions, abs=5e-4)


def test_states_by_hand() -> None:
    whole = estimate(TINY, BF16, None, 64, workers=4)
    # Embeddings and head 2·50·32; a layer 4·32² + 3·32·64 + 2·32; a norm.
    num = 2 * 50 * 32 + 3 * (4 * 32**2 + 3 * 32 * 64 + 64) + 32
    assert whole.parameters == whole.trained == num
    # ZeRO-2: weights whole, gradients and optimiser states (4 + 4 + 4 bytes) in four parts.
    assert (whole.weights, whole.gradients, whole.optimiser) == (2 * num, 2 * num / 4, 12 * num / 4)
    assert (whole.buckets, whole.update) == (2 * 100, UPDATE * num / 4)
    kept = activation_bytes(TINY, None, BF16, 64)
    assert whole.activations == 2 * (kept + LOSS * 50 * 64)
    assert whole.memory == (
        whole.weights + whole.optimiser + 200 + whole.gradients + whole.activations
    )
    sharded = estimate(TINY, BF16.model_copy(update={"zero_stage": 3}), None, 64, workers=4)
    assert sharded.weights == 2 * num / 4 + 2 * num  # fewer than DeepSpeed keeps gathered
    alone = estimate(TINY, FP32.model_copy(update={"zero_stage": 0}), None, 64, workers=4)
    assert (alone.weights, alone.gradients, alone.optimiser) == (4 * num, 4 * num, 8 * num)
    away = estimate(TINY, BF16.model_copy(update={"offload": "cpu"}), None, 64, workers=4)
    assert away.optimiser == away.update == 0
    assert whole.tokens_per_step == 16 * 64


def test_short_sequences_take_most_memory_as_the_optimiser_steps() -> None:
    short = estimate(TINY, BF16.model_copy(update={"zero_stage": 0}), None, 1, workers=1)
    assert short.update > short.activations
    held = short.weights + short.optimiser + short.buckets
    assert short.memory == held + short.gradients + short.update


def test_a_classifier_of_pairs() -> None:
    bert = BertConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    one = estimate(bert, FP32, None, 32, workers=1, task="SEQ_CLS")
    pairs = estimate(bert, FP32, None, 32, workers=1, task="SEQ_CLS", per_sample=2)
    # Embeddings 50 + 64 + 2 rows and a norm; a layer 4·(32² + 32) + 2·32·64 + 64 + 32 and two norms
    # of 64; the pooler 32² + 32, one output 32 + 1.
    layer = 4 * (32**2 + 32) + 2 * 32 * 64 + 64 + 32 + 2 * 64
    assert one.parameters == 116 * 32 + 64 + 3 * layer + 32**2 + 32 + 33
    assert pairs.activations == 2 * one.activations and pairs.tokens_per_step == 2 * 16 * 32
    # No projection to a vocabulary: the embeddings are looked up only.
    read = one.parameters - 50 * 32
    assert one.flops_per_step == 16 * 32 * (6 * read + 12 * 3 * 32 * 32)


def test_flops_by_hand() -> None:
    # A layer: 4·32² for attention, 3·32·64 for the MLP, 2·32 for norms; the head 32·50, a norm 32.
    read = 3 * (4 * 32**2 + 3 * 32 * 64 + 64) + 32 * 50 + 32
    model = make(TINY, None)
    assert flops_per_token(model, TINY, False, False, 64) == 6 * read + 12 * 3 * 32 * 64
    assert flops_per_token(model, TINY, False, True, 64) == 8 * read + 16 * 3 * 32 * 64
    assert flops_of(model, TINY, FORWARD, 64) == 2 * read + 4 * 3 * 32 * 64


def test_frozen_weights_cost_less_but_adapters_and_attention_do_not() -> None:
    adapters = 3 * (4 * 2 * 64 + 3 * 2 * 96)  # 2·(in + out) of 32 × 32 and of 32 × 64
    read = 3 * (4 * 32**2 + 3 * 32 * 64 + 64) + 32 * 50 + 32
    found = flops_per_token(make(TINY, LoraConfig(rank=2)), TINY, True, False, 64)
    assert found == 4 * read + 6 * adapters + 12 * 3 * 32 * 64


def test_a_step_projects_to_the_vocabulary_only_where_there_is_loss() -> None:
    layers = 3 * (4 * 32**2 + 3 * 32 * 64 + 64) + 32
    attention = 12 * 3 * 32 * 64
    flops = count_flops(make(TINY, None))
    # 2 blocks of 64 tokens, 10 of them with loss.
    assert flops(2, 64, 10) == 128 * (6 * layers + attention) + 10 * 6 * 32 * 50
    assert flops(2, 64, 128) == 128 * flops_per_token(make(TINY, None), TINY, False, False, 64)


@pytest.mark.parametrize(("lora", "tolerance"), [(None, 0.01), (LoraConfig(rank=2), 0.05)])
def test_flops_are_those_that_torch_counts(lora: LoraConfig | None, tolerance: float) -> None:
    """All but norms, which torch counts as nothing, and, with frozen weights, the gradients of the
    first layer's input, which nothing asks for."""
    deep = LlamaConfig(**{**TINY.to_dict(), "num_hidden_layers": 6})
    model = AutoModelForCausalLM.from_config(deep, attn_implementation="eager").train()
    if lora is not None:
        model = add_lora(model, lora, seed=0)
    # Two blocks of 64 tokens; the loss falls on 40 of each but the first, which nothing precedes.
    sequence = Tokens(list(range(50)) + list(range(14)), [False] * 24 + [True] * 40)
    blocks = PackedBlocks.pack([sequence, sequence], 64, 0)
    with FlopCounterMode(display=False) as counter:
        LanguageModelLoss(model)(**blocks.collate([0, 1])).backward()
    found = count_flops(model)(2, 64, 80)
    assert found == pytest.approx(counter.get_total_flops(), rel=tolerance)


def test_time_by_hand() -> None:
    found = estimate(TINY, BF16, None, 64, workers=4)
    # Four GPUs of 312 TFLOP/s at 0.4 of it.
    assert found.step_s(GPUS["a100"], 4) == pytest.approx(found.flops_per_step / (4 * 312e12 * 0.4))
    assert found.step_s(GPUS["a100"], 4, mfu=0.2) == 2 * found.step_s(GPUS["a100"], 4)
    assert GPUS["h200"].memory_gib * GIB > 141e9
    # A roll-out adds the slower of reading (a fifth of 2.039 TB/s) and computing.
    reads = RollOut(merged=0, cache=0, flops=1.0, bytes_read=2.039e12)
    assert reads.seconds(GPUS["a100"], 0.4) == pytest.approx(5)
    computes = reads._replace(flops=10 * 312e12)
    assert computes.seconds(GPUS["a100"], 0.4) == pytest.approx(25)
    rolls = found._replace(roll_out=reads)
    assert rolls.step_s(GPUS["a100"], 4) == pytest.approx(found.step_s(GPUS["a100"], 4) + 5)


def test_a_roll_out_s_cache_by_hand() -> None:
    # Key and value, 2 bytes, 32 layers of 4096: half a MiB a token.
    assert cache_bytes(SHAPES["baichuan2-7b"]) == 2**19
    assert cache_bytes(TINY, 4) == 2 * 4 * 3 * 32
