"""Sentences of a record. In: a `Sampler` and what to say. Out: Chinese text.

Every list of wordings holds distinct sentences (tests/sample checks it), because the choice among
them is counted. Sentences end in 。 so that they can be cited by number.
"""

from collections.abc import Sequence

from medray.sample.knowledge import Disease
from medray.sample.sampler import Sampler

IMAGING_MISSING = 0.3
"""Share of 辅助检查 without an examination. Source: not given; with it the ceiling lies near
0.97, below 1 as issue 2 asks."""
COURSES = (
    "症状逐渐加重。",
    "症状时轻时重。",
    "休息后无明显缓解。",
    "自行用药效果不佳。",
    "为进一步诊治入院。",
    "病程中无好转。",
)
NOTHING = ("自觉全身不适", "感身体不舒服")
COMPLAINTS = (
    "{names}{span}。",
    "反复{names}{span}。",
    "{names}已{span}。",
    "因{names}{span}就诊。",
)
OPENINGS_BOTH = ("患者{sex}，{age}岁，", "患者，{sex}性，{age}岁，", "{age}岁{sex}性患者，")
OPENINGS_SEX = ("患者{sex}，", "{sex}性患者，")
OPENINGS_AGE = ("患者{age}岁，", "{age}岁患者，")
OPENINGS_NONE = ("患者", "病人")
ONSETS = (
    "{span}前无明显诱因出现{names}。",
    "{span}前开始{names}。",
    "于{span}前起病，表现为{names}。",
    "近{span}来{names}。",
    "{span}前劳累后出现{names}。",
    "{span}前受凉后出现{names}。",
)
JOINS = ("、", "，伴", "，并有")
DENIALS = ("无{names}。", "否认{names}。", "未诉{names}。", "不伴{names}。")
PAST = ("既往有{items}。", "既往史：{items}。", "有{items}。")
HEALTHY = ("既往体健。", "平素健康。", "否认慢性病史。")
ALLERGIES = ("否认药物过敏史。", "无药物过敏史。", "青霉素过敏。", "")
SIGNS = ("查体见{signs}。", "{signs}。", "专科检查：{signs}。")
NO_SIGNS = ("心肺腹查体未见异常。", "查体无明显阳性体征。")
TESTS = ("{labs}。", "实验室检查：{labs}。", "化验回报{labs}。")
IMAGING = ("{finding}。", "完善检查，{finding}。", "另{finding}。")
NO_TESTS = ("暂无检查结果。", "检查结果未回报。")
TREATMENTS = (
    "予{drug}{dose}，{diet}，{followup}后复查{check}。",
    "给予{drug}{dose}治疗；嘱{diet}；{followup}后复查{check}。",
    "{drug}{dose}，并嘱{diet}，{followup}后复诊查{check}。",
)
EVIDENCE = (
    "结合{items}，",
    "根据{items}，",
    "患者有{items}，",
    "本例特点为{items}，",
)
NO_EVIDENCE = ("资料有限，", "根据现有资料，")
CONCLUSIONS = (
    "支持{name}诊断，需与{other}鉴别。",
    "考虑{name}，应排除{other}。",
    "符合{name}，与{other}相鉴别。",
    "首先考虑{name}，{other}依据不足。",
)


def diagnosis(disease: Disease) -> str:
    """The disease name first, then its code."""
    return f"{disease.name}（{disease.icd10}）"


def complaint(sampler: Sampler, names: Sequence[str], span: str) -> str:
    """Symptoms and duration."""
    text = "、".join(names) or sampler.choice(NOTHING)
    return sampler.choice(COMPLAINTS).format(names=text, span=span)


def opening(sampler: Sampler, sex: str | None, age: int | None) -> str:
    """Who the patient is, as far as it was recorded."""
    if sex is not None and age is not None:
        return sampler.choice(OPENINGS_BOTH).format(sex=sex, age=age)
    if sex is not None:
        return sampler.choice(OPENINGS_SEX).format(sex=sex)
    if age is not None:
        return sampler.choice(OPENINGS_AGE).format(age=age)
    return sampler.choice(OPENINGS_NONE)


def onset(sampler: Sampler, names: Sequence[str], span: str) -> str:
    """When and with what it began."""
    if not names:
        text = sampler.choice(NOTHING)
    elif len(names) == 1:
        text = names[0]
    else:
        text = names[0] + sampler.choice(JOINS) + "、".join(names[1:])
    return sampler.choice(ONSETS).format(names=text, span=span)


def denial(sampler: Sampler, names: Sequence[str]) -> str:
    """What the patient does not have."""
    return sampler.choice(DENIALS).format(names="、".join(names)) if names else ""


def past(sampler: Sampler, items: Sequence[str], *, allergies: bool) -> str:
    """Past history, and allergies if they were asked for."""
    known = (
        sampler.choice(PAST).format(items="、".join(items)) if items else sampler.choice(HEALTHY)
    )
    return known + (sampler.choice(ALLERGIES) if allergies else "")


def vitals(sampler: Sampler, values: dict[str, str]) -> str:
    """Temperature, pulse, blood pressure: those that were recorded."""
    parts = []
    if "T" in values:
        parts.append(f"T {values['T']}℃")
    if "P" in values:
        parts.append(f"P {values['P']}次/分")
    if "SBP" in values:
        parts.append(f"BP {values['SBP']}/{values['DBP']}mmHg")
    return "，".join(parts) + "。" if parts else ""


def signs(sampler: Sampler, found: Sequence[str]) -> str:
    """Signs, or that there are none."""
    if not found:
        return sampler.choice(NO_SIGNS)
    return sampler.choice(SIGNS).format(signs="，".join(found))


def tests(sampler: Sampler, results: Sequence[str], finding: str) -> str:
    """Laboratory results and the examination."""
    if not results and not finding:
        return sampler.choice(NO_TESTS)
    text = sampler.choice(TESTS).format(labs="，".join(results)) if results else ""
    return text + (sampler.choice(IMAGING).format(finding=finding) if finding else "")


def treatment(sampler: Sampler, disease: Disease, drug: str, dose: str) -> str:
    """Drug, dose, diet, control."""
    return sampler.choice(TREATMENTS).format(
        drug=drug, dose=dose, diet=disease.diet, followup=disease.followup, check=disease.check
    )


def evidence(sampler: Sampler, items: Sequence[str]) -> str:
    """The findings that the discussion repeats."""
    if not items:
        return sampler.choice(NO_EVIDENCE)
    return sampler.choice(EVIDENCE).format(items="、".join(items))


def conclusion(sampler: Sampler, name: str, other: str) -> str:
    """Diagnosis and alternative."""
    return sampler.choice(CONCLUSIONS).format(name=name, other=other)
