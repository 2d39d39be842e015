"""Consultations: scenarios, answers of every quality, scores, preferences, dialogues.

In: the model, a seed. Out: rows. A scenario shows age, sex, symptoms, duration and an examination
of a drawn patient. An answer is a diagnosis, a plan and advice, each of a tier; answers of all
tiers are equally long, so that length does not tell quality.
Source: [EMR-LLM 1.4] scored responses to scenarios; [ClinicalGPT 2.3] preference pairs.
"""

import random
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from medray.sample.bayes import Evidence, posterior_D
from medray.sample.knowledge import Disease
from medray.sample.model import Model
from medray.sample.patient import Patient, draw_patient
from medray.sample.sampler import Sampler
from medray.sample.truth import scenario_truth, true_score

Plan = Literal["first", "second", "avoid"]
Advice = Literal["good", "generic", "harmful"]
WRONG_FRACTION = 0.25
"""Share of scored answers with a wrong disease."""
MISTAKEN_FRACTION = 0.5
"""Share of scored answers with specific advice whose details may be another disease's, as a model's
own are where it has read too little; a reward learned without such finds all that is specific good.
Source: not given."""
SCORE_NOISE = 0.6
"""Standard deviation of the expert, in points of 10. Source: not given; chosen so that tiers
overlap little while the same answer gets different scores."""
OPENINGS = ("考虑{name}。", "诊断考虑{name}。", "初步考虑{name}。")
PLANS = ("建议使用{drug}治疗。", "可给予{drug}治疗。", "推荐选用{drug}治疗。")
ADVICE: dict[Advice, tuple[str, ...]] = {
    "good": (
        "{followup}后复查{check}，若{red_flag}立即就诊。",
        "{followup}后复查{check}，出现{red_flag}须急诊。",
        "请{followup}后复查{check}，如{red_flag}速就诊。",
    ),
    "generic": (
        "平时注意休息，多饮温水，清淡饮食，若有不适随诊。",
        "日常清淡饮食，避免劳累，规律作息，如有不适随诊。",
        "建议规律作息，注意休息，多饮温水，感觉不适随诊。",
    ),
    "harmful": (
        "症状好转后便可自行停药，无需复查，不必再来门诊。",
        "若感觉好转就自行停药，以后不必复查，也不用随访。",
        "不舒服时自行加量，好转即自行停药，不用复查指标。",
    ),
}
PROMPTS = ("请给出诊断和处理意见。", "请问诊断和处理？", "请给出诊断与治疗建议。")


class Scenario(NamedTuple):
    """A patient as presented, and what is known of the truth."""

    text: str
    patient: Patient
    disease: Disease
    posterior_max: float
    bayes_disease: str


def scenario(model: Model, key: str) -> Scenario:
    """Draws a patient and presents it."""
    sampler = Sampler(key)
    patient = draw_patient(model, sampler.rng)
    names = model.symptoms.names
    ordered = sampler.arrange(patient.symptoms, len(patient.symptoms))
    symptoms = [sampler.choice(model.knowledge.symptoms[names[i]]) for i in ordered]
    text = "、".join(symptoms) or "全身不适"
    imaging = model.imaging.names[patient.imaging]
    text = (
        f"患者，{patient.sex_text}，{patient.age}岁，{text}{patient.duration}，{imaging}。"
        f"{sampler.choice(PROMPTS)}"
    )
    evidence = Evidence(
        sex=patient.sex,
        age=patient.age,
        unit=patient.unit,
        symptoms=patient.symptoms,
        imaging=patient.imaging,
    )
    posterior = posterior_D(model, evidence)
    best = model.knowledge.diseases[int(posterior.argmax())].name
    return Scenario(text, patient, patient.info(model), float(posterior.max()), best)


def answer(
    disease: Disease,
    plan: Plan,
    advice: Advice,
    rng: random.Random,
    advised: Disease | None = None,
) -> str:
    """An answer that diagnoses `disease`, of the given tiers; specific advice is that of `advised`,
    by default the same."""
    advised = advised or disease
    drug = {"first": disease.first, "second": disease.second, "avoid": disease.avoid}[plan][0]
    return (
        rng.choice(OPENINGS).format(name=disease.name)
        + rng.choice(PLANS).format(drug=drug)
        + rng.choice(ADVICE[advice]).format(
            followup=advised.followup, check=advised.check, red_flag=advised.red_flag
        )
    )


def web_answer(disease: Disease, rng: random.Random) -> str:
    """An answer as found on the web: right disease, mixed plan and advice."""
    plan = rng.choices(("first", "second", "avoid"), (0.5, 0.3, 0.2))[0]
    advice = rng.choices(("good", "generic", "harmful"), (0.3, 0.45, 0.25))[0]
    return answer(disease, plan, advice, rng)


