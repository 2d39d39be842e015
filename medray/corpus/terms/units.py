"""Units of measurement in one spelling. In: text. Out: edits of the units, never of a value.

A unit is touched only right behind a number, so that no word is taken for one. 度 is degrees
Celsius only behind a temperature of a body (体温38.5度, not 屈曲30度).
Source: issue 3, unit normalisation; the table `units.yaml`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import NamedTuple

import yaml

from medray.corpus.terms.edits import Edit

# ×10^9/L, also with its superscript lost (×109/L): nobody counts cells by 109. Without a sign of
# multiplication it needs a blank and the sign of a power, or its digits would be the value's.
_POWER = (
    r"(?:[×xX*✕╳·] ?10 ?(?:\^|\*\*?|[eE])?|(?<=[0-9] )10(?:\^|\*\*?|[eE])) ?"
    r"(?P<power>12|9|6|3|[³⁶⁹]|¹²) ?[/／] ?(?P<per>升|[uμµ]?[lL])"
)
_BODY = r"(?:3[4-9]|4[0-2])(?:\.[0-9]{1,2})?"
_TEMPERATURE = re.compile(
    r"(?:体温|[热温]|烧(?!伤)|(?<![A-Za-z])T)[ ：:，,最高可为约近达至到在是有时升]{0,6}"
    rf"(?:{_BODY}(?:度|℃)?[-~～至到])?{_BODY} ?(?P<unit>度)(?![0-9一二三四])"
)
_SUPERSCRIPTS = str.maketrans("¹²³⁶⁹", "12369")


class UnitTable(NamedTuple):
    """Spellings of units."""

    any_case: dict[str, str]
    """Spelling, without case and blanks and with u for micro → the one."""
    exact: dict[str, str]
    pattern: re.Pattern[str]


def find_units(text: str) -> list[Edit]:
    """Edits that give every unit in `text` its one spelling, in order.

    >>> [edit.new for edit in find_units("肌酐88umol/l，白细胞 5.0*10*9/L，体温38.5度。")]
    ['μmol/L', '×10^9/L', '℃']
    """
    table = load_units()
    return sorted(edit for edit in _spelled(text, table) if text[edit.start : edit.end] != edit.new)


def count_units(edits: list[Edit]) -> Counter[str]:
    """How often each unit was respelled."""
    return Counter(edit.new for edit in edits)


def _spelled(text: str, table: UnitTable) -> Iterator[Edit]:
    for match in table.pattern.finditer(text):
        if match["power"]:
            power = match["power"].translate(_SUPERSCRIPTS)
            per = "L" if match["per"] in "lL升" else "μL"
            yield Edit(*match.span("unit"), f"×10^{power}/{per}")
        elif match["any"]:
            yield Edit(*match.span("unit"), table.any_case[_key(match["any"])])
        else:
            yield Edit(*match.span("unit"), table.exact[match["exact"]])
    for match in _TEMPERATURE.finditer(text):
        yield Edit(*match.span("unit"), "℃")


@cache
def load_units() -> UnitTable:
    """The table of the package."""
    text = resources.files("medray.corpus.terms").joinpath("units.yaml").read_text("utf-8")
    values = yaml.safe_load(text)
    any_case, exact = (
        {spelling: unit for unit, others in values[part].items() for spelling in [unit, *others]}
        for part in ("any_case", "exact")
    )
    longest = sorted(any_case.items(), key=lambda item: -len(item[0]))
    any_pattern = "|".join(_tolerant(_key(spelling), unit) for spelling, unit in longest)
    exact_pattern = "|".join(map(re.escape, sorted(exact, key=len, reverse=True)))
    pattern = re.compile(
        rf"(?<=[0-9]) ?(?P<unit>{_POWER}|(?P<any>(?i:{any_pattern}))|(?P<exact>{exact_pattern}))"
        r"(?![A-Za-z0-9/／^·²])"
    )
    return UnitTable({_key(k): unit for k, unit in any_case.items()}, exact, pattern)


def _key(spelling: str) -> str:
    """A spelling without what is allowed to differ."""
    plain = spelling.replace(" ", "").replace("／", "/")
    return re.sub("[µμΜ]", "u", plain).lower()


def _tolerant(key: str, unit: str) -> str:
    """A pattern of all spellings with this key; blanks only around / and before Hg and C."""
    micro = unit[0] == "μ" and key[0] == "u"
    pattern = "[uμµ]" * micro + re.escape(key[micro:]).replace("/", " ?[/／] ?")
    return pattern.replace("mmhg", "mm ?hg").replace("°c", "[°º] ?c")
