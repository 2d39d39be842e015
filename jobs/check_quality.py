"""Quality control of records: indicators, verdicts with evidence, measure report.

In: a model (ppo), instructions (quality). Out: quality/<key>/{measure_report.json, report.html}.
"""

from pathlib import Path

from medray.common.manifest import Artefact
from medray.common.records import Document
from medray.common.rows import read_batches, read_rows
from medray.generation.engine import HFEngine
from medray.job import Job
from medray.launch import main
from medray.quality.run import check_quality


def run(job: Job) -> Path:
    """Records with expert labels are judged and the verdicts compared with the labels; without
    labels there is a report alone."""

    def work(artefact: Artefact) -> None:
        job.use_all_threads()
        quality = job.path("instructions") / "quality"
        labels = (row for batch in read_batches(quality / "labels") for row in batch.to_pylist())
        check_quality(
            job.profile.quality,
            read_rows(quality / "documents", Document),
            HFEngine(job.path("ppo") / "model"),
            None,
            labels,
            artefact,
        )

    return job.make("quality", work)


if __name__ == "__main__":
    main(run, steps=("quality",))
