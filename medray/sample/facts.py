"""Facts of the literature: what can be asked of a disease, where it stands, how it is worded.

In: a disease. Out: values, clauses, questions, passages. One aspect = one section of a document.
A clause names disease, aspect and value, so that it answers a question when quoted alone.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from medray.sample.knowledge import Disease

MIN_PASSAGE_CHARS = 50
USUAL_WORDING = 0.85  # probability that a fact stands in its first wording


class Aspect(NamedTuple):
    """One kind of fact."""

    heading: str
    kind: str
    """Document that holds it: guideline or encyclopaedic."""
    value: Callable[[Disease], str]
    clauses: tuple[str, ...]
    questions: tuple[str, ...]
    filler: tuple[str, ...]
    """Sentences that name the disease and tell nothing that is asked."""


def typical_finding(disease: Disease) -> str:
    """The most frequent finding of an examination, or what takes its place."""
    if disease.imaging:
        return max(disease.imaging, key=lambda k: disease.imaging[k])
    if disease.signs:
        return max(disease.signs, key=lambda k: disease.signs[k])
    return "神经系统检查无阳性体征"


def typical_symptoms(disease: Disease) -> str:
    """The three most frequent symptoms."""
    return "、".join(sorted(disease.symptoms, key=lambda k: -disease.symptoms[k])[:3])


ASPECTS = (
    Aspect(
        "首选药物",
        "guideline",
        lambda d: d.first[0],
        ("{name}首选药物为{value}", "{name}一线治疗选用{value}", "推荐{value}作为{name}的首选"),
        (
            "{name}首选什么药物？",
            "治疗{name}一线用什么？",
            "{name}的首选治疗是什么？",
            "得了{name}应该先用哪种药？",
        ),
        (
            "用药前应评估肝肾功能与过敏史。",
            "{name}的用药须遵循个体化原则。",
            "治疗期间应观察疗效与不良反应。",
            "剂量应按体重与耐受情况调整。",
        ),
    ),
    Aspect(
        "替代药物",
        "guideline",
        lambda d: d.second[0],
        ("{name}不耐受首选时可改用{value}", "{name}的二线治疗为{value}", "{name}备选方案是{value}"),
        (
            "{name}的二线治疗用什么？",
            "{name}首选药物不耐受时换什么？",
            "{name}有什么备选药物？",
        ),
        (
            "换药前应确认依从性与诊断。",
            "{name}换药后需重新评估疗效。",
            "更换方案应由专科医师决定。",
            "换药过程中应避免突然停用。",
        ),
    ),
    Aspect(
        "禁忌",
        "guideline",
        lambda d: d.avoid[0],
        ("{name}患者禁用{value}", "{value}禁用于{name}患者", "{name}应避免使用{value}"),
        ("{name}患者不能用什么药？", "{name}禁用哪种治疗？", "{name}有什么用药禁忌？"),
        (
            "开具处方前应核对合并用药。",
            "{name}患者就诊时应主动告知在用药物。",
            "误用后应立即停用并密切监测。",
            "药师应在发药时再次核对。",
        ),
    ),
    Aspect(
        "随访",
        "guideline",
        lambda d: f"{d.followup}后复查{d.check}",
        ("{name}患者应于{value}", "{name}治疗后应在{value}", "{name}的随访安排为{value}"),
        (
            "{name}多久复查什么？",
            "{name}治疗后怎样随访？",
            "{name}患者何时复查、查哪一项？",
        ),
        (
            "随访应记录症状变化与用药情况。",
            "{name}患者应建立随访档案。",
            "失访患者应由专人电话联系。",
            "结果异常时应缩短间隔。",
        ),
    ),
    Aspect(
        "疗程",
        "guideline",
        lambda d: d.duration,
        ("{name}的疗程为{value}", "{name}治疗时间是{value}", "{name}规范治疗需要{value}"),
        ("{name}要治疗多久？", "{name}的疗程是多长？", "{name}需要用药多长时间？"),
        (
            "不应因症状消失而提前停药。",
            "{name}的治疗应足量并规范。",
            "时间长短可由专科医师酌情调整。",
            "结束治疗前应评估效果。",
        ),
    ),
    Aspect(
        "就诊指征",
        "guideline",
        lambda d: d.red_flag,
        ("{name}患者出现{value}应立即就诊", "{name}的危险信号是{value}", "{value}提示{name}加重"),
        (
            "{name}出现什么情况要马上就医？",
            "{name}的危险信号是什么？",
            "{name}患者什么时候要去急诊？",
        ),
        (
            "患者与家属均应知晓此点。",
            "{name}患者应保留急诊联系方式。",
            "就诊时应携带既往检查资料。",
            "分诊人员应优先安排此类患者。",
        ),
    ),
    Aspect(
        "病因",
        "encyclopaedic",
        lambda d: d.cause,
        ("{name}的主要病因是{value}", "{name}多由{value}引起", "{value}是{name}的常见原因"),
        ("{name}是什么原因引起的？", "{name}的病因是什么？", "为什么会得{name}？"),
        (
            "多种因素可共同参与发病。",
            "{name}的发病机制仍在研究。",
            "去除诱因有助于预防复发。",
            "个体差异也影响发病风险。",
        ),
    ),
    Aspect(
        "临床表现",
        "encyclopaedic",
        typical_symptoms,
        ("{name}常见表现为{value}", "{name}典型症状有{value}", "{name}患者多有{value}"),
        ("{name}有什么症状？", "{name}的临床表现是什么？", "得了{name}会有哪些不舒服？"),
        (
            "症状轻重因人而异。",
            "{name}早期表现可不典型。",
            "老年患者的表现常较隐匿。",
            "起病缓急与病情有关。",
        ),
    ),
    Aspect(
        "并发症",
        "encyclopaedic",
        lambda d: "和".join(d.complications),
        ("{name}可并发{value}", "{name}的并发症有{value}", "{name}可引起{value}"),
        ("{name}有哪些并发症？", "{name}会引起什么后果？", "{name}可能并发什么？"),
        (
            "早期规范治疗可降低风险。",
            "{name}病程越长风险越高。",
            "一旦出现应转专科处理。",
            "高龄患者更应警惕。",
        ),
    ),
    Aspect(
        "检查",
        "encyclopaedic",
        typical_finding,
        ("{name}的典型所见为{value}", "{name}检查多见{value}", "{value}支持{name}的诊断"),
        ("{name}检查会看到什么？", "{name}的典型检查结果是什么？", "什么检查所见支持{name}？"),
        (
            "结果须结合临床综合判断。",
            "{name}的诊断不能仅凭单项检查。",
            "检查前应告知患者注意事项。",
            "阴性结果不能完全除外本病。",
        ),
    ),
    Aspect(
        "饮食",
        "encyclopaedic",
        lambda d: d.diet,
        ("{name}患者宜{value}", "{name}的生活调理为{value}", "{name}日常应注意{value}"),
        ("{name}饮食上注意什么？", "{name}患者平时怎么调理？", "得了{name}生活上该注意什么？"),
        (
            "良好的生活方式有助于康复。",
            "{name}患者应保持心情舒畅。",
            "家属应协助患者长期坚持。",
            "具体方案可咨询营养师。",
        ),
    ),
)


def clause(aspect: Aspect, name: str, value: str, rng: random.Random) -> str:
    """The clause that states the fact: mostly as guidelines put it, else in another wording."""
    usual = rng.random() < USUAL_WORDING
    wording = aspect.clauses[0] if usual else rng.choice(aspect.clauses)
    return wording.format(name=name, value=value)


def passage(aspect: Aspect, name: str, fact: str, rng: random.Random) -> str:
    """The fact, then filler: two sentences, more while the text is under 50 characters.

    The fact comes first, as in the recommendation boxes of guidelines.
    """
    filler = [s.format(name=name) for s in rng.sample(aspect.filler, len(aspect.filler))]
    sentences = filler[:2]
    sentences.insert(0, f"{fact}。")
    text = "".join(sentences)
    for sentence in filler[2:]:
        if len(text) < MIN_PASSAGE_CHARS:
            text += sentence
    return text


def question(aspect: Aspect, name: str, rng: random.Random) -> str:
    """One wording of the question."""
    return rng.choice(aspect.questions).format(name=name)
