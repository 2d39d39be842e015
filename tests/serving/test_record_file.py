"""A record from a file: encodings, headings, JSON, refusals that repeat nothing of it."""

import json

import pytest

from medray.serving.record.file import decode, read_record
from medray.serving.schema.base import ApiError
from medray.serving.schema.record import MOST_FILE_CHARS, MOST_RECORD_CHARS, MOST_SECTIONS

TEXT = (
    "男，45岁。\n主诉：咳嗽三天\n【实验室检查】白细胞 12.3 ×10^9/L (3.5-9.5)，血红蛋白 98 g/L ↓\n"
)


@pytest.mark.parametrize(("raw", "encoding"), [
    (TEXT.encode(), "utf-8"), (TEXT.encode("utf-8-sig"), "utf-8"), (TEXT.encode("gbk"), "gbk"),
    (TEXT.replace("\n", "\r\n").encode("gb18030"), "gbk"),
])  # fmt: skip
def test_free_text_is_cut_at_headings_and_marked(raw: bytes, encoding: str) -> None:
    found = read_record(raw)
    assert found.encoding == encoding
    sections = found.record.sections
    assert [(s.heading, s.text) for s in sections] == [
        ("", "男，45岁。"), ("主诉", "咳嗽三天"),
        ("辅助检查", "白细胞 12.3 ×10^9/L (3.5-9.5)，血红蛋白 98 g/L ↓"),  # under its common name
    ]  # fmt: skip
    assert [
        (sections[a.section].text[a.start : a.end], a.direction) for a in found.abnormal
    ] == [("12.3", "high"), ("98", "low")]  # fmt: skip
    # 6; 2 + 4; 4 + 40
    assert (found.num_chars, found.max_chars) == (56, MOST_RECORD_CHARS)


def test_json_is_as_a_chat_takes_it() -> None:
    record = {"sections": [{"heading": "检验", "text": "K 6.1 (3.5-5.3)", "date": "2024-01-02"}],
              "patient_id": "患者1"}  # fmt: skip
    found = read_record(json.dumps(record, ensure_ascii=False).encode("gbk"))
    assert found.record.model_dump() == record
    assert [a.model_dump() for a in found.abnormal] == [
        {"section": 0, "start": 2, "end": 5, "direction": "high"}
    ]


def test_too_many_sections_end_in_one() -> None:
    text = "\n".join(f"【标题{k}】\n内容{k}" for k in range(MOST_SECTIONS + 2))
    sections = read_record(text.encode()).record.sections
    assert len(sections) == MOST_SECTIONS
    assert (sections[-2].heading, sections[-2].text) == ("标题62", "内容62")
    assert (sections[-1].heading, sections[-1].text) == (
        "", "标题63\n内容63\n标题64\n内容64\n标题65\n内容65",
    )  # fmt: skip


def test_a_long_record_is_shown_and_a_longer_one_refused() -> None:
    assert read_record(b"a" * (MOST_RECORD_CHARS + 1)).num_chars == MOST_RECORD_CHARS + 1
    with pytest.raises(ApiError, match=f"more than {MOST_FILE_CHARS}"):
        read_record(b"a" * (MOST_FILE_CHARS + 1))


SECRET = "欧阳奎"


@pytest.mark.parametrize(("raw", "message"), [
    ("三日前から咳が出ている患者".encode("shift_jis"), "neither UTF-8 nor GBK"),
    ("咳嗽三天無發熱，門診檢查".encode("big5"), "neither UTF-8 nor GBK"),
    ("señor café".encode("latin-1"), "neither UTF-8 nor GBK"),
    (TEXT.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    (b"PK\x03\x04\x00", "is no text"), (b" \n", "is empty"), ("主诉：".encode(), "no text"),
    (f'{{"sections": "{SECRET}'.encode(), "begins as JSON and is none"),
    (b'{"a":' * 100_000, "too deep"),
    (json.dumps({"sections": [{"text": SECRET, SECRET: 1}]}).encode(), "the JSON is no record"),
    (json.dumps({"sections": []}).encode(), "sections: List should have at least 1 item"),
    (json.dumps({"sections": [{"text": 1}]}).encode(), r"sections\.0\.text: Input should be"),
])  # fmt: skip
def test_what_is_no_record_is_said_without_its_words(raw: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        read_record(raw)
    assert caught.value.status == 400 and SECRET not in str(caught.value)


def test_a_rare_character_in_a_gbk_name_is_no_other_encoding() -> None:
    text = "患者朱镕基，咳嗽三天，无发热。"  # 镕 is not of GB 2312
    assert decode(text.encode("gbk")) == (text, "gbk")
