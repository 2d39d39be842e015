"""Public sets in the form in which they are downloaded, with invented contents."""

import json
from pathlib import Path
from typing import Any

import pytest

from medray.common.config import ConfigError
from medray.common.errors import DataError
from medray.common.sources import Rejected, check_source, to_row
from medray.instructions.exams import exam_question
from medray.instructions.knowledge_graph import load_templates
from medray.instructions.raw import ROW_TYPES, Dialogue, Exam, TaskSource, Triple
from medray.instructions.shapes import read_task


def source(kind: str, path: str, **settings: Any) -> TaskSource:
    values = {"name": "s", "kind": kind, "path": path, **settings}
    return TaskSource.parse(values, "profile")


def rows(found: TaskSource, data: Path, seed: int = 0) -> list[Any]:
    check_source(found, data, ROW_TYPES[found.kind], read_task)
    return [
        row if isinstance(row, Rejected) else to_row(row, ROW_TYPES[found.kind])
        for row in read_task(found, data, seed)
    ]


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def triples(found: list[Any]) -> set[tuple[str, str, str]]:
    return {(row.head, row.relation, row.tail) for row in found if isinstance(row, Triple)}


def test_triples_as_csv_and_as_json(tmp_path):
    write(tmp_path / "a.csv", "head,relation,tail\n肺炎,症状,咳嗽\n")
    write(tmp_path / "b.json", '[{"h": "肺炎", "r": "症状", "t": "咳嗽"}]')
    expected = {("肺炎", "症状", "咳嗽")}
    assert triples(rows(source("triple", "a.csv"), tmp_path)) == expected
    fields = {"head": "h", "relation": "r", "tail": "t"}
    assert triples(rows(source("triple", "b.json", fields=fields), tmp_path)) == expected


def test_knowledge_graphs_of_one_entity_a_line(tmp_path):
    xywy = {"_id": {"$oid": "5bb5"}, "name": "肺炎", "symptom": ["咳嗽", "发热"], "do_eat": [],
            "cure_department": ["内科", "呼吸内科"], "cure_lasttime": "7天"}  # fmt: skip
    cmekg = {"中心词": "偏头痛", "相关症状": ["头痛", ""], "所属科室": ["神经内科"]}
    write(tmp_path / "medical.json", json.dumps(xywy, ensure_ascii=False) + '\n{"name": "空"}\n')
    write(tmp_path / "cmekg.json", json.dumps([cmekg], ensure_ascii=False, indent=1))
    write(tmp_path / "39health.csv", "疾病,典型症状,就诊科室\n胃炎,腹痛、恶心，嗳气,内科\n")
    found = rows(source("triple", "medical.json", fields={"head": "name"}, relations={
        "symptom": "症状", "cure_department": "科室", "do_eat": "宜吃"}), tmp_path)  # fmt: skip
    assert triples(found) == {("肺炎", "症状", "咳嗽"), ("肺炎", "症状", "发热"),
                              ("肺炎", "科室", "内科"), ("肺炎", "科室", "呼吸内科")}  # fmt: skip
    assert found[-1] == Rejected("medical.json", 2, "no_triple")
    found = rows(source("triple", "cmekg.json", fields={"head": "中心词"}, relations={
        "相关症状": "症状", "所属科室": "所属科室"}), tmp_path)  # fmt: skip
    assert triples(found) == {("偏头痛", "症状", "头痛"), ("偏头痛", "所属科室", "神经内科")}
    found = rows(source("triple", "39health.csv", fields={"head": "疾病"}, relations={
        "典型症状": "症状", "就诊科室": "就诊科室"}), tmp_path)  # fmt: skip
    assert {tail for _, relation, tail in triples(found) if relation == "症状"} == {
        "腹痛", "恶心", "嗳气"}  # fmt: skip
    assert {"症状", "所属科室", "就诊科室", "科室", "宜吃"} <= set(load_templates())


