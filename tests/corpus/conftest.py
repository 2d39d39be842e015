"""Documents in real formats with invented contents."""

from collections.abc import Callable

import pytest

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


@pytest.fixture
def jats() -> str:
    """An article."""
    return JATS


@pytest.fixture
def cda() -> str:
    """A discharge summary."""
    return CDA


@pytest.fixture
def make_pdf() -> Callable[[list[str]], bytes]:
    """Makes a PDF file of one line of text a page."""
    return _make_pdf


def _make_pdf(pages: list[str]) -> bytes:
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
