"""Posterior and log-probability against hand-worked numbers on a model of two diseases."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest

from medray.sample import phrases
from medray.sample.bayes import Evidence, posterior_D
from medray.sample.knowledge import Department, Disease, Item, Knowledge
from medray.sample.model import Model, build_model, shipped_model, step_p
from medray.sample.patient import Patient, draw_patient
from medray.sample.record import RecordWriter
from medray.sample.sampler import Sampler
from medray.sample.text import Speller


def disease(name: str, *, cough: float, shadow: float, male: float) -> Disease:
    return Disease(
        name=name,
        aliases=[],
        icd10="X",
        weight=1.0,
        male=male,
        age=(50, 10),
        course="acute",
        symptoms={"咳嗽": cough},
        signs={"啰音": 0.6 if name == "甲病" else 0.1},
        labs={},
        imaging={"阴影": shadow},
        history={},
        first=("甲药", "1片"),
        second=("乙药", "2片"),
        avoid=("丙药", "有害"),
        followup="1周",
        check="胸片",
        red_flag="气急",
        cause="甲因",
        complications=["甲果"],
        diet="多饮水",
        duration="1周",
        department="科",
    )


@pytest.fixture
def tiny() -> Model:
    return build_model(
        Knowledge(
            departments=[Department(name="科", panel=[], normal_imaging=["正常"])],
            diseases=[
                disease("甲病", cough=0.8, shadow=0.9, male=0.5),
                disease("乙病", cough=0.2, shadow=0.1, male=0.25),
            ],
            symptoms={"咳嗽": ["咳嗽"]},
            systems={"general": [], "respiratory": ["咳嗽"]},
            signs={"啰音": ["闻及啰音"]},
            history={},
            vitals=[Item(name="T", unit="℃", decimals=1, mean=36.6, sd=0.3, low=35, high=41)],
            labs=[],
        )
    )


def test_posterior_is_the_hand_worked_one(tiny: Model) -> None:
    # 0.8 : 0.2 with equal priors; then x 0.5 : 0.25 for a man -> 0.4 : 0.05
    seen = posterior_D(tiny, Evidence(symptoms=[0]))
    assert seen.tolist() == pytest.approx([0.8, 0.2])
    assert posterior_D(tiny, Evidence(symptoms=[0], sex=1))[0] == pytest.approx(0.4 / 0.45)
    # absence counts: (1 - 0.8) : (1 - 0.2)
    assert posterior_D(tiny, Evidence(symptoms=[]))[0] == pytest.approx(0.2)


def test_nothing_shown_leaves_the_prior(tiny: Model) -> None:
    assert posterior_D(tiny, Evidence()).tolist() == pytest.approx([0.5, 0.5])


def test_posterior_agrees_with_enumeration(tiny: Model) -> None:
    """Sums the joint over everything that a text leaves out."""
    for sign, finding in itertools.product((0, 1), range(len(tiny.imaging.names))):
        joint = []
        for d in tiny.knowledge.diseases:
            total = 0.0
            for male, cough in itertools.product((0, 1), (0, 1)):
                p = 0.5 * (d.male if male else 1 - d.male)
                p *= d.symptoms["咳嗽"] if cough else 1 - d.symptoms["咳嗽"]
                p *= d.signs["啰音"] if sign else 1 - d.signs["啰音"]
                own = d.imaging["阴影"]
                p_finding = own if tiny.imaging.names[finding] == "阴影" else 1 - own
                total += p * (0.75 * p_finding + 0.25 * 0.5)
            joint.append(total)
        expected = np.array(joint) / sum(joint)
        shown = Evidence(signs=[0] * sign, imaging=finding)
        assert posterior_D(tiny, shown) == pytest.approx(expected)


def test_log_probability_is_the_hand_worked_one(tiny: Model) -> None:
    shadow = tiny.imaging.names.index("阴影")
    patient = Patient(0, 1, 50, 0, 3, [0], [], [], [366], {}, shadow)
    sampler = Sampler("worked:0")
    writer = RecordWriter(tiny, patient, sampler, Speller({}, 0.0), "医院", missing_rate=0.0)
    written = writer.write()
    text = {s["heading"]: s["text"] for s in written.sections}
    examined = "阴影" in text["辅助检查"]
    first_line = "甲药" in text["治疗"]
    half = math.erf(0.05 / (0.3 * math.sqrt(2)))  # P(36.55 < T < 36.65)
    year = math.erf(0.5 / (10 * math.sqrt(2)))  # P(49.5 < age < 50.5)
    factors = [
        0.5,  # disease
        0.8,  # cough
        0.84 / 13,  # acute: days, one of 1-13
        1 / 4,  # 主诉: 4 wordings
        0.5 * year / 3,  # 现病史: a man of 50, 3 wordings
        1 / len(phrases.ONSETS) / len(phrases.COURSES),
        1 / 3 / 4,  # 既往史: healthy 3, allergies 4
        half,  # temperature
        0.4 / 2,  # no rale, 2 wordings
        0.7 * (0.75 * 0.9 + 0.25 * 0.5) / 3 if examined else 0.3 / 2,  # 辅助检查
        (0.7 if first_line else 0.3) / 3,  # 治疗: 3 wordings
        1 / 2 if examined else 1,  # 拟诊讨论: order of two findings
        1 / 4 / 4,  # its two wordings
    ]
    assert written.nll_nats == pytest.approx(-math.log(math.prod(factors)))


def test_steps_of_a_number_sum_to_one() -> None:
    item = Item(name="x", unit="", decimals=1, mean=3, sd=0.4, low=1, high=5)
    ks = range(10, 51)
    for mean, sd in ((3.0, 0.4), (0.9, 0.5), (5.2, 0.3)):  # tails go to the end steps
        assert sum(step_p(item, mean, sd, k) for k in ks) == pytest.approx(1.0)


def test_drawn_frequencies_agree_with_the_model() -> None:
    model = shipped_model()
    rng = random.Random(3)
    index = model.symptoms.index["咳嗽"]
    pneumonia = [d.name for d in model.knowledge.diseases].index("社区获得性肺炎")
    hits = Counter(index in draw_patient(model, rng, pneumonia).symptoms for _ in range(2000))
    expected = model.knowledge.diseases[pneumonia].symptoms["咳嗽"]
    # 4 standard errors of a proportion
    assert hits[True] / 2000 == pytest.approx(expected, abs=4 * math.sqrt(0.93 * 0.07 / 2000))


def test_distributions_of_the_shipped_model_sum_to_one() -> None:
    model = shipped_model()
    assert np.exp(model.prior_D).sum() == pytest.approx(1)
    assert np.exp(model.imaging.log_p_SOD).sum(axis=1) == pytest.approx(1.0)
    assert np.exp(model.unit_UD).sum(axis=0) == pytest.approx(1.0)


def test_no_finding_of_the_other_sex() -> None:
    model = shipped_model()
    rng = random.Random(5)
    knowledge = model.knowledge
    for _ in range(1500):
        patient = draw_patient(model, rng)
        found = {model.symptoms.names[i] for i in patient.symptoms}
        found |= {model.signs.names[i] for i in patient.signs}
        found |= {model.history.names[i] for i in patient.history}
        found |= {model.labs.items[i].name for i in patient.labs}
        found.add(model.imaging.names[patient.imaging])
        forbidden = knowledge.female_only if patient.sex else knowledge.male_only
        assert not found & forbidden
