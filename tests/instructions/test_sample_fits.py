"""What the sample hospital writes is what these tasks read."""

from medray.common.records import Instruction, RawRecord
from medray.common.sources import SourceRow, to_row
from medray.generation.prompts import parse_verdict
from medray.instructions.knowledge_graph import load_templates
from medray.instructions.quality import QualityTasksConfig, load_sub_tasks, quality
from medray.instructions.raw import QualityLabels
from medray.instructions.records import first_diagnosis
from medray.privacy.deidentify import deidentify
from medray.privacy.surrogates import Surrogates
from medray.sample import phrases
from medray.sample.hospital import SampleConfig, make_audit
from medray.sample.knowledge import load_knowledge
from medray.sample.literature import triples
from medray.sample.model import shipped_model


def test_every_disease_name_survives_its_diagnosis_section() -> None:
    for disease in load_knowledge().diseases:
        assert first_diagnosis(phrases.diagnosis(disease)) == disease.name


def test_every_relation_of_the_sample_has_templates() -> None:
    assert {row["relation"] for row in triples(load_knowledge())} <= set(load_templates())


def test_evidence_is_found_again_after_de_identification() -> None:
    """Offsets move, sentence numbers do not: every decided verdict quotes its sentence."""
    sub_tasks, surrogates = load_sub_tasks(QualityTasksConfig().indicators), Surrogates(b"k" * 32)
    decided = 0
    for number in range(40):
        raw, raw_labels, _ = make_audit(SampleConfig(), shipped_model(), number)
        record = to_row(SourceRow("f", 1, raw), RawRecord)
        labels = to_row(SourceRow("f", 1, raw_labels), QualityLabels)
        assert isinstance(record, RawRecord) and isinstance(labels, QualityLabels)
        document, _ = deidentify(record, "audit", surrogates, 0.4)
        for task, example in quality(document, labels, sub_tasks, 5000):
            assert isinstance(example, Instruction), (labels.indicator, task, example)
            if labels.tasks[task] is None:
                assert example.answer == "未提及"
            else:
                verdict = parse_verdict(example.answer)
                assert verdict is not None and verdict.value is labels.tasks[task]
                assert verdict.quote and verdict.quote in example.messages[0].content
                decided += 1
    assert decided > 40
