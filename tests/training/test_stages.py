"""The stages on real Ray Train workers: a killed worker leaves no trace, models load and learn."""

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from medray.common.config import Config
from medray.common.manifest import Artefact, sha256_file
from medray.common.metrics import MetricsLog
from medray.common.records import Instruction, PreferencePair, Scenario, ScoredResponse
from medray.common.rows import read_rows
from medray.common.storage import Storage
from medray.retrieval.training.tokenizer import train_tokenizer
from medray.training.chats import Packer
from medray.training.curriculum import CurriculumConfig, StageConfig, rows_of_stage
from medray.training.language_model import DecoderConfig, LoraConfig
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.replay import ReplayConfig
from medray.training.ppo.stage import train_ppo
from medray.training.pretrain import PretrainConfig, pretrain
from medray.training.reward.config import RewardConfig
from medray.training.reward.model import RewardModel
from medray.training.reward.stage import train_reward
from medray.training.sft import SftConfig, fine_tune
from medray.training.workers import WorkersConfig

pytestmark = pytest.mark.cluster
Killing = Callable[[Path], AbstractContextManager[None]]
CORPUS, INSTRUCTIONS = ("corpus", "tiny"), ("instructions", "tiny")
PRETRAIN = PretrainConfig(
    learning_rate=1e-2, muon_learning_rate=1e-2, gradient_clip=0,
    warmup_steps=1, batch_size=4, micro_batch_size=2, total_steps=4,
)  # fmt: skip


def two_workers(**values: Any) -> WorkersConfig:
    return WorkersConfig.model_validate({"num_workers": 2, "use_gpu": False, **values})


def open_artefact(storage: Storage, step: str, key: str, config: Config) -> Artefact:
    return Artefact(storage, step, config, key=key)


SFT = SftConfig(
    learning_rate=2e-2, warmup_steps=1, batch_size=4, micro_batch_size=2, total_steps=8,
    block_tokens=64, lora=LoraConfig(rank=4, alpha=16),
)  # fmt: skip
REWARD = RewardConfig(
    learning_rate=1e-2, warmup_steps=1, batch_size=4, micro_batch_size=2, total_steps=6,
    max_tokens=32,
)  # fmt: skip
# Ray Train notes a checkpoint some time after the workers made it, so a run must go on for several
# more before there is certainly a worker left to kill.
PPO = PpoConfig(
    learning_rate=1e-2, total_steps=6, rollouts=4, batch_size=4, micro_batch_size=2, epochs=2,
    max_new_tokens=8, num_heldout=2, lora=LoraConfig(rank=4, alpha=16),
    replay=ReplayConfig(coefficient=0.5, batch_size=2, block_tokens=64),
)  # fmt: skip


def run_pretrain(storage: Storage, decoder: DecoderConfig, key: str, **workers: Any) -> Artefact:
    artefact = open_artefact(storage, "pretrain", key, PRETRAIN)
    pretrain(PRETRAIN, decoder, two_workers(**workers), CORPUS, INSTRUCTIONS, artefact)
    return artefact


def run_sft(storage: Storage, key: str, **workers: Any) -> Artefact:
    artefact = open_artefact(storage, "sft", key, SFT)
    fine_tune(SFT, two_workers(**workers), ("pretrain", "straight"), INSTRUCTIONS, artefact)
    return artefact


def run_reward(storage: Storage, key: str, **workers: Any) -> Artefact:
    artefact = open_artefact(storage, "reward", key, REWARD)
    train_reward(REWARD, two_workers(**workers), ("encoder", "tiny"), INSTRUCTIONS, artefact)
    return artefact


def run_ppo(storage: Storage, key: str, **workers: Any) -> Artefact:
    artefact = open_artefact(storage, "ppo", key, PPO)
    pairs = [("sft", "tiny"), ("reward", "tiny"), INSTRUCTIONS]
    train_ppo(PPO, two_workers(**workers), *pairs, artefact)
    return artefact


def published(artefact: Artefact) -> Artefact:
    artefact.publish(drop=("train",))
    return artefact


def check_same(killed: Path, straight: Path) -> None:
    """The same model to the bit, and the same metrics, each step once."""
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert sha256_file(killed / "model" / name) == sha256_file(straight / "model" / name)
    rows, expected = (MetricsLog(path / "metrics.jsonl").read() for path in (killed, straight))
    assert [untimed(row) for row in rows] == [untimed(row) for row in expected]
    samples = [path / "samples.jsonl" for path in (killed, straight)]
    assert MetricsLog(samples[0]).read() == MetricsLog(samples[1]).read()


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("time/")}


