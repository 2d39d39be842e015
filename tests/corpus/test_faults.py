"""Shares of bad lines, by hand; and which texts they lead to leave out."""

import pytest

from medray.common.records import Document, Section
from medray.corpus.clean import CleanConfig, fault
from medray.corpus.faults import (
    boilerplate_fraction,
    ellipsis_fraction,
    lines_of,
    repeated_fraction,
    url_fraction,
)

RECORD = (
    "患者3天前受凉后出现咳嗽，咳白痰，伴发热，最高体温38.5℃。无胸痛、咯血。\n"
    "查体：双肺呼吸音粗，右下肺可闻及湿啰音。血常规：WBC 12.3×10^9/L，N 85%。\n"
    "胸部CT示右下肺斑片影。牙位11#、12#缺失，住院号已核对。\n"
    "Started on oral antibiotics. Afebrile since day two. Cough is improving.\n"
    "诊断：社区获得性肺炎。处理：左氧氟沙星0.5g静滴，每日一次，疗程七天，三日后复查血常规。\n"
)
MENU = (
    "返回首页，上一篇：春季养生，下一篇：夏季养生，点击查看更多\n"
    "客服电话在线咨询，网站地图，用户协议，关注公众号，扫码领取优惠，热门推荐今日更新\n"
)


def test_lines():
    assert lines_of("咳嗽。发热！\n \nWBC 12.3 high. Seen (twice). e.g. no") == [
        "咳嗽", "发热", "WBC 12.3 high.", "Seen (twice).", "e.g.", "no"]  # fmt: skip
    assert lines_of("") == []


def test_shares_by_hand():
    assert ellipsis_fraction(["甲…", "乙...", "丙", "丁."]) == 0.5
    # 2 + 2 characters stand again of 2 × 3 + 4.
    assert repeated_fraction(["咳嗽", "咳嗽", "发热三天", "咳嗽"]) == pytest.approx(4 / 10)
    # 5 of 10 characters.
    assert boilerplate_fraction(["返回首页吧", "咳嗽三天了"]) == 0.5
    assert url_fraction("见https://a.bc/d。") == pytest.approx(14 / 16)
    for share in (ellipsis_fraction, repeated_fraction, boilerplate_fraction):
        assert share([]) == 0
    assert url_fraction("") == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (RECORD, None),
        ("".join(f"第{k}条新闻说的是{chr(0x4E00 + k) * 3}之事…\n" for k in range(20)), "excerpts"),
        (RECORD + RECORD, "repeated_lines"),
        (RECORD[:99] + "".join(MENU.replace("\n", f"{k}\n") for k in range(3)), "boilerplate"),
        (RECORD + "".join(f"http://example.org/{k}/page.html\n" for k in range(9)), "mostly_links"),
    ],
)  # fmt: skip
def test_the_reason_is_named(text, reason):
    document = Document(
        doc_id="1", kind="literature", source="web", split="train",
        sections=[Section(heading="", text=text)],
    )  # fmt: skip
    assert fault(document, CleanConfig()) == reason


def test_a_short_record_that_repeats_its_complaint_is_kept():
    document = Document(
        doc_id="1", kind="emr", source="ward", split="train",
        sections=[Section(heading=h, text="咳嗽有痰三天余，发热") for h in ("主诉", "现病史")],
    )  # fmt: skip
    assert fault(document, CleanConfig()) is None
