"""Training sets beyond plain text: instructions, scores, preferences, prompts, questions, exams.

In: the hospital's exports, corpus. Out: instructions/<key>, one directory of shards per kind.
"""

from pathlib import Path

from medray.instructions.build import build_instructions
from medray.launch import Job, main


def run(job: Job) -> Path:
    """Reads the task files and the de-identified documents."""
    return job.make(
        "instructions",
        lambda artefact: build_instructions(
            job.profile.instructions, job.hospital(), job.path("corpus"), artefact
        ),
    )


if __name__ == "__main__":
    main(run, steps=("instructions",))
