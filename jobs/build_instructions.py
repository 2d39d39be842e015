"""Training sets beyond plain text: instructions, scores, preferences, prompts, questions, exams.

In: the hospital's exports, corpus. Out: instructions/<key>, one directory of shards per kind.
"""

from pathlib import Path

from medray.generation.directory import check_model_directory
from medray.instructions.build import build_instructions
from medray.instructions.screen.losses import Losses
from medray.job import Job
from medray.launch import main


def run(job: Job) -> Path:
    """Reads the task files and the de-identified documents."""
    config = job.profile.instructions
    losses = reference_losses(config.screen.reference_model)
    return job.make(
        "instructions",
        lambda artefact: build_instructions(
            config, job.hospital(), job.path("corpus"), artefact, losses
        ),
    )


def reference_losses(directory: str) -> Losses | None:
    """Scores rows by the model in `directory`, loaded when the first rows come; None: no model.

    Raises:
        CheckpointError: if the directory holds no model.
    """
    if not directory:
        return None
    path = check_model_directory(Path(directory))

    def losses(rows):
        from medray.generation.engine import HFEngine
        from medray.generation.losses import answer_losses

        return answer_losses(HFEngine(path), rows)

    return losses


if __name__ == "__main__":
    main(run, steps=("instructions",))
