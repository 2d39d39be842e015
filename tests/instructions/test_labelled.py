"""Texts and their labels as fine-tuning examples, in the shapes that public sets have."""

from string import Formatter
from typing import Any

import pytest

from medray.common.config import ConfigError
from medray.common.errors import DataError
from medray.instructions.build import InstructionsConfig, check_sources
from medray.instructions.examples import Skipped
from medray.instructions.labelled import as_text, labelled, load_wordings
from medray.instructions.raw import Labelled, TaskSource
from medray.instructions.reading import TaskReader

TASKS = {
    "named_entities", "trial_screening", "term_normalisation", "text_classification",
    "dialogue_to_record", "dialogue_to_summary", "icd_coding", "procedure_coding", "triage",
    "contraindications", "quality_control",
}  # fmt: skip


def made(task: str, text: Any, label: Any, choices: tuple[str, ...] = (), row_id: str = "1") -> Any:
    row = Labelled(id=row_id, text=text, label=label)
    return labelled(row, task, choices, "train", lambda text: text.replace("王芳", "某"), 60, 20)


def test_every_task_has_wordings_that_hold_the_text() -> None:
    assert set(load_wordings()) == TASKS
    for task, wordings in load_wordings().items():
        for wording in (*wordings.zh, *wordings.en):
            slots = {slot for _, slot, _, _ in Formatter().parse(wording) if slot is not None}
            assert slots in ({"text"}, {"text", "choices"}), (task, wording)
        assert all(any("{choices}" not in w for w in side) for side in (wordings.zh, wordings.en))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("咳嗽 ", "咳嗽"),
        (["横结肠造口闭合术", "", None, "肠粘连松解术"], "横结肠造口闭合术、肠粘连松解术"),
        ({"主诉": "咳嗽", "诊断": ["肺炎", "贫血"], "建议": ""}, "主诉：咳嗽\n诊断：肺炎、贫血"),
        (
            [{"role": "patient", "text": "咳嗽"}, {"role": "doctor", "text": "几天了"}],
            "患者：咳嗽\n医生：几天了",
        ),
        (
            [
                {"type": "疾病", "text": "肺炎", "start": 0},
                {"type": "药物", "text": "青霉素"},
                {"type": "疾病", "text": "肺炎"},
                {"type": "疾病", "text": "贫血"},
            ],
            "疾病：肺炎、贫血\n药物：青霉素",
        ),
        (None, ""),
        ([], ""),
        (3, "3"),
    ],
)
def test_shapes_of_texts_and_labels(value: Any, expected: str) -> None:
    assert as_text(value) == expected


def test_an_example_has_the_language_of_its_text_and_hides_names() -> None:
    chinese = made("icd_coding", "王芳的2型糖尿病", "E11.900")
    assert (
        "某的2型糖尿病" in chinese.messages[0].content and "ICD-10" in chinese.messages[0].content
    )
    assert chinese.messages[1].content == chinese.answer == "E11.900"
    assert (chinese.id, chinese.task, chinese.group) == ("icd_coding-1", "labelled", "icd_coding")
    english = made("icd_coding", "type 2 diabetes", ["E11.9", "I10"])
    assert english.answer == "E11.9, I10"
    assert english.messages[0].content.isascii()


def test_a_table_without_ids_is_read(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("诊断,编码\n肺炎,J18.900\n贫血,D64.900\n", encoding="utf-8")
    values = {"name": "s", "kind": "labelled", "task": "icd_coding", "path": "a.csv"}
    source = TaskSource.parse({**values, "fields": {"text": "诊断", "label": "编码"}}, "profile")
    reader = TaskReader([source], tmp_path, tmp_path / "q", dev_fraction=0, max_rejected_fraction=0)
    found = [(row.text, row.label) for row in reader.rows_of(source, Labelled)]
    assert found == [("肺炎", "J18.900"), ("贫血", "D64.900")]
    ids = {made("icd_coding", *pair, row_id="").id for pair in found}
    assert len(ids) == 2 and "icd_coding-" not in ids


def test_choices_are_named_only_where_there_are_some() -> None:
    prompts = {
        made("triage", "咳嗽", "内科", choices, str(k)).messages[0].content
        for k in range(20)
        for choices in ((), ("内科", "外科"))
    }
    assert any("可选：内科、外科。" in prompt for prompt in prompts)
    assert not any("{" in prompt for prompt in prompts)


def test_what_makes_no_example_says_why() -> None:
    assert made("triage", "", "内科") == made("triage", "咳嗽", []) == Skipped("empty_text")
    assert made("triage", "咳" * 61, "内科") == Skipped("prompt_too_long")
    assert made("dialogue_to_record", "咳嗽", "主诉。" * 20).answer == "主诉。" * 6


def test_a_source_names_its_task(tmp_path) -> None:
    with pytest.raises(ConfigError, match="needs a task"):
        TaskSource.parse({"name": "s", "kind": "labelled", "path": "a.jsonl"}, "profile")
    with pytest.raises(ConfigError, match="no other kind"):
        TaskSource.parse({"name": "s", "kind": "exam", "path": "a", "task": "triage"}, "profile")
    source = {"name": "s", "kind": "labelled", "path": "a.jsonl", "task": "triag"}
    config = InstructionsConfig.model_validate({"sources": [source]})
    with pytest.raises(DataError, match="no task triag; there are named_entities"):
        check_sources(config, tmp_path)
