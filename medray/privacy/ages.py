"""Ages over 89, which Safe Harbor counts among the identifiers. In: text. Out: spans, and the age
that stands for all of them: 90岁以上, in English over 89.

Ages of 89 and under stay. A number is an age by its unit (93岁, 93-year-old) or its label
(年龄：93, aged 93); 90%, 90次/分 and 90mmHg have neither. Source: 45 CFR 164.514(b)(2)(i)(C).
"""

import re
from collections.abc import Iterator

OVER_89, OVER_89_EN = "90岁以上", "over 89"
_OLD = r"(?:9\d|1[0-3]\d)"
_OLD_ZH = "(?:九十[一二三四五六七八九]?|一百[零〇]?[一二三四五六七八九]?)"
_UNIT = r"\s?周?岁(?:以上)?"
_JSON = ('"age":', '"age": ', '"age":"', '"age": "')
_SIGNS = re.compile(
    r"岁|年\s*龄|[男女][|,，\t ]|male\b|\b(?i:age|year|yr|y/?o)|\d[MFY]\b|[a-z], \d\d,"
)
_PATTERNS = (
    re.compile(rf"(?!{OVER_89})(?:(?<![\d.]){_OLD}|{_OLD_ZH}){_UNIT}"),
    re.compile(rf"龄\s*[:：]?\s*{_OLD}(?![\d.%+]|\s?周?岁|\s?(?:天|月|日|次|分|mm|cm|kg))"),
    re.compile(
        rf"(?<![\d./]){_OLD}"
        r"(?=[- ]?(?:years?|yrs?)[- ](?:old|of age)|\s?(?:yo|y/o|y\.o\.)\b|[MFY]\b)"
    ),
    re.compile(rf"(?<=\b(?i:age)[: ]){_OLD}(?![\d.%/-]|\s?(?:days?|mm|mg|months?)\b)"),
    re.compile(rf"(?<=[男女][|,，\t]){_OLD}(?=\s?[|,，\t])|(?<=[男女] ){_OLD}(?= )"),
    re.compile(
        rf"(?<![(\d./-]){_OLD}(?=[ -](?i:fe)?(?i:male)\b(?! (?:and|patients|subjects|cases)))"
        rf"|(?<=[a-z], ){_OLD}(?=, [a-z])"
    ),
    re.compile("|".join(rf"(?<={lead}){_OLD}(?=[\",}}\s])" for lead in _JSON)),
    re.compile(rf"(?<=(?i:age/sex)[:：] ){_OLD}(?=/(?:[MF]\b|(?i:fe)?(?i:male)))"),
    re.compile(rf"(?<=\| ){_OLD}(?= \| (?i:fe)?male)"),
    re.compile(rf"(?:(?<=[男女] \| )|(?<=le \| )){_OLD}(?= (?:y |岁 )?\|)"),
    re.compile(rf"(?<=\b(?i:aged|age:) ){_OLD}(?![\d.%/-]|\s?(?:days?|mm|mg|months?)\b)"),
)
_NUMBER = re.compile(rf"(?:{_OLD}|{_OLD_ZH})(?:{_UNIT})?")


def find_ages(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of every age over 89: the number with 岁, or with the 龄 of its label; in
    English the number alone."""
    if _SIGNS.search(text):
        for pattern in _PATTERNS:
            for match in pattern.finditer(text):
                yield match.span()


def coarse_age(value: str) -> str:
    """What stands for an age that `find_ages` found.

    >>> coarse_age("93岁"), coarse_age("龄：93"), coarse_age("93")
    ('90岁以上', '龄：90岁以上', 'over 89')
    """
    return OVER_89_EN if value.isascii() else _NUMBER.sub(OVER_89, value)
