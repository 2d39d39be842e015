"""Evidence: the span of a record that a verdict rests on. In: the words that the model quoted.
Out: `{doc_id, section, start, end, quote}`, valid only if the text at that span is the quote.

Source: EVALUATION.md 3.
"""

from collections.abc import Sequence

from pydantic import Field

from medray.common.records import Document, Row
from medray.common.sentences import CLAUSE_MARKS, Sentence


class Evidence(Row):
    """A span of a document's section, and the text that must stand there."""

    doc_id: str
    section: int = Field(ge=0)
    """Index of the section; `heading` names it."""
    heading: str
    start: int = Field(ge=0)
    end: int
    quote: str


def cite(document: Document, sentences: Sequence[Sentence], quote: str) -> Evidence | None:
    """The first place among `sentences` where `quote` stands; None if it stands in none of them,
    or not as whole clauses: a lone mark or number shows nothing."""
    for sentence in sentences:
        at = _find_clauses(sentence.text, quote)
        if at is None:
            continue
        start = sentence.start + at
        return Evidence(
            doc_id=document.doc_id,
            section=sentence.section,
            heading=document.sections[sentence.section].heading,
            start=start,
            end=start + len(quote),
            quote=quote,
        )
    return None


def _find_clauses(text: str, quote: str) -> int | None:
    """Where `quote` begins in `text`, if it holds a word and stands between clause marks there."""
    if not any(char.isalnum() for char in quote):
        return None
    at = text.find(quote)
    while at >= 0:
        end = at + len(quote)
        begins = at == 0 or text[at - 1] in EDGES
        ends = end == len(text) or text[end] in EDGES or quote[-1] in EDGES
        if begins and ends:
            return at
        at = text.find(quote, at + 1)
    return None


EDGES = CLAUSE_MARKS + "”"


def is_valid(evidence: Evidence, document: Document) -> bool:
    """True if the quote stands at its span of this document."""
    if evidence.doc_id != document.doc_id or evidence.section >= len(document.sections):
        return False
    section = document.sections[evidence.section]
    return (
        evidence.heading == section.heading
        and bool(evidence.quote.strip())
        and section.text[evidence.start : evidence.end] == evidence.quote
    )
