"""Quality sub-tasks: the evidence that an answer quotes, and what the indicator files ask."""

from medray.common.records import Document, Instruction, Section
from medray.generation.prompts import parse_verdict
from medray.instructions.examples import Skipped
from medray.instructions.quality import (
    QualityTasksConfig,
    SubTask,
    flat_labels,
    load_sub_tasks,
    on_one_record,
    quality,
)
from medray.instructions.raw import QualityLabels
from medray.quality.indicators import load_indicators

RECORD = Document(
    doc_id="a1", patient_id="p", kind="emr", source="audit", split="dev",
    sections=[
        Section(heading="诊断", text="心房颤动。"),
        Section(heading="手术记录", text="造影。植入支架；TIMI 3级。"),
    ],
)  # fmt: skip
SUB_TASKS = {
    ("i", "T1"): SubTask("是否植入支架", ("手术记录",)),
    ("i", "T2"): SubTask("是否心房颤动", None),
    ("i", "T3"): SubTask("是否转科", ("转科记录",)),
}


def labels(**tasks: bool | None) -> QualityLabels:
    return QualityLabels.model_validate(
        {
            "record_id": "a1", "indicator": "i", "tasks": tasks,
            "populations": {"numerator": None},
            "evidence": {"T1": {"section": "手术记录", "sentence": 1},
                         "T2": {"section": "诊断", "sentence": 0},
                         "T9": {"section": "诊断", "sentence": 9}},
        }
    )  # fmt: skip


def made(**tasks: bool | None) -> dict[str, Instruction | Skipped]:
    return dict(quality(RECORD, labels(**tasks), SUB_TASKS, 999))


def test_the_answer_quotes_the_evidence_sentence_of_the_prompt() -> None:
    rows = made(T1=True, T2=False)
    first, second = rows["T1"], rows["T2"]
    assert isinstance(first, Instruction) and isinstance(second, Instruction)
    # T1 reads the operation alone.
    assert first.messages[0].content == ("病历：造影。植入支架；TIMI 3级。\n质控：是否植入支架？")
    assert first.messages[1].content == "“植入支架；”是"
    assert parse_verdict(first.answer) == (True, "植入支架；")
    # T2 reads all sections, 心房颤动。 first.
    assert second.messages[0].content.startswith("病历：心房颤动。造影。")
    assert second.messages[1].content == "“心房颤动。”否"
    assert (first.split, first.group) == ("dev", "i/T1")


def test_what_gives_no_example() -> None:
    rows = made(T1=None, T3=True, T9=True)
    assert isinstance(rows["T1"], Instruction)
    assert rows["T1"].messages[1].content == "未提及"
    assert rows["T3"] == Skipped("no_section")
    assert rows["T9"] == Skipped("unknown_sub_task")


def test_a_verdict_without_known_evidence_keeps_its_word() -> None:
    row = labels(T2=True).model_copy(update={"evidence": {}})
    ((_, example),) = quality(RECORD, row, SUB_TASKS, 999)
    assert isinstance(example, Instruction)
    assert example.messages[1].content == "是"
    assert list(quality(RECORD, row, SUB_TASKS, 5)) == [("T2", Skipped("prompt_too_long"))]


def test_sub_tasks_on_the_same_sentences_become_one_row() -> None:
    sub_tasks = {
        ("i", "T1"): SubTask("是否植入支架", ("手术记录",)),
        ("i", "T2"): SubTask("是否心房颤动", None),
        ("i", "T4"): SubTask("是否造影", ("手术记录",)),
    }
    made = quality(RECORD, labels(T1=True, T2=False, T4=None), sub_tasks, 999)
    rows = on_one_record([row for _, row in made if isinstance(row, Instruction)])
    assert [len(row.messages) for row in rows] == [4, 2]
    record = "病历：造影。植入支架；TIMI 3级。\n"
    assert [(m.role, m.content) for m in rows[0].messages] == [
        ("user", f"{record}质控：是否植入支架？"),
        ("assistant", "“植入支架；”是"),
        ("user", "质控：是否造影？"),
        ("assistant", "未提及"),
    ]
    assert rows[0].shared_chars == len(record)
    assert rows[1].messages[0].content[rows[1].shared_chars :] == "质控：是否心房颤动？"


def test_labels_become_one_row_a_verdict() -> None:
    rows = list(flat_labels(labels(T1=True, T2=None), "dev"))
    assert [(r.level, r.name, r.value, r.section, r.sentence) for r in rows] == [
        ("task", "T1", True, "手术记录", 1),
        ("task", "T2", None, "诊断", 0),
        ("population", "numerator", None, "", None),
    ]


def test_sub_tasks_ask_what_quality_control_asks() -> None:
    """The files are read twice, here and in medray.quality; training must ask the same words."""
    sub_tasks = load_sub_tasks(QualityTasksConfig().indicators)
    expected = {
        (indicator.id, name): (task.question, indicator.sections(name))
        for indicator in load_indicators().values()
        for name, task in indicator.tasks.items()
    }
    assert expected
    assert {
        key: (task.ask, list(task.sections) if task.sections else None)
        for key, task in sub_tasks.items()
    } == expected
