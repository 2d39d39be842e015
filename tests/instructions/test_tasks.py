"""Each task on one row worked by hand, and on rows it must refuse."""

import pytest

from medray.common.records import Document, Instruction, Section
from medray.generation.prompts import NO_ANSWER, Numbered, check_citation, parse_citations
from medray.instructions.conversations import consultation, dialogue, doctor_text, instruction
from medray.instructions.examples import Skipped, clip, render_sections
from medray.instructions.exams import exam, exam_question
from medray.instructions.grounded import grounded
from medray.instructions.knowledge_graph import (
    KnowledgeGraphConfig,
    knowledge_graph,
    load_templates,
)
from medray.instructions.partial import CLAUSE, PartialConfig, partial_copies
from medray.instructions.raw import Consultation, Dialogue, Exam, Generic, Grounded, Turn
from medray.instructions.records import (
    FINDINGS,
    diagnosis,
    differential,
    first_diagnosis,
    treatment,
)


def same(text: str) -> str:
    return text


def record(**texts: str) -> Document:
    return Document(
        doc_id="r1", patient_id="p1", kind="emr", department="心内科", source="records",
        split="dev", sections=[Section(heading=h, text=t) for h, t in texts.items()],
    )  # fmt: skip


def turns_of(made: Instruction | Skipped) -> list[tuple[str, str]]:
    assert isinstance(made, Instruction), made
    return [(m.role, m.content) for m in made.messages]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1. 社区获得性肺炎（J18.9）；2. 高血压病", "社区获得性肺炎"),
        ("初步诊断：1、心房颤动 I48.0", "心房颤动"),
        ("2型糖尿病(E11.9)。", "2型糖尿病"),
        ("急性阑尾炎？", "急性阑尾炎"),
        ("支气管炎", "支气管炎"),
        ("肺炎[ICD-10：J18.901]", "肺炎"),
        ("（1）胃溃疡，（2）贫血", "胃溃疡"),
        ("", ""),
        ("；。", ""),
    ],
)
def test_first_diagnosis(text: str, name: str) -> None:
    assert first_diagnosis(text) == name


def test_diagnosis_leaves_the_answer_out_of_the_prompt() -> None:
    made = diagnosis(
        record(诊断="肺炎（J18.9）", 现病史="咳嗽。", 主诉="发热3天", 治疗="抗感染"), 99
    )
    assert turns_of(made) == [
        ("user", "根据以下症状进行诊断：主诉：发热3天现病史：咳嗽。"), ("assistant", "肺炎"),
    ]  # fmt: skip
    assert isinstance(made, Instruction)
    assert (made.answer, made.group, made.split) == ("肺炎", "心内科", "dev")
    assert diagnosis(record(主诉="发热"), 99) == Skipped("no_diagnosis")
    assert diagnosis(record(诊断="肺炎", 治疗="x"), 99) == Skipped("no_history")


def test_partial_copies_leave_out_clauses_and_nothing_else() -> None:
    clauses = [f"症状{k}，" for k in range(1000)] + ["血钾3.4mmol/L，1,200例。", "last, one; two"]
    whole = record(现病史="".join(clauses), 诊断="肺炎，重症。")
    config = PartialConfig(copies=2, drop=0.25)
    first, second = partial_copies(whole, FINDINGS, config)
    texts = [copy.sections[0].text for copy in (first, second)]
    for text in texts:
        rest = iter(clauses[:1000])
        kept = [piece + "，" for piece in text.split("，") if piece.startswith("症状")]
        assert all(piece in rest for piece in kept)  # in order, unchanged
        assert len(kept) == pytest.approx(750, abs=60)  # 4.4 standard deviations of 13.7
    assert texts[0] != texts[1]
    assert [first, second] == list(partial_copies(whole, FINDINGS, config))
    assert first.sections[1].text == "肺炎，重症。"  # the answer is not a finding
    assert CLAUSE.findall("".join(clauses[1000:])) == [
        "血钾3.4mmol/L，", "1,200例。", "last,", " one;", " two",
    ]  # fmt: skip
    assert list(partial_copies(whole, FINDINGS, PartialConfig())) == []


def test_treatment_and_differential() -> None:
    full = record(主诉="心悸。", 诊断="房颤", 治疗="抗凝。复查。", 拟诊讨论="鉴别房扑。")
    assert turns_of(treatment(full, 99, 99)) == [
        ("user", "患者诊断为房颤。主诉：心悸。请给出治疗方案："), ("assistant", "抗凝。复查。"),
    ]  # fmt: skip
    assert turns_of(treatment(full, 99, 4))[1] == ("assistant", "抗凝。")
    assert turns_of(differential(full, 99, 99)) == [
        ("user", "请对以下病例进行鉴别诊断分析：主诉：心悸。"), ("assistant", "鉴别房扑。"),
    ]  # fmt: skip
    assert treatment(record(诊断="房颤"), 99, 99) == Skipped("no_treatment")
    assert differential(record(主诉="心悸"), 99, 99) == Skipped("no_discussion")


def test_long_sections_are_cut_before_short_ones() -> None:
    #   headings and colons take 2 * 3 = 6 of 20 characters; 14 are left: the short section keeps
    #   its 4, the long one gets 10 and is cut after its second sentence (8 characters)
    sections = [
        Section(heading="主诉", text="一二三。四五六。七八九。十"),
        Section(heading="体检", text="正常。x"),
    ]
    text = render_sections(sections, ["主诉", "体检"], 20)
    assert text == "主诉：一二三。四五六。体检：正常。x"
    assert render_sections(sections, ["无"], 20) == ""
    assert clip("没有标点的长句", 3) == "没有标"
    assert clip("短。", 3) == "短。"


