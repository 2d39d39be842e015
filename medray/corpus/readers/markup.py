"""XML as text. In: the bytes of JATS articles and CDA documents. Out: values of a raw row.

Entities are refused (defusedxml), so a document can neither read files nor grow without bound.
Source: JATS 1.3 (NISO Z39.96), HL7 CDA Release 2.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from medray.common.formats import Encoding, decode, undecodable
from medray.corpus.readers.headings import canonical, split_sections

DECLARED = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"'][^>]*\?>")
BLOCKS = frozenset({
    "p", "title", "sec", "list", "list-item", "item", "paragraph", "tr", "caption", "table", "br",
    "div", "li", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "disp-quote", "dl", "dt", "dd",
})  # fmt: skip
LEFT_OUT = frozenset({"ref-list", "tex-math", "math", "object-id", "label"})
DATE_ORDER = ("epub", "ppub", "pub", "collection", "")


def parse_xml(raw: bytes, encoding: Encoding) -> dict[str, Any] | str:
    """The values of a JATS article or a CDA document, or why there are none."""
    root = read_xml(raw, encoding)
    if isinstance(root, str):
        return root
    if _name(root) in ("pmc-articleset", "article-set") and len(root) == 1:
        root = root[0]
    try:
        if _name(root) == "article":
            return jats(root)
        if _name(root) == "ClinicalDocument":
            return cda(root, encoding)
    except RecursionError:
        return "nested_too_deep"
    return "neither_jats_nor_cda"


def read_xml(raw: bytes, encoding: Encoding = "utf-8") -> Element | str:
    """The root element, or the reason there is none. A declared encoding goes before `encoding`."""
    try:
        declared = DECLARED.match(raw.removeprefix(b"\xef\xbb\xbf"))
        if declared and declared[1].lower() in (b"gb2312", b"gbk", b"gb18030"):
            # expat knows no encoding of two bytes a character.
            text = raw[declared.end() :].decode("gb18030")
        elif declared or raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            return fromstring(raw)
        elif (found := decode(raw.removeprefix(b"\xef\xbb\xbf"), encoding)[0]) is None:
            return undecodable(encoding)
        else:
            text = found
        return fromstring(text)
    except UnicodeDecodeError:
        return "not_gb18030"
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        return "malformed_xml"


def jats(article: Element) -> dict[str, Any]:
    """Title, abstracts, sections and date of an article; references and formulas are left out."""
    meta = _find(article, "front", "article-meta")
    if meta is None:
        meta = article
    ids = {e.get("pub-id-type", ""): _text(e) for e in _children(meta, "article-id")}
    sections = []
    for abstract in [*_children(meta, "abstract"), *_children(meta, "trans-abstract")]:
        sections += _jats_sections(abstract, "Abstract")
    body = _find(article, "body")
    if body is not None:
        sections += _jats_sections(body, "")
    values: dict[str, Any] = {
        "title": _text(_find(meta, "title-group", "article-title")),
        "date": _jats_date(meta),
        "sections": sections,
    }
    # The first of these that is given names the article.
    doc_id = next((ids[k] for k in ("pmcid", "pmc", "doi", "pmid") if ids.get(k)), "")
    return {**values, "doc_id": doc_id} if doc_id else values


def cda(document: Element, encoding: Encoding = "utf-8") -> dict[str, Any]:
    """Patient, encounter and dated sections of a clinical document.

    What names the patient stands in a section 患者信息, so that it is looked for in the others.
    """
    role = _find(document, "recordTarget", "patientRole")
    visit = _find(document, "componentOf", "encompassingEncounter")
    sections = []
    if role is not None:
        person = _find(role, "patient", "name")
        phone = _attribute(_find(role, "telecom"), "value").removeprefix("tel:")
        header = {"姓名": _text(person), "电话": phone, "住址": _text(_find(role, "addr"))}
        text = "，".join(f"{name}：{value}" for name, value in header.items() if value)
        sections.append({"heading": "患者信息", "text": text})
    for component in _descend(document, "section"):
        code, title = _find(component, "code"), _text(_find(component, "title"))
        heading = canonical(_attribute(code, "code"))
        if heading == _attribute(code, "code"):
            heading = canonical(title)
        sections.append({
            "heading": heading,
            "text": _text(_find(component, "text")),
            "date": _date(_find(component, "effectiveTime")) or _date(
                _find(component, "author", "time")),
        })  # fmt: skip
    plain = _find(document, "component", "nonXMLBody", "text")
    if plain is not None:
        sections += split_sections(_non_xml(plain, encoding), is_record=True)
    started = _date(_find(visit, "effectiveTime")) if visit is not None else ""
    values = {
        "record_id": _identifier(_find(document, "id")),
        "patient_id": _identifier(_find(role, "id")) if role is not None else "",
        "visit_id": _identifier(_find(visit, "id")) if visit is not None else "",
        "visit_date": started or _date(_find(document, "effectiveTime")),
        "hospital": _text(
            _find(document, "custodian", "assignedCustodian",
                  "representedCustodianOrganization", "name")),
        "title": _text(_find(document, "title")),
        "sections": sections,
    }  # fmt: skip
    return {name: value for name, value in values.items() if value}


def element_text(element: Element) -> str:
    """The text of an element, one line a block; the cells of a table row stand in one line."""
    pieces: list[str] = []

    def walk(node: Element) -> None:
        name = _name(node)
        if name in LEFT_OUT:
            pieces.append(node.tail or "")
            return
        pieces.append("\n" if name in BLOCKS else "")
        pieces.append(re.sub(r"\s+", " ", node.text or ""))
        for child in node:
            walk(child)
        pieces.append("\n" if name in BLOCKS else " " if name in ("td", "th") else "")
        pieces.append(re.sub(r"\s+", " ", node.tail or ""))

    pieces.append(re.sub(r"\s+", " ", element.text or ""))
    for child in element:
        walk(child)
    lines = (" ".join(line.split()) for line in "".join(pieces).split("\n"))
    return "\n".join(line for line in lines if line)


def _jats_sections(node: Element, heading: str) -> Iterator[dict[str, str]]:
    """The node's own text, then its sections; a nested one is headed `Methods / Patients`."""
    own = [c for c in node if _name(c) not in ("title", "sec", *LEFT_OUT)]
    text = "\n".join(filter(None, (element_text(child) for child in own)))
    if text:
        yield {"heading": heading, "text": text}
    for section in _children(node, "sec"):
        title = _text(_find(section, "title"))
        yield from _jats_sections(section, " / ".join(filter(None, (heading, title))))


