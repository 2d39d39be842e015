"""Verdicts and their evidence."""

from itertools import pairwise

import pytest

from medray.common.errors import QualityError
from medray.corpus.readers.headings import split_sections
from medray.quality.evidence import cite, is_valid
from medray.quality.indicators import load_indicators
from medray.quality.protocols import Greedy
from medray.quality.verdict import judge, values

PCI = load_indicators()["pci-angio-success"]
AF = load_indicators()["af-risk-assessed"]
REPORT = "于前降支植入支架一枚。术后残余狭窄10%。TIMI血流3级。"


def run(document, engine, indicator=PCI, notes=()):
    rows = judge(
        [document],
        [indicator],
        engine,
        lambda *_: list(notes),
        batch_size=3,
        sampling=Greedy(max_new_tokens=8),
    )
    return {row.task: row for row in rows}


def test_evidence_is_what_the_model_quoted(record, engine) -> None:
    document = record(主诉="胸痛。", 手术记录=REPORT)
    replies = {
        "介入": "“于前降支植入支架一枚。”是",
        "<20%": "“术后残余狭窄10%”是",
        "<50%": "未提及",
        "TIMI分级": "“TIMI血流3级。”是",
    }
    fake = engine(
        lambda prompt: next(v for k, v in replies.items() if k in prompt.split("质控")[1])
    )
    rows = run(document, fake)
    assert values(rows.values()) == {"PCI": True, "T1": True, "T2": None, "T3": True}
    evidence = rows["T1"].evidence
    assert evidence.quote == "术后残余狭窄10%"
    assert document.sections[evidence.section].text[evidence.start : evidence.end] == evidence.quote
    assert "胸痛" not in fake.prompts[0], "only the indicator's sections are read"
    # Of 是 (0), 否 (−3) and 未提及 (−3) after the quotation: 1 / (1 + 2 e^-3) = 0.9094.
    assert rows["T1"].p_yes == pytest.approx(0.9094, abs=1e-4)


def test_a_text_whose_headings_got_their_common_names_is_read(record, engine) -> None:
    [section] = split_sections(f"手术记录：{REPORT}", is_record=True)
    rows = run(
        record(**{section["heading"]: section["text"]}), engine(lambda _: "“术后残余狭窄10%”是")
    )
    assert rows["T1"].evidence.quote == "术后残余狭窄10%"


@pytest.mark.parametrize(
    "reply", ["是", "“”是", "“植入支架两枚。”是", "“一枚。术后残余”是", "“。”是", "“10%”是"]
)
def test_met_without_valid_evidence_is_unknown(record, engine, reply) -> None:
    rows = run(record(手术记录=REPORT), engine(lambda _: reply))
    assert {row.value for row in rows.values()} == {None}
    assert {row.reason for row in rows.values()} == {"no_evidence"}


def test_an_answer_that_is_no_verdict_is_unknown_even_where_absence_is_not(record, engine) -> None:
    rows = run(record(现病史="房颤病史。"), engine(lambda _: "大概吧"), AF)
    assert {(row.value, row.reason) for row in rows.values()} == {(None, "unparsed")}


def test_absence_means_what_the_task_says(record, engine) -> None:
    rows = run(record(现病史="房颤病史。"), engine(lambda _: "未提及"), AF)
    assert values(rows.values()) == {"AF": False, "VALVULAR": None, "T1": False}


def test_a_record_without_the_sections_is_not_asked_about(record, engine) -> None:
    fake = engine(lambda _: "“胸痛。”是")
    rows = run(record(主诉="胸痛。"), fake)
    assert fake.prompts == []
    assert rows["PCI"].value is False
    assert rows["T3"].value is None
    assert rows["T3"].p_yes is None


def test_a_long_record_is_read_in_windows_and_met_in_one_is_met(record, engine) -> None:
    text = "一般情况可。" * 30 + REPORT

    def reply(prompt: str) -> str:
        return "“TIMI血流3级。”是" if "TIMI血流3级" in prompt else "未提及"

    fake = engine(reply, max_tokens=120)
    rows = run(record(手术记录=text), fake)
    assert rows["T3"].num_windows > 1
    seen = "".join(p.split("质控")[0] for p in fake.prompts if "TIMI分级" in p)
    assert seen.count("一般情况可") == 30, "no sentence is left out"
    assert rows["T3"].value is True
    assert rows["T3"].evidence.quote == "TIMI血流3级。"


def test_windows_are_asked_in_the_order_of_the_record(record, engine) -> None:
    text = "".join(f"第{k}日平稳。" for k in range(60))
    fake = engine(lambda _: "“第7日平稳。”是", max_tokens=120)
    rows = run(record(手术记录=text), fake)
    for asked in ("介入", "<20%", "<50%", "TIMI"):
        windows = [p for p in fake.prompts if asked in p.split("质控")[1]]
        assert len(windows) == rows["T1"].num_windows > 2
        read = "".join(p.split("\n")[0].removeprefix("病历：") for p in windows)
        assert read == text
    # All windows of a sub-task stand together: neighbours share a batch.
    changes = sum(a.split("质控")[1] != b.split("质控")[1] for a, b in pairwise(fake.prompts))
    assert changes == 3


def test_a_sentence_longer_than_the_context_is_an_error_without_its_text(record, engine) -> None:
    with pytest.raises(QualityError, match="does not fit") as caught:
        run(record(手术记录="残余狭窄" * 100), engine(lambda _: "“残余狭窄”是", max_tokens=120))
    assert "残余狭窄残余狭窄" not in str(caught.value)


def test_knowledge_stands_in_the_prompt(record, engine) -> None:
    fake = engine(lambda _: "未提及")
    run(record(手术记录=REPORT), fake, notes=["TIMI 3级为完全灌注。"])
    assert all("说明：TIMI 3级为完全灌注。" in prompt for prompt in fake.prompts)


def test_evidence_holds_only_where_its_quote_stands(record) -> None:
    from medray.common.sentences import numbered_sentences

    document = record(手术记录=REPORT)
    evidence = cite(document, numbered_sentences(document.sections), "术后残余狭窄10%。")
    assert evidence is not None
    assert is_valid(evidence, document)
    moved = evidence.model_copy(update={"start": evidence.start + 1})
    assert not is_valid(moved, document)
    assert not is_valid(evidence, record(doc_id="other", 手术记录=REPORT))
    assert not is_valid(evidence.model_copy(update={"section": 3}), document)
