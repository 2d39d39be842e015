import datetime

import pytest

from medray.privacy.date_forms import find_dates
from medray.privacy.dates import parse_date, shift_date
from medray.privacy.surrogates import Surrogates

# From 2023-05-17 to 2223-05-17 there are 200 * 365 days and the leap days of 2024, 2028 ... 2220,
# 50 less 2100 and 2200: 73 048. So 73 049 days lead to the day after.
OFFSET = 73_049

MOVED = [
    ("2023-05-17", "2223-05-18"),
    ("2023/5/7", "2223/5/8"),
    ("2023.05.17", "2223.05.18"),
    ("2023年5月17日", "2223年5月18日"),
    ("2023年05月07号", "2223年05月08号"),
    ("2023 年 5 月 17 日", "2223年5月18日"),
    ("20230517", "22230518"),
    ("2023年5月", "2223年5月"),
    ("2023/05", "2223/05"),
    ("2023.05", "2223.05"),
    ("2023年", "2223年"),
    ("23年5月17日", "2223年5月18日"),
    ("23.5.17", "2223.5.18"),
    ("98年5月", "2198年5月"),
    ("08年", "2208年"),
    ("5月17日", "2223年5月18日"),  # the last one up to the visit on 1 June 2023
    ("6月2日", "2222年6月3日"),  # the year before: 2 June 2022
    ("5月17", "2223年5月18"),
    ("6月份", "2223年6月份"),
    ("7月份", "2222年7月份"),
    ("二〇二三年五月十七日", "二二二三年五月十八日"),
    ("二零二三年五月", "二二二三年五月"),
    ("五月二十日", "二二二三年五月二十一日"),
    ("二〇一〇年", "二二一〇年"),
    ("May 17, 2023", "May 18, 2223"),
    ("17 May 2023", "18 May 2223"),
    ("17-May-2023", "18-May-2223"),
    ("SEPT 30 2022", "OCTOBER 1 2222"),
    ("05/17/2023", "05/18/2223"),
    ("5/7/23", "5/8/2223"),
    ("17/05/2023", "05/18/2223"),
    ("May 2023", "May 2223"),
    ("May 17", "May 18, 2223"),
    ("5/17", "5/18/2223"),
    ("2023-02-31", "2223-03-01"),  # read as 28 February
]


@pytest.mark.parametrize(("written", "moved"), MOVED)
def test_a_date_moves_and_keeps_its_form(written, moved):
    assert shift_date(written, OFFSET, "2023-06-01") == moved


@pytest.mark.parametrize("written", [written for written, _ in MOVED])
def test_dates_are_found_whole_and_moved_ones_are_not(written):
    for before, after in (("于", "入院"), ("on ", ", then"), ("（", "）")):
        text = before + written + after
        if written == "5/17" and before != "on ":
            continue  # a bare fraction is no date
        longest = max(find_dates(text), key=lambda span: span[1] - span[0])
        assert text[slice(*longest)] == written
        moved = shift_date(written, OFFSET + 5, "2023-06-01")
        assert list(find_dates(before + moved + after)) == []


def test_a_day_alone_lies_in_the_month_of_the_date_before_it():
    # "5月30日入院，2日出院": the 2nd is past when the 30th comes, so it is the 2nd of June.
    assert shift_date("2日", OFFSET, "2023-06-10", before="2023年5月30日") == "2223年6月3日"
    assert shift_date("31日", OFFSET, "2023-06-10", before="2023年5月30日") == "2223年6月1日"
    assert shift_date("2日", OFFSET, "2023-01-01") == "2222年12月3日"


def test_a_day_in_a_list_lies_in_the_year_after_the_date_before_it():
    # "2017-12-20、1-5", moved by 200 years and a day; 2017 to 2217 has as many leap days as above.
    assert shift_date("4-25", OFFSET, "2023-06-10", before="2017-03-31") == "4/26/2217"
    assert shift_date("1-5", OFFSET, "2023-06-10", before="2017-12-20") == "1/6/2218"
    assert shift_date("5/17", OFFSET, "2023-06-01", before="2017-03-31") == "5/18/2223"


def test_what_tells_no_year_or_no_date_is_masked():
    assert shift_date("5月10日", OFFSET) == "[日期]"
    assert shift_date("soon", OFFSET, "2023-05-17") == "[日期]"


@pytest.mark.parametrize(
    "text",
    [
        "每日3次，第3日拔管，10年前，病史10年，3月前，3个月，近5日",
        "心功能3/6级，肌力4/5级，2/6 systolic murmur, 3/14 nodes positive, vision 20/40",
        "体温38.5，2.3×1.8cm，1500-2000ml，12.5mg，T12，128/86mmHg",
        "The patient may 5 times a day march in place; give 10 mg, GCS 14/15",
        "2000年龄段，一月两次，三月余",
    ],
)
def test_durations_fractions_and_doses_are_no_dates(text):
    assert [text[a:b] for a, b in find_dates(text)] == []


def test_intervals_survive_in_every_way_of_writing_a_date():
    offset = Surrogates(b"0123456789abcdef").offset_days("7")

    def moved(written: str) -> datetime.date:
        value = shift_date(written, offset, "2023-06-20")
        assert parse_date(value) is None  # a moved date is not taken for a real one
        digits = value.replace("年", "-").replace("月", "-").replace("日", "")
        for numeral, digit in zip("〇一二三四五六七八九", "0123456789", strict=True):
            digits = digits.replace(numeral, digit) if "十" not in digits else digits
        return datetime.date(*(int(part) for part in digits.split("-")))

    admitted = moved("2023年5月17日")
    assert (moved("2023-05-20") - admitted).days == 3
    assert (moved("6月1日") - admitted).days == 15  # 14 days left of May and one of June
    assert (moved("23年6月2日") - admitted).days == 16


def test_parse_date():
    assert parse_date("2023-05-17") == parse_date("20230517") == datetime.date(2023, 5, 17)
    assert parse_date("2023-02-30") is None and parse_date("05/17/2023") is None
