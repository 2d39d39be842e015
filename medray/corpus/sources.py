"""Corpus sources. In: lines of the export. Out: `RawRecord`s and `RawDocument`s.

Sections may come as a list of {heading, text, date}, as a mapping heading → text, or as one
`text` with 【heading】 or Markdown headings in it.
"""

import re
from typing import Any, Literal

from pydantic import Field

from medray.common.records import RawDocument, RawRecord
from medray.common.sources import Rejected, Source, SourceRow, to_row

MARKER = re.compile(r"【([^【】\n]{1,20})】[:：]?|^#{1,6}[ \t]+(\S[^\n]{0,60})$", re.MULTILINE)


class CorpusSource(Source):
    """Records or published texts, and what they are used for."""

    kind: Literal["record", "document"]  # pyright: ignore[reportIncompatibleVariableOverride]
    """record: patients' records, de-identified. document: published text, taken as it is."""
    pretrain: bool = True
    """Goes into the token blocks."""
    passages: bool = False
    """Goes into the knowledge base that retrieval searches."""
    dev_fraction: float | None = Field(default=None, ge=0, lt=1)
    """Share held out; None: the corpus's. A row's own `split` goes before both."""


def raw_row(
    row: SourceRow, kind: Literal["record", "document"]
) -> RawRecord | RawDocument | Rejected:
    """One line as a raw row; sections without text are left out."""
    sections = _sections(row.values)
    if isinstance(sections, str):
        return Rejected(row.file, row.line, sections)
    full = row._replace(values={**row.values, "sections": sections})
    return to_row(full, RawRecord if kind == "record" else RawDocument)


def split_sections(text: str, title: str = "") -> list[dict[str, Any]]:
    """Cuts a text at its headings; what stands before the first gets an empty heading.

    >>> split_sections("百日咳\\n【概述】急性传染病。【病因】杆菌。", "百日咳")
    [{'heading': '概述', 'text': '急性传染病。'}, {'heading': '病因', 'text': '杆菌。'}]
    """
    sections, heading, at = [], "", 0
    for match in [*MARKER.finditer(text), None]:
        body = text[at : match.start() if match else len(text)].strip()
        if body and (heading or body != title):
            sections.append({"heading": heading, "text": body})
        if match:
            heading, at = (match[1] or match[2]).strip(), match.end()
    return sections


def _sections(values: dict[str, Any]) -> list[Any] | str:
    """The sections of a line in the first form, or the reason why there are none."""
    sections = values.get("sections")
    if sections is None:
        text = values.get("text")
        if text is None:
            return "missing_field:sections"
        if not isinstance(text, str):
            return "invalid_field:text"
        return split_sections(text, str(values.get("title") or "")) or "no_text"
    if isinstance(sections, dict):
        if not all(isinstance(text, str | None) for text in sections.values()):
            return "invalid_field:sections"
        sections = [{"heading": heading, "text": text} for heading, text in sections.items()]
    if not isinstance(sections, list):
        return "invalid_field:sections"
    kept = [s for s in sections if not isinstance(s, dict) or s.get("text") not in (None, "")]
    return kept or "no_text"
