"""English names that nothing vouches for but themselves: given name and surname side by side.

In: text. Out: spans. Two capitalised words are a name if one of them is a common given name or
surname and the other no word of clinical notes; two words that no list has are one only between
signs of a person: "seen by ... ;", a table's cell next to a number. Eponyms (Foley catheter,
Rose Bengal) have one capital, or a listed word. Source: not given; the signs are chosen on
benchmarks/phi_templates/tuning.yaml.
"""

import re
from collections.abc import Iterator

from medray.privacy.lexicon_en import NO_NAMES_EN, given_names, surnames

_WORD = (
    r"(?:(?:van|von|de|der|la|el|al|bin|di|du)[- ])?"
    r"(?:Mc|Mac|De|La|Le|Van|[A-Z]['’])?[A-Z][a-zé'’]+(?:-[A-Z][a-z]+)*"
)
_PAIR = re.compile(
    rf"(?<![\w'’.-])(?={_WORD}(?:,? ))(?P<first>{_WORD})(?P<comma>,)?(?: [A-Z]\.)? "
    rf"(?P<last>{_WORD})(?: [A-Z]\.)?(?![\w-]|['’][a-z]{{2}})"
)
_BEFORE = re.compile(
    r"(?:\b(?:by|from|with|per|saw|cc:|call|called|paged|hand-?off to|signed,?|patient|pt|name)|"
    r"[;/|\t])\s?$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\s?(?:[;/|\t(]|,? (?:and|at|who|with|on|is|was|has|will|reports?|denies|states|tolerated|"
    r"assisted|verbalized|ambulated|fasting|stable|in)\b|[.,]?$|[.,]? )"
)


_EPONYMS = frozenset(
    {"Ann Arbor", "Austin Flint", "Grey Turner", "Miller Fisher", "Rocky Mountain"}
)


def find_pairs(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of every pair that is a name; they do not overlap."""
    at = 0
    while match := _PAIR.search(text, at):
        if _is_name(text, match):
            yield match.span()
            at = match.end()
        else:
            at = match.end("first")


def _is_name(text: str, match: re.Match[str]) -> bool:
    first, last = match["first"], match["last"]
    if _is_word(first) or _is_word(last) or f"{first} {last}" in _EPONYMS:
        return False
    given, surname = (last, first) if match["comma"] else (first, last)
    given, surname = _plain(given), _plain(surname)
    if text[match.end() : match.end() + 2].strip().isdigit():  # Grade Two 2, unless both are names
        return given in given_names() and surname in surnames()
    if match["comma"]:  # Boston, Mary: a list of anything, unless both are names
        if given in given_names():
            return True
        return surname in surnames() and _stands_alone(text, match)
    return given in given_names() or surname in surnames() or _stands_alone(text, match)


def _stands_alone(text: str, match: re.Match[str]) -> bool:
    """Between signs of a person on both sides."""
    before = text[max(0, match.start() - 11) : match.start()]
    return bool(_BEFORE.search(before)) and bool(_AFTER.match(text, match.end()))


def _is_word(word: str) -> bool:
    return any(part in NO_NAMES_EN for part in re.split("[ -]", word)) and word not in given_names()


def _plain(word: str) -> str:
    """Of a double name, the first part: Anne-Marie is Anne."""
    return re.split("[-'’]", word)[0] if word.count("-") else word
