"""Identifiers in task files become tags, and are counted."""

from medray.instructions.masking import Masker


def test_identifiers_become_tags() -> None:
    mask = Masker()
    text = "我的电话是：13800138000，2019年3月5日看过病，血压140/90，邮箱a.b@example.com。"
    masked = mask(text)
    assert masked == "我的电话是：[电话]，[日期]看过病，血压140/90，邮箱[邮箱]。"
    assert dict(mask.masked) == {"PHONE": 1, "DATE": 1, "EMAIL": 1}


def test_masking_twice_is_masking_once() -> None:
    mask = Masker()
    text = "患者姓名：张建国，家庭住址：江苏省南京市鼓楼区，住院号：A123456，电话：13800138000。"
    once = mask(text)
    before = sum(mask.masked.values())
    assert before >= 3
    assert "张建国" not in once and "鼓楼" not in once and "A123456" not in once
    assert mask(once) == once
    assert sum(mask.masked.values()) == before


def test_clinical_text_stays() -> None:
    mask = Masker()
    text = "黄疸3天，白蛋白32g/L，首选阿莫西林0.5g每日三次。"
    assert mask(text) == text
    assert not mask.masked
