"""Headings of records. In: a text as the hospital wrote it. Out: its sections, under one name for
each of a heading's synonyms (`headings.yaml`).
"""

import re
from functools import cache
from importlib import resources
from typing import Any

import yaml

MARKER = re.compile(r"【([^【】\n]{1,20})】[:：]?|^#{1,6}[ \t]+(\S[^\n]{0,60})$", re.MULTILINE)
NUMBERING = r"(?:(?:\d{1,2}|[一二三四五六七八九十]{1,3})[、.．)）][ \t]*)?"


@cache
def load_headings() -> dict[str, str]:
    """Heading or synonym, in lower case → the heading it stands for."""
    text = resources.files("medray.corpus.readers").joinpath("headings.yaml").read_text("utf-8")
    table: dict[str, str] = {}
    for heading, synonyms in yaml.safe_load(text).items():
        for name in (heading, *synonyms):
            assert table.setdefault(name.lower(), heading) == heading, f"{name} stands twice"
    return table


def canonical(heading: str) -> str:
    """The heading that `heading` is a synonym of, else itself.

    >>> canonical("HISTORY OF PRESENT ILLNESS"), canonical("会诊意见")
    ('现病史', '会诊意见')
    """
    heading = heading.strip().strip(":：").strip()
    return load_headings().get(heading.lower(), heading)


@cache
def _known_headings() -> re.Pattern[str]:
    """A known heading at a line's start with a colon or alone on its line; a Chinese one of three
    characters and more with a colon also behind a full stop, as records of one line have it."""
    names = sorted((n for n in load_headings() if n[0].isalpha()), key=len, reverse=True)
    long_chinese = [name for name in names if len(name) >= 3 and not name.isascii()]
    any_name, long_name = ("|".join(map(re.escape, group)) for group in (names, long_chinese))
    return re.compile(
        rf"{MARKER.pattern}"
        rf"|^[ \t\u3000]*{NUMBERING}({any_name})[ \t]*(?:[:：]|$)"
        rf"|(?<=[。；;])[ \t\u3000]*({long_name})[:：]",
        re.MULTILINE | re.IGNORECASE,
    )


def split_sections(text: str, title: str = "", *, is_record: bool = False) -> list[dict[str, Any]]:
    """Cuts a text at its headings; what stands before the first gets an empty heading.

    Headings are 【…】 and Markdown; of a record also those of `headings.yaml` without a mark, and
    synonyms get their common name.

    >>> split_sections("百日咳\\n【概述】急性传染病。【病因】杆菌。", "百日咳")
    [{'heading': '概述', 'text': '急性传染病。'}, {'heading': '病因', 'text': '杆菌。'}]
    """
    return [
        {"heading": heading, "text": text[start:end]}
        for heading, start, end in section_spans(text, is_record=is_record)
        if heading or text[start:end] != title
    ]


def section_spans(text: str, *, is_record: bool = False) -> list[tuple[str, int, int]]:
    """(heading, start, end) of the sections of a text, as `split_sections` cuts them."""
    marker = _known_headings() if is_record else MARKER
    found, heading, at = [], "", 0
    for match in [*marker.finditer(text), None]:
        body = text[at : match.start() if match else len(text)]
        if stripped := body.strip():
            start = at + body.index(stripped)
            found.append((heading, start, start + len(stripped)))
        if match:
            heading, at = next(filter(None, match.groups())).strip(), match.end()
            heading = canonical(heading) if is_record else heading
    return found
