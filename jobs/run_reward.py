"""The reward model from expert scores. In: encoder, instructions. Out: reward/<key>/model."""

from pathlib import Path

from medray.launch import Job, main
from medray.training.reward import train_reward


def run(job: Job) -> Path:
    """Regression on the [CLS] of BERT."""
    profile = job.profile
    return job.make(
        "reward",
        lambda artefact: train_reward(
            profile.reward,
            profile.workers,
            job.artefact("encoder"),
            job.artefact("instructions"),
            artefact,
        ),
    )


if __name__ == "__main__":
    main(run, steps=("reward",))