LETTERS = {f"options.{letter}": letter for letter in "ABCD"}
EXAMS = {
    "ceval.csv": (
        "id,question,A,B,C,D,answer,explanation\n0,哪项对？,甲,乙,丙,丁,B,略\n",
        {"fields": LETTERS},
    ),
    "cmmlu.csv": (
        ",Question,A,B,C,D,Answer\n0,哪项对？,甲,乙,丙,丁,B\n",
        {"fields": {**LETTERS, "id": "$place", "question": "Question", "answer": "Answer"}},
    ),
    "cmexam.csv": (
        'Question,Options,Answer,Explanation\n哪项对？,"A 甲\nB 乙\nC 丙\nD 丁",B,略\n',
        {"fields": {"id": "$place", "question": "Question", "options": "Options",
                    "answer": "Answer"}},
    ),
    "cmexam.json": (
        json.dumps([{"Question": "哪项对？", "Answer": "B", "Options": [
            {"key": key, "value": value} for key, value in zip("ABCD", "甲乙丙丁", strict=True)]}]),
        {"fields": {"id": "$place", "question": "Question", "options": "Options",
                    "answer": "Answer"}},
    ),
    "medqa.jsonl": (
        json.dumps({"question": "哪项对？", "answer": "乙", "meta_info": "step1", "answer_idx": "B",
                    "options": {"A": "甲", "B": "乙", "C": "丙", "D": "丁", "E": ""}}),
        {"fields": {"id": "$place", "answer": "answer_idx"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMS)
def test_exam_sets(tmp_path, name):
    text, settings = EXAMS[name]
    write(tmp_path / name, text)
    (row,) = rows(source("exam", name, **settings), tmp_path)
    assert isinstance(row, Exam), row
    question = exam_question(row, "dev")
    assert question.model_dump() == {
        "id": row.id, "question": "哪项对？", "answer": "B", "subject": "", "split": "dev",
        "options": {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}}  # fmt: skip


def cmedqa2(data: Path) -> TaskSource:
    write(data / "question.csv", "question_id,content\n"
          + "".join(f"{k},失眠{k}天怎么办\n" for k in range(200)) + ",无号\n")  # fmt: skip
    answers = [f"{100 * k + n},{k},答{k}-{n}\n" for n in range(3) for k in range(1, 200)]
    write(data / "answer.csv", "".join(["ans_id,question_id,content\n", *answers, "9,999,x\n"]))
    return source("consultation", "question.csv", answers={"path": "answer.csv"},
                  fields={"id": "question_id", "scenario": "content"})  # fmt: skip


def test_cmedqa2_gives_each_question_one_answer_by_seed(tmp_path):
    found = cmedqa2(tmp_path)
    made = rows(found, tmp_path)
    good = [row for row in made if not isinstance(row, Rejected)]
    assert len(good) == 199 == len({row.id for row in good})
    assert all(row.response.startswith(f"答{row.id}-") for row in good)
    assert {row for row in made if isinstance(row, Rejected)} == {
        Rejected("question.csv", 2, "no_answer"), Rejected("answer.csv", 599, "no_question"),
        Rejected("question.csv", 202, "missing_field:question_id"),
    }  # fmt: skip
    # Each of three answers is taken 199 / 3 = 66 times, standard deviation 6.6.
    taken = [sum(row.response.endswith(f"-{n}") for row in good) for n in range(3)]
    assert all(40 < times < 93 for times in taken)
    assert made == rows(found, tmp_path)
    other = [row for row in rows(found, tmp_path, seed=1) if not isinstance(row, Rejected)]
    assert 80 < sum(a.response != b.response for a, b in zip(good, other, strict=True)) < 180


DIALOGUES = {
    "sharegpt.json": (
        [{"id": "x", "conversations": [{"from": "system", "value": "你是医生"},
                                       {"from": "human", "value": "咳嗽"},
                                       {"from": "gpt", "value": "几天？"}]}],
        {"turns": "conversations"}),
    "openai.json": (
        [{"id": "x", "messages": [{"role": "user", "content": "咳嗽"},
                                  {"role": "assistant", "content": "几天？"}]}],
        {"turns": "messages"}),
    "meddialog.json": (
        [{"id": "x", "description": "咳嗽", "utterances": ["patient: 咳嗽", "doctor: 几天？"]}],
        {"turns": "utterances"}),
    "meddialog_zh.json": (
        [["病人：咳嗽", "医生：几天？"]], {"id": "$place", "turns": "items"}),
    "meddialog_hf.json": (
        [{"dialogue_id": 3, "dialogue_turns": {"speaker": ["病人", "医生"],
                                               "utterance": ["咳嗽", "几天？"]}}],
        {"id": "dialogue_id", "turns": "dialogue_turns"}),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogues(tmp_path, name):
    content, fields = DIALOGUES[name]
    write(tmp_path / name, json.dumps(content, ensure_ascii=False))
    (row,) = rows(source("dialogue", name, fields=fields), tmp_path)
    assert isinstance(row, Dialogue), row
    assert [(turn.role, turn.text) for turn in row.turns] == [
        ("patient", "咳嗽"), ("doctor", "几天？")]  # fmt: skip


def test_wrong_settings_and_a_renamed_column_are_named(tmp_path):
    with pytest.raises(ConfigError, match="relations belong to a source of kind triple"):
        source("exam", "a.csv", relations={"a": "b"})
    with pytest.raises(ConfigError, match="answers belong to a source of kind consultation"):
        source("exam", "a.csv", answers={"path": "b.csv"})
    found = cmedqa2(tmp_path)
    write(tmp_path / "question.csv", "qid,content\n1,x\n")
    with pytest.raises(DataError, match=r"\(question.csv:2: missing_field:question_id\)"):
        rows(found, tmp_path)
