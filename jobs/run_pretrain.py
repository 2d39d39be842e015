"""Continued pretraining on packed blocks. In: corpus, instructions. Out: pretrain/<key>/model."""

from pathlib import Path

from medray.job import Job
from medray.launch import main
from medray.training.pretrain import pretrain


def run(job: Job) -> Path:
    """From decoder.path, or from new weights."""
    profile = job.profile
    return job.make(
        "pretrain",
        lambda artefact: pretrain(
            profile.pretrain,
            profile.decoder,
            profile.workers,
            job.artefact("corpus"),
            job.artefact("instructions"),
            artefact,
        ),
    )


if __name__ == "__main__":
    main(run, steps=("pretrain",))
