"""Evidence: the span of a record that a verdict rests on. In: the words that the model quoted.
Out: `{doc_id, section, start, end, quote}`, valid only if the text at that span is the quote.

Source: EVALUATION.md 3.
"""

from collections.abc import Sequence

from pydantic import Field

from medray.common.records import Document, Row
from medray.common.sentences import Sentence


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
    """The first place among `sentences` where `quote` stands; None if it stands in none of them."""
    for sentence in sentences:
        at = sentence.text.find(quote)
        if at < 0 or not quote.strip():
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
