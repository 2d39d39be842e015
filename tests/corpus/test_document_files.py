"""One document a file: real formats, invented contents."""

import base64
import gzip
from pathlib import Path

import pytest

from medray.common.records import RawDocument, RawRecord
from medray.common.sources import Rejected, SourceRow
from medray.corpus.document_files import read_document
from medray.corpus.markup import element_text, read_xml
from medray.corpus.sources import CorpusSource, raw_row

JATS = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Archiving and Interchange DTD v1.3//EN"
  "JATS-archivearticle1-3.dtd">
<article xmlns:mml="http://www.w3.org/1998/Math/MathML" article-type="research-article">
 <front><article-meta>
  <article-id pub-id-type="pmid">1</article-id><article-id pub-id-type="doi">10.1/x</article-id>
  <title-group><article-title>Cough in <italic>spring</italic></article-title></title-group>
  <pub-date pub-type="ppub"><year>2021</year></pub-date>
  <pub-date pub-type="epub"><day>7</day><month>3</month><year>2020</year></pub-date>
  <abstract><sec><title>Aim</title><p>To count
   coughs.</p></sec><sec><title>Result</title><p>Many.</p></sec></abstract>
 </article-meta></front>
 <body><p>Opening.</p>
  <sec><title>Methods</title><p>We counted <mml:math><mml:mi>x</mml:mi></mml:math>coughs.</p>
   <sec><title>Patients</title><p>Ten.</p>
    <table-wrap><table><tr><td>age</td><td>50</td></tr></table></table-wrap></sec></sec></body>
 <back><ref-list><ref><mixed-citation>Someone</mixed-citation></ref></ref-list></back>
</article>"""

CDA = """<?xml version="1.0" encoding="UTF-8"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <id root="2.16.1" extension="DOC9"/><title>出院小结</title><effectiveTime value="20230520093000"/>
 <recordTarget><patientRole><id root="2.16.2" extension="P77"/><addr>江城市北湖路8号</addr>
  <telecom value="tel:13800138000"/><patient><name>王建国</name></patient>
 </patientRole></recordTarget>
 <custodian><assignedCustodian><representedCustodianOrganization><name>江城第九医院</name>
 </representedCustodianOrganization></assignedCustodian></custodian>
 <componentOf><encompassingEncounter><id extension="V5"/><effectiveTime><low value="20230517"/>
  <high value="20230520"/></effectiveTime></encompassingEncounter></componentOf>
 <component><structuredBody>
  <component><section><code code="10164-2" codeSystem="2.16.840.1.113883.6.1"/>
   <title>病史描述</title>
   <text><paragraph>3天前受凉。</paragraph><list><item>咳嗽</item><item>发热</item></list></text>
   <author><time value="202305170830"/></author></section></component>
  <component><section><title>会诊意见</title><text>多饮水。<br/>复查。</text>
   <component><section><title>查体</title><text><table><tr><th>体温</th><td>38.5</td></tr></table></text>
   </section></component></section></component>
 </structuredBody></component></ClinicalDocument>"""


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


def make_pdf(pages: list[str]) -> bytes:
    """A PDF file with one line of text a page, by the letter of ISO 32000-1, 7.5."""
    kids = " ".join(f"{4 + 2 * k} 0 R" for k in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for k, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * k} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    objects.append("<< /Title (Cough guideline) /CreationDate (D:20200307120000Z) >>")
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        out
        + (
            f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n"
            f"<< /Size {size} /Root 1 0 R /Info {size - 1} 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
        ).encode()
    )


def test_jats(tmp_path):
    row = made(tmp_path / "a.nxml", JATS)
    assert isinstance(row, RawDocument)
    assert (row.doc_id, row.title, row.date) == ("10.1/x", "Cough in spring", "2020-03-07")
    assert texts(row) == [
        ("Abstract / Aim", "To count coughs."), ("Abstract / Result", "Many."), ("", "Opening."),
        ("Methods", "We counted coughs."), ("Methods / Patients", "Ten.\nage 50"),
    ]  # fmt: skip


def test_cda(tmp_path):
    row = made(tmp_path / "a.xml", CDA, kind="record")
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
    start, end = CDA.index("<structuredBody>"), CDA.index("</structuredBody>") + 17
    row = made(tmp_path / "b.xml", CDA[:start] + body + CDA[end:], kind="record")
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


def test_pdf_pages_without_text_are_counted(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["Cough for three days.", "", "Drink water."]))
    row = read_document(source(), path, tmp_path)
    assert isinstance(row, SourceRow)
    assert row.tally == {"pages_without_text": 1}
    assert row.values["text"] == "Cough for three days.\nDrink water."
    assert (row.values["title"], row.values["date"]) == ("Cough guideline", "2020-03-07")


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
        ("a.txt.gz", gzip.compress(b"x" * 1000)[:20], "damaged_gzip"),
        ("a.pdf", "", "malformed_pdf"),
        ("a.pdf", make_pdf(["", ""]), "no_text"),
        ("a.pdf", make_pdf(["x"])[:200], "malformed_pdf"),
    ],
)  # fmt: skip
def test_bad_documents_are_rejected_with_a_reason(tmp_path, name, content, reason):
    assert made(tmp_path / name, content) == Rejected(f"{tmp_path.name}/{name}", 1, reason)
