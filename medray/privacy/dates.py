"""Dates moved by a number of days. In: a date as written. Out: the moved one, written alike.

A moved date lies in the years from 2100 on, which no notation of `date_forms` admits; a date that
lacks its year gets one. So a second pass finds nothing. Source: EVALUATION.md 4.
"""

import calendar
import datetime
import re

from medray.privacy.date_forms import FULL_MONTHS, NUMERAL, Date, read_date


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
    date = read_date(value)
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
    date = read_date(value) if value else None
    if date is None or date.year is None or date.month is None or date.day is None:
        return None
    return _moved(date.year, date.month, date.day, 0)


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
        name = FULL_MONTHS.split()[m - 1]
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
