"""Learning from preferences by DPO, KTO, GRPO or RLOO (preference.method). In: sft, instructions,
and reward for the last two. Out: preference/<key>/model. The pipeline goes by PPO and leaves this
out.
"""

from pathlib import Path

from medray.common.manifest import Artefact
from medray.job import Job
from medray.launch import main
from medray.training.preference.stage import train_preference


def run(job: Job) -> Path:
    """An adapter on the fine-tuned model, which stays the reference."""
    profile = job.profile

    def work(artefact: Artefact) -> None:
        train_preference(
            profile.preference,
            profile.workers,
            job.artefact("sft"),
            job.artefact("reward") if profile.preference.needs_reward else None,
            job.artefact("instructions"),
            artefact,
        )

    return job.make("preference", work)


if __name__ == "__main__":
    main(run, steps=("preference",))
