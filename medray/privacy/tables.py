"""Tables in text. In: text. Out: spans of the cells under a heading that names an identifier.

    姓名|住院号|床号                 姓名|张某某|住院号|0012345|床号|12
    张某某|0012345|12

A table is a line of which two cells or more are known headings, and the lines below it that have as
many cells; or each heading stands before its value. Cells stand between bars, tabs or, as in a CSV
export that was pasted, commas. Source: not given; the headings are those of ward lists, registers
and exports.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

CellClass = Literal["NAME", "DOCTOR", "ID", "PHONE", "MRN", "ADDRESS", "HOSPITAL", "DATE", "AGE"]

_HEADINGS: dict[CellClass, str] = {
    "NAME": "(?:患者|病人|患儿|家属|联系人)?姓名|患者|病人|联系人|家属|"
    "(?i:(?:patient )?name|patient)",
    "DOCTOR": "(?:[主经管开执接随值责负][治管床诊嘱行访班任]?|术者|助手|麻醉)?"
    "(?:医师|医生|护士|大夫|者|人|员)(?:签[名字])?|术者|助手|麻醉|经办|记录|核对|操作|"
    "签[名字]|责护|(?i:provider|attending|nurse|physician|prescriber|"
    "(?:ordered|entered|signed)[ _]by)",
    "MRN": "(?:住院|病案|病历|门诊|登记|就诊|体检|标本|条码|检查)(?:编?号|号码)|床(?:号|位号?)?|"
    "(?i:mrn|(?:ward[ _])?bed(?:[ _]no)?|room|record no\\.?)",
    "ID": "(?:身份证|证件|医保|社保|参保)卡?(?:号码?)?|(?i:ssn|insurance(?: no\\.?)?)",
    "PHONE": "(?:联系)?(?:电话|手机|方式)(?:号码?)?|(?i:phone|tel\\.?|mobile)",
    "ADDRESS": "(?:家庭|现|居住|联系)?(?:住址|地址)|(?:工作)?单位|(?i:address)",
    "HOSPITAL": "(?:就诊|转[入出诊]|医疗|送检|定点)?(?:医院|机构)(?:名称)?|(?i:hospital|facility)",
    "DATE": "(?:入院|出院|就诊|出生|手术|检查|报告|随访|登记|开[始具]|停止|发病|送检|采样)?"
    "(?:日期|时间)|"
    "(?i:(?:start|stop|visit|birth|admit|admission|discharge)?[ _]?date|start|stop|dob|visit)",
    "AGE": "年龄|(?i:age)",
}
_CLASSES: list[tuple[re.Pattern[str], CellClass]] = [
    (re.compile(pattern), label) for label, pattern in _HEADINGS.items()
]
_OTHER = re.compile(
    "性别|关系|诊断|科[室别]|备注|序号|药名|药品|剂量|频次|用法|结果|项目|单位|医嘱内容|手术间|台次|"
    "(?i:sex|diagnosis|dx|dose|route|freq|(?:med|drug|test|item)[ _]name|result|unit)"
)
_OF_RESULTS = frozenset({"结果", "项目", "参考范围", "参考区间", "参考值"})
_CLOCK = re.compile(r"\d{1,2}[:：]\d{2}(?:[:：]\d{2})?")
_EMPTY = re.compile(r"[-—/\\无\s]*|不详|未知|空床?|N/?A|NULL", re.IGNORECASE)
_OVER_89 = re.compile(r"(?:9\d|1[0-3]\d)\s?岁?")


_Column = CellClass | Literal[""] | None


# A quoted cell of a CSV line may hold commas.
_PIECES = {
    "|": re.compile(r"(?:^|(?<=\|))[^|]*"),
    "\t": re.compile(r"(?:^|(?<=\t))[^\t]*"),
    ",": re.compile(r"(?:^|(?<=,))(?:\"[^\"]*\"(?=,|$)|[^,\"]*(?=,|$)|[^,]*)"),
}


class _Cell(NamedTuple):
    start: int
    end: int
    text: str


_DIGIT = re.compile(r"\d")


def find_cells(text: str) -> Iterator[tuple[int, int, CellClass]]:
    """Yields (start, end, class) of the cells that hold an identifier."""
    if "|" not in text and "\t" not in text and (text.count(",") < 4 or "\n" not in text):
        return
    columns: list[_Column] = []
    for line in re.finditer(r"[^\n]+", text):
        cells = _cells(line, len(columns))
        headings: list[_Column] = [_heading(cell.text) for cell in cells]
        if sum(heading is not None for heading in headings) >= 2:
            if any(cell.text in _OF_RESULTS for cell in cells):  # 单位 of a value, no employer
                headings = ["" if label == "ADDRESS" else label for label in headings]
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
        if label == "DATE" and (len(cell.text) > 20 or not _DIGIT.search(cell.text)):
            continue
        if label == "DATE" and _CLOCK.fullmatch(cell.text):
            continue
        if label != "AGE" or _OVER_89.fullmatch(cell.text):
            yield cell.start, cell.end, label


def _cells(line: re.Match[str], num_columns: int) -> list[_Cell]:
    """The cells of a line, without the blanks around them and the bars at its ends, unless with
    these there are `num_columns`."""
    separator = next((mark for mark in "|\t" if mark in line.group()), ",")
    start, cells = line.start(), []
    for match in _PIECES[separator].finditer(line.group()):
        value = match.group().strip(' "\t\u3000')
        at = start + match.start() + match.group().find(value)
        cells.append(_Cell(at, at + len(value), value))
    if len(cells) == num_columns:
        return cells
    first = not cells[0].text and len(cells) > 1
    last = len(cells) - (not cells[-1].text and len(cells) > 1)
    return cells[first:last]


def _heading(value: str) -> _Column:
    """The class of a column; "" for one without identifiers, None if this is no heading."""
    for pattern, label in _CLASSES:
        if pattern.fullmatch(value):
            return label
    return "" if _OTHER.fullmatch(value) else None
