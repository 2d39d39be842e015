"""Numbers that point at a person. In: text. Out: spans of ID, PHONE, EMAIL and MRN.

A label is trusted; without one a number must prove itself by its check digit, its prefix or its
form. Blanks that a form or a scan leaves inside a number are allowed for. `\\b` fails between
Chinese and digits, hence `(?<!\\d)…(?!\\d)`. Source: EVALUATION.md 4; i2b2 and Safe Harbor.
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

NumberClass = Literal["ID", "PHONE", "EMAIL", "MRN"]

_COLON = r"\s*(?:[（(][^）)\n]{1,8}[）)])?\s*[:：为是#_]?[\s_]*"
# A number in groups, as long as the next group is no date, age, bed or clock.
_VALUE = (
    r"(?P<{}>(?!\d{{1,2}}/\d{{1,2}}/\d{{2,4}}(?!\d))[A-Za-z]{{0,5}}[-_]?\d[0-9A-Za-z]*(?:[-/][0-9A-Za-z]+)*"
    r"(?:(?<=\d) \d{{2,8}}(?![\dA-Za-z年月日岁.:：/\-]| ?(?:[年月日岁]|床(?![号位])))){{0,4}})"
    r"(?![0-9A-Za-z])"
)


def _spaced(*words: str) -> str:
    """The words, with the blanks that a form's layout puts between their characters."""
    return "|".join(r"[ \u3000]{0,3}".join(word) for word in words)


EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64} ?@ ?(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,10}"
)
RESIDENT_ID = re.compile(r"(?<![0-9A-Za-z])[1-9](?:[ -]?\d){16}[ -]?[\dXx](?![0-9A-Za-z])")
OLD_RESIDENT_ID = re.compile(
    r"(?<![0-9A-Za-z.])[1-9]\d{7}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}(?![0-9A-Za-z.])"
)
SSN = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
CARD = re.compile(r"(?<![\d.])[3-6]\d{3}(?: ?\d){11,15}(?!\d|\.\d)")
UNION_CARD = re.compile(r"(?<![\d.])62\d{2}(?:[ -]?\d{4}){3}(?:[ -]?\d{1,3})?(?!\d|\.\d)")
"""Of China UnionPay (ISO/IEC 7812 range 62), also where a slip breaks its check digit."""
PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁苏浙赣鄂桂甘晋蒙陕吉闽贵粤川青藏琼宁新][A-HJ-Z][·. -]?"
    r"(?=[A-Z]*\d)[A-HJ-NP-Z0-9]{4,5}[A-HJ-NP-Z0-9挂学警港澳](?![A-Za-z0-9])"
)
_ID_WORDS = _spaced(
    *(
        "身份证",
        "证件",
        "身份证件",
        "护照",
        "通行证",
        "居住证",
        "军官证",
        "驾驶证",
        "残疾证",
        "准生证",
    )
)
LABELLED_ID = re.compile(
    rf"(?:{_ID_WORDS}"
    r"|医保|社保|参保|新?农合|医疗证|医疗保险|社会保障|公费医疗|银行卡?|储蓄卡|工资卡|账户?|帐户?|"
    r"卡|车牌|保单|(?i:passport|insurance|policy"
    r"|license|licence|serial|VIN|IMEI|S/N|SSN|social security|health plan"
    r"|medicare|medicaid|authorization|member|subscriber|(?:debit|credit|bank|acct|account) card)"
    r")(?:证|卡)?(?:编号|号码|号|帐号|账号|(?i: ?(?:number|no\.?|id|#)))?"
    + _COLON
    + _VALUE.format("value"),
)  # fmt: skip
ACCOUNT = re.compile(
    r"(?i:微信|weixin|wechat|wx|qq|Q Q|支付宝|抖音|skype|telegram|whatsapp|"
    r"facetime|\bIM (?=handle|ID|name)|\bIM(?=:))"
    r"(?:号码?|账号|帐号|ID|群|空间|昵称|名片|联系|添加|加|"
    r"(?i: ?handle| ?id| ?name| ?account| ?user(?:name)?))?"
    + _COLON + r"[（(]?"
    + r"(?P<value>[A-Za-z][-_A-Za-z0-9]{5,19}|\d{5,12})(?![-_A-Za-z0-9@])"
    # A handle proves itself by its form, or by digits at its end not far behind the word.
    r"|(?<![A-Za-z0-9])(?P<value2>wxid_[A-Za-z0-9]{6,})"
    r"|(?:微信|QQ)[^\n。；;]{0,12}[:：“\"]\s?(?P<value3>[A-Za-z]{3,}_?\d{3,}[A-Za-z0-9_]*)(?![-_A-Za-z0-9@])"
)  # fmt: skip
MOBILE = re.compile(r"(?<![\d.])(?:[(（]?\+?86[)）]?[- ]?)?1[3-9]\d(?:[- ]?\d){8}(?![\d.]\d|\d)")
_AREA = r"(?:010|02\d|0[3-9]\d{2})"
LANDLINE = re.compile(
    rf"(?<![\d.])(?:[(（]{_AREA}[)）][- ]?|{_AREA}[- ]|{_AREA})[2-9]\d{{2,3}}[- ]?\d{{4}}"
    r"(?:(?: ?转 ?| ?分机 ?|-)\d{1,5})?(?!\d)|(?<![\d.])[48]00-?\d{3}-?\d{4}(?!\d)"
)
PHONE_EN = re.compile(
    r"(?<![\d.+-])(?:\+?1[-. ])?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?:,? ?(?:x|ext\.?) "
    r"?\d{1,5}(?!\d| ?@))?(?![\d-])"
    r"|(?<![\d.-])[2-9]\d{2}-\d{4}(?:,? ?(?:x|ext\.?) ?\d{1,5}(?!\d| ?@))?"
    r"(?![\d-]|\s?(?:mg|ml|mL|g|units|cc|k?cal|cm|mm)\b)"
)
LABELLED_PHONE = re.compile(
    r"(?:电话|手机|联系方式|联系|传真|座机|固话|热线|致电|来电|拨打?|电联|回电|小灵通|(?i:tel|"
    r"phone|mobile|fax|cell|pager))"
    r"(?:号码?|\.)?\s*[（(]?[:：为是]?\s*"
    # A whole number first, lest it run on into the next.
    r"(?P<value>(?:1[3-9]\d(?:[- ]?\d){8}|[（(]?0\d{2,3}[）)]?[- ]?[2-9]\d{6,7}(?:转\d{1,5})?)"
    r"(?!\d)|"
    r"[+(（]?\d(?:[\d()（）-]|"
    r" (?!1[3-9]\d{9}|[（(]?0\d{2,3}[）)-]|(?:19|20)\d\d ?[-./年]|"
    r"\d{1,2} ?[年月日]|\d{1,2}[./]\d)){4,17}\d"
    r"(?:转\d{1,5})?)(?!\d)"
)
_MRN_WORDS = _spaced("住院", "病历", "病案", "门诊", "床号", "就诊卡", "住院流水", "登记", "编")
LABELLED_MRN = re.compile(
    rf"(?:{_MRN_WORDS}|[\u4e00-\u9fff]{{0,4}}[\u4e00-\u9fff](?<![批准文型符记信代番])|CT|MRI?|"
    rf"X线?片?|B超|ID|"
    rf"DR)[ \u3000]{{0,3}}"
    rf"(?:编[ \u3000]?号|号码|号|ID)(?![楼院线])" + _COLON + _VALUE.format("value")
    + r"|(?:就诊卡|诊疗卡|条码|腕带|流水)" + _COLON + _VALUE.format("value2")
    # The key of an export: <report id="12345">, mdtrt_id<tab>12345, "identifier":"12345", No.12345.
    + r"|(?i:(?<![a-z])(?:[a-z]{1,20}[_-])?(?:id|no|num|number|identifier|nbr)|\bno\.)"
    + r"[\"'”]?\s?[>=:.\t]\s?[\"'“]?" + _VALUE.format("value4")
    + r"|(?<![A-Za-z0-9#])[#＃]\s?(?P<value5>[A-Z]{0,4}\d{5,14})(?![0-9A-Za-z])"
    + r"|(?<![A-Za-z])(?i:MRN?\b|medical record\b|acc(?:oun)?t\b|chart\b|patient id\b|"
    r"specimen\b|accession\b|encounter\b"
    r"|visit\b|case\b|hospital\b|record\b|unit\b)(?: ?(?i:number|no\.?|num|#|id))?\s?[:#]?\s?"
    + _VALUE.format("value3")
)  # fmt: skip
_BED = r"(?:[A-Za-z]{1,2}-?|[+加])?\d{1,3}(?:-\d{1,3})?[A-Za-z]?"
BED = re.compile(
    rf"(?:{_spaced('床号', '床位', '床位号', '病床')}|床)\s*[:：#]\s*"
    rf"(?P<value>{_BED})(?:(?=ID)|(?![0-9A-Za-z]))"
    rf"|(?:{_spaced('床号', '床位', '房床', '病床')})[\s_]*(?P<value2>{_BED})(?![0-9A-Za-z])"
    rf"|(?<![A-Za-z])(?i:bed)(?i:_?no|_?number)?[\"'”]?\s?[>=:\t]\s?[\"'“]?(?P<value8>{_BED})(?![0-9A-Za-z%])"
    rf"|(?<![^\s|，,])床 ?(?P<value6>{_BED})(?![0-9A-Za-z.]| ?[张个位次天日周月])"
    rf"|(?<![\d.])(?P<value7>[+加]\d{{1,3}})\s?床"
    rf"|(?<![\d+A-Za-z.\-加开编置张约])(?P<value3>{_BED})\s?加?床(?![旁下边垫单头尾面号位椅]|上(?!官)|"
    r"[+加]?\d{1,3}(?![\d床]))"
    # Some beds of a list, a bed of a ward's export, and 加5 by itself, which is a bed put in.
    rf"|(?<![\d+A-Za-z.:：,\-])(?P<value9>{_BED})(?=[、和及]\s?{_BED}(?:[、和及]\s?{_BED})?\s?[两三]?床(?!位))"
    rf"|(?<=[、和及(（])(?P<value10>{_BED})(?=\s?[两三]床)"
    rf"|床号[\u4e00-\u9fff]{{0,4}}[(（]\s?(?P<value11>{_BED})(?=[、,，)）])"
    rf"|(?<=[科室部U]\|)(?P<value12>{_BED})(?=\|)"
    r"|(?<![\u4e00-\u9fff\d+*×^/.])(?P<value13>加\d{1,2})(?=$|[\s、，,。；;|)）（(])"
    rf"|(?<=[IC]CU)(?P<value15>{_BED})\s?床(?!位)"
    rf"|(?<=[母其原新转])床(?P<value14>{_BED})(?![0-9A-Za-z.]|\s?[张个位次天])"
    r"|(?P<value4>[一二三四五六七八九十]{1,3})床(?=患者|病人|[，,。：:]|[\u4e00-\u9fff]{2,3}[，,])"
    rf"|(?i:\bbed|(?<!operating )\broom|\brm)(?i: ?(?:number|no\.?|#))?\s?[:#]?\s?"
    rf"(?P<value5>{_BED})"
    rf"(?![0-9A-Za-z%])"
)  # fmt: skip
# A long bare number is no measurement, unless a unit or a power follows; one of six digits may be.
BARE = re.compile(
    r"(?<![0-9A-Za-z.×*^+\-<>≥≤~])(?<!准字)(?!(?:19|2[0-2])\d\d(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])(?!\d))"
    r"(?:[A-Z]{0,4}-?\d{7,14}|[A-Z]{1,4}-?\d{5,6}|20\d\d-\d{5,8}|\d\d \d{3} \d{3})"
    r"(?![0-9A-Za-z%×*^]|\.\d|\s?(?:[a-zA-Zμµ]+/|/(?:ml|L|u)|IU|U/|copies|拷贝|个|元|ml|ng|pg))"
    r"|(?:^|(?<=[\s|/（(\[，,>\"'“]))\d{6}(?=$|[\s|/）)\]，,。<\"'”])"
    r"(?! ?(?:IU|U|copies|拷贝|个|元|m|/?[uμL]))"
)


