"""Entries of a diagnosis section. In: its text. Out: the names of the diagnoses as they are
written, with their codes: `1. 社区获得性肺炎（J18.9）；2. 2型糖尿病`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from medray.privacy.recognise import SURROGATE

_SPLIT = re.compile(
    r"[；;。\n]|(?:^|(?<=[\s,，、：:；;。]))[(（]?\d{1,2}(?:[、)）]|[.．](?!\d))\s*|[①-⑳]\s*"
)
_CODE = re.compile(
    r"\s*[\[(（]\s*(?:ICD-?10[:：\s]*)?(?P<code>[A-Z]\d{2}[0-9A-Zx.+*†]{0,14})\s*[\])）]\s*$",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^\s*[^：:]{0,6}诊断[：:]")
# How sure the writer was is no part of the name.
_DOUBT = re.compile("^(?:考虑|疑似|疑诊|拟诊)(?:为|诊断)?|(?:待查|待排|待诊|待除外|可能)$")
_OUTER = " \t,，、:：.．?？*-—"


class DiagnosisEntry(NamedTuple):
    """One diagnosis."""

    name: str
    code: str
    """Upper case, as it is written; empty if none is."""


def diagnosis_entries(text: str, max_chars: int) -> Iterator[DiagnosisEntry]:
    """Yields the entries of a section; a piece longer than `max_chars` is running text and left
    out, as is one with a surrogate in it."""
    for piece in _SPLIT.split(text):
        found = _CODE.search(piece)
        name = piece[: found.start()] if found else piece
        name = _DOUBT.sub("", _LABEL.sub("", name).strip(_OUTER)).strip(_OUTER)
        if 2 <= len(name) <= max_chars and not SURROGATE.search(name):
            yield DiagnosisEntry(name, found["code"].upper() if found else "")
