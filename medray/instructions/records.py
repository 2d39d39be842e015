"""Fine-tuning tasks from de-identified records: diagnosis, treatment, differential diagnosis.

In: a `Document` of kind emr. Out: an `Instruction`, in the document's split.
Source: [EMR-LLM 1.3] for the three tasks and the prompts of diagnosis and differential;
[ClinicalGPT 2.1] MD-EHR: notes concatenated in, diagnosis out.
"""

import re

from medray.common.records import Document, Instruction
from medray.generation.prompts import diagnosis_prompt, differential_prompt, treatment_prompt
from medray.instructions.examples import Skipped, clip, exchange, render_sections

FINDINGS = ("主诉", "现病史", "既往史", "体格检查", "辅助检查")
NARRATIVE = ("主诉", "现病史")

NUMBERING = re.compile(
    r"^\s*(?:(?:入院|出院|初步|主要|临床)?诊断[:：])?\s*(?:[(（]?\d+(?:[.．](?!\d)|[、)）])\s*)?"
)
ICD_CODE = re.compile(
    r"[\s,，(（\[【]*(?:ICD-?10[:：\s]*)?[A-Z]\d{2}(?:\.[0-9A-Za-z]{1,6})?[+*†]?[)）\]】]*\s*$"
)
DOUBT = re.compile(r"[?？\s]+$")


def first_diagnosis(text: str) -> str:
    """The principal diagnosis of a 诊断 section: its first entry, without number and ICD code.

    `1. 社区获得性肺炎（J18.9）；2. 高血压病` gives `社区获得性肺炎`; empty if there is none.
    """
    for entry in re.split(r"[;；。\n,，、]", NUMBERING.sub("", text, count=1)):
        name = DOUBT.sub("", ICD_CODE.sub("", NUMBERING.sub("", entry)))
        if name:
            return name
    return ""


def diagnosis(record: Document, max_prompt_chars: int) -> Instruction | Skipped:
    """Findings → name of the principal diagnosis."""
    name = first_diagnosis(_section(record, "诊断"))
    if not name:
        return Skipped("no_diagnosis")
    if not any(_section(record, heading) for heading in NARRATIVE):
        return Skipped("no_history")
    text = render_sections(record.sections, FINDINGS, max_prompt_chars)
    return _instruction(record, "diagnosis", diagnosis_prompt(text), name, name)


def treatment(
    record: Document, max_prompt_chars: int, max_answer_chars: int
) -> Instruction | Skipped:
    """Diagnosis, complaint and history → treatment."""
    name = first_diagnosis(_section(record, "诊断"))
    if not name:
        return Skipped("no_diagnosis")
    answer = clip(_section(record, "治疗"), max_answer_chars)
    if not answer:
        return Skipped("no_treatment")
    brief = render_sections(record.sections, NARRATIVE, max_prompt_chars)
    return _instruction(record, "treatment", treatment_prompt(name, brief), answer, "")


def differential(
    record: Document, max_prompt_chars: int, max_answer_chars: int
) -> Instruction | Skipped:
    """Findings → the discussion of the diagnoses that were considered."""
    answer = clip(_section(record, "拟诊讨论"), max_answer_chars)
    if not answer:
        return Skipped("no_discussion")
    text = render_sections(record.sections, FINDINGS, max_prompt_chars)
    if not text:
        return Skipped("no_history")
    name = first_diagnosis(_section(record, "诊断"))
    return _instruction(record, "differential", differential_prompt(text), answer, name)


def _section(record: Document, heading: str) -> str:
    return next((s.text.strip() for s in record.sections if s.heading == heading), "")


def _instruction(
    record: Document, task: str, prompt: str, answer: str, expected: str
) -> Instruction:
    return Instruction(
        id=f"{task}-{record.doc_id}",
        task=task,
        messages=exchange(prompt, answer),
        split=record.split,
        answer=expected,
        group=record.department,
        doc_id=record.doc_id,
    )
