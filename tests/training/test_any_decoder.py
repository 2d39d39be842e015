"""Any decoder directory goes through fine-tuning, PPO and export, and generates afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from medray.common.errors import ConfigError
from medray.common.manifest import Artefact
from medray.common.storage import Storage
from medray.generation.engine import HFEngine
from medray.generation.sampling import Sampling
from medray.training.baichuan import convert
from medray.training.language_model import LoraConfig
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.replay import ReplayConfig
from medray.training.ppo.stage import train_ppo
from medray.training.sft import SftConfig, fine_tune
from medray.training.workers import WorkersConfig

pytestmark = pytest.mark.cluster
INSTRUCTIONS = ("instructions", "tiny")
WORKER = WorkersConfig(num_workers=1, use_gpu=False)
LORA = LoraConfig(rank=2, alpha=4)
SFT = SftConfig(
    learning_rate=1e-2, warmup_steps=0, batch_size=2, micro_batch_size=2, total_steps=3,
    block_tokens=64, lora=LORA,
)  # fmt: skip
PPO = PpoConfig(
    learning_rate=1e-2, total_steps=1, rollouts=2, batch_size=2, micro_batch_size=2, epochs=1,
    max_new_tokens=4, num_heldout=2, lora=LORA,
    replay=ReplayConfig(coefficient=0.5, batch_size=2, block_tokens=64),
)  # fmt: skip
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 96,
}  # fmt: skip
Configs = dict[str, Callable[[int], PreTrainedConfig]]
CONFIGS: Configs = {
    "llama": lambda size: LlamaConfig(vocab_size=size, **SHAPE),
    "qwen3": lambda size: Qwen3Config(vocab_size=size, head_dim=16, **SHAPE),
    "bloom": lambda size: BloomConfig(vocab_size=size, hidden_size=32, n_layer=2, n_head=2),
}


@pytest.fixture
def directory(
    request: pytest.FixtureRequest, tokenizer: Any, baichuan: Path, tmp_path: Path
) -> Path:
    """A model of random weights on disk, as it would be downloaded: no chat template."""
    target = tmp_path / "model"
    if request.param == "baichuan":
        convert(baichuan, target)
        return target
    torch.manual_seed(0)
    config = CONFIGS[request.param](len(tokenizer))
    config.eos_token_id = tokenizer.eos_token_id
    AutoModelForCausalLM.from_config(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "chat_template.jinja").unlink()
    return target


def start_from(storage: Storage, directory: Path) -> tuple[str, str]:
    """Publishes a copy of `directory` as a pretrained model."""
    key = f"{directory.parent.name}"
    artefact = Artefact(storage, "pretrain", SFT, key=key)
    directory.rename(artefact.dir / "model")
    artefact.publish()
    return "pretrain", key


@pytest.mark.parametrize("directory", [*CONFIGS, "baichuan"], indirect=True)
def test_any_decoder_is_tuned_rewarded_and_exported(
    ray_cluster, directory: Path, untaught_reward: tuple[str, str], storage: Storage
) -> None:
    base = start_from(storage, directory)
    tuned = Artefact(storage, "sft", SFT, key=base[1])
    fine_tune(SFT, WORKER, base, INSTRUCTIONS, tuned)
    assert tuned.metrics["loss_after"] < tuned.metrics["loss_before"]
    tuned.publish(drop=("train",))
    final = Artefact(storage, "ppo", PPO, key=base[1])
    train_ppo(PPO, WORKER, ("sft", base[1]), untaught_reward, INSTRUCTIONS, final)

    model, info = AutoModelForCausalLM.from_pretrained(
        final.dir / "model", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    before = AutoModelForCausalLM.from_pretrained(storage.fetch(*base) / "model")
    assert type(model) is type(before)
    assert any(
        not torch.equal(old, new)
        for old, new in zip(before.parameters(), model.parameters(), strict=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(final.dir / "model")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "呼吸不适"}], tokenize=False, add_generation_prompt=True
    )
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    # What the product's own engine says, which pads and batches.
    (ours,) = HFEngine(final.dir / "model").generate([prompt], Sampling(max_new_tokens=3))
    answer = output[0, inputs["input_ids"].shape[1] :]
    assert ours.text == tokenizer.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize("directory", ["llama"], indirect=True)
def test_a_context_that_is_too_short_is_refused(
    ray_cluster, directory: Path, storage: Storage
) -> None:
    base = start_from(storage, directory)
    config = SFT.model_copy(update={"block_tokens": 128})
    artefact = Artefact(storage, "sft", config, key=f"{base[1]}-long")
    with pytest.raises(ConfigError, match=r"sft.block_tokens gives .* 128 .* reads 96 at most"):
        fine_tune(config, WORKER, base, INSTRUCTIONS, artefact)
