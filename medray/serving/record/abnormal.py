"""Abnormal results in a record, by what the record itself prints beside them.

In: text as laboratories and records write it, Chinese or English. Out: where a value stands that
lies outside of the range printed next to it, or that an arrow or an H or L marks. No range is known
here: a value without range and mark is not judged. What the record says is taken as said: an arrow
counts for more than the range, the range for more than a letter, which may be a unit (`3.2 L`).
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

Direction = Literal["high", "low"]


class AbnormalValue(NamedTuple):
    """A value as text[start:end], and on which side of normal it lies."""

    start: int
    end: int
    direction: Direction


# One character for one, so that offsets hold.
PLAIN = str.maketrans(
    "０１２３４５６７８９（）［］【】．：＜＞％／＊，；ＨＬ～〜∼－–—−‐‑｜⬆⬇µ",
    "0123456789()[][].:<>%/*,;HL~~~------|↑↓μ",
)
NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
# Digits are taken whole (`++`): fewer of them are never a value, since others follow, and to try
# each number of them would take time that grows with its square.
WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d++)(?:\.\d++)?+"
VALUE = rf"(?<![\d.,/^*×\-])(?P<value>(?:[<>≤≥]=?[ ]?)?-?{WHOLE})(?![\d.]*\d)"
# 10^9/L and its spellings; else words of letters joined by slashes.
UNIT = (
    r"(?:[×xX*]?\s?10\s?(?:\^|\*\*|[eE])?\s?[\d⁰¹²³⁶⁹]{1,2}\s?/\s?[A-Za-zμ]{1,3}"
    r"|[A-Za-zμ%‰℃°][A-Za-z0-9μ%°]{0,11}(?:[/·][A-Za-z0-9μ.²^]{1,12}){0,3}"
    r"|/[A-Za-zμ]{1,3}|次/分|秒|个/HPF?)"
)
ARROWS = r"[↑↓]{1,3}"
LETTERS = r"(?:HH?|LL?)"
SPAN = rf"-?{NUMBER}\s?(?:--?|~|to|至)\s?-?{NUMBER}"
SIDE = rf"[<>≤≥]=?\s?{NUMBER}"
NAMED = (
    r"(?:(?:正常)?参考(?:值|范围|区间)?|正常(?:值|范围)?|reference(?: range| interval)?"
    r"|ref\.?(?: range| interval)?|normal(?: range)?)\s?:?\s?"
)
RANGE = (
    rf"(?:[(\[]\s?(?:{NAMED})?(?:{SPAN}|{SIDE})\s?(?:{UNIT})?\s?[)\]]"
    rf"|[,;]?\s?{NAMED}(?:{SPAN}|{SIDE})"
    # Bare, only where nothing goes on behind it: `5 mg 1-2 times` is no range.
    rf"|\s{SPAN}(?=\s*(?:$|[,;。|\t])))"
)
LIMITS = re.compile(
    rf"(?P<low>-?{NUMBER})\s?(?:--?|~|to|至)\s?(?P<high>-?{NUMBER})"
    rf"|(?P<side>[<>≤≥]=?)\s?(?P<limit>{NUMBER})",
    re.IGNORECASE,
)
ITEM = re.compile(
    rf"{VALUE}[ ]?(?P<arrow1>{ARROWS})?\s{{0,2}}"
    rf"(?:(?P<unit>{UNIT})(?:[ ]?(?P<arrow2>{ARROWS}))?(?:[ ](?P<letter>{LETTERS})(?![A-Za-z/]))?)?"
    rf"(?:[ ]?\((?P<mark>{ARROWS}|{LETTERS})\))?"
    rf"(?:\s{{0,2}}(?P<range>{RANGE}))?",
    re.IGNORECASE,
)
ARROW_FIRST = re.compile(rf"(?P<arrow1>{ARROWS})[ ]?{VALUE}(?![ ]?[↑↓])")
VALUE_BEFORE = re.compile(rf"\d[ ]?(?:{UNIT})?[ ]?$")
LONGEST_BEHIND = 64
"""Characters that a number's last digit, its unit and spaces take at most; counted from the
expression, so that no more of a line needs to be looked at."""
CELL = re.compile(r"[^\t|]+?(?=\t|\||[ ]{2}|$)")
VALUE_CELL = re.compile(
    rf"(?:.*[\s:\u4e00-\u9fff])?{VALUE}[ ]?(?P<arrow1>{ARROWS})?[ ]?(?:{UNIT})?"
    rf"[ ]?(?P<arrow2>{ARROWS})?(?:[ ]?\((?P<mark>{ARROWS}|{LETTERS})\))?",
    re.IGNORECASE,
)
MARK_CELL = re.compile(rf"(?P<arrow>{ARROWS})|(?P<letter>{LETTERS}|高|低|偏高|偏低)")
RANGE_CELL = re.compile(rf"[(\[]?(?:{NAMED})?(?:{SPAN}|{SIDE})\s?(?:{UNIT})?[)\]]?", re.IGNORECASE)


def abnormal_values(text: str) -> list[AbnormalValue]:
    """All abnormal values of a text, in its order."""
    found: dict[int, AbnormalValue] = {}
    begin = 0
    for line in text.translate(PLAIN).split("\n"):
        for value in (*_inline(line), *_in_cells(line)):
            moved = AbnormalValue(value.start + begin, value.end + begin, value.direction)
            found.setdefault(moved.start, moved)
        begin += len(line) + 1
    return sorted(found.values())


def _inline(line: str) -> Iterator[AbnormalValue]:
    """Values of running text: `白细胞 12.3 ×10^9/L (3.5-9.5)`, `K 3.1 mmol/L L`, `98 g/L↓`."""
    arrowed = set()
    for match in ITEM.finditer(line):
        groups = match.groupdict()
        arrow = groups["arrow1"] or groups["arrow2"] or groups["mark"]
        if groups["arrow1"] or groups["arrow2"]:
            arrowed.add(match.start("value"))
        limits = _limits(groups["range"]) if groups["range"] else None
        yield from _judged(match, arrow, groups["letter"], limits)
    for match in ARROW_FIRST.finditer(line):
        # In `80↑ 90` the arrow is the first one's.
        at = match.start()
        before = VALUE_BEFORE.search(line, max(0, at - LONGEST_BEHIND), at)
        if before is None and match.start("value") not in arrowed:
            yield from _judged(match, match["arrow1"], None, None)


def _in_cells(line: str) -> Iterator[AbnormalValue]:
    """Values of a table's row, whose cells are cut by tabs, bars or several spaces."""
    value: re.Match[str] | None = None
    arrow: str | None = None
    letter: str | None = None
    limits: tuple[float, float] | None = None
    for start, cell in _cells(line):
        is_range = RANGE_CELL.fullmatch(cell) is not None
        mark = MARK_CELL.fullmatch(cell)
        if value is not None and is_range and limits is None:
            limits = _limits(cell)
        elif value is not None and mark:
            arrow, letter = mark["arrow"] or arrow, mark["letter"] or letter
        elif (here := VALUE_CELL.fullmatch(line, start, start + len(cell))) is not None:
            if value is not None:
                yield from _judged(value, arrow, letter, limits)
            value, limits, letter = here, None, None
            arrow = here["arrow1"] or here["arrow2"] or here["mark"]
    if value is not None:
        yield from _judged(value, arrow, letter, limits)


