"""DPO, KTO, GRPO and RLOO on real workers: they learn, are watched, resume and leave a model that
loads."""

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from medray.common.errors import MedrayError
from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.records import PreferencePair
from medray.common.rows import read_rows
from medray.common.storage import Storage
from medray.runs import compare, find_run, list_runs, read_steps
from medray.training.language_model import LoraConfig
from medray.training.preference.config import PreferenceConfig
from medray.training.preference.stage import train_preference
from medray.training.trainer import Inputs, fit
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


def learn(
    storage: Storage,
    parents: Any,
    key: str,
    method: str,
    changes: dict[str, Any] | None = None,
    **values: Any,
) -> Artefact:
    config = CONFIG.model_copy(update={"method": method, **(changes or {})})
    artefact = Artefact(storage, "preference", config, key=key)
    reward = parents["reward"] if config.needs_reward else None
    train_preference(config, workers(**values), parents["sft"], reward, INSTRUCTIONS, artefact)
    return artefact


def steps_of(artefact: Artefact) -> list[dict[str, Any]]:
    rows = MetricsLog(artefact.dir / "metrics.jsonl").read()
    return [row for row in rows if "train/loss" in row]


@pytest.mark.cluster
@pytest.mark.parametrize("method", ["dpo", "kto", "grpo", "rloo"])
def test_each_method_trains_and_exports(
    storage: Storage, parents: dict[str, tuple[str, str]], method: str, tmp_path: Path
) -> None:
    made = learn(storage, parents, method, method, watch={"tensorboard": str(tmp_path)})
    rows = MetricsLog(made.dir / "metrics.jsonl").read()
    assert [row["step"] for row in steps_of(made)] == [1, 2, 3, 4, 5, 6]
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

    # What it wrote is what is watched, and what `medray runs` draws.
    written = {(row["step"], name): row[name] for row in rows for name in row if name != "step"}
    scalars = read_scalars(tmp_path / f"preference-{method}")
    assert scalars == pytest.approx(written, rel=1e-6, nan_ok=True)
    drawn = read_steps(storage, find_run(list_runs(storage), f"preference/{method}"))
    assert drawn == steps_of(made)
    assert sum(row["train/tokens_read"] for row in drawn) == tokens_read(storage, made, method)
    assert all(0 < row["time/step_s"] < 60 for row in drawn)
    assert made.metrics["seconds"] == pytest.approx(
        sum(row["time/step_s"] for row in drawn), abs=0.1
    )
    compare(storage, list_runs(storage), tmp_path / "runs.html")
    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    assert f"preference/{method}" in page and "<svg" in page


def read_scalars(directory: Path) -> dict[tuple[int, str], float]:
    """{(step, name): value} in a directory of TensorBoard's event files."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in directory.glob("events.*"):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack("<Q", content[at : at + 8])
            event = Event.FromString(content[at + 12 : at + 12 + size])
            found |= {(event.step, v.tag): v.simple_value for v in event.summary.value}
            at += 12 + size + 4
    return found


def tokens_read(storage: Storage, made: Artefact, method: str) -> float:
    """Tokens of six steps, counted anew: a step of DPO takes each of the four training pairs, one
    of KTO half of their eight answers, one of the others two answers to half of the prompts."""
    tokenizer = AutoTokenizer.from_pretrained(made.dir / "model")
    rows = read_rows(storage.fetch(*INSTRUCTIONS) / "preferences", PreferencePair)
    pairs = [row for row in rows if row.split == "train"]
    assert len(pairs) == 4

    def count(prompt: str, *answer: str) -> int:
        turns = [{"role": "user", "content": prompt}]
        turns += [{"role": "assistant", "content": text} for text in answer]
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=not answer
        )
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    whole = sum(count(p.prompt, p.chosen) + count(p.prompt, p.rejected) for p in pairs)
    if method == "dpo":
        return 6 * whole
    if method == "kto":
        return 3 * whole
    drawn = sum(4 * row["train/completions/mean_length"] for row in steps_of(made))
    return 6 * sum(count(p.prompt) for p in pairs) + round(drawn)


@pytest.mark.cluster
def test_one_worker_computes_what_two_do(
    storage: Storage, parents: dict[str, tuple[str, str]]
) -> None:
    """Whether activations are kept or computed again."""
    again = {"activation_checkpointing": True}
    one = learn(storage, parents, "alone", "dpo", again, num_workers=1)
    two = learn_once(storage, parents, "dpo")
    losses = [[row["train/loss"] for row in steps_of(made)] for made in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def learn_once(storage: Storage, parents: Any, method: str) -> Artefact:
    """The undisturbed run of a method, which another test may have made."""
    artefact = Artefact(storage, "preference", CONFIG, key=method)
    if not (artefact.dir / "model").exists():
        learn(storage, parents, method, method)
    return artefact


@pytest.mark.cluster
@pytest.mark.parametrize("method", ["dpo", pytest.param("grpo", marks=pytest.mark.slow)])
def test_a_killed_worker_leaves_no_trace(
    storage: Storage,
    parents: dict[str, tuple[str, str]],
    method: str,
    one_worker_killed: Callable[[Path], AbstractContextManager[None]],
) -> None:
    straight = learn_once(storage, parents, method)
    key = f"killed-{method}"
    with one_worker_killed(storage.partial("preference", key) / "train"):
        made = learn(
            storage, parents, key, method,
            checkpoint_steps=1, upload_in_background=method == "grpo",
        )  # fmt: skip
    one, two = (load_file(run.dir / "model" / "model.safetensors") for run in (made, straight))
    assert all(torch.equal(one[name], two[name]) for name in two)
    of_no_clock = [
        [
            {name: value for name, value in row.items() if not name.startswith("time/")}
            for row in steps_of(run)
        ]
        for run in (made, straight)
    ]
    assert of_no_clock[0] == of_no_clock[1]


@pytest.mark.cluster
def test_want_of_memory_says_what_to_lower(
    storage: Storage, parents: dict[str, tuple[str, str]]
) -> None:
    def train(inputs: Inputs[PreferenceConfig]) -> None:
        """Scoring the answers takes more memory than there is."""
        from medray.training.preference import stage

        stage.RewardModel.score = lambda *_: torch.empty(2**60).tolist()
        stage._train(inputs)

    config = CONFIG.model_copy(update={"method": "rloo"})
    artefact = Artefact(storage, "preference", config, key="memory")
    few = workers(num_workers=1, max_failures=0)
    with pytest.raises(
        MedrayError,
        match=r"preference ran out of memory in training: lower preference\.micro_batch_size or "
        r"preference\.max_new_tokens or preference\.num_generations, set preference\.activation",
    ):
        fit(train, config, few, artefact, instructions=INSTRUCTIONS, **parents)


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
