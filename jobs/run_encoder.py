"""The BERT encoder: masked-language pretraining, then contrastive on question and passage.

In: corpus, instructions. Out: encoder/<key>/model, which embeds text and starts the reward model.
"""

from pathlib import Path

from medray.job import Job
from medray.launch import main
from medray.retrieval.training.encoder import train_encoder


def run(job: Job) -> Path:
    """From encoder.base, or from new weights."""
    return job.make(
        "encoder",
        lambda artefact: train_encoder(
            job.profile.encoder, job.path("corpus"), job.path("instructions"), artefact
        ),
    )


if __name__ == "__main__":
    main(run, steps=("encoder",))
