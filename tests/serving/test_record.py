"""A patient's record as passages, without a model: scores, offsets, places."""

import asyncio

import pytest

from medray.serving.messages import Embedded
from medray.serving.record.passages import beside, record_hits
from medray.serving.schema.base import ApiError
from medray.serving.schema.record import MOST_RECORD_CHARS, PatientRecord

LONG = "甲" * 200 + "。" + "乙" * 200 + "。"
RECORD = PatientRecord.model_validate(
    {
        "sections": [
            {"heading": "病程", "text": LONG, "date": "2024-01-02"},
            {"text": "。。\n阿司匹林"},
        ]
    }
)


async def embed(texts: list[str]) -> Embedded:
    """Across the question, but for the drug: cosine 0.6."""
    return Embedded([[0.6, 0.8] if "阿司" in t else [0.0, 1.0] for t in texts], 0)


def test_sections_become_passages_with_offsets_and_scores() -> None:
    hits = asyncio.run(record_hits(RECORD, "阿司匹林？", [1.0, 0.0], embed))
    assert [hit["passage_id"] for hit in hits] == ["record#1-3", "record#0-0", "record#0-201"]
    for hit in hits:
        section = RECORD.sections[int(hit["passage_id"][7])]
        assert hit["text"] == section.text[hit["start"] : hit["end"]]
        assert (hit["section"], hit["date"]) == (section.heading, section.date)
    assert [hit["title"] for hit in hits] == ["患者病历", "患者病历 病程", "患者病历 病程"]
    assert hits[0]["cosine"] == pytest.approx(0.6)
    # Best in both rankings: 0.5 (1.6 / 1.6) + 0.5. The others: 0.5 (1 / 1.6), and no word.
    assert [hit["score"] for hit in hits] == pytest.approx([1, 0.3125, 0.3125])
    assert [hit["bm25"] > 0 for hit in hits] == [True, False, False]


def test_a_record_without_a_word_has_no_passage() -> None:
    empty = PatientRecord.model_validate({"sections": [{"text": "。。。"}]})
    assert asyncio.run(record_hits(empty, "？", [1.0, 0.0], embed)) == []


@pytest.mark.parametrize(
    ("num_index", "num_record", "top_k", "expected"),
    [
        (9, 9, 4, "i0 r0 i1 r1"), (9, 9, 5, "i0 r0 i1 r1 i2"), (9, 9, 1, "r0"),
        (9, 1, 4, "i0 r0 i1 i2"), (1, 9, 4, "i0 r0 r1 r2"), (0, 9, 2, "r0 r1"),
        (9, 0, 2, "i0 i1"), (0, 0, 2, ""),
    ],
)  # fmt: skip
def test_places_are_shared(num_index: int, num_record: int, top_k: int, expected: str) -> None:
    index = [{"passage_id": f"i{k}"} for k in range(num_index)]
    record = [{"passage_id": f"r{k}"} for k in range(num_record)]
    shared = beside(index, record, top_k)
    assert " ".join(hit["passage_id"] for hit in shared) == expected


def test_a_record_that_is_too_long_is_refused_without_its_text() -> None:
    half = {"text": "病" * (MOST_RECORD_CHARS // 2), "heading": "史"}
    with pytest.raises(ApiError, match="30002 characters, more than 30000") as refused:
        PatientRecord.model_validate({"sections": [half, half]}).check()
    assert (refused.value.status, refused.value.code) == (400, "record_too_long")
    assert "病" not in str(refused.value)
