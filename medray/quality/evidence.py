"""Evidence: the span of a record that a verdict rests on. In: the sentence that the model named.
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


def cite(document: Document, sentences: Sequence[Sentence], number: int | None) -> Evidence | None:
    """The evidence for a verdict that names sentence `number` (from 1); None if there is none."""
    if number is None or not 1 <= number <= len(sentences):
        return None
    sentence = sentences[number - 1]
    evidence = Evidence(
        doc_id=document.doc_id,
        section=sentence.section,
        heading=document.sections[sentence.section].heading,
        start=sentence.start,
        end=sentence.end,
        quote=sentence.text,
    )
    return evidence if is_valid(evidence, document) else None


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
