"""Tables in text. In: text. Out: spans of the cells under a heading that names an identifier.

    姓名|住院号|床号                 姓名|张某某|住院号|0012345|床号|12
    张某某|0012345|12

A table is a line of which two cells or more are known headings, and the lines below it that have as
many cells; or each heading stands before its value. Cells stand between bars or tabs. Source: not
given; the headings are those of ward lists and registers.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

CellClass = Literal["NAME", "DOCTOR", "ID", "PHONE", "MRN", "ADDRESS", "AGE"]

_HEADINGS: dict[CellClass, str] = {
    "NAME": "(?:患者|病人|患儿|家属|联系人)?姓名|患者|病人|联系人|家属|"
    "(?i:(?:patient )?name|patient)",
    "DOCTOR": "(?:[主经管][治管床诊]|责任|值班|接诊|负责)?(?:医师|医生|护士|大夫)(?:签[名字])?|"
    "签[名字]|责护|(?i:provider|attending|nurse|physician)",
    "MRN": "(?:住院|病案|病历|门诊|登记|就诊|体检|标本|条码|检查)(?:编?号|号码)|床(?:号|位号?)?|"
    "(?i:mrn|bed|room|record no\\.?)",
    "ID": "(?:身份证|证件|医保|社保|参保)卡?(?:号码?)?|(?i:ssn|insurance(?: no\\.?)?)",
    "PHONE": "(?:联系)?(?:电话|手机|方式)(?:号码?)?|(?i:phone|tel\\.?|mobile)",
    "ADDRESS": "(?:家庭|现|居住|联系)?(?:住址|地址)|(?:工作)?单位|(?i:address)",
    "AGE": "年龄|(?i:age)",
}
_CLASSES: list[tuple[re.Pattern[str], CellClass]] = [
    (re.compile(pattern), label) for label, pattern in _HEADINGS.items()
]
_OTHER = re.compile("性别|诊断|科[室别]|入院日期|日期|时间|备注|序号|(?i:sex|diagnosis|date|dx)")
_EMPTY = re.compile(r"[-—/\\无\s]*|不详|未知|N/?A", re.IGNORECASE)
_OVER_89 = re.compile(r"(?:9\d|1[0-3]\d)\s?岁?")


_Column = CellClass | Literal[""] | None


class _Cell(NamedTuple):
    start: int
    end: int
    text: str


def find_cells(text: str) -> Iterator[tuple[int, int, CellClass]]:
    """Yields (start, end, class) of the cells that hold an identifier."""
    if "|" not in text and "\t" not in text:
        return
    columns: list[_Column] = []
    for line in re.finditer(r"[^\n]+", text):
        cells = _cells(line)
        headings: list[_Column] = [_heading(cell.text) for cell in cells]
        if sum(heading is not None for heading in headings) >= 2:
            columns = headings
            if all(heading is None for heading in headings[1::2]):
                columns = []
                yield from _values(cells[1::2], headings[::2])
        elif len(cells) == len(columns):
            yield from _values(cells, columns)
        elif any(cell.text for cell in cells):  # an empty row ends no table
            columns = []


def _values(cells: list[_Cell], labels: list[_Column]) -> Iterator[tuple[int, int, CellClass]]:
    for cell, label in zip(cells, labels, strict=False):
        if not label or _EMPTY.fullmatch(cell.text):
            continue
        if label != "AGE" or _OVER_89.fullmatch(cell.text):
            yield cell.start, cell.end, label


def _cells(line: re.Match[str]) -> list[_Cell]:
    """The cells of a line, without the blanks around them and the bars at its ends."""
    separator = "|" if "|" in line.group() else "\t"
    start, cells = line.start(), []
    for piece in line.group().split(separator):
        value = piece.strip()
        at = start + piece.find(value)
        cells.append(_Cell(at, at + len(value), value))
        start += len(piece) + 1
    first = not cells[0].text and len(cells) > 1
    last = len(cells) - (not cells[-1].text and len(cells) > 1)
    return cells[first:last]


def _heading(value: str) -> _Column:
    """The class of a column; "" for one without identifiers, None if this is no heading."""
    for pattern, label in _CLASSES:
        if pattern.fullmatch(value):
            return label
    return "" if _OTHER.fullmatch(value) else None
