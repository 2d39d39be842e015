"""Audit labels: verdicts, evidence and balance."""

import re
from collections import Counter

import pytest

from medray.common.sentences import split_sentences
from medray.sample.audit import populations, write_audit
from medray.sample.model import shipped_model
from medray.sample.text import Speller

AUDITS = [write_audit(shipped_model(), f"t:{i}", Speller({}, 0), "医院") for i in range(600)]


def sentence(index: int, task: str) -> str:
    written, labels, _ = AUDITS[index]
    place = labels["evidence"][task]
    text = next(s["text"] for s in written.sections if s["heading"] == place["section"])
    start, end = split_sentences(text)[place["sentence"]]
    return text[start:end]


def test_each_verdict_has_evidence_and_each_gap_none() -> None:
    for _, labels, _ in AUDITS:
        for task, value in labels["tasks"].items():
            assert (labels["evidence"][task] is None) == (value is None)


def test_residual_stenosis_and_flow_agree_with_the_sentence() -> None:
    """An independent reading of the numbers in the evidence."""
    checked = 0
    for index, (_, labels, _) in enumerate(AUDITS):
        for task, limit in (("T1", 20), ("T2", 50)):
            if labels["indicator"] != "pci-angio-success" or labels["tasks"][task] is None:
                continue
            text = sentence(index, task)
            found = re.search(r"(?:残余狭窄约?|降至)(\d+)%", text)
            assert labels["tasks"][task] == ((int(found[1]) if found else 0) < limit)
            assert found or "无残余" in text or "未见残余" in text
            checked += 1
        if labels["indicator"] == "pci-angio-success" and labels["tasks"]["T3"] is not None:
            is_three = re.search(r"(3|Ⅲ|III)级", sentence(index, "T3")) is not None
            assert labels["tasks"]["T3"] == is_three
    assert checked > 50


def test_fibrillation_evidence_names_it() -> None:
    for index, (_, labels, disease) in enumerate(AUDITS):
        if labels["indicator"] == "af-risk-assessed":
            assert re.search("房颤|心房颤动", sentence(index, "AF"))
            assert labels["tasks"]["AF"] == (disease == "心房颤动")


def test_records_say_nothing_about_tasks_not_mentioned() -> None:
    words = {"T1": r"CHA.?DS.?-VASc|栓塞风险|卒中风险", "VALVULAR": r"瓣膜|二尖瓣"}
    for written, labels, _ in AUDITS:
        if labels["indicator"] == "af-risk-assessed":
            text = "".join(s["text"] for s in written.sections)
            for task, pattern in words.items():
                if labels["tasks"][task] is None:
                    assert not re.search(pattern, text), (task, labels)


def test_tasks_are_balanced() -> None:
    counts: Counter[tuple[str, str, bool | None]] = Counter()
    for _, labels, _ in AUDITS:
        for task, value in labels["tasks"].items():
            counts[labels["indicator"], task, value] += 1
    for indicator, task, _ in list(counts):
        met, unmet = counts[indicator, task, True], counts[indicator, task, False]
        assert min(met, unmet) / (met + unmet) >= 0.25, (indicator, task)


@pytest.mark.parametrize(
    ("tasks", "numerator"),
    [
        ({"PCI": True, "T1": True, "T2": None, "T3": True}, True),
        ({"PCI": True, "T1": None, "T2": False, "T3": True}, None),
        ({"PCI": True, "T1": None, "T2": None, "T3": False}, False),
        ({"PCI": True, "T1": True, "T2": None, "T3": None}, None),
    ],
)
def test_populations_of_intervention_by_hand(
    tasks: dict[str, bool | None], numerator: bool | None
) -> None:
    assert populations("pci-angio-success", tasks)["numerator"] is numerator


def test_populations_of_fibrillation_by_hand() -> None:
    valvular = populations("af-risk-assessed", {"AF": True, "VALVULAR": True, "T1": None})
    assert valvular == {"initial-population": True, "denominator": False, "numerator": False}
    open_case = populations("af-risk-assessed", {"AF": True, "VALVULAR": None, "T1": True})
    assert open_case == {"initial-population": True, "denominator": None, "numerator": True}
