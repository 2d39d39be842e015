"""Cleaning. In: de-identified `Document`s. Out: normalised ones, or the reason to leave one out.

Source: [EMR-LLM 1.2] rule-based noise removal; the learned filter is `medray.corpus.medical`.
"""

import hashlib
import re
import unicodedata

from pydantic import Field

from medray.common.config import Config
from medray.common.records import Document, RawRecord
from medray.corpus.faults import (
    boilerplate_fraction,
    ellipsis_fraction,
    lines_of,
    repeated_fraction,
    url_fraction,
)

# Full-width letters, digits and signs become ASCII; Chinese punctuation stays as it is.
KEEP_WIDE = "，：；！？（）～"
NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in KEEP_WIDE} | {
    0x3000: " ",
    0xA0: " ",
    ord("\t"): " ",
    ord("\r"): "\n",
    0x2028: "\n",
    0x2029: "\n",
}
SPACES = re.compile(r" {2,}")
LINE_ENDS = re.compile(r" *\n[ \n]*")
SHINGLE = 8


class CleanConfig(Config):
    """Which texts are left out."""

    min_chars: int = Field(default=10, ge=1)
    """Source: not given; chosen because a shorter text holds no finding."""
    max_chars: int = Field(default=200_000, ge=1)
    """Source: not given; a longer text is a file that was not split into documents."""
    min_word_fraction: float = Field(default=0.5, ge=0, le=1)
    """Least share of letters and digits among characters that are not blank. Source: not given;
    tables and formulas of converted papers fall below it, records lie at 0.75 to 0.9."""
    min_distinct_fraction: float = Field(default=0.2, ge=0, le=1)
    """Least share of distinct runs of 8 characters, in texts of 200 characters and more.
    Source: not given; pages of repeated lines fall below it."""
    max_ellipsis_fraction: float = Field(default=0.3, ge=0, le=1)
    """Most lines that end in an ellipsis; this and what follows, in texts of 200 characters and
    more: of a short record one line is a third. Source: Gopher (Rae et al. 2021, A1.1)."""
    max_repeated_fraction: float = Field(default=0.3, ge=0, le=1)
    """Most characters in lines that stood before. Source: Gopher (A1.1) has 0.2; records that tell
    the history twice come to 0.25."""
    max_boilerplate_fraction: float = Field(default=0.3, ge=0, le=1)
    """Most characters in lines of navigation and advertising. Source: not given; C4 drops each."""
    max_url_fraction: float = Field(default=0.2, ge=0, le=1)
    """Most characters in web addresses. Source: not given."""


def normalise(text: str) -> str:
    """One form of widths, blanks and line ends; control and zero-width characters are removed.

    Sentence ends keep their number, so evidence labels stay valid.
    """
    text = text.replace("\r\n", "\n").translate(NARROW)
    if not text.replace("\n", "").isprintable():  # fast, and true of nearly every text
        text = "".join(
            c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
        )
    return LINE_ENDS.sub("\n", SPACES.sub(" ", text)).strip()


def normalised(record: RawRecord) -> RawRecord:
    """The record with headings, texts and department in one form, as `clean` leaves them."""
    sections = [
        s.model_copy(update={"heading": normalise(s.heading), "text": normalise(s.text)})
        for s in record.sections
    ]
    department = normalise(record.department)
    return record.model_copy(update={"sections": sections, "department": department})


def clean(document: Document) -> Document:
    """The document with every text normalised and empty sections left out."""
    sections = [
        s.model_copy(update={"heading": normalise(s.heading), "text": normalise(s.text)})
        for s in document.sections
    ]
    return document.model_copy(
        update={
            "title": normalise(document.title),
            "department": normalise(document.department),
            "sections": [s for s in sections if s.text],
        }
    )


def fault(document: Document, config: CleanConfig) -> str | None:
    """Why a cleaned document is left out, or None."""
    text = "\n".join(section.text for section in document.sections)
    if len(text) < config.min_chars:
        return "too_short"
    if len(text) > config.max_chars:
        return "too_long"
    if word_fraction(text) < config.min_word_fraction:
        return "mostly_symbols"
    distinct = distinct_fraction(text)
    if distinct is not None and distinct < config.min_distinct_fraction:
        return "repetitive"
    return None if distinct is None else _fault_of_lines(text, config)


def _fault_of_lines(text: str, config: CleanConfig) -> str | None:
    lines = lines_of(text)
    if ellipsis_fraction(lines) > config.max_ellipsis_fraction:
        return "excerpts"
    if repeated_fraction(lines) > config.max_repeated_fraction:
        return "repeated_lines"
    if boilerplate_fraction(lines) > config.max_boilerplate_fraction:
        return "boilerplate"
    if url_fraction(text) > config.max_url_fraction:
        return "mostly_links"
    return None


def word_fraction(text: str) -> float:
    """Share of letters and digits among the characters that are not blank; 0 if all are."""
    solid = [c for c in text if not c.isspace()]
    return sum(c.isalnum() for c in solid) / max(1, len(solid))


def distinct_fraction(text: str) -> float | None:
    """Share of distinct runs of 8 characters; None of a text too short to tell, under 200."""
    if len(text) < 200:
        return None
    shingles = len(text) - SHINGLE + 1
    return len({text[i : i + SHINGLE] for i in range(shingles)}) / shingles


def render(document: Document) -> str:
    """The document as training text, sections in their order.

    A record reads `【主诉】…`, one section a line; a published text has `《title》` before that.
    """
    lines = [f"《{document.title}》"] if document.title else []
    lines += [f"【{s.heading}】{s.text}" if s.heading else s.text for s in document.sections]
    return "\n".join(lines)


def digest(document: Document) -> bytes:
    """sha256 of the normalised text: equal for documents that differ in their ids only."""
    return hashlib.sha256(render(document).encode()).digest()
