"""Notations of dates in clinical text. In: text. Out: spans of dates; a date's parts.

Chinese and English, whole or in part: 2023年5月17日, 23.5.17, 五月十七日, 5月份, May 17, 05/17/23.
Source: EVALUATION.md 4.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

NUMERAL = "〇零○一二三四五六七八九"
_Y4 = r"(?:19|20)\d{2}"
_Y2 = r"(?:[0129]\d)"
_M = r"(?:1[0-2]|0?[1-9])"
_D = r"(?:3[01]|[12]\d|0?[1-9])"
_YZ = rf"(?:一九|二[〇零○])[{NUMERAL}]{{2}}"
_MZ = "(?:十[一二]|[一二三四五六七八九十])"
_DZ = "(?:三十一?|二十[一二三四五六七八九]?|十[一二三四五六七八九]?|[一二三四五六七八九])"
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
FULL_MONTHS = (
    "January February March April May June July August September October November December"
)
_NAME = (
    "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|"
    "Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?|"
    "JAN(?:UARY)?|FEB(?:RUARY)?|MAR(?:CH)?|APR(?:IL)?|MAY|JUNE?|JULY?|AUG(?:UST)?|"
    "SEPT?(?:EMBER)?|OCT(?:OBER)?|NOV(?:EMBER)?|DEC(?:EMBER)?|"
    "january|february|april|june|july|august|september|october|november|december)"
)
_CLOCK = r"(?=\s?(?:[01]?\d|2[0-3])[:：][0-5]\d)"
_DOSE = r"(?!\s?(?:mg|ml|mL|g\b|mcg|%|mm|cm|kg|times|units?|tablets?|pm|am|PM|AM|:\d))"

# Form → pattern. Groups: y year, m month, d day; what stands outside them is rebuilt by `_write`.
_FORMS: dict[str, str] = {
    # A value may end where the date begins: NSE 522017-3-20.
    "ymd": rf"(?:(?<!\d)(?<!\d\.)|(?<=\d)(?=20[012]\d-\d{{1,2}}-\d))"
    rf"(?P<y>{_Y4})(?P<s>[-/.]|年-|\s?年\s?|\s[-/.]\s|[-/.]\s)"
    rf"(?P<m>{_M})(?:[-/.]|\s?月\s?|\s[-/.]\s?)(?P<d>{_D})(?:\s?[日号]|(?!\d)|(?=\d\d?[:：]\d\d|\d\d?[时点]|24h))",
    "compact": rf"(?<![0-9A-Za-z.\-])(?P<y>{_Y4})(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])"
    r"(?:(?![0-9A-Za-z])|(?=24h))",
    "ym": rf"(?<!\d)(?<!\d\.)(?P<y>{_Y4})\s?年\s?(?P<m>{_M})\s?月份?",
    "ym-": rf"(?<![\d.\-])(?<!\d/)(?P<y>{_Y4})(?P<s>[-/])(?P<m>{_M})"
    r"(?:(?![\d.%/a-z\-])|(?=\d\d[:：]\d\d))",
    "ym.": rf"(?<![\d.\-])(?<!\d/)(?P<y>{_Y4})(?P<s>\.)(?P<m>{_M})(?![\d.%A-Za-z×\-])",
    "y": rf"(?<!\d)(?<!\d\.)(?P<y>{_Y4})(?:\s?年(?!龄)|(?=\s?[-~至—]\s?{_Y4}\s?年))",
    "yymd": rf"(?<![\d.])(?P<y>{_Y2})年(?P<m>{_M})月(?P<d>{_D})(?:[日号]|(?!\d))",
    "yym": rf"(?<![\d.])(?<![约近已达史共])(?P<y>{_Y2})年(?P<m>{_M})月份?(?!\d)",
    "yy": r"(?<![\d.])(?P<y>0\d|9\d)年(?![前后来余以之])",
    "yy.md": rf"(?:(?<![\d.\-])|(?<=\.\d[-~])|(?<=\.\d\d[-~]))(?<!\d/)(?<!pgar )(?<!评分)"
    rf"(?P<y>{_Y2})(?P<s>[.\-])(?P<m>{_M})(?P=s)(?P<d>{_D})"
    rf"(?:(?![\d.\-/%])|(?<=\.\d)(?=\d\d[时点])|(?<=\.\d\d)(?=\d\d?[时点])|(?=\d\d[:：]\d\d)|(?=[-~]\d\d\.\d)|(?=24h))",
    "md": rf"(?<!\d)(?<!\d\.)(?<!\d年)(?<!\d 年)(?P<m>{_M})\s?月\s?(?P<d>{_D})(?:\s?[日号]|"
    rf"(?![\d\s天周岁个次年月.]))",
    "m": rf"(?<![\d.])(?<!\d年)(?:(?<=今年)|(?<=去年)|(?<=前年)|(?<=同年)|(?<=当年))"
    rf"(?P<m>{_M})月份?(?!\d)"
    rf"|(?<![\d.])(?<!\d年)(?P<m2>{_M})月份",
    "md-": rf"(?<![\d./\-:：])(?P<m>0?[1-9]|1[0-2])[-/.](?P<d>{_D}){_CLOCK}",
    "d": rf"(?:(?<=本月)|(?<=同月)|(?<=当月))(?P<d>{_D})[日号]"
    rf"|(?<![\d.第近约月])(?<!月 )(?P<d2>{_D})日(?=上午|下午|凌晨|清晨|早|晚|晨|入院|出院|"
    rf"\d{{1,2}}[:：时点])",
    "zymd": rf"(?P<y>{_YZ})年(?P<m>{_MZ})月(?P<d>{_DZ})[日号]",
    "zym": rf"(?P<y>{_YZ})年(?P<m>{_MZ})月份?",
    "zy": rf"(?P<y>{_YZ})年",
    "zmd": rf"(?<![{NUMERAL}十])(?<![{NUMERAL}]年)(?P<m>{_MZ})月(?P<d>{_DZ})[日号]",
    "mixed": rf"(?P<y>{_YZ})年(?P<m>{_M})月(?P<d>{_D})[日号]?",
    "my/": rf"(?<![\d./\-])(?P<m>0?[1-9]|1[0-2])/(?P<y>{_Y4})(?![\d/%])"
    r"|(?<=[iI]n )(?P<m2>0[1-9]|1[0-2])/(?P<y2>[012]\d)(?![\d/%])"
    r"(?!\s?(?:of|nodes?|lymph|positive|cores?|cases|patients))",
    "yen": r"(?:(?<=[A-Za-z,;.:)] )|(?<=[A-Za-z] \())(?<!\bat )(?<!ound )(?<!bout )(?<!tely )"
    r"(?<!otal )(?<!than )(?<!WBC )(?<!ount )(?<!lets )(?<!ells )"
    r"(?P<y>19[3-9]\d|20[0-3]\d)(?![\w%]|[.,:/\-]\d)(?!\s?(?i:m[lgm]|mcg|milli|cc|units?|IU|U/|"
    r"k?cal|hours|hrs|h\b|[npu]g|g\b|cm|steps|copies|per|/))"
    rf"|(?<![A-Za-z])(?:(?<=[iI]n )|(?<=since )|(?<=from )|(?<=until )|(?<=of ))(?P<y2>{_Y4})"
    rf"(?=[\s,.;)])(?!\.\d)",
    "mo": rf"(?:(?<=[iI]n )|(?<=[sS]ince )|(?<=of )|(?<=until )|(?<=mid )|(?<=late )|(?<=early )|"
    rf"(?<=last ))"
    rf"(?P<m>{_NAME})(?![a-z]|,? \d)",
    "mdy/": rf"(?<![\d./\-])(?<!pgar )(?<!评分)(?P<m>{_D})(?P<s>[-/])"
    rf"(?P<d>{_D})(?P=s)(?P<y>{_Y4}|\d{{2}})"
    rf"(?![\d/%\-])",
    "Mdy": rf"(?<![A-Za-z])(?P<m>{_NAME})\.?\s?(?P<d>{_D})(?:st|nd|rd|th)?(?:,\s?|\s)(?P<y>{_Y4})"
    rf"(?!\d)",
    "dMy": rf"(?<![\d.])(?P<d>{_D})(?:st|nd|rd|th)?(?P<s>[- ])(?:of )?(?P<m>{_NAME})\.?(?:,? |-)"
    rf"(?P<y>{_Y4})(?!\d)",
    "My": rf"(?<![A-Za-z])(?P<m>{_NAME})\.?,?\s(?:of )?(?P<y>{_Y4})(?!\d)",
    "Md": rf"(?<![A-Za-z])(?P<m>{_NAME})\.?\s(?P<d>{_D})(?:st|nd|rd|th)?"
    r"(?:(?=\s\d?\d[:：]\d\d)|(?=\s(?:0\d|1[0-8]|23)[0-5]\d\b)|"
    rf"(?!\d|,?\s?\d(?!\d?h\b)|[-/]\d){_DOSE})",
    "dM": rf"(?<![\d.,])(?P<d>{_D})(?:st|nd|rd|th)?(?:[ -]| of )(?P<m>{_NAME})(?![\w]|[-, "
    rf"]{{1,2}}\d)",
    # A bare 4/5 is a strength or a share; a word of time or a day past any scale makes it a date.
    "m/d": r"(?:(?<=[oO]n )|(?<=since )|(?<=from )|(?<=until )|(?<=dated )|(?<=by )|(?<=before )"
    r"|(?<=ompared to )|(?<=ompared with )|(?<=racing of )"
    r"|(?<=LMP )|(?<=EDD )|(?<=EDC )|(?<=D1 = )|(?<=D1 )|(?<=omparison: )|(?<=alled )|(?<=eceived )"
    r"|(?i:dates?|DOB|born|birth|admitted|admission|discharged?|follow-?up|f/u|RTC|returns?|appt|appointment|arrives?|due|seen|clinic|filled|expires?|"
    r"visit(?!s)|surgery|procedure"
    r"|operation|[DT]:)[^\n.;\d]{0,12}?(?<![\d./\-])|(?i:signed)[^\n;\d]{0,40}?(?<![\d./\-])"
    r"|(?m:^)(?=\d{1,2}/\d{1,2}(?:[:,]| -| \d{4}\b| \d{1,2}:\d\d))"
    r"|(?i:call|note|rounds?|consult|addendum|encounter|board|round|WR|"
    r"scheduled(?: for)?|faxed|obtained)[ ,:-]{1,3})"
    r"(?<![\d./\-])(?<!pgar )(?<!pgars )"
    rf"(?P<v>(?P<m>0?[1-9]|1[0-2])/(?P<d>{_D}))(?![\d/%])(?!\s?(?:systolic|diastolic|murmur|"
    rf"streng))"
    # In Britain a part of a week is written 5/7.
    r"|(?<![\d./\-（(，])(?<!pgar )(?<!pgars )(?<!PGAR )(?<=[ -~])(?<!x )(?<!or )(?<!\. )(?<!: )"
    r"(?P<m2>0?[1-9]|1[0-2])/(?P<d2>[79]|1[1346789]|2\d|31)(?=[ -~])"
    r"(?![\d/%)]|-\d{1,2}(?![\d/])|st\b|nd\b|rd\b|th\b)(?!\s?(?:of|nodes?|lymph|positive|cores?|mm|cm|murmur|systolic|quad|streng))",
}  # fmt: skip
_COMPILED = {form: re.compile(pattern) for form, pattern in _FORMS.items()}
_HINTS = re.compile(r"\d|[一二][〇零○九]|月")
# A form is not looked for where one of these does not stand: most texts hold no English date.
_SIGNS = {
    **dict.fromkeys(
        ("ym", "y", "yymd", "yym", "yy", "zymd", "zym", "zy", "mixed"), re.compile("年")
    ),
    **dict.fromkeys(("md", "m", "zmd"), re.compile("月")),
    **dict.fromkeys(("my/", "m/d"), re.compile("/")),
    **dict.fromkeys(("Mdy", "dMy", "My", "Md", "dM", "mo"), re.compile(_NAME)),
    "d": re.compile("[日号]"),
    "md-": re.compile(r"[:：]"),
}


# The number of a list before a date, which would read as a decimal: 1.2019-03-02.
_LIST_NUMBER = re.compile(
    r"(?<![\d.])(\d{1,2})\.(?=(?:19|20)\d\d(?:[-./年]\d|\s?年|\d{4}(?!\d))|[01]?\d月[0-3]?\d[日号]|"
    r"\d\d\.\d{1,2}\.\d{1,2}(?!\d))"
)
# Days that go on after a whole date: 2017-3-31、4-25、5-17.
_NEXT_DAY = re.compile(
    rf"(?:[、，,]\s?|\s?(?:to|through|until)\s|\s?[-–~至]\s?)(?P<v>(?P<m>0?[1-9]|1[0-2])[-./](?P<d>{_D}))"
    r"(?![\d.\-/%]|\s?(?:天|次|小时|[mM][gGlLmM]|[cC][mM]|g\b|年|个|周|岁|粒|片))"
)


class Date(NamedTuple):
    """A date as written: None for what is not said."""

    form: str
    year: int | None
    month: int | None
    day: int | None


def find_dates(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of every date, its last unit (日, 月, 年) included; they may overlap."""
    if not _HINTS.search(text):
        return
    text = _LIST_NUMBER.sub(r"\1、", text)
    signs = {sign: sign.search(text) for sign in set(_SIGNS.values())}
    for form, pattern in _COMPILED.items():
        if form in _SIGNS and not signs[_SIGNS[form]]:
            continue
        for match in pattern.finditer(text):
            if _parts(form, match) is not None:
                yield match.span("v") if match.groupdict().get("v") else match.span()
                at = match.end() if form in ("ymd", "m/d") else len(text)
                while following := _NEXT_DAY.match(text, at):
                    if form == "m/d" and "/" not in following["v"]:
                        break  # INR 2.4 on 3/4, 3.1 on 3/11
                    yield following.span("v")
                    at = following.end()


