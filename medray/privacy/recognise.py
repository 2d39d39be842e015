"""PHI in Chinese and English clinical text. In: text. Out: spans with their class.

Source: EVALUATION.md 4; classes after i2b2 and the 18 Safe Harbor identifiers. Each class has a
module of its own; this one folds the text, leaves out what is a surrogate already, and settles
overlaps.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from medray.privacy.addresses import find_addresses
from medray.privacy.ages import find_ages
from medray.privacy.date_forms import find_dates
from medray.privacy.hospitals import find_hospitals
from medray.privacy.keyed import find_keyed
from medray.privacy.names import find_names
from medray.privacy.names_en import find_names_en
from medray.privacy.names_en_pairs import find_pairs
from medray.privacy.network import find_network
from medray.privacy.numbers import find_numbers
from medray.privacy.tables import find_cells

PhiClass = Literal[
    "NAME", "DOCTOR", "ID", "PHONE", "EMAIL", "URL", "MRN", "ADDRESS", "HOSPITAL", "DATE", "AGE"
]
"""ID holds every number of a person that is no record's: resident and insurance numbers, bank
cards, licence plates, accounts, serial numbers. URL holds IP addresses too. AGE is an age over 89.
MRN holds numbers of records, specimens, films and beds. ADDRESS
holds employers too."""

# One character for one, so that offsets in the folded text are offsets in the text.
FOLD = {
    code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in "，：；！？（）"
} | {
    0x3000: " ",
    0xA0: " ",
}
STEMS, BRANCHES = "甲乙丙丁戊己庚辛壬癸", "子丑寅卯辰巳午未申酉戌亥"
# What stands for PHI already: our own surrogates, and the masks of MIMIC's notes.
SURROGATE = re.compile(
    f".?某[{STEMS}][{BRANCHES}](?:医院|地)?|(?:ID|TEL|MAIL|MRN|URL)-[A-Z2-7]{{4}}(?![0-9A-Z])"
    r"|\[\*\*[^*\n]{0,100}\*\*\]"
)
_LATIN = re.compile("[A-Z][a-z]|[A-Z]{3}")
_NUMBER_AFTER_NAME = re.compile(
    r"[ ，,/|（(、]{1,3}(?P<value>[A-Za-z]{0,3}-?\d{5,14}|\d\d(?: \d{3}){2})(?![\d年月日岁床./%]|"
    r"-\d)"
)


class Span(NamedTuple):
    """PHI at text[start:end]."""

    start: int
    end: int
    label: PhiClass


_CAPITALISED = re.compile(r"[A-Z][A-Za-z'’-]+")
_HAN = re.compile(r"[\u4e00-\u9fff]{3,}")


def find_phi(text: str, known: Mapping[str, PhiClass] | None = None) -> list[Span]:
    """Returns the PHI of a text: sorted, without overlap, surrogates left out.

    Args:
        known: strings that are PHI wherever they stand, such as the names of the record's header.
    """
    folded = text.translate(FOLD)
    found = [*_known(folded, known or {}), *_candidates(folded)]
    is_taken = bytearray(len(folded))
    for match in SURROGATE.finditer(folded):
        _take(is_taken, *match.span())
    spans: list[Span] = []
    # The longest first, so that an address is not left in pieces around a name in it.
    for span in sorted(found, key=lambda s: (s.start - s.end, s.start)):
        if _take(is_taken, span.start, span.end):
            spans.append(span)
        else:
            spans += _free_parts(folded, span, is_taken)
    for span in [s for s in spans if s.label in ("NAME", "DOCTOR")]:
        match = _NUMBER_AFTER_NAME.match(folded, span.end)
        if match and _take(is_taken, *match.span("value")):
            spans.append(Span(*match.span("value"), "MRN"))
    return sorted(spans)


def _free_parts(text: str, span: Span, is_taken: bytearray) -> Iterator[Span]:
    """What a longer find leaves of a name or a place: Yamamoto of "Yamamoto, Riverside Hospital",
    职工医院 of 云岭公司职工医院."""
    pattern = {"NAME": _CAPITALISED, "DOCTOR": _CAPITALISED, "HOSPITAL": _HAN, "ADDRESS": _HAN}
    if span.label not in pattern:
        return
    at = span.start
    while at < span.end:
        taken = is_taken[at]
        end = at
        while end < span.end and is_taken[end] == taken:
            end += 1
        for part in pattern[span.label].finditer(text, at, end) if not taken else ():
            if _take(is_taken, *part.span()):
                yield Span(*part.span(), span.label)
        at = end


def _take(is_taken: bytearray, start: int, end: int) -> bool:
    """Marks the characters as taken, unless one of them is; True if it did."""
    if any(is_taken[start:end]):
        return False
    is_taken[start:end] = b"\1" * (end - start)
    return True


def known_strings(texts: Iterable[str]) -> dict[str, PhiClass]:
    """Names, numbers and places found in `texts`, to be found again where no label stands."""
    known: dict[str, PhiClass] = {}
    for text in texts:
        folded = text.translate(FOLD)
        for start, end, label in find_phi(text):
            min_chars = {"NAME": 2, "DOCTOR": 2, "HOSPITAL": 4}.get(label, 6)
            if label not in ("DATE", "AGE") and end - start >= min_chars:
                known.setdefault(folded[start:end], label)
    return known


# A record is read twice, for the names it knows and then with them. The patterns are the same.
@lru_cache(maxsize=128)
def _candidates(text: str) -> tuple[Span, ...]:
    return tuple(_patterns(text))


def _patterns(text: str) -> Iterator[Span]:
    for start, end, label in find_numbers(text):
        yield Span(start, end, label)
    for start, end in find_addresses(text):
        yield Span(start, end, "ADDRESS")
    for start, end in find_hospitals(text):
        yield Span(start, end, "HOSPITAL")
    for start, end in find_network(text):
        yield Span(start, end, "URL")
    for start, end in find_ages(text):
        yield Span(start, end, "AGE")
    for start, end in find_dates(text):
        yield Span(start, end, "DATE")
    yield from (Span(*cell) for cell in find_cells(text))
    yield from (Span(*value) for value in find_keyed(text))
    for start, end, is_doctor in find_names(text):
        yield Span(start, end, "DOCTOR" if is_doctor else "NAME")
    if _LATIN.search(text):
        for start, end, is_doctor in find_names_en(text):
            yield Span(start, end, "DOCTOR" if is_doctor else "NAME")
        for start, end in find_pairs(text):
            yield Span(start, end, "NAME")


def _known(text: str, known: Mapping[str, PhiClass]) -> Iterator[Span]:
    for value, label in known.items():
        if value not in text:
            continue
        # A number must not be found inside a longer one.
        guard = r"(?<![0-9A-Za-z])%s(?![0-9A-Za-z])" if value[-1].isascii() else "%s"
        for match in re.finditer(guard % re.escape(value), text):
            yield Span(*match.span(), label)
