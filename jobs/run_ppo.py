"""PPO against the reward model. In: sft, reward, instructions. Out: ppo/<key>/model."""

from pathlib import Path

from medray.job import Job
from medray.launch import main
from medray.training.ppo.stage import train_ppo


def run(job: Job) -> Path:
    """A new adapter on the fine-tuned model, which stays the reference."""
    profile = job.profile
    return job.make(
        "ppo",
        lambda artefact: train_ppo(
            profile.ppo,
            profile.workers,
            job.artefact("sft"),
            job.artefact("reward"),
            job.artefact("instructions"),
            artefact,
        ),
    )


if __name__ == "__main__":
    main(run, steps=("ppo",))