# What the patterns look behind and ahead for, so that a value alone is read as it was in its text.
_AROUND = (
    ("", ""),
    ("今年", ""),
    ("本月", ""),
    ("", "上午"),
    ("", " 08:00"),
    ("on ", ""),
    ("in ", ""),
    ("", "-2020年"),
)


def read_date(value: str) -> Date | None:
    """The parts of a date as `find_dates` finds it, or None if it is none."""
    for left, right in _AROUND:
        for form, pattern in _COMPILED.items():
            match = pattern.match(left + value + right, len(left))
            if match and match.end() == len(left) + len(value):
                parts = _parts(form, match)
                if parts is not None:
                    return parts
    return None


def _parts(form: str, match: re.Match[str]) -> Date | None:
    """The date that a match says, or None if there is no such month."""
    found = match.groupdict()

    def number(name: str) -> int | None:
        text = found.get(name) or found.get(f"{name}2")
        return None if text is None else _number(text)

    year, month, day = number("y"), number("m"), number("d")
    if month is not None and month > 12:
        month, day = day, month  # 17/05/2023
    if month is not None and month > 12:
        return None
    if year is not None and year < 100:
        year += 2000 if year < 50 else 1900
    return Date(form, year, month, day)


def _number(text: str) -> int:
    if text[0].isdigit() and text.isascii():
        return int(text)
    if text[:3].title() in _MONTHS:
        return _MONTHS.index(text[:3].title()) + 1
    digits = {c: max(i - 2, 0) for i, c in enumerate(NUMERAL)}  # 〇零○ are all nought
    if len(text) == 4:
        return int("".join(str(digits[c]) for c in text))
    tens, ten, ones = text.rpartition("十")
    return (digits.get(tens, 1) if ten else 0) * 10 + digits.get(ones, 0)