def _cells(line: str) -> list[tuple[int, str]]:
    """(start, text) of each cell; none where there is but one."""
    cells = [
        (match.start() + len(match[0]) - len(match[0].lstrip()), match[0].strip())
        for match in CELL.finditer(line)
        if match[0].strip()
    ]
    return cells if len(cells) > 1 else []


def _judged(
    match: re.Match[str], arrow: str | None, letter: str | None,
    limits: tuple[float, float] | None,
) -> Iterator[AbnormalValue]:  # fmt: skip
    start, end = match.span("value")
    direction = _marked(arrow) or (
        _outside(match["value"], limits) if limits is not None else _marked(letter)
    )
    if direction:
        yield AbnormalValue(start, end, direction)


def _marked(mark: str | None) -> Direction | None:
    if not mark:
        return None
    return "high" if mark[0] in "↑Hh" or "高" in mark else "low"


def _outside(value: str, limits: tuple[float, float]) -> Direction | None:
    number = _number(value.lstrip("<>≤≥= "))
    low, high = limits
    if value[0] in "<≤":  # `<0.01` may be anything below
        return "low" if number <= low else None
    if value[0] in ">≥":
        return "high" if number >= high else None
    return "low" if number < low else "high" if number > high else None


def _limits(text: str) -> tuple[float, float] | None:
    """Low and high of a range; None if they are the wrong way round, so that it is none."""
    match = LIMITS.search(text)
    assert match is not None  # what was found is a range
    if (side := match["side"]) is not None:
        limit = _number(match["limit"])
        return (float("-inf"), limit) if side[0] in "<≤" else (limit, float("inf"))
    low, high = _number(match["low"]), _number(match["high"])
    return (low, high) if low <= high else None


def _number(text: str) -> float:
    return float(text.replace(",", ""))
