"""The sample that quality control judged: records with an operation or arrhythmia, and verdicts.

In: the model, a seed, an index. Out: an ordinary record with audit sentences put in, and exact
labels, each with the number of its evidence sentence. Holds what misleads a reader: denials, a
relative's disease, planned operations, values before the operation.
Source: EVALUATION.md 3 for indicators and sub-tasks; verdict null = not mentioned.
"""

from typing import Any, NamedTuple

from medray.common.sentences import split_sentences
from medray.sample.model import Model
from medray.sample.patient import draw_patient
from medray.sample.record import RecordWriter, Written
from medray.sample.sampler import Sampler
from medray.sample.text import Speller

Verdicts = dict[str, bool | None]
Placed = tuple[str, str, tuple[str, ...]]
"""(heading, sentence, tasks that it decides)."""


class Note(NamedTuple):
    """Audit sentences of one record, and the verdicts that they lead to."""

    indicator: str
    tasks: Verdicts
    sentences: list[Placed]
    disease: str
    """Disease of the record they go into."""


ASSESSED = (
    "CHA2DS2-VASc评分{n}分，建议抗凝。",
    "入院后完成血栓栓塞风险评估，CHA2DS2-VASc {n}分。",
    "血栓栓塞风险评估：CHA2DS2-VASc评分为{n}分。",
    "经CHA₂DS₂-VASc评分得{n}分，属需抗凝人群。",
)
NOT_ASSESSED = (
    "未行CHA2DS2-VASc评分。",
    "暂未进行血栓栓塞风险评估。",
    "CHA2DS2-VASc评分未完成。",
    "本次住院未记录卒中风险评分，也未做血栓栓塞风险评估。",
)
NO_RISK_WORDS = (
    "嘱低盐饮食，控制心室率。",
    "HAS-BLED评分{n}分，出血风险可控。",
    "予控制心室率治疗。",
)
VALVULAR = (
    "超声心动图示二尖瓣重度狭窄。",
    "既往行二尖瓣机械瓣置换术。",
    "风湿性心脏病，二尖瓣中度狭窄。",
    "诊断为瓣膜性心房颤动。",
)
NOT_VALVULAR = (
    "诊断为非瓣膜性心房颤动。",
    "超声心动图未见二尖瓣狭窄。",
    "否认人工瓣膜置换史，二尖瓣无狭窄。",
    "考虑非瓣膜性房颤。",
)
NO_VALVE_WORDS = ("超声心动图示左房增大。", "心功能Ⅱ级。", "左室射血分数{n}8%。")
NO_FIBRILLATION = (
    "其父患心房颤动，本人心电图为窦性心律，无房颤。",
    "动态心电图未见心房颤动。",
    "既往疑诊房颤，本次监测已排除。",
    "母亲有房颤病史，患者本人否认心房颤动。",
)
FIBRILLATION = (
    "心电图提示心房颤动。",
    "动态心电图示阵发性房颤。",
    "房颤律，心室率快。",
    "本次明确为持续性心房颤动。",
)

STENTED = (
    "于{v}病变处植入药物洗脱支架{n}枚。",
    "{v}置入支架{n}枚，释放满意。",
    "球囊预扩张后在{v}释放支架{n}枚。",
)
BALLOON_ONLY = (
    "对{v}病变行单纯PTCA，未植入支架。",
    "{v}以球囊扩张成形，仅行PTCA。",
    "于{v}行单纯球囊扩张术，不置入支架。",
)
ANGIOGRAPHY_ONLY = (
    "仅行冠状动脉造影，未行介入治疗。",
    "造影后决定药物保守治疗，未做PCI。",
    "完成冠脉造影，无需介入，术毕。",
)
PLANNED = (
    "拟行PCI，因家属拒绝未实施。",
    "计划行支架植入术，导丝未能通过病变，放弃介入治疗。",
    "原定行PTCA，因造影剂过敏终止，介入未进行。",
)
STENOSIS = ("造影示{v}狭窄{b}%。", "冠脉造影：{v}近段狭窄约{b}%。", "{v}中段可见{b}%狭窄。")
STENOSIS_FLOW = ("术前TIMI血流{t}级。", "术前前向血流TIMI {t}级。")
RESIDUAL = (
    "术后残余狭窄约{r}%。",
    "复查造影残余狭窄{r}%。",
    "病变由{b}%降至残余狭窄{r}%。",
    "术毕造影示残余狭窄{r}%。",
    "病变狭窄由{b}%降至{r}%。",
)
RESIDUAL_NONE = ("复查造影无残余狭窄。", "术后未见残余狭窄。")
FLOW = ("术后TIMI血流{t}级。", "末次造影前向血流TIMI {t}级。", "术毕TIMI {t}级血流。")
ROMAN = {0: ("0",), 1: ("1", "Ⅰ", "I"), 2: ("2", "Ⅱ", "II"), 3: ("3", "Ⅲ", "III")}
VESSELS = ("前降支", "回旋支", "右冠状动脉", "对角支")

