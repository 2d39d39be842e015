"""Dates in clinical text. In: text. Out: spans of dates, and dates moved by a number of days.

Chinese and English notations, whole or in part: 2023年5月17日, 23.5.17, 五月十七日, 5月份, May 17,
05/17/23. A moved date lies in the years from 2100 on, which no pattern here admits; a date that
lacks its year gets one. So a second pass finds nothing. Source: EVALUATION.md 4.
"""

import calendar
import datetime
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
_FULL = "January February March April May June July August September October November December"
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
    rf"(?P<y>{_Y4})(?P<s>[-/.]|\s?年\s?|\s[-/.]\s|[-/.]\s)"
    rf"(?P<m>{_M})(?:[-/.]|\s?月\s?|\s[-/.]\s?)(?P<d>{_D})(?:\s?[日号]|(?!\d)|(?=\d\d[:：时]\d\d))",
    "compact": rf"(?<![0-9A-Za-z.\-])(?P<y>{_Y4})(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])"
    r"(?![0-9A-Za-z])",
    "ym": rf"(?<![\d.])(?P<y>{_Y4})\s?年\s?(?P<m>{_M})\s?月份?",
    "ym-": rf"(?<![\d.\-])(?<!\d/)(?P<y>{_Y4})(?P<s>[-/])(?P<m>{_M})(?![\d.%/a-z\-])",
    "ym.": rf"(?<![\d.\-])(?<!\d/)(?P<y>{_Y4})(?P<s>\.)(?P<m>{_M})(?![\d.%A-Za-z×\-])",
    "y": rf"(?<![\d.])(?P<y>{_Y4})(?:\s?年(?!龄)|(?=\s?[-~至—]\s?{_Y4}\s?年))",
    "yymd": rf"(?<![\d.])(?P<y>{_Y2})年(?P<m>{_M})月(?P<d>{_D})(?:[日号])?(?!\d)",
    "yym": rf"(?<![\d.])(?<![约近已达史共])(?P<y>{_Y2})年(?P<m>{_M})月份?(?!\d)",
    "yy": r"(?<![\d.])(?P<y>0\d|9\d)年(?![前后来余以之])",
    "yy.md": rf"(?<![\d.\-])(?<!\d/)(?<!pgar )(?<!评分)(?P<y>{_Y2})"
    rf"(?P<s>[.\-])(?P<m>{_M})(?P=s)(?P<d>{_D})"
    rf"(?![\d.\-/%])",
    "md": rf"(?<![\d.])(?<!\d年)(?<!\d 年)(?P<m>{_M})\s?月\s?(?P<d>{_D})(?:\s?[日号]|"
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
    "Md": rf"(?<![A-Za-z])(?P<m>{_NAME})\.?\s(?P<d>{_D})(?:st|nd|rd|th)?(?!,?\s?\d|\d|"
    rf"[-/]\d){_DOSE}",
    "dM": rf"(?<![\d.,])(?P<d>{_D})(?:st|nd|rd|th)?(?:[ -]| of )(?P<m>{_NAME})(?![\w]|[-, "
    rf"]{{1,2}}\d)",
    # A bare 4/5 is a strength or a share; a word of time or a day past any scale makes it a date.
    "m/d": r"(?:(?<=[oO]n )|(?<=since )|(?<=from )|(?<=until )|(?<=dated )|(?<=by )|(?<=before )"
    r"|(?i:dates?|DOB|born|birth|admitted|admission|discharged?|follow-?up|visit|surgery|procedure"
    r"|operation|[DT]:)[^\n.;\d]{0,12}?(?<![\d./\-])|(?i:signed)[^\n;\d]{0,40}?(?<![\d./\-]))"
    r"(?<![\d./\-])(?<!pgar )(?<!pgars )"
    rf"(?P<v>(?P<m>0?[1-9]|1[0-2])/(?P<d>{_D}))(?![\d/%])(?!\s?(?:systolic|diastolic|murmur|"
    rf"streng))"
    r"|(?<![\d./\-（(，])(?<!pgar )(?<!pgars )(?<!PGAR )(?<=[ -~])"
    r"(?P<m2>0?[1-9]|1[0-2])/(?P<d2>[79]|1[1346789]|2\d|31)(?=[ -~])"
    r"(?![\d/%)]|-\d+天)(?!\s?(?:of|nodes?|lymph|positive|cores?|mm|cm|murmur|systolic|quad|streng))",
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
    r"(?<![\d.])(\d{1,2})\.(?=(?:19|20)\d\d[-./年]\d|[01]?\d月[0-3]?\d[日号]|"
    r"\d\d\.\d{1,2}\.\d{1,2}(?!\d))"
)
# Days that go on after a whole date: 2017-3-31、4-25、5-17.
_NEXT_DAY = re.compile(
    rf"[、，,]\s?(?P<v>(?P<m>0?[1-9]|1[0-2])[-./](?P<d>{_D}))"
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
                at = match.end() if form == "ymd" else len(text)
                while following := _NEXT_DAY.match(text, at):
                    yield following.span("v")
                    at = following.end()


def shift_date(value: str, offset_days: int, visit_date: str = "", before: str = "") -> str:
    """Moves a date and keeps the way it is written; blanks are left out.

    A month moves with its 15th, a year with its 1 July. A date without a year becomes one with a
    year, the last such day up to the visit, so that it is not moved twice. A day alone lies in the
    month of `before` or, if that day has passed, the next; 4-25 in the year after `before`.

    Args:
        visit_date: day of the visit, with all three parts.
        before: the date that stands before this one in the text, as written.
    Returns:
        `[日期]` if the date cannot be read or nothing tells its year.
    """
    date = _read(value)
    if date is None:
        return "[日期]"
    year, month, day = date.year, date.month, date.day
    if year is None:
        visit, last = parse_date(visit_date), _whole(before)
        if month is None and day is not None and last is not None:
            year, month = last.year, last.month
            if day < last.day:
                year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        elif date.form == "md-" and "-" in value and month is not None and last is not None:
            year = last.year + ((month, day or 1) < (last.month, last.day))
        elif visit is None:
            return "[日期]"
        elif month is None:
            month = visit.month if (day or 1) <= visit.day else (visit.month - 2) % 12 + 1
            year = visit.year - (month > visit.month)
        else:
            year = visit.year - ((month, day or 1) > (visit.month, visit.day))
    moved = _moved(year, month or 7, day or (15 if month else 1), offset_days)
    return _write(date, value, moved)


def parse_date(value: str) -> datetime.date | None:
    """A date of our time written with all three parts and the year first, or None."""
    match = re.match(r"((?:19|20)\d{2})[-/.年]?(\d{1,2})[-/.月]?(\d{1,2})", value)
    try:
        return datetime.date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None


def _whole(value: str) -> datetime.date | None:
    date = _read(value) if value else None
    if date is None or date.year is None or date.month is None or date.day is None:
        return None
    return _moved(date.year, date.month, date.day, 0)


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


def _read(value: str) -> Date | None:
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


def _moved(year: int, month: int, day: int, offset_days: int) -> datetime.date:
    day = min(day, calendar.monthrange(year, month)[1])  # 31 June is a slip of the pen
    return datetime.date(year, month, day) + datetime.timedelta(days=offset_days)


def _write(date: Date, value: str, moved: datetime.date) -> str:
    """The moved day in the notation of `value`; a year is always written out."""
    form, y, m, d = date.form, moved.year, moved.month, moved.day
    last = value[-1] if value[-1] in "日号份" else ""
    if form == "compact":
        return f"{moved:%Y%m%d}"
    if form in ("ymd", "ym-", "ym.", "yy.md") and "年" not in value:
        separator = next(c for c in value if c in "-/.")
        is_padded = re.search(r"[-/.]\s?0", value) or not re.search(r"(?<!\d)\d(?!\d)", value)
        parts = (m, d) if date.day is not None else (m,)
        return separator.join([str(y), *(f"{p:02d}" if is_padded else str(p) for p in parts)])
    if form[0] == "z" or form == "mixed":
        zero = "零" if "零" in value else "〇"
        text = "".join((zero + NUMERAL[3:])[int(c)] for c in str(y)) + "年"
        text += f"{_numeral(m)}月" if date.month else ""
        return text + (f"{_numeral(d)}{last}" if date.day else last if last == "份" else "")
    if form in ("mdy/", "md-", "m/d"):
        separator = "-" if "-" in value and form == "mdy/" else "/"
        padded = not re.search(r"(?<!\d)\d(?!\d)", value)
        return separator.join([*(f"{p:02d}" if padded else str(p) for p in (m, d)), str(y)])
    if form in ("Mdy", "dMy", "My", "Md", "dM", "mo"):
        name = _FULL.split()[m - 1]
        word = re.search("[A-Za-z]{3,}", value)
        if word and len(word[0]) == 3:
            name = name[:3]
        name = name.upper() if word and word[0].isupper() else name
        if form in ("My", "mo"):
            return f"{name} {y}"
        if form[0] == "d":
            return f"{d}-{name}-{y}" if "-" in value else f"{d} {name} {y}"
        return f"{name} {d}, {y}" if "," in value or form == "Md" else f"{name} {d} {y}"
    if form == "my/":
        return f"{m:02d}/{y}"
    if form in ("y", "yy", "yen"):
        return f"{y}年" if "年" in value else str(y)
    digits = re.findall(r"\d+", value)
    pad = any(part[0] == "0" for part in digits[1 if date.year is not None else 0 :])
    month, day = (f"{m:02d}", f"{d:02d}") if pad else (str(m), str(d))
    return f"{y}年{month}月{last if date.day is None else day + last}"


def _numeral(number: int) -> str:
    tens, ones = divmod(number, 10)
    digits = NUMERAL[2:]
    return (("" if tens == 1 else digits[tens]) + "十" if tens else "") + (
        digits[ones] if ones else ""
    )
