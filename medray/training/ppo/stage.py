"""Proximal policy optimisation against the reward model, as a stage of the one loop.

In: sft and reward models, instructions (prompts). Out: model/. A step of the loop is one round.
Source: [EMR-LLM 1.4], [ClinicalGPT 2.4].
"""

from pathlib import Path
from typing import Any

from medray.common.manifest import Artefact
from medray.common.records import Scenario
from medray.common.rows import read_rows
from medray.common.storage import Storage
from medray.training.export import export_model
from medray.training.language_model import load_decoder
from medray.training.loop import Stage, run_stage
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.learner import PpoLearner
from medray.training.reward.model import RewardModel
from medray.training.trainer import WorkersConfig, fit


def train_ppo(
    config: PpoConfig,
    workers: WorkersConfig,
    sft: tuple[str, str],
    reward: tuple[str, str],
    instructions: tuple[str, str],
    artefact: Artefact,
) -> None:
    """Trains; the model comes to `artefact`. The pairs are the (step, key) of artefacts."""
    arguments = {
        "config": config,
        "workers": workers,
        "storage": artefact.storage.config,
        "sft": sft,
        "reward": reward,
        "instructions": instructions,
    }
    rows = fit(_train, arguments, workers, artefact)
    before = next(row for row in rows if "before/reward" in row)
    after = next(row for row in reversed(rows) if "after/reward" in row)
    rounds = [row for row in rows if "ppo/reward" in row]
    artefact.metrics |= {
        "reward_before": before["before/reward"],
        "reward_after": after["after/reward"],
        "reward_sd": before["before/reward_sd"],
        "kl": after["after/kl"],
        "kl_target": config.kl_target,
        "length_before": before["before/length"],
        "length_after": after["after/length"],
        "num_heldout": after["after/num"],
        "steps": len(rounds),
        "seconds": round(sum(row["time/step_s"] for row in rounds), 1),
    }


def _train(arguments: dict[str, Any]) -> None:
    config: PpoConfig = arguments["config"]
    workers: WorkersConfig = arguments["workers"]
    storage = Storage(arguments["storage"])
    instructions = storage.fetch(*arguments["instructions"])
    rows = list(read_rows(instructions / "prompts", Scenario))
    policy, tokenizer = load_decoder(storage.fetch(*arguments["sft"]) / "model")
    reward_model = RewardModel(storage.fetch(*arguments["reward"]) / "model")
    learner = PpoLearner(config, policy, tokenizer, reward_model, rows, instructions)
    card = {"title": "Policy after PPO", "base": "/".join(arguments["sft"])}

    def export(directory: Path) -> None:
        export_model(learner.engine, learner.policy, tokenizer, directory, card)

    stage = Stage(
        "ppo",
        learner.engine,
        config.total_steps,
        learner.round,
        learner.evaluate,
        export,
        partial_state=True,
        get_state=learner.get_state,
        set_state=learner.set_state,
    )
    run_stage(
        stage,
        checkpoint_steps=workers.checkpoint_steps,
        log_steps=workers.log_steps,
        progress=arguments["progress"],
    )