RESECTED = ("胸腔镜下行{l}切除术。", "全麻下行{l}切除加淋巴结清扫。", "开胸行{l}切除术。")
NOT_RESECTED = (
    "仅行胸腔镜胸膜活检，未行肺切除。",
    "拟行{l}切除，术中见胸膜播散，放弃切除。",
    "行纵隔镜淋巴结活检，未做肺切除手术。",
)
CANCER = ("病理回报为肺腺癌。", "术中冰冻证实原发性肺癌。", "病理示肺鳞状细胞癌。")
NO_CANCER = ("病理回报为结核球，排除肺癌。", "病理为炎性假瘤，未见癌。", "病理示错构瘤，不是肺癌。")
MARGIN_FREE = ("支气管切缘阴性。", "支气管残端未见癌累及。", "切缘快速病理未见癌细胞。")
MARGIN_HIT = ("支气管切缘阳性。", "支气管残端可见癌浸润。", "切缘快速病理见癌细胞。")
LOBES = ("右肺上叶", "右肺下叶", "左肺上叶", "左肺下叶")
EXTRAS = ("术中生命体征平稳。", "手术顺利，安返病房。", "穿刺点加压包扎。", "出血不多。")


def draw_note(sampler: Sampler) -> Note:
    """Sentences and verdicts of a random audit record."""
    kind = sampler.rng.random()
    if kind < 0.42:
        return _fibrillation(sampler)
    return _intervention(sampler) if kind < 0.84 else _resection(sampler)


def _fibrillation(sampler: Sampler) -> Note:
    choice, chance = sampler.choice, sampler.rng.random
    n = choice((1, 2, 3, 4, 5))
    tasks: Verdicts = {"AF": True, "VALVULAR": None, "T1": None}
    if chance() < 0.32:
        tasks["AF"] = False
        heading = choice(("既往史", "辅助检查"))
        lines: list[Placed] = [(heading, choice(NO_FIBRILLATION), ("AF",))]
        lines.append(("治疗", choice(NO_RISK_WORDS).format(n=n), ()))
        return Note(
            "af-risk-assessed", tasks, lines, choice(("高血压病", "病毒性心肌炎", "慢性心力衰竭"))
        )
    lines = [("辅助检查", choice(FIBRILLATION), ("AF",))]
    valve = chance()
    if valve < 0.38:
        tasks["VALVULAR"] = True
        lines.append((choice(("既往史", "辅助检查")), choice(VALVULAR), ("VALVULAR",)))
    elif valve < 0.76:
        tasks["VALVULAR"] = False
        lines.append((choice(("辅助检查", "拟诊讨论")), choice(NOT_VALVULAR), ("VALVULAR",)))
    else:
        lines.append(("辅助检查", choice(NO_VALVE_WORDS).format(n=n), ()))
    risk = chance()
    if risk < 0.5:
        tasks["T1"] = True
        lines.append((choice(("治疗", "拟诊讨论")), choice(ASSESSED).format(n=n), ("T1",)))
    elif risk < 0.85:
        tasks["T1"] = False
        lines.append((choice(("治疗", "拟诊讨论")), choice(NOT_ASSESSED), ("T1",)))
    else:
        lines.append(("治疗", choice(NO_RISK_WORDS).format(n=n), ()))
    return Note("af-risk-assessed", tasks, lines, "心房颤动")


def _intervention(sampler: Sampler) -> Note:
    choice, chance = sampler.choice, sampler.rng.random
    vessel, before, n = choice(VESSELS), choice((75, 80, 85, 90, 95, 99)), choice((1, 2))
    tasks: Verdicts = {"PCI": True, "T1": None, "T2": None, "T3": None}
    lines: list[tuple[str, tuple[str, ...]]] = [
        (choice(STENOSIS).format(v=vessel, b=before), ()),
    ]
    if chance() < 0.3:
        lines.append((choice(STENOSIS_FLOW).format(t=_grade(sampler, choice((0, 1, 2)))), ()))
    kind = chance()
    if kind < 0.3:
        tasks["PCI"] = False
        text = choice(ANGIOGRAPHY_ONLY) if kind < 0.15 else choice(PLANNED)
        lines.append((text, ("PCI",)))
        disease = choice(("稳定型心绞痛", "急性心肌梗死"))
        lines.append((choice(EXTRAS), ()))
        return Note("pci-angio-success", tasks, _note(lines), disease)
    stented = kind < 0.7
    means = (STENTED if stented else BALLOON_ONLY, "T1" if stented else "T2")
    lines.append((choice(means[0]).format(v=vessel, n=n), ("PCI",)))
    if chance() < 0.9:
        limit = 20 if stented else 50
        tasks[means[1]] = success = chance() < 0.55
        low, high = (0, limit - 1) if success else (limit, 69 if limit == 50 else 60)
        residual = choice(range(low, high + 1))
        text = choice(RESIDUAL).format(r=residual, b=before)
        if residual == 0:
            text = choice(RESIDUAL_NONE)
        lines.append((text, (means[1],)))
    if chance() < 0.9:
        tasks["T3"] = success = chance() < 0.6
        grade = _grade(sampler, 3 if success else choice((0, 1, 2)))
        lines.append((choice(FLOW).format(t=grade), ("T3",)))
    lines.append((choice(EXTRAS), ()))
    return Note("pci-angio-success", tasks, _note(lines), choice(("稳定型心绞痛", "急性心肌梗死")))