@pytest.fixture(scope="module")
def straight(ray_cluster, storage: Storage, decoder: DecoderConfig) -> Artefact:
    """Four undisturbed steps; published, so that sft can start from it."""
    artefact = run_pretrain(storage, decoder, "straight")
    artefact.publish(drop=("train",))
    return artefact


@pytest.fixture(scope="module")
def pretrained(straight: Artefact, storage: Storage) -> Path:
    return storage.fetch("pretrain", "straight")


def test_pretraining_learns_and_logs_every_step(straight: Artefact, pretrained: Path) -> None:
    rows = MetricsLog(pretrained / "metrics.jsonl").read()
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 4]
    assert straight.metrics["loss_after"] < straight.metrics["loss_before"]
    assert straight.metrics["steps"] == 4
    # 4 blocks of 64 tokens a step, each with 63 labels.
    assert straight.metrics["tokens"] == 4 * 4 * 63


def test_a_killed_worker_leaves_no_trace(
    storage: Storage, decoder: DecoderConfig, pretrained: Path, one_worker_killed: Killing
) -> None:
    train = storage.partial("pretrain", "killed") / "train"
    with one_worker_killed(train):
        artefact = run_pretrain(storage, decoder, "killed", checkpoint_steps=1)
    check_same(artefact.dir, pretrained)


def test_one_worker_computes_what_two_do(
    storage: Storage, decoder: DecoderConfig, pretrained: Path
) -> None:
    artefact = run_pretrain(storage, decoder, "alone", num_workers=1)
    one = load_file(artefact.dir / "model" / "model.safetensors")
    two = load_file(pretrained / "model" / "model.safetensors")
    # Muon makes all singular values of a gradient alike, in half precision: also those that are
    # hardly more than the rounding of sums in another order. By Adam: test_exact.py, to 2e-4.
    assert max((one[name] - two[name]).abs().max().item() for name in two) < 2e-3


ADAM = PretrainConfig(
    learning_rate=1e-2, warmup_steps=1, batch_size=8, micro_batch_size=2, total_steps=3,
    zero_stage=0,
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"zero_stage": 1}, {"zero_stage": 2}, {"zero_stage": 3}, {"micro_batch_size": 4}],
    ids=lambda changes: "-".join(f"{name}{value}" for name, value in changes.items()),
)
def test_sharding_and_accumulation_change_nothing(
    storage: Storage, decoder: DecoderConfig, pretrained: Path, changes: dict[str, int]
) -> None:
    """ZeRO 0 = 1 = 2 = 3, and a batch of 8 = 2 workers × 2 accumulated passes of 2 = 2 × 4."""

    def weights(key: str, config: PretrainConfig) -> dict[str, torch.Tensor]:
        path = storage.partial("pretrain", key) / "model" / "model.safetensors"
        if not path.exists():
            artefact = open_artefact(storage, "pretrain", key, config)
            pretrain(config, decoder, two_workers(), CORPUS, INSTRUCTIONS, artefact)
        return load_file(path)

    plain = weights("zero0", ADAM)
    name = "-".join(f"{name}{value}" for name, value in changes.items())
    other = weights(name, ADAM.model_copy(update=changes))
    assert plain.keys() == other.keys()
    # Adam divides small gradients by themselves, so sums in another order show.
    assert max((plain[k] - other[k]).abs().max().item() for k in plain) < 1e-4
    moved = load_file(storage.fetch("pretrain", "straight") / "model" / "model.safetensors")
    assert max((plain[k] - moved[k]).abs().max().item() for k in plain) > 1e-2


@pytest.fixture(scope="module")
def tuned(storage: Storage, pretrained: Path) -> Artefact:
    return published(run_sft(storage, "tiny"))


def test_lora_is_merged_into_a_model_that_loads(
    tuned: Artefact, storage: Storage, pretrained: Path
) -> None:
    path = storage.fetch("sft", "tiny")
    losses = [row["train/loss"] for row in MetricsLog(path / "metrics.jsonl").read()[1:-1]]
    assert losses[-1] < losses[0]
    assert tuned.metrics["loss_after"] < tuned.metrics["loss_before"]
    model, info = AutoModelForCausalLM.from_pretrained(path / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(path / "model")
    assert tokenizer.chat_template and model.generation_config.eos_token_id == 2
    old = load_file(pretrained / "model" / "model.safetensors")
    new = load_file(path / "model" / "model.safetensors")
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed and all("proj" in name and "bias" not in name for name in changed)


@pytest.fixture(scope="module")
def rewarded(ray_cluster, storage: Storage) -> Artefact:
    from transformers import BertConfig, BertModel

    encoder = Artefact(storage, "encoder", SftConfig(), key="tiny")
    train_tokenizer(
        ["呼吸气道消化泌尿血液循环不适肺炎哮喘胃炎肾炎贫血房颤"], 200, 32, encoder.dir / "model"
    )
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(encoder.dir / "model")), hidden_size=32,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(shape).save_pretrained(encoder.dir / "model")
    encoder.publish()
    return published(run_reward(storage, "tiny"))


