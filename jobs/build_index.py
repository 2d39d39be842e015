"""Embeds the passages and fills the vector index. In: encoder, corpus, instructions.

Out: index/<key> with vectors (Parquet, the source of truth) and a Milvus Lite file, or a loaded
collection on a Milvus cluster.
"""

from pathlib import Path

from medray.job import Job
from medray.launch import main
from medray.retrieval.index import build_index


def run(job: Job) -> Path:
    """Recall is measured on the held-out questions of the instructions; these and the fine-tuning
    rows tell which questions are looked up. Passages of an earlier
    index of the same encoder keep their vectors."""
    return job.make(
        "index",
        lambda artefact: build_index(
            job.profile.index,
            job.path("encoder"),
            job.path("corpus"),
            job.path("instructions") / "questions",
            artefact,
            earlier=job.earlier("index", "encoder"),
            prompts=job.path("instructions") / "sft",
        ),
    )


if __name__ == "__main__":
    main(run, steps=("index",))
