import pytest

from medray.common.records import RawDocument, RawRecord
from medray.common.sources import Rejected, SourceRow
from medray.corpus.readers.headings import split_sections
from medray.corpus.sources import raw_row


def row(**values) -> SourceRow:
    return SourceRow("a.jsonl", 3, values)


def test_sections_as_a_list_a_mapping_or_a_text_give_the_same_record():
    base = {"record_id": "1", "patient_id": "2"}
    expected = [("主诉", "咳嗽3天"), ("诊断", "肺炎")]
    for values in (
        {"sections": [{"heading": "主诉", "text": "咳嗽3天"}, {"heading": "诊断", "text": "肺炎"}]},
        {"sections": {"主诉": "咳嗽3天", "既往史": "", "辅助检查": None, "诊断": "肺炎"}},
        {"text": "【主诉】咳嗽3天\n【诊断】：肺炎"},
        {"text": "【主诉】咳嗽3天【诊断】肺炎"},
    ):
        record = raw_row(row(**base, **values), "record")
        assert isinstance(record, RawRecord)
        assert [(s.heading, s.text) for s in record.sections] == expected


def test_markdown_headings_and_the_title_at_the_top():
    text = "肺炎\n# 临床表现\n咳嗽。\n#不是标题\n## 治疗\n抗生素。"
    assert split_sections(text, "肺炎") == [
        {"heading": "临床表现", "text": "咳嗽。\n#不是标题"},
        {"heading": "治疗", "text": "抗生素。"},
    ]
    assert split_sections("前言【病因】杆菌") == [
        {"heading": "", "text": "前言"},
        {"heading": "病因", "text": "杆菌"},
    ]
    assert split_sections("") == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "missing_field:sections"),
        ({"text": 5}, "invalid_field:text"),
        ({"text": " \n"}, "no_text"),
        ({"sections": {"主诉": ["咳嗽"]}}, "invalid_field:sections"),
        ({"sections": "咳嗽"}, "invalid_field:sections"),
        ({"sections": [{"heading": "主诉"}, {"heading": "诊断", "text": ""}]}, "no_text"),
        ({"sections": [{"text": "咳嗽"}]}, "missing_field:sections.*.heading"),
        ({"text": "咳嗽", "doc_id": None}, "missing_field:doc_id"),
    ],
)
def test_what_is_no_document_says_why(values, reason):
    assert raw_row(row(**{"doc_id": "1", **values}), "document") == Rejected("a.jsonl", 3, reason)


def test_fields_of_other_systems_are_left_out():
    document = raw_row(row(doc_id="1", text="咳嗽", aid="x", source="y"), "document")
    assert isinstance(document, RawDocument) and document.sections[0].text == "咳嗽"
