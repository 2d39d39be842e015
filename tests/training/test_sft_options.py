"""Prompt tuning, distillation, replay and the best model, each through a whole run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.storage import Storage
from medray.corpus.blocks import write_blocks
from medray.training.distil import DistilConfig
from medray.training.forgetting import FILE
from medray.training.general import GENERAL
from medray.training.language_model import DecoderConfig, LoraConfig
from medray.training.pretrain import PretrainConfig, pretrain
from medray.training.sft import SftConfig, fine_tune
from medray.training.soft_prompt import SoftPromptConfig
from medray.training.workers import WorkersConfig

pytestmark = pytest.mark.cluster
CORPUS, INSTRUCTIONS = ("corpus", "tiny"), ("instructions", "tiny")
WORKER = WorkersConfig(num_workers=1, use_gpu=False)
SFT = SftConfig(
    learning_rate=2e-2, warmup_steps=0, batch_size=2, micro_batch_size=2, total_steps=4,
    block_tokens=64, lora=LoraConfig(rank=4, alpha=16),
)  # fmt: skip
# So fast that the loss soon rises again.
FAST = PretrainConfig(
    learning_rate=0.3, warmup_steps=0, batch_size=4, micro_batch_size=2, total_steps=6,
    evaluate_steps=1, keep="best",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(storage: Storage, model_dir: Path) -> tuple[str, str]:
    """The fixtures' decoder as a pretrained model."""
    artefact = Artefact(storage, "pretrain", SFT, key="options")
    for path in model_dir.iterdir():
        (artefact.dir / "model").mkdir(exist_ok=True)
        (artefact.dir / "model" / path.name).write_bytes(path.read_bytes())
    artefact.publish()
    return "pretrain", "options"


@pytest.fixture(scope="module")
def general(storage: Storage, tokenizer: Any) -> tuple[str, str]:
    """A corpus with general text."""
    artefact = Artefact(storage, "corpus", SFT, key="general")
    texts = [tokenizer(f"今天天气{word}，适合出门。")["input_ids"] for word in ("好", "晴朗", "凉")]
    for name in ("general", "heldout_general"):
        write_blocks(artefact.dir / "blocks", name, texts, 64, tokenizer.pad_token_id)
    artefact.publish()
    return "corpus", "general"


def run_pretrain(
    storage: Storage, decoder: DecoderConfig, key: str, config: PretrainConfig, **workers: Any
) -> Artefact:
    artefact = Artefact(storage, "pretrain", config, key=key)
    workers = WORKER.model_copy(update=workers)
    pretrain(config, decoder, workers, CORPUS, INSTRUCTIONS, artefact)
    return artefact


def train_losses(artefact: Artefact) -> list[float]:
    rows = MetricsLog(artefact.dir / "metrics.jsonl").read()
    return [row["train/loss"] for row in rows if "train/loss" in row]


def test_the_best_model_comes_home(ray_cluster, storage: Storage, decoder: DecoderConfig) -> None:
    found = run_pretrain(storage, decoder, "best", FAST, num_to_keep=1, checkpoint_steps=2)
    rows = MetricsLog(found.dir / "metrics.jsonl").read()
    held_out = {row["step"]: row["held_out/loss"] for row in rows if "held_out/loss" in row}
    assert list(held_out) == [1, 2, 3, 4, 5, 6]
    best = min(held_out, key=lambda step: held_out[step])
    assert best < 6
    assert [row["best/step"] for row in rows if "best/step" in row] == [best]
    assert found.metrics["loss_after"] == held_out[best]
    # The constant rate knows nothing of the end: a run that ends there has the same weights.
    stopped = FAST.model_copy(update={"total_steps": best, "evaluate_steps": 0, "keep": "last"})
    other = run_pretrain(storage, decoder, "stopped", stopped)
    ours, theirs = (
        load_file(a.dir / "model" / "model.safetensors") for a in (found, other)
    )  # fmt: skip
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_soft_prompt_learns_beside_general_text(
    ray_cluster, storage: Storage, base: tuple[str, str], general: tuple[str, str]
) -> None:
    prompt = {"lora": None, "soft_prompt": SoftPromptConfig(num_tokens=4), "general_fraction": 0.5}
    config = SFT.model_copy(update={**prompt, "learning_rate": 0.1, "total_steps": 8})
    artefact = Artefact(storage, "sft", config, key="prompt")
    fine_tune(config, WORKER, base, INSTRUCTIONS, artefact, general)
    losses = train_losses(artefact)  # two blocks, one of chats and one general, in every step
    assert losses[-1] < losses[0]
    forgetting = json.loads((artefact.dir / FILE).read_text(encoding="utf-8"))
    assert set(forgetting["loss"]["after"]) == {"t", "u", GENERAL}
    tokenizer = AutoTokenizer.from_pretrained(artefact.dir / "model")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "呼吸"}], tokenize=False)
    assert text.startswith("<|soft_prompt_0|><|soft_prompt_1|>")
    old = load_file(storage.fetch(*base) / "model" / "model.safetensors")
    new = load_file(artefact.dir / "model" / "model.safetensors")
    changed = {name for name in old if not torch.equal(old[name], new[name][: len(old[name])])}
    assert not changed


def test_a_student_comes_nearer_to_its_teacher(
    ray_cluster, storage: Storage, base: tuple[str, str], tmp_path: Path
) -> None:
    teacher = AutoModelForCausalLM.from_pretrained(storage.fetch(*base) / "model")
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in teacher.named_parameters():
            if "proj" in name:
                weight += 0.3 * torch.randn_like(weight)
    teacher.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(storage.fetch(*base) / "model").save_pretrained(tmp_path)
    distil = DistilConfig(path=str(tmp_path), weight=1.0, temperature=1.0)
    config = SFT.model_copy(update={"distil": distil, "lora": None, "learning_rate": 3e-3})
    artefact = Artefact(storage, "sft", config, key="distilled")
    fine_tune(config, WORKER, base, INSTRUCTIONS, artefact)
    losses = train_losses(artefact)
    assert losses[-1] < 0.8 * losses[0]
    model, info = AutoModelForCausalLM.from_pretrained(
        artefact.dir / "model", output_loading_info=True
    )
    assert not info["unexpected_keys"]  # nothing of the teacher
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in teacher.parameters()
    )
