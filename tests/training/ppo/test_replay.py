"""Replayed examples: the loss that PPO adds, against the model's own logits block by block."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medray.common.errors import ConfigError, DataError
from medray.common.records import Instruction, Message
from medray.common.rows import write_rows
from medray.training.ppo.replay import Replay, ReplayConfig

CONFIG = ReplayConfig(coefficient=0.5, batch_size=4, block_tokens=64)
ENGINE = SimpleNamespace(device=torch.device("cpu"))


@pytest.fixture
def replay(model: Any, tokenizer: Any, tmp_path: Path) -> Replay:
    """Twelve training examples, and a held-out one that must not be read."""
    rows = [
        Instruction(
            id=str(k), task="t", split="dev" if k == 12 else "train",
            messages=[Message(role="user", content="肺炎不适" * (1 + k % 3)),
                      Message(role="assistant", content="治疗" * (1 + k % 4))],
        )
        for k in range(13)
    ]  # fmt: skip
    write_rows(tmp_path / "sft", Instruction, iter(rows))
    return Replay(CONFIG, tmp_path, model, tokenizer, lambda blocks: blocks, seed=0)


@torch.no_grad()
def test_the_shares_of_all_workers_sum_to_the_mean_over_the_batch(
    replay: Replay, model: Any
) -> None:
    whole = float(replay.loss(3, 0, 1, ENGINE))
    shares = [float(replay.loss(3, rank, 2, ENGINE)) for rank in range(2)]
    total, count = 0.0, 0
    for i in replay._sampler.batch(3):
        inputs = replay._blocks.collate([i])
        labels, _ = inputs.pop("labels"), inputs.pop("weights")
        kept = labels != -100
        logprobs = model(**inputs).logits[kept].log_softmax(-1)
        total -= float(logprobs.gather(-1, labels[kept][:, None]).sum())
        count += int(kept.sum())
    assert count > 0
    assert whole == pytest.approx(0.5 * total / count, rel=1e-4)
    assert sum(shares) == pytest.approx(whole, rel=1e-4)


def test_held_out_examples_are_not_replayed(replay: Replay) -> None:
    assert sum(int(s.max()) for s in replay._blocks.segments_NT) == 12


def test_tasks_that_ppo_is_to_change_are_left_out(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    rows = [
        Instruction(
            id=str(k), task=("a", "b", "c")[k % 3], split="train",
            messages=[Message(role="user", content="不适"), Message(role="assistant", content=of)],
        )
        for k, of in enumerate(("肺炎", "胃炎", "哮喘", "肺炎", "胃炎", "哮喘"))
    ]  # fmt: skip
    write_rows(tmp_path / "sft", Instruction, iter(rows))

    def replayed(*left_out: str) -> str:
        config = CONFIG.model_copy(update={"leave_out": list(left_out)})
        found = Replay(config, tmp_path, model, tokenizer, lambda blocks: blocks, seed=0)
        return tokenizer.decode(found._blocks.tokens_NT.ravel())

    assert [replayed("a", "c").count(of) for of in ("肺炎", "胃炎", "哮喘")] == [0, 2, 0]
    assert [replayed().count(of) for of in ("肺炎", "胃炎", "哮喘")] == [2, 2, 2]
    with pytest.raises(DataError, match="no replayed instruction fits"):
        replayed("a", "b", "c")


def test_what_cannot_be_replayed_is_refused(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    def replay(block_tokens: int) -> Replay:
        config = CONFIG.model_copy(update={"block_tokens": block_tokens})
        return Replay(config, tmp_path, model, tokenizer, lambda blocks: blocks, seed=0)

    with pytest.raises(ConfigError, match=r"ppo\.replay\.block_tokens gives .* 129 .* reads 128"):
        replay(129)
    write_rows(tmp_path / "sft", Instruction, [])
    with pytest.raises(DataError, match="no replayed instruction fits into 128 tokens, or"):
        replay(128)
