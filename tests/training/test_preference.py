"""DPO, KTO, GRPO and RLOO on real workers: they learn, resume and leave a model that loads."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.storage import Storage
from medray.retrieval.tokenizer import train_tokenizer
from medray.training.language_model import LoraConfig
from medray.training.preference import PreferenceConfig, train_preference
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
def parents(ray_cluster, storage: Storage, model_dir: Path) -> dict[str, tuple[str, str]]:
    """A decoder and a reward model of random weights."""
    sft = Artefact(storage, "sft", CONFIG, key="untaught")
    AutoModelForCausalLM.from_pretrained(model_dir).save_pretrained(sft.dir / "model")
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(sft.dir / "model")
    sft.publish()
    reward = Artefact(storage, "reward", CONFIG, key="untaught")
    directory = reward.dir / "model"
    train_tokenizer(["呼吸气道消化泌尿血液循环不适肺炎哮喘胃炎肾炎贫血房颤"], 200, 64, directory)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(directory)), hidden_size=32, num_labels=1,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=512,
    )  # fmt: skip
    BertForSequenceClassification(shape).save_pretrained(directory)
    reward.publish()
    return {"sft": ("sft", "untaught"), "reward": ("reward", "untaught")}


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
    storage: Storage, parents: dict[str, tuple[str, str]]
) -> None:
    straight = storage.partial("preference", "dpo")
    train = storage.partial("preference", "killed") / "train"
    over, killed = threading.Event(), []

    def kill() -> None:
        while not over.wait(0.01):
            if any(train.glob("*/checkpoint_manager_snapshot.json")):
                for process in psutil.Process().children(recursive=True):
                    if "RayTrainWorker" in "".join(process.cmdline()):
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(process.pid)
                        return

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    made = learn(storage, parents, "killed", "dpo", checkpoint_steps=1)
    over.set()
    thread.join()
    assert killed
    one, two = (load_file(path / "model" / "model.safetensors") for path in (made.dir, straight))
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "grpo", "batch_size": 4, "num_generations": 3}, "multiple of num_generations"),
        ({"lora": {"dropout": 0.1}}, "dropout must be 0"),
        ({"muon_learning_rate": 0.1, "gradient_clip": 0}, "learns by AdamW"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PreferenceConfig.model_validate(changes)
