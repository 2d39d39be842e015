"""Which rows a stage reads, and which blocks make a step."""

import math

import pytest

from medray.common.config import ConfigError
from medray.common.errors import DataError
from medray.common.records import Instruction, Message
from medray.training.curriculum import (
    CurriculumConfig,
    StageConfig,
    StagedSampler,
    rows_of_stage,
)
from medray.training.sft import SftConfig


def row(row_id: str, task: str, group: str = "") -> Instruction:
    messages = [Message(role="user", content="q"), Message(role="assistant", content="a")]
    return Instruction(id=row_id, task=task, group=group, messages=messages, split="train")


ROWS = [row("q1", "quality", "af"), row("q2", "quality", "pci"), row("d1", "dialogue"),
        row("l1", "labelled", "triage")]  # fmt: skip


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ({"quality": 1}, ["q1", "q2"]),
        ({"quality": 2, "quality/pci": 1}, ["q1", "q1", "q2"]),
        ({"*": 1, "dialogue": 0}, ["q1", "q2", "l1"]),
        ({"labelled/*": 3}, ["l1", "l1", "l1"]),
    ],
)
def test_the_last_pattern_that_fits_weighs_a_row(tasks, expected) -> None:
    stage = StageConfig(name="s", tasks=tasks, epochs=1)
    assert [r.id for r in rows_of_stage(stage, ROWS)] == expected


def test_half_a_weight_keeps_half_of_the_rows() -> None:
    many = [row(str(k), "dialogue") for k in range(1000)]
    kept = rows_of_stage(StageConfig(name="s", tasks={"dialogue": 0.5}, epochs=1), many)
    assert 430 < len(kept) < 570 and len({r.id for r in kept}) == len(kept)
    more = rows_of_stage(StageConfig(name="s", tasks={"dialogue": 1.5}, epochs=1), many)
    assert len(more) == 1000 + len(kept)


def test_a_stage_without_rows_says_so() -> None:
    with pytest.raises(DataError, match=r"stage s of sft\.curriculum reads no training row"):
        rows_of_stage(StageConfig(name="s", tasks={"exam": 1}, epochs=1), ROWS)


def test_stages_follow_each_other_whole() -> None:
    # 3 blocks twice, 2 blocks half a time, 5 blocks once: 6 + 1 + 5 = 12 samples, 4 a step.
    sampler = StagedSampler([3, 2, 5], [2, 0.5, 1], batch_size=4, seed=1)
    assert (sampler.ends, sampler.total_steps) == ([6, 7, 12], 3)
    stream = [i for step in range(sampler.total_steps) for i in sampler.batch(step)]
    assert sorted(stream[:3]) == sorted(stream[3:6]) == [0, 1, 2]
    assert stream[6] in (3, 4)
    assert sorted(stream[7:]) == [5, 6, 7, 8, 9]
    assert [sampler.stage_at(step) for step in range(3)] == [0, 0, 2]


def test_a_stage_is_over_with_the_step_that_holds_its_last_block() -> None:
    # Ends at samples 6, 7 and 12, 4 a step: the first two both with step 2; the last is the end.
    sampler = StagedSampler([3, 2, 5], [2, 0.5, 1], batch_size=4, seed=1)
    assert sampler.milestones(["format", "tasks", "joint"]) == {2: "format+tasks"}
    assert StagedSampler([4, 4], [1, 1], 4, seed=1).milestones(["a", "b"]) == {1: "a"}


def test_the_last_stage_fills_the_last_batch() -> None:
    sampler = StagedSampler([2, 3], [1, 1], batch_size=4, seed=0)
    assert sampler.total_steps == math.ceil(5 / 4) == 2
    stream = sampler.batch(0) + sampler.batch(1)
    assert sorted(stream[:2]) == [0, 1] and sorted(stream[2:5]) == [2, 3, 4]
    assert set(stream[5:]) <= {2, 3, 4}


def test_any_step_can_be_asked_for_first_by_any_number_of_workers() -> None:
    def make() -> StagedSampler:
        return StagedSampler([7, 5], [3, 2], batch_size=4, seed=9)

    straight = make()
    batches = [straight.batch(step) for step in range(straight.total_steps)]
    assert make().batch(6) == batches[6]
    shares = [make().share(6, rank, 2) for rank in range(2)]
    assert [i for pair in zip(*shares, strict=True) for i in pair] == batches[6]


def test_settings_that_contradict_each_other() -> None:
    stage = {"name": "a", "tasks": {"*": 1}, "epochs": 1}
    curriculum = {"stages": [stage], "joint": {"tasks": {"*": 1}, "epochs": 1}}
    made = SftConfig.parse({"total_steps": 0, "curriculum": curriculum}, "profile")
    assert made.curriculum is not None
    assert [s.name for s in made.curriculum.all_stages] == ["a", "joint"]
    for values, message in (
        ({"curriculum": curriculum}, "takes its number of steps"),
        ({"total_steps": 0}, "takes its number of steps"),
        ({"total_steps": 0, "curriculum": {"stages": [stage, stage]}}, "different names"),
        ({"total_steps": 0, "curriculum": {"stages": []}}, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            SftConfig.parse(values, "profile")
    assert CurriculumConfig(stages=(StageConfig(tasks={"*": 1}, epochs=1),)).joint is None
