"""Training sets from a hospital's task files and its de-identified corpus.

In: the sources of `InstructionsConfig` below the data directory; documents/ and passages/ of the
corpus. Out: sft/, scores/, preferences/, prompts/, questions/, exam/ (row models of
medray.common.records), quality/documents/ and quality/labels/, quarantine/.
Source: [EMR-LLM 1.3, 1.4], [ClinicalGPT 2.1], [MedQC 3.1, 4.1].
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medray.common.errors import DataError
from medray.common.manifest import Artefact, Counts
from medray.common.sources import check_source
from medray.instructions.audit import make_quality
from medray.instructions.config import InstructionsConfig
from medray.instructions.labelled import load_wordings
from medray.instructions.masking import Masker
from medray.instructions.outputs import (
    make_exam,
    make_preferences,
    make_prompts,
    make_questions,
    make_scores,
)
from medray.instructions.quality import load_sub_tasks
from medray.instructions.raw import ROW_TYPES
from medray.instructions.reading import TaskReader
from medray.instructions.screen.losses import Losses
from medray.instructions.sft import make_sft
from medray.instructions.shapes import read_task
from medray.instructions.step import Step

__all__ = ["InstructionsConfig", "build_instructions", "check_sources"]

logger = logging.getLogger(__name__)
STAGES: dict[str, Callable[[Step], None]] = {
    "sft": make_sft,
    "scores": make_scores,
    "preferences": make_preferences,
    "prompts": make_prompts,
    "questions": make_questions,
    "exam": make_exam,
    "quality": make_quality,
}


def build_instructions(
    config: InstructionsConfig,
    data: Path,
    corpus: Path,
    artefact: Artefact,
    losses: Losses | None = None,
) -> None:
    """Writes every output into the artefact; an output that an earlier run finished is kept.

    Args:
        losses: scores the fine-tuning rows by a reference model, for the screens.
    Raises:
        DataError: if a source cannot be read, too many of its rows are malformed, or no training
            example comes of all sources.
    """
    done = artefact.dir / ".done"
    done.mkdir(exist_ok=True)
    for name, make in STAGES.items():
        note = done / f"{name}.json"
        if note.exists():
            logger.info("%s: finished earlier", name)
        else:
            shutil.rmtree(artefact.dir / name, ignore_errors=True)
            report = _run(name, make, config, data, corpus, artefact.dir, losses)
            temporary = note.with_suffix(".tmp")
            temporary.write_text(json.dumps(report), encoding="utf-8")
            temporary.replace(note)
        report = json.loads(note.read_text(encoding="utf-8"))
        for operator, counts in report["counts"].items():
            artefact.counts[operator] = Counts.model_validate(counts)
        artefact.metrics |= report["metrics"]
    if not any(k.startswith("sft/") and k.endswith("_train_rows") for k in artefact.metrics):
        reasons = {name: counts.rejected for name, counts in artefact.counts.items()}
        raise DataError(
            f"no fine-tuning example came of the corpus and the sources (rejected: {reasons}); "
            "name more sources or mend their fields"
        )
    shutil.rmtree(done)


def check_sources(config: InstructionsConfig, data: Path) -> None:
    """Looks at the first lines of every source and at the indicator files, without writing.

    Raises:
        DataError: if a source is missing or its rows do not fit their kind.
        ConfigError: if an indicator file is missing or malformed.
    """
    for source in config.sources:
        if source.task and source.task not in load_wordings():
            known = ", ".join(load_wordings())
            raise DataError(f"source {source.name}: no task {source.task}; there are {known}")
        check_source(source, data, ROW_TYPES[source.kind], read_task)
    if any(source.kind == "quality_label" for source in config.sources):
        load_sub_tasks(config.quality.indicators)


def _run(
    name: str,
    make: Callable[[Step], None],
    config: InstructionsConfig,
    data: Path,
    corpus: Path,
    directory: Path,
    losses: Losses | None,
) -> dict[str, Any]:
    """Makes one output; returns its counts and metrics."""
    masker = Masker()
    reader = TaskReader(
        config.sources,
        data,
        directory / "quarantine",
        dev_fraction=config.dev_fraction,
        max_rejected_fraction=config.max_rejected_fraction,
        seed=config.seed,
    )
    step = Step(config, reader, masker, corpus, directory, losses)
    make(step)
    counts = {**reader.counts, **step.counts}
    masked = {f"phi/{name}_{kind}_masked": n for kind, n in sorted(masker.masked.items())}
    return {
        "counts": {operator: value.model_dump() for operator, value in counts.items()},
        "metrics": {**step.metrics, **masked},
    }
