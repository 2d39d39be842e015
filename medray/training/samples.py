"""Answers for physicians to score and rank. In: a policy, reward models, scenarios. Out:
responses.jsonl (what raters see, `medray.common.ratings`) and rewards.jsonl (what they must not).

Scenarios are taken where the reward models disagree most, for there a judgement teaches most: with
several models, the mean over a scenario's answers of the standard deviation between the models'
scores, each model's scores standardised over all answers; with one, the standard deviation of its
scores over a scenario's answers, which says only that they differ much in its eyes.
Source: [EMR-LLM 1.4] scored responses; disagreement of an ensemble as in query by committee (Seung
et al. 1992). Differs: [EMR-LLM] does not say how its scenarios were chosen.
"""

import json
import logging
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from medray.common.config import Config
from medray.common.manifest import Artefact, Counts
from medray.common.ratings import RatingTask, Response
from medray.common.records import Scenario
from medray.common.split import unit_hash
from medray.generation.engine import HFEngine
from medray.generation.sampling import Sampling
from medray.training.reward.model import RewardModel

logger = logging.getLogger(__name__)


class SamplesConfig(Config):
    """What is drawn, and how much of it is shown."""

    policy: Literal["sft", "ppo"] = "ppo"
    """The step whose model answers."""
    num_responses: int = Field(default=4, ge=2)
    """Answers to a scenario. Source: not given; [ClinicalGPT 2.3] ranks several."""
    num_scenarios: int = Field(default=200, ge=1)
    """Scenarios that are shown."""
    pool: int = Field(default=1000, ge=1)
    """Scenarios that they are chosen from."""
    reward_models: list[str] = Field(default_factory=list)
    """Directories of further reward models beside that of the reward step, such as other seeds'."""
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=256, ge=1)
    batch_size: int = Field(default=64, ge=1)
    seed: int = 0


def sample_responses(
    config: SamplesConfig,
    engine: HFEngine,
    reward_models: Sequence[RewardModel],
    scenarios: Iterable[Scenario],
    artefact: Artefact,
) -> None:
    """Draws, scores, chooses and writes."""
    pool = sorted(scenarios, key=lambda row: unit_hash(row.id))[: config.pool]
    answers = draw(config, engine, pool)
    texts = [text for row in answers for text in row]
    prompts = [row.prompt for row in pool for _ in range(config.num_responses)]
    rewards_MSK = np.array([model.score(prompts, texts) for model in reward_models]).reshape(
        len(reward_models), len(pool), config.num_responses
    )
    chosen = np.argsort(-disagreement(rewards_MSK), kind="stable")[: config.num_scenarios]
    with (
        (artefact.dir / "responses.jsonl").open("w", encoding="utf-8") as shown,
        (artefact.dir / "rewards.jsonl").open("w", encoding="utf-8") as kept,
    ):
        for s in sorted(chosen, key=lambda s: pool[s].id):
            task, order = blind(pool[s], answers[s], config.seed)
            shown.write(task.model_dump_json() + "\n")
            for response, k in zip(task.responses, order, strict=True):
                scores = [float(x) for x in rewards_MSK[:, s, k]]
                row = {"response_id": response.response_id, "rewards": scores}
                kept.write(json.dumps(row) + "\n")
    counts = Counts(rows_in=len(pool), rows_out=len(chosen))
    if len(pool) > len(chosen):
        counts.reject("less_disagreement", len(pool) - len(chosen))
    artefact.counts["scenarios"] = counts
    logger.info("samples: %d scenarios, %d answers each", len(chosen), config.num_responses)


def draw(config: SamplesConfig, engine: HFEngine, scenarios: Sequence[Scenario]) -> list[list[str]]:
    """`num_responses` sampled answers to each scenario."""
    answers: list[list[str]] = [[] for _ in scenarios]
    chats = [[{"role": "user", "content": row.prompt}] for row in scenarios]
    for k in range(config.num_responses):
        sampling = Sampling(
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=config.seed + k,
        )
        for row, answer in zip(answers, engine.chat(chats, sampling), strict=True):
            row.append(answer.text)
    return answers


def disagreement(rewards_MSK: np.ndarray) -> np.ndarray:
    """[S], from the scores of M reward models for K answers to each of S scenarios."""
    if len(rewards_MSK) == 1:
        return rewards_MSK[0].std(-1)
    mean_M11 = rewards_MSK.mean((1, 2), keepdims=True)
    spread_M11 = rewards_MSK.std((1, 2), keepdims=True)
    standard_MSK = (rewards_MSK - mean_M11) / np.where(spread_M11 > 0, spread_M11, 1)
    return standard_MSK.std(0).mean(-1)


def blind(scenario: Scenario, answers: Sequence[str], seed: int) -> tuple[RatingTask, list[int]]:
    """The task as raters see it, its answers shuffled; and which answer stands at each place."""
    order = list(range(len(answers)))
    random.Random(f"{seed}:{scenario.id}").shuffle(order)
    responses = [
        Response(response_id=f"{scenario.id}-{place}", text=answers[k])
        for place, k in enumerate(order)
    ]
    return RatingTask(scenario_id=scenario.id, scenario=scenario.prompt, responses=responses), order


def read_reward_models(first: Path, others: Sequence[str]) -> list[RewardModel]:
    """The reward step's model, and further ones."""
    return [RewardModel(first), *(RewardModel(Path(path).expanduser()) for path in others)]
