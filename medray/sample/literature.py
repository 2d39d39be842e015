"""Documents, triples, exam questions and retrieval questions.

In: the knowledge, a seed. Out: rows. Two documents a disease: a guideline and an encyclopaedia
entry, with different sections; some guidelines have an older version that they supersede; case
reports let the literature grow with the hospital.
"""

import random
from collections.abc import Iterator
from typing import Any

from medray.sample.consult import scenario
from medray.sample.facts import ASPECTS, clause, passage
from medray.sample.knowledge import Disease, Knowledge
from medray.sample.model import Model

SUPERSEDED_EVERY = 6
CASE_REPORTS_FROM = 5000
"""Hospitals above this size also have case reports, one a hundred records."""
QUALITY_NOTES = {
    "经皮冠状动脉介入治疗": {
        "成功标准": "支架术后病变残余狭窄<20%且前向血流TIMI 3级为造影成功。"
        "单纯PTCA后病变残余狭窄<50%且TIMI 3级亦视为造影成功。",
        "TIMI分级": "TIMI 0级为无灌注，1级为渗透而无灌注，2级为部分灌注。"
        "TIMI 3级为完全灌注，造影剂充盈与清除均正常。",
        "手术记录": "手术记录应写明病变部位、术前狭窄、支架型号、术后残余狭窄与TIMI血流。"
        "计划而未实施的介入治疗不计入。",
    },
    "心房颤动血栓栓塞风险评估": {
        "评分方法": "非瓣膜性心房颤动应采用CHA2DS2-VASc评分评估血栓栓塞风险。"
        "心力衰竭、高血压、糖尿病、血管病变各1分，既往卒中2分，75岁以上2分，65至74岁1分，女性1分。",
        "瓣膜性房颤": "中重度二尖瓣狭窄或机械瓣置换术后的心房颤动为瓣膜性心房颤动。"
        "瓣膜性心房颤动不适用CHA2DS2-VASc评分。",
        "记录要求": "病历中应记录评分结果或血栓栓塞风险评估结论。仅有家族史不能作为诊断依据。",
    },
    "肺癌手术质量控制": {
        "切缘": "肺癌根治性切除要求支气管切缘与血管切缘阴性。"
        "切缘应由快速冰冻病理证实并记入手术记录。",
        "淋巴结清扫": "肺癌手术应清扫或采样至少三组纵隔淋巴结，其中应包括隆突下淋巴结。",
    },
}


def doc_id(kind: str, index: int) -> str:
    """Number of the document of a kind about disease `index`."""
    return f"{'GL' if kind == 'guideline' else 'EN'}{index:03d}"


