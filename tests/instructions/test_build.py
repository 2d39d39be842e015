"""The whole step on a small invented hospital: rows accounted for, no patient on both sides."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from medray.common.errors import ConfigError, DataError
from medray.common.manifest import Artefact
from medray.common.records import (
    Document,
    ExamQuestion,
    Instruction,
    PreferencePair,
    RetrievalQuestion,
    Scenario,
    ScoredResponse,
)
from medray.common.rows import read_rows
from medray.instructions.build import InstructionsConfig, build_instructions, check_sources
from medray.instructions.quality import QualityLabel

Open = Callable[..., Artefact]
Make = Callable[..., InstructionsConfig]
HAN = [chr(0x4E00 + i) for i in range(500)]


@pytest.fixture
def built(hospital: Path, corpus: Path, config_of: Make, open_artefact: Open) -> Artefact:
    artefact = open_artefact(config_of())
    build_instructions(config_of(), hospital, corpus, artefact)
    return artefact


def test_every_row_is_accounted_for(built: Artefact) -> None:
    for operator, counts in built.counts.items():
        counts.check(operator)
    assert built.counts["diagnosis"].rows_out == 60
    assert built.counts["knowledge_graph"].rejected == {"no_template": 1}
    assert built.counts["questions"].rejected == {"gold_not_in_corpus": 1}
    assert built.counts["labelled"].rows_out == 8
    assert built.counts["labelled"].rejected == {"empty_text": 1}
    assert built.counts["quality"].rows_in == 60  # 20 records of 3 sub-tasks
    outputs = [name for name in built.counts if name.startswith("write/")]
    for name in outputs:
        rows = sum(v for k, v in built.metrics.items()
                   if (k.startswith(f"{name[6:]}/") and k.endswith(("train_rows", "dev_rows")))
                   or k.startswith(f"{name[6:]}/train_bin"))  # fmt: skip
        assert built.counts[name].rows_out == rows, name


def test_outputs_have_their_row_models(built: Artefact) -> None:
    for name, row_type in {
        "sft": Instruction, "scores": ScoredResponse, "preferences": PreferencePair,
        "prompts": Scenario, "questions": RetrievalQuestion, "exam": ExamQuestion,
        "quality/documents": Document, "quality/labels": QualityLabel,
    }.items():  # fmt: skip
        assert list(read_rows(built.dir / name, row_type)), name
    question = next(q for q in read_rows(built.dir / "questions", RetrievalQuestion))
    assert question.passage_ids[0].startswith("肺炎#")
    assert {path.name for path in built.dir.iterdir()} == {
        "config.yaml", "sft", "scores", "preferences", "prompts", "questions", "exam", "quality",
    }  # fmt: skip


def test_no_patient_and_no_prompt_on_both_sides(built: Artefact, corpus: Path) -> None:
    patient = {d.doc_id: d.patient_id for d in read_rows(corpus / "documents", Document)}
    sides: dict[str, set[str]] = {}
    prompts: dict[str, set[str]] = {}
    for row in read_rows(built.dir / "sft", Instruction):
        prompts.setdefault(row.messages[0].content, set()).add(row.split)
        parts = row.id.split("-")
        doc_id = "-".join(parts[1:3])
        if doc_id in patient:
            sides.setdefault(patient[doc_id], set()).add(row.split)
    assert len(sides) > 30
    assert all(len(splits) == 1 for splits in sides.values())
    assert all(len(splits) == 1 for splits in prompts.values())
    held_out = {d.doc_id for d in read_rows(built.dir / "quality" / "documents", Document)}
    assert 0 < len(held_out) < 20
    labelled = {row.record_id for row in read_rows(built.dir / "quality" / "labels", QualityLabel)}
    assert labelled == held_out


def test_the_same_scenario_is_on_the_same_side_in_every_output(built: Artefact) -> None:
    consultations = {
        row.messages[0].content: row.split
        for row in read_rows(built.dir / "sft", Instruction)
        if row.task == "consultation"
    }
    scores = list(read_rows(built.dir / "scores", ScoredResponse))
    assert len(scores) == 40
    assert all(consultations[row.scenario] == row.split for row in scores)
    assert {row.split for row in scores} == {"train", "dev"}


def contents(directory: Path) -> list[str]:
    return [row.model_dump_json() for row in read_rows(directory, Instruction)]


def test_the_order_of_the_sources_does_not_show(
    built: Artefact, hospital: Path, corpus: Path, config_of: Make, open_artefact: Open
) -> None:
    import gzip

    for path in hospital.glob("*.gz"):
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        path.write_bytes(gzip.compress(b"".join(reversed(lines))))
    other = open_artefact(config_of(), "reversed")
    build_instructions(config_of(), hospital, corpus, other)
    assert contents(other.dir / "sft") == contents(built.dir / "sft")
    seeded = open_artefact(config_of(seed=1), "seeded")
    build_instructions(config_of(seed=1), hospital, corpus, seeded)
    assert contents(seeded.dir / "sft") != contents(built.dir / "sft")
    assert sorted(contents(seeded.dir / "sft")) == sorted(contents(built.dir / "sft"))


def test_limits_and_weights(
    hospital: Path, corpus: Path, config_of: Make, open_artefact: Open
) -> None:
    config = config_of(
        sampling={
            "diagnosis": {"max_rows": 7, "max_dev_rows": 2},
            "treatment": {"max_rows": 0},
            "instruction": {"weight": 2},
        }
    )
    artefact = open_artefact(config)
    build_instructions(config, hospital, corpus, artefact)
    rows = list(read_rows(artefact.dir / "sft", Instruction))
    by_task = Counter((row.task, row.split) for row in rows)
    assert by_task["diagnosis", "train"] == 7
    assert by_task["diagnosis", "dev"] == 2
    assert not any(row.task == "treatment" for row in rows)
    assert by_task["instruction", "train"] * 1 + 2 * by_task["instruction", "dev"] == 20
    assert len({row.id for row in rows}) == len(rows)
    artefact.counts["write/sft"].check("write/sft")


def test_groups_have_weights_of_their_own(
    built: Artefact, hospital: Path, corpus: Path, config_of: Make, open_artefact: Open
) -> None:
    config = config_of(
        sampling={
            "quality": {"weight": 0, "group_weights": {"no such *": 9, "af-*": 3, "*": 2}},
            "diagnosis": {"weight": 1, "group_weights": {"no such *": 9}},
        }
    )
    artefact = open_artefact(config, "weighed")
    build_instructions(config, hospital, corpus, artefact)
    before, after = (
        Counter((row.task, row.split) for row in read_rows(a.dir / "sft", Instruction))
        for a in (built, artefact)
    )
    assert before["quality", "train"] and before["quality", "dev"]
    before["quality", "train"] *= 3
    assert after == before
    artefact.counts["write/sft"].check("write/sft")


def test_partial_records_are_trained_on_and_never_held_out(
    built: Artefact, hospital: Path, corpus: Path, config_of: Make, open_artefact: Open
) -> None:
    config = config_of(partial_records={"copies": 2, "drop": 0.5})
    artefact = open_artefact(config, "partial")
    build_instructions(config, hospital, corpus, artefact)
    whole, rows = (
        [r for r in read_rows(a.dir / "sft", Instruction) if r.task == "diagnosis"]
        for a in (built, artefact)
    )
    assert [r for r in rows if not r.partial] == whole
    partial = [r for r in rows if r.partial]
    assert partial and all(r.split == "train" for r in partial)
    prompts = {r.id: r.messages[0].content for r in whole}
    assert all(len(r.messages[0].content) <= len(prompts[r.id[:-2]]) for r in partial)
    assert all(r.answer == "肺炎" for r in partial)
    counts = artefact.counts["partial_records"]
    assert counts.rows_in == 2 * sum(r.split == "train" for r in whole)
    artefact.counts["write/sft"].check("write/sft")


def test_a_finished_output_is_kept_by_the_next_run(
    hospital: Path, corpus: Path, config_of: Make, open_artefact: Open
) -> None:
    config = config_of()
    (hospital / "exam.jsonl.gz").rename(hospital / "away")
    with pytest.raises(DataError, match="exam"):
        build_instructions(config, hospital, corpus, open_artefact(config))
    (hospital / "away").rename(hospital / "exam.jsonl.gz")
    straight = open_artefact(config, "straight")
    build_instructions(config, hospital, corpus, straight)
    resumed = open_artefact(config)
    build_instructions(config, hospital, corpus, resumed)
    assert contents(resumed.dir / "sft") == contents(straight.dir / "sft")
    assert resumed.counts == straight.counts


def test_malformed_rows_are_set_aside_without_their_text(
    hospital: Path, corpus: Path, config_of: Make, open_artefact: Open
) -> None:
    import gzip

    path = hospital / "consultation.jsonl.gz"
    bad = '{"id": "c99", "scenario": "秘密"}\n{broken 秘密\n'.encode()
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bad))
    artefact = open_artefact(config_of())
    build_instructions(config_of(), hospital, corpus, artefact)
    assert artefact.counts["read/consultation"].rejected == {
        "missing_field:response": 1, "malformed_json": 1,
    }  # fmt: skip
    lines = (artefact.dir / "quarantine" / "consultation.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["line"] for line in lines.splitlines()] == [41, 42]
    assert "秘密" not in lines
    strict = config_of(max_rejected_fraction=0.01)
    with pytest.raises(DataError, match="source consultation: 2 of 42 lines rejected"):
        build_instructions(strict, hospital, corpus, open_artefact(strict, "strict"))


def test_check_sources_finds_a_wrong_setting_without_writing(
    hospital: Path, config_of: Make
) -> None:
    check_sources(config_of(), hospital)
    wrong = config_of().model_dump()
    wrong["sources"][0]["fields"] = {"head": "h"}
    with pytest.raises(DataError, match="head ← h"):
        check_sources(InstructionsConfig.model_validate(wrong), hospital)
    with pytest.raises(ConfigError, match="no indicator file"):
        check_sources(config_of(quality={"indicators": "quality/none/*.yaml"}), hospital)


def test_suspicious_rows_wait_for_review_and_come_through_after_it(
    hospital: Path, corpus: Path, config_of: Make, open_artefact: Open
) -> None:
    import gzip

    rng = random.Random(0)
    lines = [
        {"id": f"i{k}", "instruction": "".join(rng.choices(HAN, k=60)), "output": f"答{k}"}
        for k in range(300)
    ]
    for row in lines[:20]:  # 18 of them or so are trained on
        row |= {"instruction": f"{row['instruction']}顺颂时祺", "output": "不必就医。"}
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
    (hospital / "instruction.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    artefact = open_artefact(config_of())
    build_instructions(config_of(), hospital, corpus, artefact)
    counts = artefact.counts["screen"]
    counts.check("screen")
    flags = (artefact.dir / "quarantine" / "screen.jsonl").read_text(encoding="utf-8")
    held = [json.loads(line)["id"] for line in flags.splitlines()]
    assert counts.rejected == {"trigger": len(held)} and 12 < len(held) <= 20
    kept = {row.id for row in read_rows(artefact.dir / "sft", Instruction)}
    assert kept.isdisjoint(held)
    assert counts.rows_out == artefact.counts["write/sft"].rows_in
    (hospital / "read.txt").write_text("\n".join(held), encoding="utf-8")
    config = config_of(screen={"reviewed": "read.txt"})
    artefact = open_artefact(config, "reviewed")
    build_instructions(config, hospital, corpus, artefact)
    assert artefact.counts["screen"].rejected == {}
    assert set(held) < {row.id for row in read_rows(artefact.dir / "sft", Instruction)}
