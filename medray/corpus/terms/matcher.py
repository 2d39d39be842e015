"""Terms in running text. In: a vocabulary, text. Out: the longest term at every place.

Leftmost-longest without overlap, as a reader takes a text: in 急性心肌梗死 neither 心肌梗死 nor
梗死 is found beside it. An ambiguous form is found too, so that nothing shorter is taken from it.
Source: Aho and Corasick 1975, Efficient string matching.
"""

from collections.abc import Iterator
from typing import NamedTuple

import ahocorasick
import numpy as np

from medray.corpus.terms.vocabulary import Vocabulary, fold, is_western


class Match(NamedTuple):
    """A term at text[start:end]."""

    start: int
    end: int
    concept: int
    """Row of the vocabulary's concepts, or AMBIGUOUS."""
    dictionary: int
    """Place of the dictionary that the form belongs to."""


class Matcher:
    """Finds the forms of a vocabulary; memory: some 100 bytes a character of them."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._automaton = ahocorasick.Automaton()
        columns = [column.to_pylist() for column in vocabulary.forms.columns]
        for form, concept, dictionary in zip(*columns, strict=True):
            # A term that ends in a letter or digit must not end within a word or number.
            edges = is_word(form[0]), is_word(form[-1])
            self._automaton.add_word(_bytes(form), (len(form), *edges, concept, dictionary))
        self._automaton.make_automaton()

    def find(self, text: str) -> Iterator[Match]:
        """Yields the matches in `text` from left to right."""
        folded = fold(text)
        encoded = _bytes(folded)
        # Characters begun up to each byte: all bytes of UTF-8 but 10xxxxxx begin one.
        codes = np.frombuffer(encoded.encode("latin-1"), np.uint8)
        begun = np.cumsum((codes & 0xC0) != 0x80)
        longest: dict[int, Match] = {}
        for last, (chars, opens, closes, concept, dictionary) in self._automaton.iter(encoded):
            end = int(begun[last])
            start = end - chars
            if opens and start and is_word(folded[start - 1]):
                continue
            if closes and end < len(folded) and is_word(folded[end]):
                continue
            longest[start] = Match(start, end, concept, dictionary)  # ends come in their order
        at = 0
        for start in sorted(longest):
            if start >= at:
                yield longest[start]
                at = longest[start].end

    def lookup(self, term: str) -> tuple[int, int] | None:
        """(concept, dictionary) of a term that stands alone, or None."""
        found = self._automaton.get(_bytes(fold(term)), None)
        return None if found is None else (found[3], found[4])


def _bytes(text: str) -> str:
    """UTF-8 as a string of one character a byte.

    The automaton looks for a node's next character one child after the other, and at its root
    stand thousands of Chinese ones; of bytes there are 64 at most. Five times as fast.
    """
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def is_word(character: str) -> bool:
    """Whether words are made of it, in scripts that part them."""
    return character.isalnum() and is_western(character)