def test_reward_model_learns_the_training_scores(rewarded: Artefact, storage: Storage) -> None:
    rows = MetricsLog(storage.fetch("reward", "tiny") / "metrics.jsonl").read()
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0]
    assert {"loss_before", "loss_after", "correlation_after"} <= rewarded.metrics.keys()
    assert 0 < rewarded.metrics["spread_after"] < 10


def test_a_decoder_learns_to_rank(tuned: Artefact, storage: Storage) -> None:
    config = RewardConfig(
        objective="ranking", learning_rate=1e-2, warmup_steps=1, batch_size=4, micro_batch_size=2,
        total_steps=8, max_tokens=48, lora=LoraConfig(rank=4, alpha=8),
    )  # fmt: skip
    artefact = open_artefact(storage, "reward", "ranking", config)
    assert config.parent == "sft"
    train_reward(config, two_workers(), ("sft", "tiny"), INSTRUCTIONS, artefact)
    assert artefact.metrics["loss_after"] < artefact.metrics["loss_before"]
    assert artefact.metrics["accuracy_after"] == 1  # one of the two is the same in all pairs
    assert {"calibration_error_after", "spread_after"} <= artefact.metrics.keys()
    # What was exported is what was measured, its length too: the mean loss of the two held-out
    # pairs.
    model = RewardModel(artefact.dir / "model")
    pairs = list(read_rows(storage.fetch(*INSTRUCTIONS) / "preferences", PreferencePair))
    dev = [row for row in pairs if row.split == "dev"]
    assert model.max_tokens == config.max_tokens
    chosen, rejected = (
        torch.tensor(model.score([row.prompt for row in dev], responses))
        for responses in ([row.chosen for row in dev], [row.rejected for row in dev])
    )
    loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    assert artefact.metrics["loss_after"] == pytest.approx(loss.item(), abs=1e-4)


def test_a_decoder_learns_scores_from_likelihoods(tuned: Artefact, storage: Storage) -> None:
    few = {"head": "likelihood", "learning_rate": 3e-3, "total_steps": 16}
    config = REWARD.model_copy(update=few)
    artefact = open_artefact(storage, "reward", "likelihood", config)
    train_reward(config, two_workers(), ("sft", "tiny"), INSTRUCTIONS, artefact)
    rows = MetricsLog(artefact.dir / "metrics.jsonl").read()
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0]
    scores = list(read_rows(storage.fetch(*INSTRUCTIONS) / "scores", ScoredResponse))
    train, dev = ([row.score for row in scores if row.split == of] for of in ("train", "dev"))
    # It starts as the mean of the training scores.
    mean = sum(train) / len(train)
    constant = sum((score - mean) ** 2 for score in dev) / len(dev)
    assert artefact.metrics["loss_before"] == pytest.approx(constant, abs=1e-5)
    model = RewardModel(artefact.dir / "model")
    held_out = [row for row in scores if row.split == "dev"]
    guesses = model.score([row.scenario for row in held_out], [row.response for row in held_out])
    loss = sum((g - row.score) ** 2 for g, row in zip(guesses, held_out, strict=True)) / len(dev)
    assert artefact.metrics["loss_after"] == pytest.approx(loss, abs=1e-5)


@pytest.fixture(scope="module")
def rewarding(tuned: Artefact, rewarded: Artefact, storage: Storage) -> Artefact:
    return run_ppo(storage, "tiny")


