"""Rows asked in other ways: worked out by hand, then through the job."""

from typing import Any

import pytest

from medray.common.records import Instruction, PreferencePair
from medray.common.rows import read_rows
from medray.instructions.alignment import (
    contrast_based,
    example_based,
    facts_of,
    is_chosen,
    knowledge_based,
    multi_task_based,
)
from medray.instructions.build import build_instructions
from medray.instructions.examples import Skipped, exchange


def row(question: str, answer: str, **values: Any) -> Instruction:
    settings = {"id": "a-1", "task": "consultation", "split": "train", **values}
    return Instruction(messages=exchange(question, answer), **settings)


def text(made: Instruction | Skipped) -> tuple[str, str]:
    assert isinstance(made, Instruction)
    return made.messages[0].content, made.messages[1].content


def test_examples_stand_before_the_question() -> None:
    made = example_based(row("咳嗽怎么办", "多饮水。"), [row("发热怎么办", "测体温。")], 100)
    assert text(made) == ("示例：\n问：发热怎么办\n答：测体温。\n问：咳嗽怎么办", "多饮水。")
    english = example_based(row("Cough?", "Rest."), [row("Fever?", "Fluids.")], 100)
    assert text(english) == ("Examples:\nQ: Fever?\nA: Fluids.\nQ: Cough?", "Rest.")


def test_no_other_patients_record_stands_in_an_example() -> None:
    other = row("病历：咳嗽", "肺炎", doc_id="emr-2")
    assert example_based(row("病历：发热", "肺炎", doc_id="emr-1"), [other], 99) == Skipped(
        "no_example"
    )
    made = example_based(row("病历：发热", "肺炎", doc_id="emr-1"), [row("甲", "乙")], 99)
    assert isinstance(made, Instruction) and made.doc_id == "emr-1"


def test_facts_stand_before_the_question() -> None:
    graph = {"肺炎": ["肺炎的症状有咳嗽。", "肺炎需查胸片。"], "贫血": ["贫血需查血常规。"]}
    assert facts_of(graph, ["贫血", "感冒", "肺炎", "贫血"], 2) == [
        "贫血需查血常规。",
        "肺炎的症状有咳嗽。",
    ]
    made = knowledge_based(row("肺炎怎么查", "查胸片。"), facts_of(graph, ["肺炎"], 1), 100)
    assert text(made) == ("已知：\n肺炎的症状有咳嗽。\n肺炎怎么查", "查胸片。")
    assert knowledge_based(row("肺炎怎么查", "查胸片。"), [], 100) == Skipped("no_fact")


def test_the_better_answer_has_each_letter_about_as_often() -> None:
    letters = []
    for k in range(200):
        pair = PreferencePair(id=str(k), prompt="咳嗽", chosen="好", rejected="坏", split="train")
        prompt, answer = text(contrast_based(pair, 100))
        letter, better = answer.split("\n")
        assert better == "好" and f"{letter}. 好" in prompt
        letters.append(letter)
    assert 70 < letters.count("A") < 130


def test_tasks_on_one_record_show_it_once() -> None:
    rows = [
        row("根据以下症状进行诊断：主诉：咳嗽。", "肺炎"),
        row("请对以下病例进行鉴别诊断分析：主诉：咳嗽。", "与肺结核鉴别。"),
    ]
    assert text(multi_task_based(rows, 100)) == (
        "依次完成下面的任务：\n1. 根据以下症状进行诊断\n"
        "2. 请对以下病例进行鉴别诊断分析\n主诉：咳嗽。",
        "1. 肺炎\n2. 与肺结核鉴别。",
    )
    assert multi_task_based(rows[:1], 100) == Skipped("single_task")
    assert multi_task_based([row("甲", "乙"), row("丙", "丁")], 9) == Skipped("no_common_record")
    assert multi_task_based(rows, 10) == Skipped("prompt_too_long")


def test_a_share_of_the_rows_is_chosen() -> None:
    chosen = sum(is_chosen(0.3, "example", str(k)) for k in range(1000))
    assert 250 < chosen < 350
    assert not any(is_chosen(0.0, "example", str(k)) for k in range(50))
    assert all(is_chosen(1.0, "example", str(k)) for k in range(50))


WAYS = {"example": 1.0, "knowledge": 1.0, "contrast": 1.0, "multi_task": 1.0}


@pytest.mark.parametrize("way", WAYS)
def test_the_job_adds_training_rows_and_accounts_for_them(
    way, hospital, corpus, config_of, open_artefact
) -> None:
    config = config_of(alignment={way: 1.0})
    artefact, plain = open_artefact(config), open_artefact(config_of(), key="plain")
    build_instructions(config, hospital, corpus, artefact)
    build_instructions(config_of(), hospital, corpus, plain)
    made = [r for r in read_rows(artefact.dir / "sft", Instruction) if r.task == "alignment"]
    assert made and all(r.split == "train" and r.group == way for r in made)
    counts = artefact.counts[f"alignment_{way}"]
    counts.check(way)
    assert len(made) <= counts.rows_out
    others = {r.id for r in read_rows(artefact.dir / "sft", Instruction)} - {r.id for r in made}
    assert others == {r.id for r in read_rows(plain.dir / "sft", Instruction)}
