"""Personal names in Chinese clinical text. In: text. Out: spans of names and whether the person
is staff.

A surname list alone finds a name in every 黄疸 and 白蛋白. So a would-be name is weighed: what
stands before it (a field label, a role, a verb), what stands after it (a title, a sex, a stop),
whether its characters are usual in given names, and whether it reads as a word of the language.
Where little stands around it, its characters must speak for themselves: how much likelier they are
in names than in words. Source: EVALUATION.md 4; the weights are chosen on
benchmarks/phi_templates/tuning.yaml and on real texts that name nobody.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from medray.privacy import name_cues as cues
from medray.privacy.lexicon import (
    COMPOUND,
    DRUG_STEM,
    FOLLOWERS,
    FUNCTION_WORDS,
    LOOSE_SURNAMES,
    MEDICAL_WORDS,
    NOT_IN_NAMES,
    is_given,
    is_given_pair,
    is_nameish,
    is_surname,
    name_log_odds,
    words,
)

THRESHOLD = 1.75
WEIGHTS = {"role": 3.0, "staff": 2.5, "person": 2.5, "unit": 1.0, "verb": 1.0}
"""What stands before a name; the beginning of a sentence weighs 0.75, of a clause 0.5."""


class Name(NamedTuple):
    """A name at text[start:end]."""

    start: int
    end: int
    is_doctor: bool
    weight: float


def find_names(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yields (start, end, is_doctor) of every name, best first where they overlap."""
    found = sorted(_candidates(text), key=lambda n: (-n.weight, n.start - n.end))
    taken: list[Name] = []
    is_taken = bytearray(len(text))
    for name in found:
        if not any(is_taken[name.start : name.end]):
            taken.append(name)
            is_taken[name.start : name.end] = b"\1" * (name.end - name.start)
    for name in taken:
        yield name.start, name.end, name.is_doctor
        yield from _listed(text, name)


def _candidates(text: str) -> Iterator[Name]:
    for match in cues.LABEL.finditer(text):
        value = cues.LABELLED.match(text, match.end())
        if value and _is_labelled_name(value.group(), match.lastgroup == "staff"):
            yield Name(*value.span(), match.lastgroup == "staff", 9)
    for match in cues.DOTTED.finditer(text):
        if not cues.TITLE_OF_TEXT.search(match.group()):
            yield _dotted(text, *match.span())
    for match in cues.BEFORE.finditer(text):
        kind = match.lastgroup or "start"
        if kind != "start":
            yield from _from(text, match.end(), WEIGHTS[kind], kind == "staff")
        # 向霞建议: a verb that begins a sentence or a clause may be a surname.
        if kind in ("start", "verb") and not _is_han(text[match.start() - 1 : match.start()]):
            is_clause = text[match.start() - 1 : match.start()] in ("，", ",", "；", ";")
            yield from _from(text, match.start(), 0.5 if is_clause else 0.75, False)
    for match in cues.BEFORE_TITLE.finditer(text):
        yield from _until(text, match.start(), match.lastgroup == "title")
    for match in cues.AFTER_STRONG.finditer(text):
        yield from _until(text, match.start(), False, after=2.0)
    yield from _free(text)


def _free(text: str) -> Iterator[Name]:
    """Names behind a word that is no sign of one: 陪产张桂兰，. The name must speak for itself."""
    for match in cues.INSIDE.finditer(text):
        start = match.start()
        if text[start - 1 : start + 1] not in words() and text[start] not in FUNCTION_WORDS:
            ends_word = text[start - 1] == "的" or any(
                text[start - length : start] in words() for length in (2, 3)
            )
            for name in _from(text, start, 0.5 if ends_word else -0.5, False):
                if ends_word or name.end - start > 2:  # 头孢曲松
                    yield name


def _dotted(text: str, start: int, end: int) -> Name:
    """A name written with dots, without the words before and after it: 患者阿里·买买提因."""
    first = cues.DOT.search(text, start, end)
    last = max(m.end() for m in cues.DOT.finditer(text, start, end))
    assert first is not None
    lead = first.start()
    while lead > start and text[lead - 1] in cues.SOUNDS:
        lead -= 1
    if first.start() - lead >= 2:
        start = lead
    stop = last
    while stop < end and text[stop] in cues.SOUNDS:
        stop += 1
    return Name(start, stop if stop - last >= 2 else min(end, last + 2), False, 8)