def documents(model: Model, seed: int, num_records: int) -> Iterator[dict[str, Any]]:
    """All documents."""
    for index, disease in enumerate(model.knowledge.diseases):
        for kind in ("guideline", "encyclopaedic"):
            yield _document(disease, index, kind, seed)
        if index % SUPERSEDED_EVERY == 0:
            yield _superseded(disease, index, seed)
    for k, (title, sections) in enumerate(QUALITY_NOTES.items()):
        yield {
            "doc_id": f"QC{k:03d}",
            "title": title,
            "kind": "guideline",
            "department": "胸外科" if "肺" in title else "心血管内科",
            "date": "2023-01-01",
            "superseded_by": None,
            "sections": [{"heading": h, "text": t} for h, t in sections.items()],
        }
    if num_records > CASE_REPORTS_FROM:
        yield from _case_reports(model, seed, num_records // 100)


def _document(disease: Disease, index: int, kind: str, seed: int) -> dict[str, Any]:
    rng = random.Random(f"{seed}:document:{kind}:{index}")
    sections = []
    for aspect in ASPECTS:
        if aspect.kind == kind:
            fact = clause(aspect, disease.name, aspect.value(disease), rng)
            text = passage(aspect, disease.name, fact, rng)
            sections.append({"heading": aspect.heading, "text": text})
    return {
        "doc_id": doc_id(kind, index),
        "title": disease.name,
        "kind": kind,
        "department": disease.department,
        "date": f"{rng.randrange(2020, 2025)}-{rng.randrange(1, 13):02d}-01",
        "superseded_by": None,
        "sections": sections,
    }


def _superseded(disease: Disease, index: int, seed: int) -> dict[str, Any]:
    """An old guideline: what is second line today was first line then."""
    rng = random.Random(f"{seed}:superseded:{index}")
    aspect = ASPECTS[0]
    fact = clause(aspect, disease.name, disease.second[0], rng)
    return {
        "doc_id": f"OLD{index:03d}",
        "title": disease.name,
        "kind": "guideline",
        "department": disease.department,
        "date": f"{rng.randrange(2008, 2016)}-06-01",
        "superseded_by": doc_id("guideline", index),
        "sections": [{"heading": aspect.heading, "text": passage(aspect, disease.name, fact, rng)}],
    }


def _case_reports(model: Model, seed: int, num: int) -> Iterator[dict[str, Any]]:
    for k in range(num):
        case = scenario(model, f"{seed}:case:{k}")
        disease = case.disease
        rng = random.Random(f"{seed}:case-text:{k}")
        summary = case.text.rsplit("。", 2)[0]
        yield {
            "doc_id": f"CR{k:06d}",
            "title": f"{disease.name}病例报告",
            "kind": "literature",
            "department": disease.department,
            "date": f"{rng.randrange(2016, 2025)}-{rng.randrange(1, 13):02d}-01",
            "superseded_by": None,
            "sections": [
                {"heading": "病例摘要", "text": f"{summary}。经综合分析诊断为{disease.name}。"},
                {
                    "heading": "讨论",
                    "text": f"本例{disease.name}经{disease.first[0]}治疗后好转，"
                    f"{disease.followup}后复查{disease.check}。应警惕{disease.complications[0]}。",
                },
            ],
        }


def questions(knowledge: Knowledge) -> Iterator[dict[str, Any]]:
    """Every wording of every question, with the section that answers it."""
    number = 0
    for index, disease in enumerate(knowledge.diseases):
        for aspect in ASPECTS:
            for wording in aspect.questions:
                yield {
                    "id": f"Q{number:05d}",
                    "question": wording.format(name=disease.name),
                    "doc_id": doc_id(aspect.kind, index),
                    "section": aspect.heading,
                }
                number += 1


def triples(knowledge: Knowledge) -> Iterator[dict[str, str]]:
    """Edges of the knowledge graph, with CMeKG's names of relations."""
    for d in knowledge.diseases:
        colleagues = [o.name for o in knowledge.of_department(d.department) if o is not d]
        tails = {
            "临床表现": list(d.symptoms),
            "体征": list(d.signs),
            "药物治疗": [d.first[0], d.second[0]],
            "禁忌": [d.avoid[0]],
            "检查": [d.check],
            "影像学检查": list(d.imaging),
            "实验室检查": list(d.labs),
            "并发症": d.complications,
            "科室": [d.department],
            "病因": [d.cause],
            "鉴别诊断": colleagues[:3],
            "同义词": d.aliases,
            "饮食": [d.diet],
            "病史": list(d.history),
        }
        for relation, names in tails.items():
            for tail in names:
                yield {"head": d.name, "relation": relation, "tail": tail}


def exam(knowledge: Knowledge, seed: int) -> Iterator[dict[str, Any]]:
    """Five multiple-choice questions a disease; wrong options come from other diseases."""
    kinds = (
        ("{}的首选治疗是", lambda d: d.first[0]),
        ("{}患者禁用", lambda d: d.avoid[0]),
        ("{}随访时应复查", lambda d: d.check),
        ("{}常见的并发症是", lambda d: d.complications[0]),
        ("{}应就诊的科室是", lambda d: d.department),
    )
    for i, disease in enumerate(knowledge.diseases):
        for k, (stem, value) in enumerate(kinds):
            rng = random.Random(f"{seed}:exam:{i}:{k}")
            right = value(disease)
            known = {disease.first[0], disease.second[0], disease.avoid[0], *disease.complications}
            pool = sorted({value(d) for d in knowledge.diseases} - known - {right})
            options = [*rng.sample(pool, rng.choice((3, 4))), right]
            rng.shuffle(options)
            yield {
                "id": f"E{i:03d}{k}",
                "question": stem.format(disease.name) + "（  ）",
                "options": dict(zip("ABCDE", options, strict=False)),
                "answer": "ABCDE"[options.index(right)],
                "subject": disease.department,
            }
