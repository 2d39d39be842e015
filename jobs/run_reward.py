"""The reward model. In: encoder or sft, instructions. Out: reward/<key>/model."""

from pathlib import Path

from medray.job import Job
from medray.launch import main
from medray.training.reward.stage import train_reward


def run(job: Job) -> Path:
    """Regression on scores or ranking of pairs, as the profile says."""
    profile = job.profile
    return job.make(
        "reward",
        lambda artefact: train_reward(
            profile.reward,
            profile.workers,
            job.artefact(profile.reward.parent),
            job.artefact("instructions"),
            artefact,
        ),
    )


if __name__ == "__main__":
    main(run, steps=("reward",))
