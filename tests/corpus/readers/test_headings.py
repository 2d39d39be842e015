import pytest

from medray.corpus.readers.headings import canonical, load_headings, split_sections


def headed(text: str) -> list[tuple[str, str]]:
    return [(s["heading"], s["text"]) for s in split_sections(text, is_record=True)]


@pytest.mark.parametrize(
    "text",
    [
        "主诉：咳嗽3天。\n病史： 3天前受凉。\n 查体:神清。\n一、出院诊断：肺炎",
        "【主诉】咳嗽3天。【现病史】：3天前受凉。【查体】神清。【最后诊断】肺炎",
        "主诉：咳嗽3天。现病史：3天前受凉。体格检查：神清。\n诊断：肺炎",
        "# 主诉\n咳嗽3天。\n现病史\n3天前受凉。\n专科检查：\n神清。\n确诊\n肺炎",
    ],
)
def test_a_chinese_record_in_lines_and_in_one_line(text):
    assert headed(text) == [
        ("主诉", "咳嗽3天。"), ("现病史", "3天前受凉。"), ("体格检查", "神清。"), ("诊断", "肺炎"),
    ]  # fmt: skip


def test_an_english_discharge_summary():
    text = (
        "Name: ___\nService: MEDICINE\n \nAllergies: \nNo Known Allergies\n"
        "HISTORY OF PRESENT ILLNESS:\nCough for 3 days. Plan: none.\n"
        "2. Past Medical History:\nHTN\n\nDischarge Diagnosis:\nPneumonia\n"
    )
    assert headed(text) == [
        ("", "Name: ___\nService: MEDICINE"), ("过敏史", "No Known Allergies"),
        ("现病史", "Cough for 3 days. Plan: none."), ("既往史", "HTN"), ("诊断", "Pneumonia"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "行辅助检查：无异常",
        "否认既往史",
        "患者主诉咳嗽",
        "Patient on exam: well",
        "检查无异常。处理：观察",
    ],
)
def test_words_that_are_no_headings_stay_in_the_text(text):
    assert headed(text) == [("", text)]


def test_published_texts_keep_their_headings():
    text = "主诉：咳嗽\n【检查】胸片"
    assert split_sections(text) == [
        {"heading": "", "text": "主诉：咳嗽"}, {"heading": "检查", "text": "胸片"}]  # fmt: skip


def test_the_table_is_consistent():
    table = load_headings()
    assert set(table.values()) <= set(table)
    assert all(table[heading.lower()] == heading for heading in table.values())
    assert canonical(" HPI: ") == canonical("10164-2") == "现病史"
    assert canonical("会诊意见") == "会诊意见"
