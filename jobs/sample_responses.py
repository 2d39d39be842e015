"""Answers for physicians to rate. In: ppo or sft, reward, instructions. Out: samples/<key>/
{responses.jsonl, rewards.jsonl}. What comes back is read by `medray ratings`.
"""

from pathlib import Path

from medray.common.manifest import Artefact
from medray.common.records import Scenario
from medray.common.rows import read_rows
from medray.generation.engine import HFEngine
from medray.job import Job
from medray.launch import main
from medray.training.samples import read_reward_models, sample_responses


def run(job: Job) -> Path:
    """Draws from the training scenarios: held-out ones stay unseen by the reward model."""
    config = job.profile.samples

    def work(artefact: Artefact) -> None:
        job.use_all_threads()
        rows = read_rows(job.path("instructions") / "prompts", Scenario)
        sample_responses(
            config,
            HFEngine(job.path(config.policy) / "model", config.batch_size),
            read_reward_models(job.path("reward") / "model", config.reward_models),
            (row for row in rows if row.split == "train"),
            artefact,
        )

    return job.make("samples", work)


if __name__ == "__main__":
    main(run, steps=("samples",))
