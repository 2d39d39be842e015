"""PHI in Chinese clinical text. In: text. Out: spans with their class.

Source: EVALUATION.md 4 (labels, surnames, check digit, `(?<!\\d)…(?!\\d)` because `\\b` fails
between Chinese and digits); classes after i2b2 and the 18 Safe Harbor identifiers.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from medray.privacy.names import HAN, find_names

PhiClass = Literal["NAME", "DOCTOR", "ID", "PHONE", "EMAIL", "MRN", "ADDRESS", "HOSPITAL", "DATE"]

# One character for one, so that offsets in the folded text are offsets in the text.
FOLD = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in "，：；！？（）"}
STEMS, BRANCHES = "甲乙丙丁戊己庚辛壬癸", "子丑寅卯辰巳午未申酉戌亥"
SURROGATE = re.compile(
    f".?某[{STEMS}][{BRANCHES}](?:医院|地)?|(?:ID|TEL|MAIL|MRN)-[A-Z2-7]{{4}}(?![0-9A-Z])"
)


class Span(NamedTuple):
    """PHI at text[start:end]."""

    start: int
    end: int
    label: PhiClass


YEAR, MONTH, DAY = r"(?:19|20)\d{2}", r"(?:0?[1-9]|1[0-2])", r"(?:3[01]|[12]\d|0?[1-9])"
DATE = re.compile(
    rf"(?<![\d.])(?:"
    rf"(?P<y>{YEAR})(?P<s1>[-/.年])\s?(?P<m>{MONTH})(?P<s2>[-/.月])\s?(?P<d>{DAY})(?!\d)"
    rf"|(?P<cy>{YEAR})(?P<cm>0[1-9]|1[0-2])(?P<cd>0[1-9]|[12]\d|3[01])(?!\d)"
    rf"|(?P<ky>{YEAR})(?P<ks>年)\s?(?P<km>{MONTH})(?=月)"
    rf"|(?P<hy>{YEAR})(?P<hs>[-/])(?P<hm>{MONTH})(?![\d.%/A-Za-z\-])"
    rf"|(?P<oy>{YEAR})(?=年(?!龄))"
    rf"|(?<!年)(?P<nm>{MONTH})月(?P<nd>{DAY})(?=[日号]))"
)
EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,10}")
RESIDENT_ID = re.compile(
    r"(?<![0-9A-Za-z])[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]"
    r"(?![0-9A-Za-z])"
)
LABELLED_ID = re.compile(
    r"(?:身份证|证件|护照|医保卡?|社保卡?|医保编|银行卡|军官证|新农合证?)号?码?\s*[:：为]?\s*"
    r"(?P<value>[A-Za-z0-9]{6,20})(?![0-9A-Za-z])"
)
PHONE = re.compile(
    r"(?<![\d.])(?:(?:\+?86[- ]?)?1[3-9]\d(?:[- ]?\d{4}){2}|0\d{2,3}[- ]\d{7,8}(?:-\d{1,5})?)(?!\d)"
)
LABELLED_PHONE = re.compile(
    r"(?:电话|手机|联系方式|传真|座机)(?:号码?)?\s*[:：为]\s*"
    r"(?P<value>[+(]?\d[\d() -]{5,17}\d)(?!\d)"
)
LABELLED_MRN = re.compile(
    r"(?:住院|病历|病案|门诊|急诊|病理|登记|就诊|检查|影像|标本|报告|挂号|CT|MRI?|X线|超声)(?:编号|号)码?"
    r"\s*[:：为]?\s*(?P<value>[A-Za-z]{0,5}-?\d[0-9A-Za-z-]{2,19})(?![0-9A-Za-z])"
    r"|床号\s*[:：]\s*(?P<bed>[\d+\-A-Za-z]{1,6})|(?P<ward>(?<![\d+])\+?\d{1,3})床(?=患者|病人|[，,。:：])"
)
LABELLED_ADDRESS = re.compile(
    r"(?:家庭住址|现住址|常住地?址?|户籍地?址?|户口地址|联系地址|通讯地址|住址|地址|出生地|居住地|籍贯|"
    r"工作单位)\s*[:：]\s*(?P<value>[^，,。；;、\n\s]{2,40})"
)
STREET = rf"[{HAN}\d]{{1,12}}?(?:路|街|道|巷|弄|村|镇|乡|小区|花园|公寓|号楼?|栋|幢|单元|室|组|层)"
ADDRESS = re.compile(
    rf"(?P<value>[{HAN}]{{2,8}}?(?P<level>省|自治区|市|自治州|地区)"
    rf"(?:[{HAN}]{{1,8}}?(?:市|区|县|旗|镇|乡)(?:{STREET})*"
    rf"|[{HAN}]{{1,10}}?[路街道巷弄村]\d+号?(?:{STREET})*))"
)
HOSPITAL = re.compile(
    rf"(?P<value>[{HAN}]{{2,20}}(?P<suffix>医院|卫生院|保健院|医学中心|医疗中心|卫生服务中心|疗养院))(?!感染|获得)"
)
# Words that can stand right before an address or a hospital; the last of them ends the lead.
LEAD = re.compile(
    r"患者|病人|家住|现住|住在|住于|曾在|曾于|曾至|就诊于|转诊至|转入|转至|转往|入住|前往|送往|送至|送到|遂至|遂到|"
    r"遂来|遂于|即至|即到|随后|之后|收入|就诊|门诊|推荐|介绍|(?<!协)和|"
    r"建议|及时|天后|小时后|月后|回(?!民)|[遂并其已曾未需要或转带则]|[于在至到往赴从由经去来及与住]|(?<=\d)[年月日号]"
)
GENERIC = re.compile(
    r"(?:当地|外地|外|某|我|本|该|贵|上级|下级|上一级|基层|社区|综合|专科|专业|三甲|三级|二级|一级|甲等|其他|其它|附近|"
    r"多家|单位|职工|各|别的|家|省|市|县|区|镇|乡|级|大|小|私立|私人|公立|人民|中心|中医|精神病|精神|儿童|妇幼|妇产|肿瘤|"
    r"传染病|胸科|口腔|眼科|骨科|康复|等|的|一|两|几|数|院外|院内|大型|正规|民营|市级|省级|县级|区级|州|教学)+"
)
SUFFIX = re.compile(r"(?:医院|卫生院|保健院|医学中心|医疗中心|卫生服务中心|疗养院)$")


def find_phi(text: str, known: Mapping[str, PhiClass] | None = None) -> list[Span]:
    """Returns the PHI of a text: sorted, without overlap, surrogates left out.

    Args:
        known: strings that are PHI wherever they stand, such as the names of the record's header.
    """
    folded = text.translate(FOLD)
    found = [*_known(folded, known or {}), *_patterns(folded), *_names(folded)]
    surrogates = [Span(*match.span(), "NAME") for match in SURROGATE.finditer(folded)]
    taken: list[Span] = []
    # The longest first, so that an address is not left in pieces around a name in it.
    for span in sorted(found, key=lambda s: (s.start - s.end, s.start)):
        if not any(
            span.start < other.end and other.start < span.end for other in (*taken, *surrogates)
        ):
            taken.append(span)
    return sorted(taken)


def known_strings(texts: Iterable[str]) -> dict[str, PhiClass]:
    """Names, numbers and places found in `texts`, to be found again where no label stands."""
    known: dict[str, PhiClass] = {}
    for text in texts:
        folded = text.translate(FOLD)
        for start, end, label in find_phi(text):
            min_chars = {"NAME": 2, "DOCTOR": 2, "HOSPITAL": 4}.get(label, 6)
            if label != "DATE" and end - start >= min_chars:
                known.setdefault(folded[start:end], label)
    return known


def has_valid_check_digit(number: str) -> bool:
    """True if the last of 18 characters is the ISO 7064 MOD 11-2 digit of the first 17.

    Source: GB 11643-1999: weights 2^(17-i) mod 11.
    """
    total = sum(int(digit) * (2 ** (17 - i) % 11) for i, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def _patterns(text: str) -> Iterator[Span]:
    for match in EMAIL.finditer(text):
        yield Span(*match.span(), "EMAIL")
    for match in RESIDENT_ID.finditer(text):
        if has_valid_check_digit(match.group()):
            yield Span(*match.span(), "ID")
    labelled: tuple[tuple[re.Pattern[str], PhiClass], ...] = (
        (LABELLED_ID, "ID"), (LABELLED_PHONE, "PHONE"), (LABELLED_MRN, "MRN"),
        (LABELLED_ADDRESS, "ADDRESS"),
    )  # fmt: skip
    for pattern, label in labelled:
        for match in pattern.finditer(text):
            yield Span(*match.span(match.lastgroup or 0), label)
    for match in PHONE.finditer(text):
        yield Span(*match.span(), "PHONE")
    for match in DATE.finditer(text):
        yield Span(*match.span(), "DATE")
    for match in ADDRESS.finditer(text):
        start, end = _after_lead(text, *match.span("value"), match.start("level") - 1)
        if start < match.start("level"):
            yield Span(start, end, "ADDRESS")
    for match in HOSPITAL.finditer(text):
        start, end = _after_lead(text, *match.span("value"), match.start("suffix"))
        proper = SUFFIX.sub("", text[start:end])
        if len(proper) >= 2 and not GENERIC.fullmatch(proper):
            yield Span(start, end, "HOSPITAL")


def _names(text: str) -> Iterator[Span]:
    for start, end, is_doctor in find_names(text):
        yield Span(start, end, "DOCTOR" if is_doctor else "NAME")


def _known(text: str, known: Mapping[str, PhiClass]) -> Iterator[Span]:
    for value, label in known.items():
        if value not in text:
            continue
        # A number must not be found inside a longer one.
        guard = r"(?<![0-9A-Za-z])%s(?![0-9A-Za-z])" if value[-1].isascii() else "%s"
        for match in re.finditer(guard % re.escape(value), text):
            yield Span(*match.span(), label)


def _after_lead(text: str, start: int, end: int, stop: int) -> tuple[int, int]:
    """The span without the words before `stop` that lead up to it: 至协和医院 → 协和医院."""
    for match in LEAD.finditer(text, start, max(start, stop)):
        start = match.end()
    return start, end