def test_ppo_starts_at_its_reference(rewarding: Artefact, storage: Storage) -> None:
    config, artefact = PPO, rewarding
    rows = MetricsLog(artefact.dir / "metrics.jsonl").read()
    before, first, second, *_, after = rows
    # The policy is the reference until the first update.
    assert before["before/kl"] == 0 == first["ppo/kl"]
    assert before["before/num"] == 2
    assert first["ppo/beta"] == config.kl_coefficient
    # KL 0 is below its target: β × (1 − 0.1 · 0.2).
    assert second["ppo/beta"] == pytest.approx(0.1 * 0.98)
    assert second["ppo/kl"] != 0 and after["after/kl"] != 0
    assert {"ppo/reward", "ppo/length", "ppo/clip_fraction"} <= first.keys()
    assert artefact.metrics["reward_before"] == before["before/reward"]
    model = AutoModelForCausalLM.from_pretrained(artefact.dir / "model")
    assert not any("lora" in name for name in model.state_dict())
    old = load_file(storage.fetch("sft", "tiny") / "model" / "model.safetensors")
    assert any(
        not torch.equal(old[name], value)
        for name, value in model.state_dict().items()
        if name in old
    )


def test_ppo_describes_answers_without_their_text(rewarding: Artefact, storage: Storage) -> None:
    rows = MetricsLog(rewarding.dir / "samples.jsonl").read()
    # The last round's, four answers by two workers; it is a multiple of no other log step.
    assert [row["step"] for row in rows] == [PPO.total_steps] * 2
    asked = list(read_rows(storage.fetch(*INSTRUCTIONS) / "prompts", Scenario))
    assert {row["id"] for row in rows} <= {row.id for row in asked if row.split == "train"}
    texts = {
        name for row in rows for name, value in row.items() if not isinstance(value, int | float)
    }
    assert texts == {"id"}
    assert all(0 < row["tokens"] <= PPO.max_new_tokens for row in rows)


def test_ppo_with_its_kl_in_the_loss_and_a_critic_of_its_own(
    tuned: Artefact, rewarded: Artefact, storage: Storage
) -> None:
    changes = {"kl": "loss_old", "critic": "separate", "kl_controller": "fixed", "total_steps": 2}
    config = PPO.model_copy(update=changes)
    artefact = open_artefact(storage, "ppo", "variant", config)
    pairs = [("sft", "tiny"), ("reward", "tiny"), INSTRUCTIONS]
    train_ppo(config, two_workers(), *pairs, artefact)
    _, first, second, _ = MetricsLog(artefact.dir / "metrics.jsonl").read()
    assert first["ppo/kl"] == 0 < first["ppo/kl_old"]  # zero to SFT, not to itself after updates
    assert first["ppo/beta"] == second["ppo/beta"] == config.kl_coefficient
    _, info = AutoModelForCausalLM.from_pretrained(artefact.dir / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


@pytest.mark.slow
def test_a_killed_worker_leaves_no_trace_in_ppo(
    storage: Storage, rewarding: Artefact, one_worker_killed: Killing
) -> None:
    """All four stages are killed in benchmarks/chaos_training.py."""
    with one_worker_killed(storage.partial("ppo", "killed") / "train"):
        artefact = run_ppo(storage, "killed", checkpoint_steps=1)
    check_same(artefact.dir, rewarding.dir)


def test_fine_tuning_goes_through_its_curriculum(storage: Storage, pretrained: Path) -> None:
    stage, joint = (
        StageConfig(name="first", tasks={"t": 1}, epochs=3),
        StageConfig(tasks={"*": 2}, epochs=2),
    )
    curriculum = CurriculumConfig(stages=(stage,), joint=joint)
    config = SFT.model_copy(update={"total_steps": 0, "curriculum": curriculum})
    artefact = open_artefact(storage, "sft", "curriculum", config)
    fine_tune(config, two_workers(), ("pretrain", "straight"), INSTRUCTIONS, artefact)
    tokenizer = AutoTokenizer.from_pretrained(pretrained / "model")
    rows = [
        row
        for row in read_rows(storage.fetch(*INSTRUCTIONS) / "sft", Instruction)
        if row.split == "train"
    ]
    samples = sum(
        stage.epochs * len(Packer(tokenizer, 64).pack(rows_of_stage(stage, rows), "train"))
        for stage in curriculum.all_stages
    )
    assert artefact.metrics["steps"] == math.ceil(samples / SFT.batch_size)
    # Held-out losses of both tasks at the start, after the first stage and at the end.
    found = json.loads((artefact.dir / "forgetting.json").read_text(encoding="utf-8"))
    assert {moment: set(row) for moment, row in found["loss"].items()} == {
        moment: {"t", "u"} for moment in ("before", "first", "after")
    }
    assert artefact.metrics["max_forgetting"] == max(found["forgetting"].values())
    assert artefact.metrics["loss_after"] < artefact.metrics["loss_before"]
