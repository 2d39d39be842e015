"""The curriculum of fine-tuning: stage by stage, easy tasks first, then all jointly.

    curriculum:
      stages:
        - {name: format, tasks: {"labelled/quality_control": 1}, epochs: 1}
        - {name: indicators, tasks: {quality: 1, grounded: 0.5}, epochs: 3}
      joint: {tasks: {"*": 1, consultation: 0.25}, epochs: 1}

In: training rows. Out: the rows of each stage, and which of their blocks make a step.
Source: [MedQC 4.1.2] task-progressive fine-tuning, then joint.
"""

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, model_validator

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.records import Instruction
from medray.common.split import unit_hash
from medray.training.sampler import IndexSampler


class StageConfig(Config):
    """What one stage reads, and how often."""

    name: str = "joint"
    tasks: dict[str, Annotated[float, Field(ge=0)]] = Field(min_length=1)
    """Task or task/group, as shell patterns → mixing weight: copies of each of its rows, 0.5 keeps
    half of them. The last pattern that fits counts; a row that none fits is not read."""
    epochs: float = Field(gt=0)
    """Passes over the stage's rows; 0.5 is half a pass."""

    def weight_of(self, row: Instruction) -> float:
        """The mixing weight of a row, 0 if the stage does not read it."""
        names = (row.task, f"{row.task}/{row.group}")
        fitting = [
            weight
            for pattern, weight in self.tasks.items()
            if any(fnmatchcase(name, pattern) for name in names)
        ]
        return fitting[-1] if fitting else 0.0


class CurriculumConfig(Config):
    """The stages in their order, and what follows them."""

    stages: tuple[StageConfig, ...] = Field(min_length=1)
    joint: StageConfig | None = None
    """All tasks together, after the stages; None ends with the last of them."""

    @model_validator(mode="after")
    def _names_differ(self) -> "CurriculumConfig":
        names = [stage.name for stage in self.all_stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names, got {', '.join(names)}")
        return self

    @property
    def all_stages(self) -> tuple[StageConfig, ...]:
        """The stages and the joint one."""
        return self.stages if self.joint is None else (*self.stages, self.joint)


def rows_of_stage(stage: StageConfig, rows: Iterable[Instruction]) -> list[Instruction]:
    """The rows that a stage reads in one pass, copies beside each other.

    Raises:
        DataError: if it reads none.
    """
    chosen: list[Instruction] = []
    for row in rows:
        copies, part = divmod(stage.weight_of(row), 1)
        is_extra = unit_hash(f"curriculum/{stage.name}/{row.id}") < part
        chosen += [row] * (int(copies) + is_extra)
    if not chosen:
        raise DataError(
            f"stage {stage.name} of sft.curriculum reads no training row; its tasks are "
            f"{', '.join(stage.tasks)}, look at the counts of the instructions artefact"
        )
    return chosen


class StagedSampler(IndexSampler):
    """Blocks of one stage after another; each stage is shuffled anew in each of its epochs.

    Past the last stage its epochs go on, to fill the last batch.
    """

    def __init__(
        self, sizes: Sequence[int], epochs: Sequence[float], batch_size: int, seed: int
    ) -> None:
        """`sizes` counts the blocks of each stage, which stand one after another."""
        super().__init__(sum(sizes), batch_size, seed)
        ends, first, start = [], 0, 0
        self._stages: list[tuple[int, int, IndexSampler]] = []
        for number, (size, passes) in enumerate(zip(sizes, epochs, strict=True)):
            # Of its own seed, so that a stage does not depend on those before it.
            self._stages.append((start, first, IndexSampler(size, 1, seed + 1_000_003 * number)))
            start += math.ceil(size * passes)
            first += size
            ends.append(start)
        self.ends = ends
        """Samples after which each stage is over."""

    @property
    def total_steps(self) -> int:
        """Steps that all stages take."""
        return math.ceil(self.ends[-1] / self.batch_size)

    def stage_at(self, step: int) -> int:
        """The stage that the first sample of `step` belongs to."""
        return self._stage_of(step * self.batch_size)

    def milestones(self, names: Sequence[str]) -> dict[int, str]:
        """Steps with which a stage but the last is over, and the names of those that are."""
        over: dict[int, str] = {}
        for name, end in zip(names[:-1], self.ends[:-1], strict=True):
            step = math.ceil(end / self.batch_size)
            over[step] = f"{over[step]}+{name}" if step in over else name
        return over

    def _at(self, position: int) -> int:
        start, first, sampler = self._stages[self._stage_of(position)]
        return first + sampler.batch(position - start)[0]

    def _stage_of(self, position: int) -> int:
        return next((k for k, end in enumerate(self.ends) if position < end), len(self.ends) - 1)
