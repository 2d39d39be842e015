"""All dictionaries as one vocabulary. In: `Dictionary`s. Out: written forms → concepts, as Arrow
tables, which the driver reads once and every worker gets without a copy.

A form belongs to the first dictionary, in the order of the profile, that holds it: vocabularies
name the same things by other ids, so that two of them do not contradict each other, and a
hospital's own list before the others settles what they leave open. Two concepts of one dictionary
with the same form make the form ambiguous.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from medray.common.errors import DataError
from medray.corpus.terms.dictionaries import Dictionary, read_dictionary

AMBIGUOUS = -1
# One character for one, so that offsets in the folded text are offsets in the text. Widths, the
# two signs for micro, and the sigma that lower-casing writes by its place in the word.
FOLD = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x3000: " ", 0xA0: " ", 0xB5: "μ", ord("Σ"): "σ", ord("ς"): "σ", ord("İ"): "i",
    ord("【"): "[", ord("】"): "]", ord("－"): "-", ord("—"): "-", ord("–"): "-",
}  # fmt: skip
CONCEPTS = pa.schema([("dictionary", pa.int32()), ("id", pa.string()), ("name", pa.string())])
FORMS = pa.schema([("form", pa.string()), ("concept", pa.int32()), ("dictionary", pa.int32())])


@dataclass(frozen=True)
class Vocabulary:
    """Equal if made from the same dictionaries, read with the same settings."""

    digest: str
    dictionaries: tuple[Dictionary, ...] = field(compare=False)
    concepts: pa.Table = field(compare=False, repr=False)
    """CONCEPTS: a concept's number is its row; `name` is the preferred one, as it is written."""
    forms: pa.Table = field(compare=False, repr=False)
    """FORMS: folded, each once; `concept` is a row of `concepts` or AMBIGUOUS."""
    too_short: dict[str, int] = field(compare=False)
    """Dictionary → names left out because they are shorter than what can be told in a text."""


def fold(text: str) -> str:
    """`text` without case and width, character for character.

    >>> fold("Ⅱ型 ＣＯＰＤ（急性）")
    'ⅱ型 copd(急性)'
    """
    return text.translate(FOLD).lower()


def is_western(text: str) -> bool:
    """Whether all of `text` is in scripts that part their words: none of it is Chinese."""
    return all(character < "\u2e80" for character in text)


def build_vocabulary(
    dictionaries: Sequence[Dictionary], data: Path, *, min_chars: int, min_latin_chars: int
) -> Vocabulary:
    """Reads all dictionaries.

    Args:
        data: where their paths start.
        min_chars: of a name in Chinese. min_latin_chars: of one with no Chinese character.
    Raises:
        DataError: as `read_dictionary`; or if no name is long enough.
    """
    forms: dict[str, tuple[int, int]] = {}
    concepts: list[tuple[int, str, str]] = []
    too_short: dict[str, int] = {}
    digest = hashlib.sha256(f"{min_chars} {min_latin_chars}".encode())
    for place, dictionary in enumerate(dictionaries):
        digest.update(dictionary.model_dump_json().encode())
        numbers: dict[str, int] = {}
        ranks: list[int] = []
        first, short = len(concepts), 0
        for concept, term, rank in read_dictionary(dictionary, data):
            digest.update(f"{concept}\0{term}\0{rank}\n".encode())
            number = numbers.setdefault(concept, first + len(numbers))
            if number == len(concepts):
                concepts.append((place, concept, term))
                ranks.append(rank)
            elif rank < ranks[number - first]:
                concepts[number], ranks[number - first] = (place, concept, term), rank
            form = fold(term)
            if len(form) < (min_latin_chars if is_western(form) else min_chars):
                short += 1
                continue
            taken = forms.setdefault(form, (number, place))
            if taken[1] == place and taken[0] != number:
                forms[form] = (AMBIGUOUS, place)
        too_short[dictionary.name] = short
    if not forms:
        raise DataError(
            f"no name of {', '.join(d.name for d in dictionaries)} has {min_chars} characters "
            f"({min_latin_chars} without Chinese); lower corpus.terms.min_chars"
        )
    of_forms = ((form, concept, place) for form, (concept, place) in forms.items())
    return Vocabulary(
        digest.hexdigest(),
        tuple(dictionaries),
        _table(concepts, CONCEPTS),
        _table(of_forms, FORMS),
        too_short,
    )


def _table(rows: Iterable[tuple], schema: pa.Schema) -> pa.Table:
    """A table of rows of which there is at least one."""
    return pa.table(list(zip(*rows, strict=True)), schema=schema)
