"""Partial records: the same patient with some findings unknown, for training the diagnosis.

In: a record. Out: copies with clauses left out by chance, the answer unchanged. A record read
again word for word is soon known by heart; one read with other findings missing each time has to
be told by what is left, as it is at an admission where little is known yet.
"""

import re
from collections.abc import Collection, Iterator

from pydantic import Field

from medray.common.config import Config
from medray.common.records import Document
from medray.common.split import unit_hash

CLAUSE = re.compile(r".+?(?:[，。；！？\n]+|[,;!?](?=\s)|$)", re.DOTALL)


class PartialConfig(Config):
    """Training rows with findings left out."""

    copies: int = Field(default=0, ge=0)
    """Partial copies of each training record, beside the whole one. Source: not given."""
    drop: float = Field(default=0.3, gt=0, lt=1)
    """Chance of each clause to be left out."""


def partial_copies(
    record: Document, headings: Collection[str], config: PartialConfig
) -> Iterator[Document]:
    """Yields `config.copies` copies of a record, each clause of the sections under `headings` left
    out with chance `config.drop`.

    What is left out depends on the record's id, the copy and the clause's place alone.
    """
    for copy in range(1, config.copies + 1):
        key = f"{record.doc_id}~{copy}"
        sections = [
            section.model_copy(
                update={"text": _thinned(section.text, f"{key}:{place}", config.drop)}
            )
            if section.heading in headings
            else section
            for place, section in enumerate(record.sections)
        ]
        yield record.model_copy(update={"sections": sections})


def _thinned(text: str, key: str, drop: float) -> str:
    clauses = enumerate(CLAUSE.findall(text))
    return "".join(clause for n, clause in clauses if unit_hash(f"{key}:{n}") >= drop)
