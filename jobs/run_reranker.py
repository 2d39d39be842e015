"""The reranker: a cross-encoder that looks again at what a search found. In: encoder, index,
instructions. Out: reranker/<key>/model, which `reranker_dir` of a serve configuration names. The
pipeline leaves it out.
"""

from pathlib import Path

from medray.job import Job
from medray.launch import main
from medray.retrieval.training.reranker import train_reranker


def run(job: Job) -> Path:
    """From reranker.base, or from the encoder before its contrastive training."""
    return job.make(
        "reranker",
        lambda artefact: train_reranker(
            job.profile.reranker,
            job.path("encoder"),
            job.path("index"),
            job.path("instructions") / "questions",
            artefact,
        ),
    )


if __name__ == "__main__":
    main(run, steps=("reranker",))
