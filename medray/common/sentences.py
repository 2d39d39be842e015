"""Sentences as spans. In: the text of a section. Out: offsets, so that a sentence that is cited
as evidence can be looked up again.

A sentence's number within its section survives de-identification (surrogates hold no sentence
end), its offsets do not: labels made on raw text therefore point at sentences by number.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from medray.common.records import Section

# Half-width forms end a sentence too: normalisation may turn either form into the other.
SENTENCE = re.compile(r"[^。；！？;!?\n]*[。；！？;!?\n]+|[^。；！？;!?\n]+")
SENTENCE_MARKS = "。；！？;!?"
CLAUSE_MARKS = "，。；！？：,;!?"


class Sentence(NamedTuple):
    """One sentence of a record: `sections[section].text[start:end] == text`."""

    section: int
    index: int
    """Place within its section, from 0."""
    start: int
    end: int
    text: str


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Returns (start, end) of every sentence, its end mark included, outer blanks left out.

    Splits after 。；！？ (either width) and at line ends; a piece without any letter or digit is
    no sentence, so a doubled mark does not shift the numbering.
    """
    spans = []
    for match in SENTENCE.finditer(text):
        piece = match.group()
        start = match.start() + len(piece) - len(piece.lstrip())
        end = match.end() - len(piece) + len(piece.rstrip())
        if any(character.isalnum() for character in piece):
            spans.append((start, end))
    return spans


def numbered_sentences(
    sections: Sequence[Section], headings: Iterable[str] | None = None
) -> list[Sentence]:
    """Returns the sentences of the sections under `headings` (None: all), in record order."""
    wanted = None if headings is None else set(headings)
    return [
        Sentence(k, index, start, end, section.text[start:end])
        for k, section in enumerate(sections)
        if wanted is None or section.heading in wanted
        for index, (start, end) in enumerate(split_sentences(section.text))
    ]


def spans(text: str, max_chars: int, overlap: int = 0) -> list[tuple[int, int]]:
    """(start, end) of the pieces of a text; a sentence longer than `max_chars` is cut hard.

    Args:
        overlap: sentences of the piece before that a piece begins with; fewer, where its first
            sentence of its own would not fit. No two pieces begin at the same place.
    """
    pieces: list[tuple[int, int]] = []
    sentences = split_sentences(text)
    for number, (start, end) in enumerate(sentences):
        before = [at for at, _ in sentences[max(0, number - overlap) : number]]
        fitting = [at for at in before if end - at <= max_chars]
        if pieces and end - pieces[-1][0] <= max_chars:
            pieces[-1] = (pieces[-1][0], end)
        elif fitting:
            pieces.append((fitting[0], end))
        else:
            pieces += [(at, min(at + max_chars, end)) for at in range(start, end, max_chars)]
    return pieces
