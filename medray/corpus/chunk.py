"""Passages for retrieval. In: `Document`s. Out: `Passage`s, pieces of one section each.

Source: [EMR-LLM 1.5] knowledge base. Differs: the size is not given there.
"""

from collections.abc import Iterator

from pydantic import Field

from medray.common.config import Config
from medray.common.records import Document, Passage
from medray.common.sentences import spans


class ChunkConfig(Config):
    """Size of a passage."""

    max_chars: int = Field(default=300, ge=20)
    """Source: not given; chosen so that a few passages fit into a prompt of 1 024 tokens."""
    min_chars: int = Field(default=8, ge=1)
    """Shorter pieces answer nothing. Source: not given."""
    overlap_sentences: int = Field(default=0, ge=0)
    """The last sentences of a passage that the next one of its section begins with, as far as they
    fit. Source: not given."""
    skip_superseded: bool = True
    """Leave out documents that name their successor, so that nobody is advised by an old one. Kept,
    they say so, and searches may leave them out (`retrieval.filters`)."""


def chunk(document: Document, config: ChunkConfig) -> Iterator[Passage]:
    """Yields passages: whole sentences up to `max_chars`, never over a section's end, and
    from one to the next `overlap_sentences` twice.

    `passage_id` is `<doc_id>#<section>-<start>`; the title is `<title> <heading>`.
    """
    for index, section in enumerate(document.sections):
        title = f"{document.title} {section.heading}".strip()
        for start, end in spans(section.text, config.max_chars, config.overlap_sentences):
            if end - start >= config.min_chars:
                yield Passage(
                    passage_id=f"{document.doc_id}#{index}-{start}",
                    doc_id=document.doc_id,
                    start=start,
                    end=end,
                    section=section.heading,
                    title=title,
                    text=section.text[start:end],
                    kind=document.kind,
                    date=section.date or document.date,
                    source=document.source,
                    department=document.department,
                    patient_id=document.patient_id,
                    superseded_by=document.superseded_by,
                )
