"""Which scenarios physicians are asked about, and what they see."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medray.common.manifest import Artefact
from medray.common.ratings import RatingTask
from medray.common.records import Scenario
from medray.common.storage import Storage, StorageConfig
from medray.generation.engine import HFEngine
from medray.training.reward.config import RewardConfig
from medray.training.reward.model import RewardModel
from medray.training.reward.scorer import load_scorer
from medray.training.samples import SamplesConfig, blind, disagreement, sample_responses

SCENARIOS = [Scenario(id=f"S{k}", prompt=f"第{k}个病人发热", split="train") for k in range(6)]


def test_disagreement_of_two_models_by_hand() -> None:
    # Both see the same order in the first scenario; in the second they are opposed. The scale of a
    # model says nothing: the second counts in hundreds.
    one = np.array([[0.0, 2.0], [0.0, 2.0]])
    other = np.array([[0.0, 200.0], [200.0, 0.0]])
    # Standardised ±1: no spread between models, then |1 − (−1)| / 2 at both answers.
    assert disagreement(np.stack([one, other])).tolist() == [0, 1]


def test_one_model_disagrees_with_itself_where_answers_differ() -> None:
    assert disagreement(np.array([[[1.0, 1.0], [1.0, 3.0]]])).tolist() == [0, 1]
    constant = np.ones((2, 2, 2))
    assert disagreement(constant).tolist() == [0, 0]


def test_answers_are_shown_in_an_order_that_tells_nothing() -> None:
    task, order = blind(SCENARIOS[0], ["a", "b", "c", "d"], seed=0)
    assert sorted(order) == [0, 1, 2, 3]
    assert [r.text for r in task.responses] == ["abcd"[k] for k in order]
    assert [r.response_id for r in task.responses] == ["S0-0", "S0-1", "S0-2", "S0-3"]
    assert blind(SCENARIOS[0], ["a", "b", "c", "d"], seed=0)[1] == order
    orders = {tuple(blind(row, ["a", "b", "c", "d"], seed=0)[1]) for row in SCENARIOS}
    assert len(orders) > 1


@pytest.fixture
def reward_models(model_dir: Path, tmp_path: Path) -> list[RewardModel]:
    """Two decoders with heads of different seeds."""
    models = []
    for seed in (0, 1):
        config = RewardConfig(objective="ranking", seed=seed, max_tokens=64)
        scorer, tokenizer = load_scorer(model_dir, config)
        scorer.save_pretrained(tmp_path / f"{seed}")
        tokenizer.save_pretrained(tmp_path / f"{seed}")
        models.append(RewardModel(tmp_path / f"{seed}"))
    return models


def test_the_files(model: Any, tokenizer: Any, reward_models, tmp_path: Path) -> None:
    storage = Storage(StorageConfig(root=str(tmp_path / "root")))
    config = SamplesConfig(num_responses=3, num_scenarios=2, pool=5, max_new_tokens=6)
    artefact = Artefact(storage, "samples", config, key="k")
    engine = HFEngine.wrap(model, tokenizer, 8)
    sample_responses(config, engine, reward_models, SCENARIOS, artefact)
    counts = artefact.counts["scenarios"]
    assert (counts.rows_in, counts.rows_out, counts.rejected) == (5, 2, {"less_disagreement": 3})
    shown = (artefact.dir / "responses.jsonl").read_text(encoding="utf-8")
    tasks = [RatingTask.model_validate_json(line) for line in shown.splitlines()]
    assert len(tasks) == 2 and all(len(task.responses) == 3 for task in tasks)
    assert "reward" not in shown
    rewards = {
        row["response_id"]: row["rewards"]
        for row in map(json.loads, (artefact.dir / "rewards.jsonl").read_text().splitlines())
    }
    for task in tasks:
        for response in task.responses:
            alone = [m.score([task.scenario], [response.text])[0] for m in reward_models]
            assert rewards[response.response_id] == pytest.approx(alone, abs=1e-4)
