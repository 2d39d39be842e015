"""A round of PPO by hand."""

import pytest
from transformers import LlamaConfig

from medray.training.estimate import RollOut, estimate
from medray.training.language_model import LoraConfig
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.estimate import estimate_round
from medray.training.ppo.replay import ReplayConfig

TINY = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
    num_attention_heads=2, max_position_embeddings=64,
)  # fmt: skip
LAYER = 4 * 32**2 + 3 * 32 * 64
BASE = 2 * 50 * 32 + 3 * (LAYER + 64) + 32
ADAPTERS = 3 * (4 * 2 * 64 + 3 * 2 * 96)  # rank 2: 2·(in + out) each, of 32 × 32 and 32 × 64
SCORER = BASE - 50 * 32 + 32  # one output in place of the vocabulary
CONFIG = PpoConfig(
    rollouts=16, batch_size=8, micro_batch_size=2, epochs=3, max_new_tokens=8, precision="bf16",
    zero_stage=2, lora=LoraConfig(rank=2),
)  # fmt: skip


def attention(passes: int, length: int) -> int:
    return 2 * passes * 3 * 32 * length


def learning(read: int, length: int) -> int:
    return 4 * read + 2 * ADAPTERS + attention(6, length)


def test_memory() -> None:
    found = estimate_round(CONFIG, TINY, TINY, reward_size=4, reward_tokens=512, workers=2)
    assert (found.parameters, found.trained) == (BASE + ADAPTERS + 33, ADAPTERS + 33)
    assert found.weights == 2 * found.parameters
    # 2 and 12 bytes, on two GPUs.
    assert found.gradients == pytest.approx(found.trained)
    assert found.optimiser == pytest.approx(6 * found.trained)
    assert found.beside == 4 * SCORER
    assert found.roll_out is not None
    # 8 answers a GPU, 8 tokens after 8, 3 layers of 32 keys and 32 values.
    assert found.roll_out.cache == 8 * 16 * 3 * 64 * 2
    assert found.roll_out.merged == 2 * 3 * LAYER
    # 8 times all weights, and 8 … 15 tokens of each answer's cache.
    assert found.roll_out.bytes_read == 8 * 2 * (BASE + ADAPTERS) + 8 * 3 * 64 * 2 * sum(
        range(8, 16)
    )
    learns = estimate(TINY, CONFIG, CONFIG.lora, 16, 2)
    assert found.activations == learns.activations
    held = found.weights + found.beside + found.optimiser + found.buckets
    assert found.memory == held + found.gradients + found.activations
    many = found._replace(roll_out=RollOut(merged=10**9, cache=10**6, flops=0, bytes_read=0))
    assert many.memory == held + 10**9 + 10**6


def test_work() -> None:
    found = estimate_round(CONFIG, TINY, TINY, reward_size=4, reward_tokens=512, workers=2)
    read, scored = BASE + ADAPTERS - 50 * 32, SCORER - 50 * 32
    each = (
        8 * (2 * read + attention(2, 8))  # the prompt
        + 2 * 16 * (2 * read + attention(2, 16))  # under policy and reference
        + 16 * (2 * scored + attention(2, 16))
        + 3 * 16 * learning(read, 16)
    )
    assert found.flops_per_step == 16 * each
    assert found.roll_out is not None
    assert found.roll_out.flops == 8 * 8 * (2 * read + attention(2, 16))
    assert found.tokens_per_step == 16 * 16
    unscored = estimate_round(CONFIG, TINY, None, reward_size=4, reward_tokens=512, workers=2)
    scores = 16 * 16 * (2 * scored + attention(2, 16))
    assert (unscored.flops_per_step, unscored.beside) == (found.flops_per_step - scores, 0)


def test_a_critic_of_its_own_and_replay_cost_more() -> None:
    one = estimate_round(CONFIG, TINY, TINY, reward_size=4, reward_tokens=512, workers=2)
    two = estimate_round(
        CONFIG.model_copy(update={"critic": "separate"}),
        TINY,
        TINY,
        reward_size=4,
        reward_tokens=512,
        workers=2,
    )
    assert two.parameters == 2 * (BASE + ADAPTERS) + 33
    assert two.trained == 2 * ADAPTERS + 33
    assert two.activations == 2 * one.activations
    assert two.roll_out == one.roll_out
    read = BASE + ADAPTERS - 50 * 32
    more = 16 * 16 * (2 * read + attention(2, 16) + 3 * learning(read, 16))
    assert two.flops_per_step == one.flops_per_step + more
    replay = ReplayConfig(coefficient=0.1, batch_size=4, block_tokens=32)
    replayed = estimate_round(
        CONFIG.model_copy(update={"replay": replay}),
        TINY,
        TINY,
        reward_size=4,
        reward_tokens=512,
        workers=2,
    )
    more = 3 * 2 * 4 * 32 * learning(read, 32)  # 3 passes of 2 updates
    assert replayed.flops_per_step == one.flops_per_step + more
