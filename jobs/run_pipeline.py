"""Everything, from the hospital's exports to a checked model, each step skipped when it is done.

Out: every artefact, and pipeline.json under the storage root, which names them.
"""

import json

from medray.job import JOBS, PIPELINE, Job
from medray.launch import import_job, main


def run(job: Job) -> None:
    """The jobs in the order of their inputs; pipeline.json is written after each."""
    for step in PIPELINE:
        if step == "sample" and job.data is not None:
            continue
        import_job(JOBS[step]).run(job)
        job.storage.write_text("pipeline.json", json.dumps({"steps": job.done}, indent=1))


if __name__ == "__main__":
    main(run, steps=PIPELINE)
