"""Settings of the optimiser: what is refused, and the schedule by hand."""

import pytest
import torch
from transformers import Qwen3Config
from transformers.models.qwen3 import Qwen3ForCausalLM

from medray.common.errors import ConfigError
from medray.training.language_model import LanguageModelLoss, LoraConfig, add_lora, base_of
from medray.training.optimiser import OptimiserConfig, checkpoint_activations
from medray.training.packed import PackedBlocks, Tokens
from medray.training.ppo.config import PpoConfig
from medray.training.preference.config import PreferenceConfig
from medray.training.sft import SftConfig

SHAPE = Qwen3Config(
    vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, head_dim=8, intermediate_size=16,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (OptimiserConfig, {"batch_size": 6}, "batch_size 6 must be a multiple of micro"),
        (OptimiserConfig, {"zero_stage": 4}, "zero_stage: .*got 4"),
        (OptimiserConfig, {"precision": "fp16"}, "precision: .*got 'fp16'"),
        (OptimiserConfig, {"muon_learning_rate": 0.01}, "gradient_clip must be 0"),
        (OptimiserConfig, {"muon_learning_rate": 0.01, "gradient_clip": 0, "zero_stage": 3},
         "zero_stage 0, 1 or 2"),
        (OptimiserConfig, {"keep": "best"}, "keep: best needs evaluate_steps"),
        (SftConfig, {"soft_prompt": {}}, "sft.lora to null"),
        (SftConfig, {"soft_prompt": {}, "lora": None, "zero_stage": 3}, "zero_stage 0, 1 or 2"),
        (SftConfig, {"soft_prompt": {}, "lora": None, "distil": {"path": "t"}}, "the teacher"),
        (PreferenceConfig, {"evaluate_steps": 5}, "evaluate_steps must be 0"),
        (PpoConfig, {"zero_stage": 3}, r"ppo\.zero_stage must be 0, 1 or 2"),
        (PpoConfig, {"rollouts": 12}, r"ppo\.rollouts must be a multiple of ppo\.batch_size"),
        (PpoConfig, {"lora": {"dropout": 0.1}}, r"ppo\.lora\.dropout must be 0"),
    ],
)  # fmt: skip
def test_refused(config, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.parse(values, "test")


def test_constant_schedule_by_hand() -> None:
    config = OptimiserConfig(warmup_steps=4, total_steps=10)
    rates = [config.schedule_at(step) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_schedule_by_hand() -> None:
    config = OptimiserConfig(warmup_steps=2, total_steps=10, schedule="cosine")
    # 0.1 + 0.45 (1 + cos π·done): 1 at done 0, 0.55 at ½, 0.1 at 1 and ever after.
    rates = [config.schedule_at(step) for step in (1, 2, 6, 10, 50)]
    assert rates == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])


def test_wsd_schedule_by_hand() -> None:
    config = OptimiserConfig(
        warmup_steps=2, total_steps=20, schedule="wsd", decay_fraction=0.25, batch_size=4
    )
    # Falls over the last 5 steps: 1 at step 15, then 4/5, 3/5, 2/5, 1/5.
    rates = [config.schedule_at(step) for step in (0, 2, 15, 16, 17, 18, 19)]
    assert rates == pytest.approx([0.5, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_checkpointed_activations_give_the_same_gradients() -> None:
    def gradients(checkpointed: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        module = LanguageModelLoss(add_lora(Qwen3ForCausalLM(SHAPE), LoraConfig(), seed=0)).train()
        calls: list[int] = []
        base_of(module.model).model.layers[0].self_attn.register_forward_hook(
            lambda *_: calls.append(1)
        )
        if checkpointed:
            checkpoint_activations(module)
        module(
            **PackedBlocks.pack([Tokens(range(3, 19), [True] * 16)], 16, 0).collate([0])
        ).backward()
        assert len(calls) == 1 + checkpointed
        return [p.grad for p in module.parameters() if p.grad is not None]

    plain, again = gradients(False), gradients(True)
    assert plain and all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_a_critic_of_its_own_is_checkpointed_too() -> None:
    pair = torch.nn.ModuleList([Qwen3ForCausalLM(SHAPE), Qwen3ForCausalLM(SHAPE)])
    checkpoint_activations(pair)
    assert all(model.is_gradient_checkpointing for model in pair)


def test_without_warmup_the_first_step_has_the_full_rate() -> None:
    assert OptimiserConfig(warmup_steps=0).schedule_at(0) == 1.0


def test_accumulation_keeps_the_global_batch() -> None:
    config = OptimiserConfig(batch_size=16, micro_batch_size=2)
    for workers in (1, 2, 4, 8):
        assert config.accumulation(workers) * workers * 2 == 16
        assert config.deepspeed(workers)["gradient_accumulation_steps"] == 8 // workers
    with pytest.raises(ValueError, match="micro_batch_size × workers = 2 × 3"):
        config.accumulation(3)


def test_offload_goes_to_deepspeed() -> None:
    config = OptimiserConfig(offload="cpu", zero_stage=3, precision="bf16").deepspeed(1)
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert config["zero_optimization"]["stage"] == 3
    assert config["bf16"] == {"enabled": True}
