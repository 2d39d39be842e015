"""One document a file: real formats, invented contents."""

import base64
import gzip
import io
import random
from pathlib import Path

import pytest

from medray.common.records import RawDocument, RawRecord
from medray.common.sources import Rejected, SourceRow
from medray.corpus.readers.document_files import read_document, read_pages
from medray.corpus.readers.markup import element_text, read_xml
from medray.corpus.sources import CorpusSource, raw_row


def source(**settings) -> CorpusSource:
    return CorpusSource(**{"name": "s", "kind": "document", "path": "*", **settings})


def made(path: Path, content: str | bytes, **settings) -> RawRecord | RawDocument | Rejected:
    """What one file with this content becomes."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = source(**settings)
    row = read_document(found, path, path.parent.parent)
    return row if isinstance(row, Rejected) else raw_row(row, found.kind)


def texts(row: RawRecord | RawDocument | Rejected) -> list[tuple[str, str]]:
    assert not isinstance(row, Rejected), row
    return [(section.heading, section.text) for section in row.sections]


def test_jats(tmp_path, jats):
    row = made(tmp_path / "a.nxml", jats)
    assert isinstance(row, RawDocument)
    assert (row.doc_id, row.title, row.date) == ("10.1/x", "Cough in spring", "2020-03-07")
    assert texts(row) == [
        ("Abstract / Aim", "To count coughs."), ("Abstract / Result", "Many."), ("", "Opening."),
        ("Methods", "We counted coughs."), ("Methods / Patients", "Ten.\nage 50"),
    ]  # fmt: skip


def test_cda(tmp_path, cda):
    row = made(tmp_path / "a.xml", cda, kind="record")
    assert isinstance(row, RawRecord)
    assert (row.record_id, row.patient_id, row.visit_id) == ("DOC9", "P77", "V5")
    assert (row.visit_date, row.hospital) == ("2023-05-17", "江城第九医院")
    assert texts(row) == [
        ("患者信息", "姓名：王建国，电话：13800138000，住址：江城市北湖路8号"),
        ("现病史", "3天前受凉。\n咳嗽\n发热"), ("会诊意见", "多饮水。\n复查。"),
        ("体格检查", "体温 38.5"),
    ]  # fmt: skip
    assert row.sections[1].date == "2023-05-17"
    plain = base64.b64encode("主诉：咳嗽".encode()).decode()
    body = (
        f'<nonXMLBody><text mediaType="text/plain" representation="B64">{plain}</text></nonXMLBody>'
    )
    start, end = cda.index("<structuredBody>"), cda.index("</structuredBody>") + 17
    row = made(tmp_path / "b.xml", cda[:start] + body + cda[end:], kind="record")
    assert texts(row)[1:] == [("主诉", "咳嗽")]


def test_markdown_with_front_matter_is_a_guideline(tmp_path):
    row = made(
        tmp_path / "a.md",
        "---\ntitle: 咳嗽指南\nkind: guideline\ndate: 2020-03-07\nsuperseded_by: g2\nauthor: x\n"
        "---\n开头。\n# 诊断\n听诊。\n## 治疗\n止咳。\n",
    )
    assert isinstance(row, RawDocument)
    assert (row.title, row.kind, row.date, row.superseded_by) == (
        "咳嗽指南", "guideline", "2020-03-07", "g2")  # fmt: skip
    assert texts(row) == [("", "开头。"), ("诊断", "听诊。"), ("治疗", "止咳。")]
    row = made(tmp_path / "b.md", "# 咳嗽\r\n多饮水。\r\n")
    assert isinstance(row, RawDocument)
    assert (row.doc_id, row.title, texts(row)) == (
        f"{tmp_path.name}/b.md", "咳嗽", [("", "多饮水。")])  # fmt: skip
    row = made(tmp_path / "c.md", "---\ntitle: [\n---\n多饮水。")
    assert texts(row) == [("", "---\ntitle: [\n---\n多饮水。")]


def test_a_text_record_takes_its_ids_from_its_place(tmp_path):
    fields = {"record_id": "stem", "patient_id": "folder"}
    directory = tmp_path / "P5"
    directory.mkdir()
    row = made(directory / "r1.txt", "主诉：咳嗽".encode("gb18030"), kind="record",
               fields=fields, encoding="gb18030")  # fmt: skip
    assert isinstance(row, RawRecord)
    assert (row.record_id, row.patient_id, texts(row)) == ("r1", "P5", [("主诉", "咳嗽")])
    mixed = "主诉：咳嗽\n".encode() + "诊断：肺炎".encode("gb18030")
    path = directory / "r2.txt.gz"
    path.write_bytes(gzip.compress(mixed))
    found = read_document(source(kind="record", fields=fields, encoding="auto"), path, tmp_path)
    assert isinstance(found, SourceRow) and found.tally == {"gb18030_lines": 1}
    assert found.values["stem"] == "r2"


def test_pdf_pages_without_text_are_counted(tmp_path, make_pdf):
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["Cough for three days.", "", "Drink water."]))
    row = read_document(source(), path, tmp_path)
    assert isinstance(row, SourceRow)
    assert row.tally == {"pages_without_text": 1}
    assert row.values["text"] == "Cough for three days.\nDrink water."
    assert (row.values["title"], row.values["date"]) == ("Cough guideline", "2020-03-07")
    path.write_bytes(make_pdf(["", ""]))
    assert read_document(source(), path, tmp_path) == Rejected("a.pdf", 1, "no_text")


def test_a_damaged_pdf_is_rejected_or_read_and_never_raises(make_pdf):
    whole, rng = make_pdf(["Cough for three days.", "Drink water."]), random.Random(0)
    results = []
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3, 10, 50))):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        results.append(read_pages(io.BytesIO(damaged[: rng.choice((len(whole), len(whole) // 2))])))
    assert "malformed_pdf" in results and any(isinstance(read, tuple) for read in results)
    # An abbreviation that pypdf refuses with an error of a kind of its own.
    retired = whole.replace(b"<< /Length ", b"<< /Filter /Fl /Length ")
    assert read_pages(io.BytesIO(retired)) == "malformed_pdf"


def test_xml_in_gbk_and_with_entities(tmp_path):
    text = '<?xml version="1.0" encoding="GBK"?><p>咳嗽</p>'
    root = read_xml(text.encode("gbk"))
    assert not isinstance(root, str) and element_text(root) == "咳嗽"
    bomb = '<!DOCTYPE p [<!ENTITY a "xx"><!ENTITY f SYSTEM "file:///etc/passwd">]><p>&a;&f;</p>'
    assert read_xml(bomb.encode()) == "malformed_xml"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.xml", "<article><body>", "malformed_xml"),
        ("a.xml", "<html/>", "neither_jats_nor_cda"),
        ("a.xml", "<article/>", "no_text"),
        ("a.xml", "<article>" + "<p>" * 3000 + "</p>" * 3000 + "</article>", "no_text"),
        ("a.xml", "<article><body>" + "<p>" * 3000 + "</p>" * 3000 + "</body></article>",
         "nested_too_deep"),
        ("a.xml", "<article><p>咳嗽</p></article>".encode("gb18030"), "not_utf-8"),
        ("a.txt", "", "no_text"),
        ("a.txt", "咳嗽".encode("gb18030"), "not_utf-8"),
        ("a.txt.gz", gzip.compress(b"x" * 1000, mtime=0)[:20], "damaged_gzip"),
        ("a.pdf", "", "malformed_pdf"),
        ("a.pdf", "%PDF-1.4\n1 0 obj\n<<", "malformed_pdf"),
    ],
)  # fmt: skip
def test_bad_documents_are_rejected_with_a_reason(tmp_path, name, content, reason):
    assert made(tmp_path / name, content) == Rejected(f"{tmp_path.name}/{name}", 1, reason)