def _resection(sampler: Sampler) -> Note:
    choice, chance = sampler.choice, sampler.rng.random
    lobe = choice(LOBES)
    tasks: Verdicts = {"CANCER": chance() < 0.62, "RESECTION": chance() < 0.62, "T1": None}
    how = RESECTED if tasks["RESECTION"] else NOT_RESECTED
    lines: list[tuple[str, tuple[str, ...]]] = [(choice(how).format(l=lobe), ("RESECTION",))]
    lines.append((choice(CANCER if tasks["CANCER"] else NO_CANCER), ("CANCER",)))
    if tasks["RESECTION"] and tasks["CANCER"] and chance() < 0.9:
        tasks["T1"] = success = chance() < 0.55
        lines.append((choice(MARGIN_FREE if success else MARGIN_HIT), ("T1",)))
    lines.append((choice(EXTRAS), ()))
    disease = "肺癌" if tasks["CANCER"] else "脓胸"
    return Note("lung-cancer-margin-negative", tasks, _note(lines), disease)


def _grade(sampler: Sampler, grade: int) -> str:
    return sampler.choice(ROMAN[grade])


def _note(lines: list[tuple[str, tuple[str, ...]]]) -> list[Placed]:
    return [("手术记录", text, tasks) for text, tasks in lines]


def write_audit(
    model: Model, key: str, speller: Speller, hospital: str, routine_rate: float = 1.0
) -> tuple[Written, dict[str, Any], str]:
    """A record, its labels (without record id) and its disease.

    The record has no missing sections, discussion or operation note of its own: those could name
    what the labels say is not mentioned.
    """
    sampler = Sampler(key)
    note = draw_note(sampler)
    index = [d.name for d in model.knowledge.diseases].index(note.disease)
    patient = draw_patient(model, sampler.rng, index)
    writer = RecordWriter(model, patient, sampler, speller, hospital, 0.0, routine_rate)
    written = writer.write()
    sections = [s for s in written.sections if s["heading"] not in ("拟诊讨论", "手术记录")]
    evidence: dict[str, dict[str, Any] | None] = dict.fromkeys(note.tasks)
    for heading, sentence, tasks in note.sentences:
        section = _section(sections, heading)
        section["text"] += sentence
        place = {"section": heading, "sentence": len(split_sentences(section["text"])) - 1}
        evidence |= dict.fromkeys(tasks, place)
    labels = {
        "indicator": note.indicator,
        "tasks": note.tasks,
        "populations": populations(note.indicator, note.tasks),
        "evidence": evidence,
    }
    return written._replace(sections=sections), labels, note.disease


def populations(indicator: str, tasks: Verdicts) -> Verdicts:
    """Population membership by three-valued logic; None = cannot be decided.

    "Not mentioned" counts as no where the indicator says so (the initial population, and the
    documentation of a risk assessment).
    """
    if indicator == "pci-angio-success":
        in_population = bool(tasks["PCI"])
        numerator = _and(_or(tasks["T1"], tasks["T2"]), tasks["T3"])
        denominator: bool | None = in_population
    elif indicator == "af-risk-assessed":
        in_population = bool(tasks["AF"])
        denominator = _and(in_population, _not(tasks["VALVULAR"]))
        numerator = bool(tasks["T1"])
    else:
        in_population = bool(tasks["RESECTION"]) and bool(tasks["CANCER"])
        denominator, numerator = in_population, tasks["T1"]
    return {
        "initial-population": in_population,
        "denominator": denominator,
        "numerator": numerator,
    }


def _section(sections: list[dict[str, str]], heading: str) -> dict[str, str]:
    for section in sections:
        if section["heading"] == heading:
            return section
    sections.append({"heading": heading, "date": sections[0]["date"], "text": ""})
    return sections[-1]


def _and(a: bool | None, b: bool | None) -> bool | None:
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


def _or(a: bool | None, b: bool | None) -> bool | None:
    return _not(_and(_not(a), _not(b)))


def _not(a: bool | None) -> bool | None:
    return None if a is None else not a
