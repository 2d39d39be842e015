"""Small changes of a text that other offsets have to follow. In: edits, a document and its audit
labels. Out: both, changed together.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from medray.common.records import Document
from medray.privacy.deidentify import Label
from medray.privacy.recognise import SURROGATE


class Edit(NamedTuple):
    """text[start:end] becomes `new`."""

    start: int
    end: int
    new: str


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """The text with `edits`, which are in order and do not overlap."""
    pieces, at = [], 0
    for start, end, new in edits:
        pieces += [text[at:start], new]
        at = end
    return "".join([*pieces, text[at:]])


def rewrite(
    document: Document, labels: list[Label], find: Callable[[str], list[Edit]]
) -> tuple[Document, list[Label], list[Edit]]:
    """The document with the edits that `find` makes to the text of each section, its labels where
    they stand then, and all edits made. An edit that touches a surrogate or a labelled span is left
    out: TEL-A2ML is no volume."""
    sections, made, places = [], [], {}
    for number, section in enumerate(document.sections):
        edits = find(section.text)
        if edits:
            fixed = [match.span() for match in SURROGATE.finditer(section.text)]
            fixed += [(x.start, x.end) for x in labels if x.section == number and x.field == "text"]
            edits = [edit for edit in edits if not touches(edit.start, edit.end, fixed)]
        sections.append(section.model_copy(update={"text": apply_edits(section.text, edits)}))
        places[number] = edits
        made += edits
    if not made:
        return document, labels, []
    moved = [
        x._replace(start=_moved(x.start, places[x.section]), end=_moved(x.end, places[x.section]))
        if x.field == "text"
        else x
        for x in labels
    ]
    return document.model_copy(update={"sections": sections}), moved, made


def touches(start: int, end: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether [start:end] shares a character with one of `spans`."""
    return any(start < last and first < end for first, last in spans)


def _moved(offset: int, edits: Sequence[Edit]) -> int:
    """Where a place that no edit covers lies afterwards."""
    return offset + sum(len(new) - (end - start) for start, end, new in edits if end <= offset)