def test_consultation_and_instruction() -> None:
    row = Consultation(id="1", scenario="失眠", response="规律作息。少喝咖啡。")
    made = consultation(row, "train", lambda text: text.replace("咖啡", "[药]"), 99, 99)
    assert turns_of(made)[1] == ("assistant", "规律作息。少喝[药]。")
    assert consultation(row, "train", same, 1, 99) == Skipped("prompt_too_long")
    generic = Generic(id="1", instruction="翻译", input="cough", output="咳嗽")
    assert turns_of(instruction(generic, "dev", same, 99, 99))[0] == ("user", "翻译\ncough")
    blank = Generic(id="1", instruction="翻译", output=" ")
    assert instruction(blank, "dev", same, 99, 99) == Skipped("empty_text")


def dialogue_of(*turns: tuple[str, str]) -> Dialogue:
    return Dialogue.model_validate(
        {"id": "1", "diagnosis": "肺炎", "turns": [{"role": r, "text": t} for r, t in turns]}
    )


def test_a_dialogue_runs_from_the_patient_to_the_doctor() -> None:
    row = dialogue_of(
        ("doctor", "您好"), ("patient", "咳嗽"), ("patient", "发热"), ("doctor", "几天？"),
        ("patient", "三天"), ("doctor", "拍片。"), ("patient", "谢谢"),
    )  # fmt: skip
    made = dialogue(row, "train", same, 99, 99)
    assert turns_of(made) == [
        ("user", "咳嗽\n发热"), ("assistant", "几天？"), ("user", "三天"), ("assistant", "拍片。"),
    ]  # fmt: skip
    # The first pair has 5 + 3 characters, the second 2 + 3 more.
    assert len(turns_of(dialogue(row, "train", same, 12, 99))) == 2
    assert dialogue(row, "train", same, 7, 99) == Skipped("prompt_too_long")
    silent = dialogue_of(("doctor", "您好"), ("patient", "在吗"))
    assert dialogue(silent, "train", same, 99, 99) == Skipped("no_exchange")
    assert doctor_text([Turn(role="patient", text="a"), Turn(role="doctor", text="b")]) == "b"


def test_exam() -> None:
    row = Exam(id="1", question="哪项对？", options={"B": "乙", "A": "甲"}, answer="ba")
    question = exam_question(row, "dev")
    assert not isinstance(question, Skipped)
    assert (question.answer, list(question.options)) == ("AB", ["A", "B"])
    assert turns_of(exam(question, 99)) == [
        ("user", "哪项对？\nA. 甲\nB. 乙\n答案："), ("assistant", "AB"),
    ]  # fmt: skip
    assert exam(question, 5) == Skipped("prompt_too_long")
    wrong = row.model_copy(update={"answer": "C"})
    assert exam_question(wrong, "dev") == Skipped("answer_not_among_options")


PASSAGES = [
    {"title": "哮喘 治疗", "text": "吸入激素。"},
    {"title": "肺炎 治疗", "text": "用抗生素。"},
]


def grounded_of(gold: int | None, quote: str | None) -> Instruction | Skipped:
    row = Grounded.model_validate(
        {"id": "1", "question": "怎么治？", "passages": PASSAGES, "quote": quote, "gold": gold}
    )
    return grounded(row, "train", same)


def test_grounded_answers_cite_what_stands_there() -> None:
    (_, prompt), (_, answer) = turns_of(grounded_of(1, "用抗生素"))
    assert prompt == (
        "问题：怎么治？\n资料：\n《哮喘 治疗》[1]：“吸入激素。”\n《肺炎 治疗》[2]：“用抗生素。”"
    )
    assert answer == "《肺炎 治疗》[2]：“用抗生素”。"
    passages = [Numbered(p["title"], p["text"]) for p in PASSAGES]
    assert check_citation(parse_citations(answer)[0], passages) is None
    assert turns_of(grounded_of(None, None))[1] == ("assistant", NO_ANSWER)


@pytest.mark.parametrize(
    ("gold", "quote", "reason"),
    [
        (0, "用抗生素", "quote_not_in_passage"),
        (2, "用抗生素", "no_such_passage"),
        (1, None, "no_such_passage"),
        (1, "用”抗生素", "citation_unreadable"),
    ],
)
def test_a_grounded_row_that_does_not_hold_is_refused(
    gold: int, quote: str | None, reason: str
) -> None:
    assert grounded_of(gold, quote) == Skipped(reason)


def test_knowledge_graph_joins_the_tails() -> None:
    config = KnowledgeGraphConfig(templates_per_group=2, max_tails=2)
    rows = list(knowledge_graph("哮喘", "complication", ["气胸", "呼衰", "气胸", "肺心病"], config))
    # Sorted by code point: 呼 U+547C, 气 U+6C14, 肺 U+80BA; the third is over the limit.
    assert {row.messages[1].content for row in rows} == {
        "哮喘会引起呼衰、气胸等并发症。", "患有哮喘的患者可能出现呼衰、气胸等并发症。",
    }  # fmt: skip
    assert all(row.split == "train" for row in rows)
    english = KnowledgeGraphConfig(language="en")
    (row,) = knowledge_graph("Asthma", "has_symptom", ["wheeze", "cough"], english)
    assert "cough, wheeze" in row.messages[1].content


def test_templates_are_complete() -> None:
    aliases: list[str] = []
    for relation in {id(r): r for r in load_templates().values()}.values():
        aliases += relation.aliases
        for templates in (relation.zh, relation.en):
            assert len(templates) >= 2
            for template in templates:
                template.ask.format(head="h")
                assert template.answer.format(head="h", tails="t").count("t") >= 1
                assert "{tails}" in template.answer
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & {"symptom", "treatment", "complication"}
