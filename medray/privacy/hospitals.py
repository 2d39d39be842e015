"""Institutions of care in clinical text: a name in front of 医院, Clinic and their like. In: text.
Out: spans.

Chinese leaves no blank before them, so the words that lead up to one (就诊于, 转至) are cut off;
what stays must be more than a generic word (当地医院). Source: EVALUATION.md 4.
"""

import re
from collections.abc import Iterator

from medray.privacy.lexicon import HAN, words
from medray.privacy.place_leads import GENERIC, after_lead

_SUFFIX = (
    "妇幼保健计划生育服务中心|社区卫生服务中心|社区卫生服务站|卫生服务中心|卫生服务站|中心卫生院|"
    "卫生院|妇幼保健院|保健院|精神卫生中心|"
    "医学中心|医疗中心|疾病预防控制中心|疾控中心|急救中心|体检中心|透析中心|康复中心|血液中心|"
    "肿瘤中心|心血管病?中心|疗养院|护理院|养老院|"
    "敬老院|福利院|休养所|防治院|防治所|卫生所|卫生室|医务室|门诊部|诊所|医馆|医院"
)
HOSPITAL = re.compile(
    rf"(?P<value>[{HAN}]{{2,24}}?(?P<suffix>{_SUFFIX}))(?!感染|获得)"
    rf"(?P<branch>[{HAN}]{{1,3}}(?:分院|院区)|第[一二三四五六七八九]医学中心|[（"
    rf"(][{HAN}]{{1,6}}院区?[）)])?"
)
SHORT_HOSPITAL = re.compile(
    rf"(?P<value>[{HAN}]{{2,8}}?(?P<suffix>[一二三四五六]院|附[一二三四五六]院?|医大[一二三四]院))"
    rf"(?![{HAN}]?[长])"
)
SUFFIX = re.compile(rf"(?:{_SUFFIX}|[一二三四五六]院)$")
_SUFFIX_EN = (
    r"(?:Hospitals?|Medical (?:Center|Group|Clinic)|Clinics?|Health (?:Center|System|Care)|"
    r"Nursing (?:Home|Facility)|Rehabilitation (?:Center|Hospital)|"
    r"Rehab|Hospice|Infirmary|Care Center|Surgery Center|Cancer (?:Center|Institute)|Heart "
    r"(?:Center|Institute)|Healthcare|Sanatorium)"
)
HOSPITAL_EN = re.compile(
    rf"(?P<value>\b(?:University of |(?:St|Mt|Ft)\. )?(?:[A-Z][\w&'’-]* (?:of (?:the )?|and |"
    rf"for )?){{1,6}}?{_SUFFIX_EN}\b(?: of [A-Z]\w+)?)"
)
_GENERIC_EN = frozenset(
    [
        "the",
        "a",
        "an",
        "at",
        "to",
        "in",
        "from",
        "our",
        "this",
        "that",
        "local",
        "emergency",
        "outpatient",
        "inpatient",
        "pain",
        "wound",
        "eye",
        "cardiology",
        "surgical",
        "mental",
        "health",
        "oncology",
        "orthopedic",
        "orthopaedic",
        "family",
        "specialty",
        "primary",
        "care",
        "urgent",
        "community",
        "day",
        "regional",
        "county",
        "city",
        "private",
        "public",
        "general",
        "acute",
        "psychiatric",
        "pediatric",
        "children's",
        "women's",
        "veterans",
        "veteran",
        "dental",
        "neurology",
        "surgery",
        "medical",
        "rehab",
        "rehabilitation",
        "nursing",
        "skilled",
        "home",
        "her",
        "his",
        "their",
        "discharge",
        "admission",
        "admit",
        "date",
        "other",
        "another",
        "outside",
        "referring",
        "walk-in",
        "follow-up",
        "and",
        "of",
        "for",
        "cancer",
        "heart",
        "clinic",
        "hospital",
        "center",
        "infusion",
        "coumadin",
        "anticoagulation",
        "diabetes",
        "hiv",
        "ent",
        "gi",
        "ob",
        "ob/gyn",
        "gyn",
        "prenatal",
        "sleep",
        "spine",
        "hand",
        "foot",
        "fertility",
        "allergy",
        "dermatology",
        "urology",
        "rheumatology",
        "he",
        "she",
        "was",
        "patient",
        "past",
    ]
)


def find_hospitals(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of institutions of care that are named, not just 当地医院."""
    for pattern in (HOSPITAL, SHORT_HOSPITAL):
        at = 0
        while match := pattern.search(text, at):
            start = after_lead(text, match.start(), match.start("suffix"))
            proper = SUFFIX.sub("", text[start : match.end("value")])
            if len(proper) < 2 or GENERIC.fullmatch(proper) or _is_heading(text, proper, match):
                at = match.end("value")  # 上级医院（同德医院）
            else:
                at = match.end()
                yield start, at
    for match in HOSPITAL_EN.finditer(text):
        start, end = match.span("value")
        tokens = list(re.finditer(r"\S+", text[start:end]))
        if all(token.group().lower().rstrip(".,") in _GENERIC_EN for token in tokens):
            continue
        lead = next(
            t
            for t in tokens
            if t.group().lower() not in ("the", "a", "at", "from", "to", "in", "our")
        )
        yield start + lead.start(), end


def _is_heading(text: str, proper: str, match: re.Match[str]) -> bool:
    """Whether a word before 医院 says what was done there, and its name follows: 植入医院：同德."""
    if len(proper) != 2:
        return False
    end = match.end("value")
    following = HOSPITAL.match(text, end)
    return following is not None or (proper in words() and text[end : end + 1] in (":", "："))
