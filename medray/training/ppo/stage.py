"""Proximal policy optimisation against the reward model, as a stage of the one loop.

In: sft and reward models, instructions (prompts). Out: model/. A step of the loop is one round.
Source: [EMR-LLM 1.4], [ClinicalGPT 2.4].
"""

from pathlib import Path

from medray.common.manifest import Artefact
from medray.common.records import Scenario
from medray.common.rows import read_rows
from medray.training.export import export_model
from medray.training.language_model import load_decoder
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.learner import PpoLearner
from medray.training.reward.model import RewardModel
from medray.training.stage import Stage
from medray.training.trainer import Inputs, fit
from medray.training.workers import WorkersConfig


def train_ppo(
    config: PpoConfig,
    workers: WorkersConfig,
    sft: tuple[str, str],
    reward: tuple[str, str],
    instructions: tuple[str, str],
    artefact: Artefact,
) -> None:
    """Trains; the model comes to `artefact`. The pairs are the (step, key) of artefacts."""
    rows = fit(_train, config, workers, artefact, sft=sft, reward=reward, instructions=instructions)
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


def _train(inputs: Inputs[PpoConfig]) -> None:
    instructions = inputs.fetch("instructions")
    rows = list(read_rows(instructions / "prompts", Scenario))
    policy, tokenizer = load_decoder(inputs.fetch("sft") / "model")
    reward_model = RewardModel(inputs.fetch("reward") / "model")
    learner = PpoLearner(inputs.config, policy, tokenizer, reward_model, rows, instructions)
    card = {"title": "Policy after PPO", "base": inputs.name("sft")}

    def export(directory: Path) -> None:
        export_model(learner.engine, learner.policy, tokenizer, directory, card)

    inputs.run(
        Stage(
            "ppo",
            learner.engine,
            inputs.config.total_steps,
            learner.round,
            learner.evaluate,
            export,
            partial_state=True,
            score=lambda figures: figures["reward"],
            get_state=learner.get_state,
            set_state=learner.set_state,
            samples=learner.samples,
            takes_memory=("ppo.micro_batch_size", "ppo.rollouts", "ppo.max_new_tokens"),
        )
    )
