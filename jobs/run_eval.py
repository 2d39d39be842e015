"""Evaluation of every stage's model. In: models, instructions, corpus, the truth where there is
one. Out: evaluation/<key>/{report.json, report.html}.
"""

import gzip
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from medray.common.manifest import Artefact, read_manifest
from medray.corpus.clean import render
from medray.evaluation.run import evaluate
from medray.generation.engine import HFEngine
from medray.job import Job
from medray.launch import main
from medray.sample.truth import true_score
from medray.training.reward.model import RewardModel

MODELS = ("pretrain", "sft", "ppo")


def run(job: Job) -> Path:
    """Only the sample hospital knows the truth; with outside data those figures are n/a."""

    def work(artefact: Artefact) -> None:
        job.use_all_threads()
        hospital = None if job.data is not None else job.path("sample")
        evaluate(
            job.profile.evaluation,
            engines={name: partial(HFEngine, job.path(name) / "model") for name in MODELS},
            instructions=job.path("instructions"),
            corpus=job.path("corpus"),
            artefact=artefact,
            render=render,
            hospital=hospital,
            scorer=RewardModel(job.path("reward") / "model"),
            true_score=None if hospital is None else partial(score, read_truth(hospital)),
            unigram_nats=read_manifest(job.path("corpus")).metrics.get("emr_unigram_nats"),
        )

    return job.make("evaluation", work)


def read_truth(hospital: Path) -> dict[str, dict]:
    """The generator's truth about the scenarios, by id."""
    with gzip.open(hospital / "truth" / "scenarios.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {row["id"]: row for row in rows}


def score(truth: dict[str, dict], ids: Sequence[str], responses: Sequence[str]) -> list[float]:
    """The generator's own score (0–10) of responses to scenarios."""
    return [true_score(truth[i], text) for i, text in zip(ids, responses, strict=True)]


if __name__ == "__main__":
    main(run, steps=("evaluation",))
