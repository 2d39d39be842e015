"""Overlap with evaluation items, on hand-made texts whose n-grams are counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from medray.common.errors import DataError
from medray.common.records import Document, Section
from medray.corpus.decontaminate import (
    DecontaminationConfig,
    EvaluationIndex,
    build_index,
    decontaminate,
)

# 16 letters have four 13-grams.
CHINESE = "急性心肌梗死最常见的心律失常是什"
ENGLISH = "Which drug is best for angina"  # 24 letters without blanks: twelve 13-grams


def document(*texts: str, source: str = "books") -> Document:
    return Document(
        doc_id="1", kind="literature", source=source, split="train",
        sections=[Section(heading=h, text=t) for h, t in zip("ABC", texts, strict=False)],
    )  # fmt: skip


def index(tmp_path: Path, *questions: str, **settings) -> EvaluationIndex:
    lines = [json.dumps({"question": q, "split": "dev"}) for q in questions]
    (tmp_path / "exam.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return build_index(
        DecontaminationConfig.parse(
            {"sets": [{"name": "exam", "path": "exam.jsonl", "texts": ["question"]}], **settings},
            "test",
        ),
        tmp_path,
    )


@pytest.mark.parametrize("item", [CHINESE, ENGLISH])
def test_twelve_characters_are_no_overlap_and_thirteen_are(tmp_path, item):
    letters = "".join(filter(str.isalnum, item))
    found = index(tmp_path, letters[:13], min_fraction=1)
    assert found.sizes_I.tolist() == [1]
    for text, expected in (
        (f"前文{letters[:12]}。后文", []),
        (f"前文{letters[1:13]}。后文", []),
        (f"前文{letters[:13]}。后文", [0]),
        (f"前文 {letters[:5].upper()}，\n{letters[5:13]}。后文", [0]),  # another layout
    ):
        assert found.find([text]).tolist() == expected


def test_the_share_of_an_items_ngrams_decides(tmp_path):
    """15 of the 16 letters hold three of the four n-grams."""
    for least, expected in ((0.75, [0]), (0.76, [])):
        found = index(tmp_path, CHINESE, min_fraction=least)
        assert found.sizes_I.tolist() == [4]
        assert found.find([CHINESE[:15]]).tolist() == expected
    # Over two sections: one n-gram in the first, two in the second; repeats count once.
    found = index(tmp_path, CHINESE, min_fraction=0.75)
    assert found.find([CHINESE[:13], CHINESE[2:]]).tolist() == [0]
    assert found.find([CHINESE[:13] * 3, CHINESE[3:]]).tolist() == []
    assert found.find([]).tolist() == [] and found.find(["短"]).tolist() == []


def test_english_phrases_that_many_texts_share_are_no_contamination(tmp_path):
    found = index(tmp_path, ENGLISH)  # 24 letters, 12 n-grams, least share 0.7
    assert found.sizes_I.tolist() == [12]
    assert found.find(["The question which drug is best remains open."]).tolist() == []  # 3 of 12
    assert found.find(["Q1. WHICH DRUG is\nbest, for angina?"]).tolist() == [0]


def test_items_share_ngrams(tmp_path):
    found = index(tmp_path, CHINESE, CHINESE[:13] + "不同的结尾在这里", "短题")
    assert found.sizes_I.tolist() == [4, 9]
    assert found.too_short == {"exam": 1}
    assert found.find([CHINESE]).tolist() == [0]
    assert len(found.hashes_G) == 13 and (np.diff(found.hashes_G.astype(float)) >= 0).all()


def test_rejected_or_cut(tmp_path):
    text = f"冠心病概述。{CHINESE}么？治疗首选静脉用药。"
    found = index(tmp_path, CHINESE)
    assert decontaminate(document("无关的一段文字。"), found) == (document("无关的一段文字。"), [])
    assert decontaminate(document("概述", text), found) == (None, ["exam"])
    cutting = index(tmp_path, CHINESE, action="cut")
    assert decontaminate(document("概述", text), cutting) == (
        document("概述", "冠心病概述。治疗首选静脉用药。"), ["exam"]
    )  # fmt: skip
    assert decontaminate(document(f"{CHINESE}么？"), cutting) == (None, ["exam"])
    # Case folding makes two letters of one: places in the text must not slip.
    sharp = f"ßß开头。{CHINESE}么？结尾ß。"
    assert decontaminate(document(sharp), cutting)[0] == document("ßß开头。结尾ß。")


def test_kept_sources_are_not_looked_at(tmp_path):
    found = index(tmp_path, CHINESE, keep=["books"])
    assert decontaminate(document(CHINESE), found) == (document(CHINESE), [])
    assert decontaminate(document(CHINESE, source="web"), found) == (None, ["exam"])


def test_items_of_several_fields_and_of_one_split(tmp_path):
    rows = [
        {"question": "下列哪项正确", "split": "dev",
         "options": {"A": "急性心肌梗死的典型心电图表现为段抬高", "B": "短"}},
        {"question": CHINESE, "split": "train", "options": {}},
    ]  # fmt: skip
    (tmp_path / "exam.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"name": "exam", "path": "exam.jsonl", "texts": ["question", "options"]}
    found = build_index(
        DecontaminationConfig.parse({"sets": [settings | {"where": {"split": "dev"}}]}, "test"),
        tmp_path,
    )
    assert found.sizes_I.tolist() == [6]  # 18 letters of option A; no n-gram joins two fields
    assert found.find([CHINESE]).tolist() == []
    wrong = DecontaminationConfig.parse({"sets": [settings | {"texts": ["stem"]}]}, "test")
    with pytest.raises(DataError, match="none of 2 rows has 13 letters in stem"):
        build_index(wrong, tmp_path)
