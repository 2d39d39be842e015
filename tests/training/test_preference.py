"""DPO, KTO, GRPO and RLOO on real workers: they learn, resume and leave a model that loads."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.storage import Storage
from medray.training.language_model import LoraConfig
from medray.training.preference.config import PreferenceConfig
from medray.training.preference.stage import train_preference
from medray.training.workers import WorkersConfig

INSTRUCTIONS = ("instructions", "tiny")
CONFIG = PreferenceConfig(
    learning_rate=2e-2, warmup_steps=0, batch_size=4, micro_batch_size=2, total_steps=6,
    max_tokens=64, num_generations=2, max_new_tokens=6, num_heldout=4,
    lora=LoraConfig(rank=4, alpha=16),
)  # fmt: skip


def workers(**values: Any) -> WorkersConfig:
    return WorkersConfig.model_validate({"num_workers": 2, "use_gpu": False, **values})


@pytest.fixture(scope="module")
def parents(
    ray_cluster, storage: Storage, model_dir: Path, untaught_reward: tuple[str, str]
) -> dict[str, tuple[str, str]]:
    """A decoder and a reward model of random weights."""
    sft = Artefact(storage, "sft", CONFIG, key="untaught")
    AutoModelForCausalLM.from_pretrained(model_dir).save_pretrained(sft.dir / "model")
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(sft.dir / "model")
    sft.publish()
    return {"sft": ("sft", "untaught"), "reward": untaught_reward}


def learn(storage: Storage, parents: Any, key: str, method: str, **values: Any) -> Artefact:
    config = CONFIG.model_copy(update={"method": method})
    artefact = Artefact(storage, "preference", config, key=key)
    reward = parents["reward"] if config.needs_reward else None
    train_preference(config, workers(**values), parents["sft"], reward, INSTRUCTIONS, artefact)
    return artefact


@pytest.mark.cluster
@pytest.mark.parametrize("method", ["dpo", "kto", "grpo", "rloo"])
def test_each_method_trains_and_exports(
    storage: Storage, parents: dict[str, tuple[str, str]], method: str
) -> None:
    made = learn(storage, parents, method, method)
    rows = MetricsLog(made.dir / "metrics.jsonl").read()
    steps = [row["step"] for row in rows if "train/loss" in row]
    assert steps == [1, 2, 3, 4, 5, 6]
    if method in ("dpo", "kto"):
        assert made.metrics["loss_after"] < made.metrics["loss_before"]
    if method == "dpo":
        # The policy is its reference at first: −log σ(0).
        assert made.metrics["loss_before"] == pytest.approx(0.6931, abs=1e-3)
        assert made.metrics["rewards_accuracies_after"] == 1
    if method in ("grpo", "rloo"):
        assert {"reward_before", "reward_after"} <= made.metrics.keys()
    model, info = AutoModelForCausalLM.from_pretrained(made.dir / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    old = load_file(storage.fetch(*parents["sft"]) / "model" / "model.safetensors")
    new = model.state_dict()
    assert any(not torch.equal(old[name], new[name]) for name in old)
    assert AutoTokenizer.from_pretrained(made.dir / "model").chat_template


@pytest.mark.cluster
def test_one_worker_computes_what_two_do(
    storage: Storage, parents: dict[str, tuple[str, str]]
) -> None:
    one = MetricsLog(learn(storage, parents, "alone", "dpo", num_workers=1).dir / "metrics.jsonl")
    two = MetricsLog(storage.partial("preference", "dpo") / "metrics.jsonl")
    losses = [
        [row["train/loss"] for row in log.read() if "train/loss" in row] for log in (one, two)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


@pytest.mark.cluster
def test_a_killed_worker_leaves_no_trace(
    storage: Storage,
    parents: dict[str, tuple[str, str]],
    one_worker_killed: Callable[[Path], AbstractContextManager[None]],
) -> None:
    straight = storage.partial("preference", "dpo")
    with one_worker_killed(storage.partial("preference", "killed") / "train"):
        made = learn(storage, parents, "killed", "dpo", checkpoint_steps=1)
    one, two = (load_file(path / "model" / "model.safetensors") for path in (made.dir, straight))
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "grpo", "batch_size": 4, "num_generations": 3}, "multiple of num_generations"),
        ({"lora": {"dropout": 0.1}}, "dropout must be 0"),
        ({"muon_learning_rate": 0.1, "gradient_clip": 0}, "learns by AdamW"),
        ({"offload": "cpu"}, "set muon_learning_rate to 0 and offload to none"),
        ({"zero_stage": 2}, r"preference\.zero_stage must be 0, got 2: every worker holds whole"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PreferenceConfig.model_validate(changes)
