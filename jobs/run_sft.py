"""Supervised fine-tuning. In: pretrain, instructions. Out: sft/<key>/model."""

from pathlib import Path

from medray.job import Job
from medray.launch import main
from medray.training.sft import fine_tune


def run(job: Job) -> Path:
    """LoRA on the pretrained decoder, the loss on the answers."""
    profile = job.profile
    return job.make(
        "sft",
        lambda artefact: fine_tune(
            profile.sft,
            profile.workers,
            job.artefact("pretrain"),
            job.artefact("instructions"),
            artefact,
            job.artefact("corpus") if profile.sft.replays else None,
        ),
    )


if __name__ == "__main__":
    main(run, steps=("sft",))