def has_valid_check_digit(number: str) -> bool:
    """True if the last of 18 characters is the ISO 7064 MOD 11-2 digit of the first 17.

    Source: GB 11643-1999: weights 2^(17-i) mod 11.
    """
    total = sum(int(digit) * (2 ** (17 - i) % 11) for i, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def has_valid_luhn_digit(number: str) -> bool:
    """True if the last digit makes the weighted sum of a bank card's digits a multiple of ten.

    Source: ISO/IEC 7812-1, annex B.
    """
    return (
        sum(sum(divmod(int(d) * (1 + i % 2), 10)) for i, d in enumerate(reversed(number))) % 10 == 0
    )


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    label: NumberClass
    min_digits: int
    """Of the value. A text with fewer is not searched."""
    is_valid: Callable[[str], bool] = bool
    """Of the value without blanks and hyphens."""


_RULES = (
    _Rule(EMAIL, "EMAIL", 0),
    _Rule(RESIDENT_ID, "ID", 17, has_valid_check_digit),
    _Rule(CARD, "ID", 15, has_valid_luhn_digit),
    _Rule(UNION_CARD, "ID", 16),
    _Rule(OLD_RESIDENT_ID, "ID", 15),
    _Rule(SSN, "ID", 9),
    _Rule(PLATE, "ID", 1),
    _Rule(LABELLED_ID, "ID", 5),
    _Rule(ACCOUNT, "ID", 0),
    _Rule(LABELLED_PHONE, "PHONE", 6),
    _Rule(LABELLED_MRN, "MRN", 4),
    _Rule(MOBILE, "PHONE", 11),
    _Rule(LANDLINE, "PHONE", 10),
    _Rule(PHONE_EN, "PHONE", 7),
    _Rule(BED, "MRN", 0),
    _Rule(BARE, "MRN", 5),
)
_DIGIT = re.compile(r"\d")


def find_numbers(text: str) -> Iterator[tuple[int, int, NumberClass]]:
    """Yields (start, end, class), in no order and with overlaps; an earlier one goes first."""
    num_digits = len(_DIGIT.findall(text))
    for pattern, label, min_digits, is_valid in _RULES:
        if num_digits < min_digits or (label == "EMAIL" and "@" not in text):
            continue
        for match in pattern.finditer(text):
            start, end = match.span(match.lastgroup or 0)
            value = re.sub("[ -]", "", text[start:end])
            if len(_DIGIT.findall(value)) >= min_digits and is_valid(value):
                yield start, end, label