def judged_answer(model: Model, disease: Disease, rng: random.Random) -> str:
    """An answer of any quality; sometimes for another disease of the department, sometimes with
    details of another one's advice."""
    others = [d for d in model.knowledge.of_department(disease.department) if d is not disease]
    if rng.random() < WRONG_FRACTION:
        disease = rng.choice(others)
    plan = rng.choice(("first", "second", "avoid"))
    advice = rng.choices(("good", "generic", "harmful"), (2, 1, 1))[0]
    advised = disease
    if rng.random() < MISTAKEN_FRACTION:
        interval, check, sign = (rng.choice((disease, rng.choice(others))) for _ in range(3))
        advised = disease.model_copy(
            update={
                "followup": interval.followup, "check": check.check, "red_flag": sign.red_flag
            }
        )  # fmt: skip
    return answer(disease, plan, advice, rng, advised)


def consultations(model: Model, seed: int, num: int) -> Iterator[dict[str, Any]]:
    """Scenario and web answer."""
    for i in range(num):
        key = f"{seed}:consultation:{i}"
        case = scenario(model, key)
        response = web_answer(case.disease, random.Random(f"{key}:answer"))
        yield {"id": f"C{i:07d}", "scenario": case.text, "response": response}


def scores(model: Model, seed: int, num: int) -> Iterator[dict[str, Any]]:
    """Answers with an expert's score: true score plus noise, in steps of 0.5."""
    for i in range(num):
        key = f"{seed}:score:{i}"
        case = scenario(model, key)
        rng = random.Random(f"{key}:answer")
        response = judged_answer(model, case.disease, rng)
        score = true_score(scenario_truth(case.disease), response) + rng.gauss(0, SCORE_NOISE)
        yield {
            "id": f"S{i:07d}",
            "scenario": case.text,
            "response": response,
            "score": min(max(round(score * 2) / 2, 0.0), 10.0),
        }


def preferences(model: Model, seed: int, num: int) -> Iterator[dict[str, Any]]:
    """Two answers to one scenario, the one with the higher true score first."""
    for i in range(num):
        key = f"{seed}:preference:{i}"
        case = scenario(model, key)
        rng = random.Random(f"{key}:answer")
        truth = scenario_truth(case.disease)
        chosen = rejected = judged_answer(model, case.disease, rng)
        while true_score(truth, chosen) == true_score(truth, rejected):
            rejected = judged_answer(model, case.disease, rng)
        if true_score(truth, chosen) < true_score(truth, rejected):
            chosen, rejected = rejected, chosen
        yield {
            "id": f"P{i:07d}",
            "scenario": case.text,
            "chosen": chosen,
            "rejected": rejected,
        }


def scenarios(model: Model, seed: int, num: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Prompts for reinforcement learning and the truth about each."""
    for i in range(num):
        case = scenario(model, f"{seed}:scenario:{i}")
        row = {"id": f"SC{i:07d}", "scenario": case.text}
        truth = {
            "id": row["id"],
            **scenario_truth(case.disease),
            "department": case.disease.department,
            "posterior_max": case.posterior_max,
            "bayes_disease": case.bayes_disease,
        }
        yield row, truth


ASKS = ("还有其他不舒服吗？", "除此之外还有什么症状？", "还伴有别的症状吗？")
ASK_HISTORY = ("以前有什么疾病吗？", "既往身体怎么样？", "有没有慢性病？")
ASK_TESTS = ("做过什么检查吗？", "检查结果怎么样？", "有检查报告吗？")


def dialogues(model: Model, seed: int, num: int) -> Iterator[dict[str, Any]]:
    """Consultations of eight turns: complaint, further symptoms, history, tests, assessment."""
    names, past = model.symptoms.names, model.history.names
    for i in range(num):
        sampler = Sampler(f"{seed}:dialogue:{i}")
        rng, wordings = sampler.free, model.knowledge.symptoms
        patient = draw_patient(model, sampler.rng)
        disease = patient.info(model)
        said = [rng.choice(wordings[names[s]]) for s in patient.symptoms]
        rng.shuffle(said)
        history = [rng.choice(model.knowledge.history[past[h]]) for h in patient.history]
        rest = "、".join(said[2:])
        lines = [
            f"医生您好，我{patient.age}岁，{patient.sex_text}，"
            f"{'、'.join(said[:2]) or '全身不适'}{patient.duration}了。",
            rng.choice(ASKS),
            f"还有{rest}。" if rest else "没有别的不舒服。",
            rng.choice(ASK_HISTORY),
            f"有{'、'.join(history)}。" if history else "以前身体挺好的。",
            rng.choice(ASK_TESTS),
            f"{model.imaging.names[patient.imaging]}。",
            answer(disease, "first", "good", rng),
        ]
        yield {
            "id": f"D{i:07d}",
            "department": disease.department,
            "diagnosis": disease.name,
            "turns": [
                {"role": "doctor" if k % 2 else "patient", "text": line}
                for k, line in enumerate(lines)
            ],
        }