def _is_labelled_name(value: str, is_staff: bool) -> bool:
    if cues.NO_NAME.match(value) or value in MEDICAL_WORDS:
        return False
    if value[:2] in MEDICAL_WORDS and not all(map(is_given, value[1:])):
        return False
    if value.isascii():
        return len(value) > 4 or not value.isupper()  # 麻醉医师：ASA Ⅱ级
    if is_surname(value, 0) > 0:
        return True
    # 医生：先停 is what the physician says.
    return value not in words() and (not is_staff or "·" in value)


def _from(text: str, start: int, before: float, is_staff: bool) -> Iterator[Name]:
    """The best name that starts at `start`."""
    surname = is_surname(text, start)
    if not surname:
        return
    best: Name | None = None
    for given in (2, 1):
        pair = text[start + surname : start + surname + 2]
        if best is not None and (is_given_pair(pair) or pair in cues.SON_LIKE):
            break  # 刘胜男, not 刘胜, a man
        end = start + surname + given
        after, is_title = _after(text, end)
        weight = before + after + _shape(text, start, start + surname, end, after)
        if before < 2.5 and cues.AFTER_SCALE.match(text, end):
            weight = -9.0
        if before <= 1:
            weight += _likeness(text[start : start + surname], text[start + surname : end])
        if weight >= THRESHOLD and (best is None or weight > best.weight):
            best = Name(start, end, is_staff or is_title, weight)
    if best is None and surname == 1 and text[start + 1 : start + 2] == " ":
        after, is_title = _after(text, start + 3)
        weight = before + after + _shape(text, start, start + 2, start + 3, after)
        is_likely = name_log_odds(text[start], text[start + 2]) > 3 and after >= 1
        ends_word = text[start - 1 : start + 1] in words()  # 30分钟 可联系
        if weight >= THRESHOLD and (before >= 2.5 or after > 1 or is_likely) and not ends_word:
            best = Name(start, start + 3, is_staff or is_title, weight)
    if best:
        yield best


def _likeness(surname: str, given: str) -> float:
    """What the characters say by themselves, where nothing else says much."""
    most = 2.0 if surname not in FUNCTION_WORDS or _speaks(surname, given) else 0.0  # 于青年
    return min(most, max(-2.0, 0.3 * (name_log_odds(surname, given) - 2)))


def _speaks(surname: str, given: str) -> bool:
    """Whether a given name says by itself that it is one, also behind those function words that
    are surnames of many: 于可馨."""
    is_name = is_given_pair(given) or name_log_odds("", given) > GIVEN_ODDS
    return surname in "于向常曾" and given not in words() and is_name


GIVEN_ODDS = 5.0
"""Nats. Source: not given; 可馨 has 8.3, 外展 1.9."""


def _until(text: str, end: int, is_staff: bool, after: float = 2.5) -> Iterator[Name]:
    """The best name that ends at `end`; a lone surname before a title counts too."""
    while end and text[end - 1] == " ":
        end -= 1
    best: Name | None = None
    for length in (2, 3, 4):
        start = end - length
        surname = is_surname(text, start) if start >= 0 else 0
        if not surname or not 1 <= length - surname <= 2:
            continue
        given_at = start + surname + (length == 3 and text[start + 1] == " ")
        if given_at - start > surname and text[start - 1 : start + 1] in words():
            continue  # 30分钟 可联系家属
        before = (-0.5 if is_staff else -1.0) if text[start - 1 : start + 1] in words() else 0.5
        if start == 0 or text[start - 1] in "科部组室院心" or not _is_han(text[start - 1]):
            before = 1.5
        weight = before + after + _shape(text, start, given_at, end, after)
        if weight >= THRESHOLD and (best is None or weight > best.weight):
            best = Name(start, end, is_staff, weight)
    if best is None and after == 2.5 and end:
        start = end - 2 if re.match(COMPOUND, text[max(0, end - 2) : end]) else end - 1
        surname = text[start:end]
        is_lone = surname not in cues.LONE and text[start - 1 : end] not in words()
        if is_surname(text, start) == len(surname) and is_lone:
            best = Name(start, end, is_staff, 2.5)
    if best:
        yield best


def _after(text: str, end: int) -> tuple[float, bool]:
    """How well a name can end here, and whether a title of staff follows."""
    following = text[end : end + 1]
    if cues.AFTER_TITLE.match(text, end):
        return 2.5, True
    if cues.AFTER_PERSON.match(text, end):
        return 2.0, False
    if cues.AFTER_SUBJECT.match(text, end):
        return 1.25, False
    if not _is_han(following):
        return 1.0, False
    if text[end : end + 2] in words():
        return 0.75, False
    return (0.5, False) if following in FOLLOWERS else (-0.75, False)


