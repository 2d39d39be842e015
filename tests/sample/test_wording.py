"""Options of a choice must be distinct texts: else the log-probability is no bound."""

import itertools
import random
from collections import Counter

from medray.sample import audit, consult, facts, operation, phrases
from medray.sample.knowledge import load_knowledge


def test_wordings_of_findings_are_distinct_and_without_separators() -> None:
    knowledge = load_knowledge()
    for table in (knowledge.symptoms, knowledge.signs, knowledge.history):
        words = [w for wordings in table.values() for w in wordings]
        assert [w for w, n in Counter(words).items() if n > 1] == []
        assert not any(mark in w for w in words for mark in "、，。；")


def confusable(right: str, other: str, table: dict[str, str]) -> bool:
    """Whether misspellings alone lead from one text to the other."""
    return len(right) == len(other) and all(
        a == b or b in table.get(a, "") for a, b in zip(right, other, strict=True)
    )


def test_no_misspelling_turns_one_option_into_another() -> None:
    knowledge = load_knowledge()
    choices = [
        [w for wordings in table.values() for w in wordings]
        for table in (knowledge.symptoms, knowledge.signs, knowledge.history)
    ]
    choices += [list(v) for v in vars(phrases).values() if isinstance(v, tuple)]
    for options in choices:
        for right, other in itertools.permutations(options, 2):
            assert not confusable(right, other, knowledge.misspellings), (right, other)


def test_templates_are_distinct() -> None:
    for module in (phrases, operation, audit, consult):
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, tuple) and isinstance(value[0], str):
                assert len(set(value)) == len(value), name


def test_every_clause_names_disease_and_value_and_ends_no_sentence() -> None:
    rng = random.Random(1)
    for aspect in facts.ASPECTS:
        for disease in load_knowledge().diseases:
            value = aspect.value(disease)
            for template in aspect.clauses:
                fact = template.format(name=disease.name, value=value)
                assert disease.name in fact and value in fact and "。" not in fact
            text = facts.passage(aspect, disease.name, fact, rng)
            assert 40 <= len(text) <= 110, (disease.name, aspect.heading, len(text))


def test_treatments_of_a_disease_are_distinct_and_not_part_of_each_other() -> None:
    for disease in load_knowledge().diseases:
        drugs = [disease.first[0], disease.second[0], disease.avoid[0]]
        assert not any(a in b for a in drugs for b in drugs if a is not b), disease.name
