"""The page of a corpus: its numbers, and that no surrogate is left to read."""

from pathlib import Path

import pytest

from medray.common.config import Config
from medray.common.manifest import Artefact, Counts, read_manifest
from medray.common.records import Document, Section
from medray.common.rows import write_rows
from medray.common.storage import Storage, StorageConfig
from medray.corpus.clean import distinct_fraction, word_fraction
from medray.corpus.report import covered, funnel, read_texts, write_report


class StepConfig(Config):
    """Of no step."""


def document(number: int, source: str, text: str) -> Document:
    return Document(
        doc_id=f"d{number}", kind="emr", source=source, split="train",
        sections=[Section(heading="主诉", text=text)],
    )  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    artefact = Artefact(Storage(StorageConfig(root=str(tmp_path))), "corpus", StepConfig(), key="k")
    rows = [document(k, "ward", f"林某甲子咳嗽{k}天，血钾<3.4。") for k in range(5)]
    write_rows(artefact.dir / "documents", Document, [*rows, document(9, "clinic", "头痛。")])
    artefact.counts |= {
        "read/ward": Counts(rows_in=8, rows_out=7, rejected={"malformed_json": 1}),
        "read/clinic": Counts(rows_in=1, rows_out=1),
        "filter": Counts(rows_in=8, rows_out=6, rejected={"too_short": 2}),
    }
    artefact.metrics["phi"] = {"NAME": 5}
    return artefact.publish()


def test_shares_worked_by_hand() -> None:
    assert word_fraction("ab 1，。") == 3 / 5
    assert word_fraction(" ") == 0
    assert distinct_fraction("x" * 199) is None
    assert distinct_fraction("x" * 200) == 1 / 193
    assert distinct_fraction("".join(chr(0x4E00 + k) for k in range(200))) == 1


def test_the_funnel_sums_the_sources(corpus: Path) -> None:
    assert funnel(read_manifest(corpus)) == {"lines": 9, "read": 8, "filter": 6}


def test_the_page_shows_numbers_and_no_surrogate(corpus: Path, tmp_path: Path) -> None:
    texts = read_texts(corpus / "documents")
    assert texts.chars == {"ward": [20] * 5, "clinic": [7]}  # 【主诉】, then 16 and 3 characters
    assert {source: len(shown) for source, shown in texts.examples.items()} == {
        "ward": 3, "clinic": 1,
    }  # fmt: skip
    write_report(corpus, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "林某甲子" not in page
    assert page.count("<mark>███</mark>咳嗽") == 3
    assert "血钾&lt;3.4" in page
    assert "malformed_json 1" in page and "too_short 2" in page
    assert page.count("<svg") == 5  # two of rows, two of texts (none of 200 characters), one of PHI
    assert covered("<a>林某甲子") == "&lt;a&gt;<mark>███</mark>"
