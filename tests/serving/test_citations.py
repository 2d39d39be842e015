"""The citation gate, by hand-worked answers and by cutting the same answer everywhere."""

import pytest

from medray.generation.prompts import NO_ANSWER
from medray.serving.answering.citations import CitationGate, notice
from medray.serving.schema.grounding import FoundPassage


def passage(number: int, title: str, text: str, start: int = 0) -> FoundPassage:
    return FoundPassage(
        number=number, passage_id=f"p{number}", doc_id="d", title=title, section="治疗",
        start=start, end=start + len(text), source="手册", kind="guideline", date="", score=0.9,
        cosine=0.9, bm25=0.0, text=text,
    )  # fmt: skip


PASSAGES = [
    passage(1, "肺炎 治疗", "首选青霉素静脉滴注。疗程七天。"),
    passage(2, "心衰 治疗", "呋塞米利尿，限盐。", start=100),
]
GOOD = "《心衰 治疗》[2]：“呋塞米利尿”。"
CASES = {
    "good": (GOOD, GOOD, ["supported"], []),
    "plain": ("请休息。", "请休息。", ["uncited"], []),
    "no answer": (NO_ANSWER, NO_ANSWER, ["no_answer"], []),
    "no such passage": ("《肺炎 治疗》[3]：“青霉素”。", notice(1), ["failed"], ["no_such_passage"]),
    "passage zero": ("《肺炎 治疗》[0]：“青霉素”。", notice(1), ["failed"], ["no_such_passage"]),
    "not in passage": (
        "《肺炎 治疗》[1]：“呋塞米利尿”。", notice(1), ["failed"], ["quote_not_in_passage"],
    ),
    "empty quote": ("《肺炎 治疗》[1]：“”。", notice(1), ["failed"], ["quote_not_in_passage"]),
    "other title": ("《肺炎 治疗》[2]：“限盐”。", notice(1), ["failed"], ["other_title"]),
    "number without quote": ("应限盐[2]。", notice(1), ["failed"], ["no_quote"]),
    "other brackets": ("应限盐【2】。", notice(1), ["failed"], ["no_quote"]),
    "quote cut short": ("《肺炎 治疗》[1]：“首选青", notice(1), ["failed"], ["no_quote"]),
    "full stop inside the quote": (
        "《肺炎 治疗》[1]：“静脉滴注。疗程七天。”好。",
        "《肺炎 治疗》[1]：“静脉滴注。疗程七天。”好。",
        ["supported"], [],
    ),
    "one of three": (
        f"请休息。《肺炎 治疗》[1]：“吃药”。{GOOD}", f"请休息。{GOOD}{notice(1)}",
        ["uncited", "failed", "supported"], ["quote_not_in_passage"],
    ),
    "two in one sentence, one wrong": (
        "《心衰 治疗》[2]：“限盐”，《肺炎 治疗》[9]：“限盐”！", notice(1), ["failed"],
        ["no_such_passage"],
    ),
    "an open quote ends with its line": (
        f"他说“很好。\n{GOOD}", f"他说“很好。\n{GOOD}", ["uncited", "supported"], [],
    ),
    "two left out": ("[7]。[8]。", notice(2), ["failed", "failed"], ["no_quote", "no_quote"]),
    "empty": ("", "", [], []),
}  # fmt: skip


def run(deltas: list[str]) -> tuple[str, CitationGate]:
    gate = CitationGate(PASSAGES)
    return "".join([*map(gate.feed, deltas), gate.finish()]), gate


@pytest.mark.parametrize("name", CASES)
def test_answer_is_checked_and_cuts_do_not_matter(name):
    answer, shown, verdicts, faults = CASES[name]
    for cut in range(len(answer) + 1):
        text, gate = run([answer[:cut], answer[cut:]])
        assert text == shown
        assert [v.verdict for v in gate.verdicts] == verdicts
        assert [fault for v in gate.verdicts for fault in v.faults] == faults
    assert run(list(answer))[0] == shown


def test_nothing_of_a_sentence_is_sent_before_it_is_checked():
    gate = CitationGate(PASSAGES)
    sent = [gate.feed(character) for character in GOOD]
    assert sent[:-1] == [""] * (len(GOOD) - 1)
    assert sent[-1] == GOOD


def test_citation_points_into_the_document():
    _, gate = run([GOOD])
    [citation] = gate.citations
    # The passage is [100:109] of its section and the quote its first five characters.
    assert (citation.passage_id, citation.start, citation.end) == ("p2", 100, 105)
    assert (citation.source, citation.section) == ("手册", "治疗")
    assert citation.ok
    assert citation.sentence == 0


def test_failed_citation_is_reported_with_its_sentence():
    _, gate = run(["请休息。《肺炎 治疗》[5]：“青霉素”。"])
    [citation] = gate.citations
    assert (citation.sentence, citation.ok, citation.passage_id) == (1, False, None)
    assert (citation.source, citation.section) == ("", "")  # there is no fifth passage
    assert gate.verdicts[citation.sentence].verdict == "failed"


def test_notice_counts():
    assert notice(1) == "（一处引用未通过核对，已略去。）"
    assert notice(3) == "（3处引用未通过核对，已略去。）"
