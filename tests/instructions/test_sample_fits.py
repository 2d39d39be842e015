"""What the sample hospital writes is what these tasks read."""

from medray.instructions.knowledge_graph import load_templates
from medray.instructions.records import first_diagnosis
from medray.sample import phrases
from medray.sample.knowledge import load_knowledge
from medray.sample.literature import triples


def test_every_disease_name_survives_its_diagnosis_section() -> None:
    for disease in load_knowledge().diseases:
        assert first_diagnosis(phrases.diagnosis(disease)) == disease.name


def test_every_relation_of_the_sample_has_templates() -> None:
    assert {row["relation"] for row in triples(load_knowledge())} <= set(load_templates())