def _shape(text: str, start: int, given_at: int, end: int, after: float) -> float:
    """How much text[start:end] looks like a name by itself."""
    given = text[given_at:end]
    if len(given) < end - given_at or not all(map(_is_han, given)):
        return -9
    if not NOT_IN_NAMES.isdisjoint(given) or cues.TITLE_ITSELF.match(text, given_at):
        return -9
    if (len(given) == 2 and cues.KIN.fullmatch(given)) or (
        text[start : start + 2] == "孙子" and not is_given_pair(given)
    ):
        return -9
    if DRUG_STEM.search(text, start, end + 2):
        return -9
    around = (
        text[start:end],
        text[start : start + 3],
        text[start - 1 : start + 2],
        text[start - 1 : start + 1],
    )
    if text[start - 2 : start] in cues.STAFF_ENDS:
        around = around[:2]  # 医师傅爱民 holds no 师傅
    if not MEDICAL_WORDS.isdisjoint(around) or cues.AFTER_EPONYM.match(text, end):
        return -9
    if text[start - 1 : start] in cues.COURSES.get(text[start], ()):
        return -9  # 术程顺利, 接触史约8年
    if text[start] == "周" and text[start - 1 : start] in _COUNTS:
        return -9  # 孕8周大小
    is_weekday = text[start] == "周" and given[0] in "一二三四五六日末"
    if is_weekday and (len(given) == 1 or is_surname(text, start + 2)):
        return -9  # 周五, 周二白曌
    usual = sum(map(is_given, given))
    weight = {0: -1.0, len(given): 1.0}.get(usual, 0.0) + (0.5 if len(given) == 2 else 0)
    pair = text[start : start + 2]
    if (pair in words() or pair in MEDICAL_WORDS) and given_at - start == 1:
        weight -= 3 if end - start == 2 or pair in MEDICAL_WORDS else 1
    if text[start:end] in words() and end - start == 3:
        weight -= 1 if usual == len(given) else 3
    # 王丽宣教: the last character belongs to the next word, unless that reads on from the name.
    reads_on = text[end : end + 2] in words() or 1 < after <= 2
    if text[end - 1 : end + 1] in words() and not reads_on:
        weight -= 1.5
    if (
        end - start == 2
        and text[start - 1 : start] in cues.OPEN
        and text[end : end + 1] in cues.CLOSE
    ):
        weight -= 1  # a brand in brackets
    if is_given_pair(given):
        weight += 0.75
    if text[start - 1 : start] in cues.BARS and text[end : end + 1] in cues.BARS:
        weight += 0.75  # alone in a cell
    elif cues.LINE_START.search(text, max(0, start - 3), start) and cues.LINE_END.match(text, end):
        weight += 0.5  # a signature
    elif (
        len(given) == 2 == usual
        and cues.STOP.search(text, max(0, start - 3), start)
        and cues.LINE_END.match(text, end)
    ):
        weight += 1.0  # one behind the last sentence
    if given_at - start == 2:
        weight += 0.5
    elif text[start] in LOOSE_SURNAMES:
        weight += 0.5 * (after > 1 and is_nameish(given[-1]))
        weight -= 0.25 if usual == 2 else 0.5
        weight -= (0.3 if after == 2 else 0.6) * (given in words())
        if text[start] in FUNCTION_WORDS:
            weight -= (0.5 if after >= 1 else 1.5) * (not _speaks(text[start], given)) + 1.5 * (
                given in words()
            )
            if (
                given[-1] in cues.PLACES
                or given[0] in "一二三四五六七八九十两几数半"
                or text[start:end] in words()
            ):
                return -9
    return weight


_COUNTS = frozenset("0123456789一二三四五六七八九十两几每数半+")


def _is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def _listed(text: str, name: Name) -> Iterator[tuple[int, int, bool]]:
    """Names that follow a found one in a list: 助手：王芳、李强."""
    at = name.end
    while match := cues.NEXT.match(text, at):
        if match.group().strip() not in ("、", "/", "和", "与", "及", ""):
            return
        following = next(_from(text, match.end(), 3.0, name.is_doctor), None)
        if following is None or following.end == at:
            return
        yield following.start, following.end, name.is_doctor
        at = following.end
