"""The two answer formats are read back as they were written."""

import pytest

from medray.generation.prompts import (
    NO_ANSWER,
    QUALITY_QUESTION,
    RECORD,
    VERDICTS,
    Citation,
    Numbered,
    Verdict,
    check_citation,
    citable_texts,
    diagnosis_prompt,
    exam_prompt,
    formats,
    grounded_answer,
    grounded_prompt,
    parse_citations,
    parse_verdict,
    passage_line,
    quality_answer,
    quality_prompt,
    read_passages,
    replace_citations,
)

PASSAGES = [
    Numbered("肺炎 治疗", "首选青霉素。疗程7天。"),
    Numbered("哮喘 症状", "喘息[1]，咳嗽。"),
]


def test_grounded_prompt_by_hand() -> None:
    assert grounded_prompt("怎么治疗肺炎？", PASSAGES) == (
        "问题：怎么治疗肺炎？\n资料：\n"
        "《肺炎 治疗》[1]：“首选青霉素。疗程7天。”\n《哮喘 症状》[2]：“喘息[1]，咳嗽。”"
    )


def test_passages_are_read_back() -> None:
    assert read_passages(grounded_prompt("问", PASSAGES)) == PASSAGES
    assert read_passages(grounded_prompt("问", [])) == []


def test_a_grounded_answer_is_read_back_and_holds() -> None:
    answer = grounded_answer("肺炎 治疗", 1, "首选青霉素")
    assert parse_citations(answer) == [Citation("肺炎 治疗", 1, "首选青霉素")]
    assert check_citation(parse_citations(answer)[0], PASSAGES) is None
    # The answer begins like the passage's own line: quoting is copying on.
    assert answer.removesuffix("”。") == passage_line(1, PASSAGES[0])[: len(answer) - 2]


def test_several_citations_in_order() -> None:
    answer = grounded_answer("哮喘 症状", 2, "咳嗽") + grounded_answer("肺炎 治疗", 1, "疗程7天")
    assert [citation.number for citation in parse_citations(answer)] == [2, 1]


@pytest.mark.parametrize("answer", [NO_ANSWER, "", "首选。", "《肺炎》：“首选”", "[1]：“首选”"])
def test_no_citation(answer: str) -> None:
    assert parse_citations(answer) == []


@pytest.mark.parametrize(
    ("number", "quote", "fault"),
    [
        (0, "首选", "no_such_passage"),
        (3, "首选", "no_such_passage"),
        (1, "喘息", "quote_not_in_passage"),
        (1, "", "quote_not_in_passage"),
        (1, "首选 青霉素", "quote_not_in_passage"),
        (2, "喘息[1]", None),
    ],
)
def test_check_citation(number: int, quote: str, fault: str | None) -> None:
    assert check_citation(Citation("t", number, quote), PASSAGES) == fault


@pytest.mark.parametrize("value", [True, False, None])
@pytest.mark.parametrize("sentence", ["", "TIMI血流3级。", "是。", "一\n二"])
def test_a_verdict_is_read_back(value: bool | None, sentence: str) -> None:
    answer = quality_answer(value, sentence)
    expected = "" if value is None else sentence  # what is not mentioned stands nowhere
    assert parse_verdict(answer) == Verdict(value, expected)
    assert parse_verdict(f" {answer}。") == Verdict(value, expected)


def test_verdicts_by_hand() -> None:
    assert quality_answer(True, "TIMI 3级。") == "“TIMI 3级。”是"
    assert quality_answer(False, "自述“无房颤”。") == "“自述“无房颤”否"  # up to the closing quote
    assert quality_answer(None, "TIMI 3级。") == "未提及"
    clauses = "甲" * 40 + "，" + "乙" * 40 + "。"
    assert quality_answer(True, clauses) == f"“{'甲' * 40}，”是"  # 60 characters at most
    assert quality_answer(True, "甲" * 80) == f"“{'甲' * 80}”是"  # but whole clauses
    assert parse_verdict("“房颤。”未提及") == Verdict(None, "")
    for answer in ("", "不是", "“房颤。", "“房颤。”", "“房颤。”不", "房颤。”是", "不知道"):
        assert parse_verdict(answer) is None


def test_what_an_answer_may_quote_by_hand() -> None:
    assert citable_texts(grounded_prompt("问？", PASSAGES)) == dict(enumerate(PASSAGES, 1))
    prompt = quality_prompt("是否评估", ["量表\n评分"], ["一。", "质控：", "二。"])
    assert citable_texts(prompt) == {RECORD: Numbered("", "一。质控：\n二。")}
    assert 0 in citable_texts("《a》[0]：“b”")  # a passage of that number, not a record
    assert citable_texts("病历：一。") == citable_texts("房颤用什么药？") == {}


def test_formats_hold_every_word_of_the_answers() -> None:
    written = "".join(formats())
    for text in (
        *VERDICTS,
        NO_ANSWER,
        QUALITY_QUESTION,
        "《》[1]：“”",
        "病历：",
        "问题：",
        "资料：",
    ):
        assert text in written


def test_the_other_prompts_by_hand() -> None:
    assert diagnosis_prompt("咳嗽。") == "根据以下症状进行诊断：咳嗽。"
    assert quality_prompt("是否评估", ["量表"], ["一。", "二。"]) == (
        "病历：一。二。\n说明：量表\n质控：是否评估？"
    )
    assert exam_prompt("问？", {"A": "甲", "B": "乙"}) == "问？\nA. 甲\nB. 乙\n答案："


def test_citations_in_the_way_of_each_other() -> None:
    """The first 《 before a 》, as far as the first ” behind."""
    answer = "甲《乙《丙》[1]：“丁》[2]：“戊”己》《》[3]：“”《庚》[4]：“辛"
    found = [("乙《丙", 1, "丁》[2]：“戊"), ("", 3, "")]
    assert parse_citations(answer) == [Citation(*one) for one in found]
    assert replace_citations(answer, lambda one: f"<{one.number}>") == "甲<1>己》<3>《庚》[4]：“辛"


def test_texts_that_open_and_never_close_are_read_once() -> None:
    """Each would take hours if every opening were followed to the text's end."""
    many = 1_000_000
    for text in ("《" * many, "《》[1]：“" * many, "《甲》" * many, "《" * many + "》" * many):
        assert parse_citations(text) == []
    assert citable_texts("《\n" * many) == {}
    assert citable_texts("病历：" + "\n说明：甲" * 100_000 + "\n无") == {}
    assert parse_citations(f"《甲》[{'1' * 5000}]：“乙”") == []  # Python converts no such number
