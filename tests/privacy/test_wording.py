"""Properties over records of the shipped wording templates."""

import random
from pathlib import Path

import pytest

from medray.common.errors import DataError
from medray.common.records import RawRecord, Section
from medray.privacy.deidentify import deidentify
from medray.privacy.surrogates import Surrogates
from medray.sample.wording import Filler, is_chinese, load_templates

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "phi_templates"
SURROGATES = Surrogates(b"0123456789abcdef")


def raw_records(num_records: int):
    templates = load_templates(SHIPPED / "tuning.yaml")
    for number in range(num_records):
        rng = random.Random(number)
        chinese = number % 4 > 0
        filler = Filler(rng, chinese)
        chosen = rng.sample([t for t in templates if is_chinese(t) == chinese], 6)
        yield RawRecord(
            record_id=f"r{number}",
            patient_id=f"P{number % 50:06d}",
            visit_date="2025-09-01",
            sections=[Section(heading="病程", text=filler.fill(t)[0]) for t in chosen],
        )


def test_deidentifying_twice_changes_nothing():
    for raw in raw_records(150):
        document, labels = deidentify(raw, "ward", SURROGATES, 0.1)
        assert labels
        again, more = deidentify(
            raw.model_copy(update={"sections": document.sections}), "ward", SURROGATES, 0.1
        )
        assert [section.text for section in again.sections] == [s.text for s in document.sections]
        assert more == []


def test_labels_rebuild_the_text():
    for raw in raw_records(50):
        document, labels = deidentify(raw, "ward", SURROGATES, 0.1)
        for index, section in enumerate(document.sections):
            text = section.text
            for label in sorted(labels, key=lambda label: -label.start):
                if label.section == index:
                    text = text[: label.start] + label.original + text[label.end :]
            assert text == raw.sections[index].text


def test_the_spans_of_a_filled_template_are_its_values():
    filler = Filler(random.Random(1), chinese=True)
    text, spans = filler.fill("甲{NAME}乙{DATE}、{DATE2}丙{NAME}{{丁}}")
    (a, b, c, d) = (text[span.start : span.end] for span in spans)
    assert text == f"甲{a}乙{b}、{c}丙{d}{{丁}}"
    assert a == d and b != c
    assert [span.phi_class for span in spans] == ["name", "date", "date", "name"]
    assert filler.fill("{NAME}")[0] == a  # the patient stays the same person


def test_a_template_file_with_a_fault_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text('templates: ["患者{NMAE}入院"]', encoding="utf-8")
    with pytest.raises(DataError, match="template 1: no slot NMAE"):
        load_templates(path)
    path.write_text("templates: 患者", encoding="utf-8")
    with pytest.raises(DataError, match="a list of strings"):
        load_templates(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_templates(tmp_path / "absent.yaml")