def _jats_date(meta: Element) -> str:
    dates = {e.get("pub-type") or e.get("date-type") or "": e for e in _children(meta, "pub-date")}
    chosen = next((dates[kind] for kind in DATE_ORDER if kind in dates), None)
    if chosen is None:
        return ""
    parts = []
    for name in ("year", "month", "day"):
        value = _text(_find(chosen, name))
        if not value.isdecimal():
            break
        parts.append(value.zfill(2))
    return "-".join(parts)


def _non_xml(node: Element, encoding: Encoding) -> str:
    if node.get("representation") != "B64":
        return _text(node)
    try:
        return decode(base64.b64decode(_text(node), validate=False), encoding)[0] or ""
    except (binascii.Error, ValueError):
        return ""


def _date(node: Element | None) -> str:
    """The day of an HL7 time, its beginning where it is an interval: 20230517… → 2023-05-17."""
    if node is None:
        return ""
    value = node.get("value") or _attribute(_find(node, "low"), "value")
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) >= 8 else value


def _identifier(node: Element | None) -> str:
    return _attribute(node, "extension") or _attribute(node, "root")


def _attribute(node: Element | None, name: str) -> str:
    return (node.get(name) or "").strip() if node is not None else ""


def _text(node: Element | None) -> str:
    return element_text(node) if node is not None else ""


def _name(node: Element) -> str:
    """The tag without its namespace; comments have none."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _children(node: Element, name: str) -> Iterator[Element]:
    return (child for child in node if _name(child) == name)


def _find(node: Element | None, *path: str) -> Element | None:
    for name in path:
        node = next(_children(node, name), None) if node is not None else None
    return node


def _descend(node: Element, name: str) -> Iterator[Element]:
    return (child for child in node.iter() if _name(child) == name)
