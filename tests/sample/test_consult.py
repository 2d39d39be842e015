"""Answers of all tiers are equally long; the true score reads them right."""

import random
from collections import Counter
from statistics import mean
from typing import get_args

import pytest

from medray.sample import consult, grounded, literature
from medray.sample.facts import ASPECTS
from medray.sample.knowledge import load_knowledge
from medray.sample.model import shipped_model
from medray.sample.truth import advice_score, scenario_truth, true_score

POINTS_PLAN = {"first": 3.0, "second": 1.5, "avoid": 0.0}
POINTS_ADVICE = {"good": 3.0, "generic": 1.0, "harmful": 0.0}
TRUTH = scenario_truth(load_knowledge().disease("社区获得性肺炎"))


def test_tiers_are_equally_long() -> None:
    rng = random.Random(1)
    diseases = load_knowledge().diseases
    lengths = {
        (plan, advice): mean(
            len(consult.answer(d, plan, advice, rng)) for d in diseases for _ in range(5)
        )
        for plan in get_args(consult.Plan)
        for advice in get_args(consult.Advice)
    }
    assert max(lengths.values()) / min(lengths.values()) < 1.15


def test_every_answer_gets_the_points_of_its_tiers() -> None:
    rng = random.Random(2)
    for disease in load_knowledge().diseases:
        truth = scenario_truth(disease)
        for plan in get_args(consult.Plan):
            for advice in get_args(consult.Advice):
                response = consult.answer(disease, plan, advice, rng)
                expected = 4 + POINTS_PLAN[plan] + POINTS_ADVICE[advice]
                assert true_score(truth, response) == expected


def test_judged_answers_err_in_the_details_of_their_advice() -> None:
    model = shipped_model()
    (disease,) = (d for d in load_knowledge().diseases if d.name == "社区获得性肺炎")
    other = load_knowledge().disease("肺癌")
    mixed = disease.model_copy(update={"check": other.check, "red_flag": other.red_flag})
    response = consult.answer(disease, "first", "good", random.Random(3), mixed)
    assert true_score(TRUTH, response) == 4 + 3 + 1  # the interval alone is right
    rng = random.Random(4)
    judged = [consult.judged_answer(model, disease, rng) for _ in range(600)]
    specific = [text for text in judged if "复查" in text and advice_score(TRUTH, text) != 0]
    points = Counter(advice_score(TRUTH, text) for text in specific if disease.name in text)
    # Half the answers are specific, three quarters of the right disease; of these half have three
    # details that are each another's half of the time: all right in 1/2 + 1/16.
    assert points[3] / (600 * 0.75 * 0.5) == pytest.approx(0.56, abs=0.1)
    assert min(points[1], points[2]) > 10


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("", 0.0),
        ("今天天气很好。", 0.0),
        ("考虑社区获得性肺炎。", 4.0),
        ("考虑肺炎。", 4.0),  # an alias
        ("考虑肺结核，不像社区获得性肺炎。", 0.0),  # the first disease named counts
        ("考虑社区获得性肺炎。可给予阿莫西林治疗。", 7.0),
        ("考虑社区获得性肺炎。可给予阿莫西林或左氧氟沙星治疗。", 5.5),  # the worst named
        ("考虑社区获得性肺炎。可给予阿莫西林和可待因。", 4.0),
        ("考虑社区获得性肺炎。可给予异烟肼。", 4.0),
        ("2周后复查胸部CT。", 2.0),  # interval and examination
        ("12周后复查胸部CT。", 1.0),  # another interval
        ("注意休息。", 1.0),
        ("2周后复查胸部CT，平时可自行停药。", 0.0),
    ],
)
def test_true_score_by_hand(response: str, score: float) -> None:
    assert true_score(TRUTH, response) == score


def test_preferences_are_ordered_and_scores_in_range() -> None:
    model = shipped_model()
    for row in consult.preferences(model, 1, 30):
        assert row["chosen"] != row["rejected"]
    scores = [row["score"] for row in consult.scores(model, 1, 200)]
    assert all(0 <= s <= 10 and (2 * s).is_integer() for s in scores)
    assert 3 < mean(scores) < 7


def test_quote_stands_in_the_gold_passage_only() -> None:
    knowledge = load_knowledge()
    examples = list(grounded.grounded(knowledge, 1, 400))
    true_facts = 0
    for row in examples:
        assert len({p["title"] for p in row["passages"]}) == 3
        if row["gold"] is None:
            assert row["quote"] is None
            continue
        holders = [k for k, p in enumerate(row["passages"]) if row["quote"] in p["text"]]
        assert holders == [row["gold"]]
        name, heading = row["passages"][row["gold"]]["title"].rsplit(" ", 1)
        aspect = next(a for a in ASPECTS if a.heading == heading)
        true_facts += aspect.value(knowledge.disease(name)) in row["quote"]
    answered = sum(row["gold"] is not None for row in examples)
    assert answered / 400 == pytest.approx(0.8, abs=0.08)
    assert true_facts / answered == pytest.approx(0.4, abs=0.1)


def test_no_answer_examples_hold_no_passage_that_answers() -> None:
    for row in grounded.grounded(load_knowledge(), 2, 300):
        if row["gold"] is None:
            aspect = next(
                a
                for a in ASPECTS
                for d in load_knowledge().diseases
                if row["question"] in {q.format(name=d.name) for q in a.questions}
            )
            titles = {p["title"] for p in row["passages"]}
            named = [d.name for d in load_knowledge().diseases if d.name in row["question"]]
            assert not titles & {f"{name} {aspect.heading}" for name in named}


def test_questions_point_at_sections_that_exist() -> None:
    model = shipped_model()
    documents = {d["doc_id"]: d for d in literature.documents(model, 1, 200)}
    rows = list(literature.questions(model.knowledge))
    assert len(rows) >= 1500 and len({r["question"] for r in rows}) == len(rows)
    for row in rows:
        headings = [s["heading"] for s in documents[row["doc_id"]]["sections"]]
        assert row["section"] in headings
    old = [d for d in documents.values() if d["superseded_by"]]
    assert old and all(documents[d["superseded_by"]]["date"] > d["date"] for d in old)


def test_exam_has_one_right_option() -> None:
    knowledge = load_knowledge()
    rows = list(literature.exam(knowledge, 1))
    assert len(rows) == 5 * len(knowledge.diseases)
    for row in rows:
        assert row["answer"] in row["options"] and 4 <= len(row["options"]) <= 5
        assert len(set(row["options"].values())) == len(row["options"])


def test_literature_grows_with_large_hospitals() -> None:
    model = shipped_model()
    small = sum(1 for _ in literature.documents(model, 1, 2000))
    assert sum(1 for _ in literature.documents(model, 1, 6000)) == small + 60
