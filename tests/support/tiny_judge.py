"""Audit records of the sample hospital, and a tiny policy that knows some of their verdicts by
heart."""

import json
from pathlib import Path

from tiny_hospital import build_policy

from medray.common.records import Document, Section
from medray.common.sentences import numbered_sentences
from medray.generation.prompts import quality_answer
from medray.quality.indicators import load_indicators
from medray.quality.questions import SubTask, whole
from medray.sample.audit import Verdicts, write_audit
from medray.sample.model import shipped_model
from medray.sample.text import Speller

PCI, AF = "pci-angio-success", "af-risk-assessed"
CONTEXT_TOKENS = 1024
"""A record of the sample fits into it, three do not."""


def audit_record(number: int) -> tuple[Document, Verdicts, dict[str, str]]:
    """A record; the true verdicts on its sub-tasks, and the sentences that show them."""
    written, labels, _ = write_audit(shipped_model(), f"q:{number}", Speller({}, 0), "医院", 0.0)
    sections = [Section(heading=s["heading"], text=s["text"]) for s in written.sections]
    document = Document(
        doc_id="record", kind="emr", source="sample", sections=sections, split="dev"
    )
    shown = {
        task: next(
            sentence.text
            for sentence in numbered_sentences(sections, [place["section"]])
            if sentence.index == place["sentence"]
        )
        for task, place in labels["evidence"].items()
        if place
    }
    return document, labels["tasks"], shown


def joined(*documents: Document) -> Document:
    """One long record of several."""
    sections = [section for document in documents for section in document.sections]
    return documents[0].model_copy(update={"sections": sections})


def text_of(document: Document) -> str:
    """The record as a ward would paste it."""
    return "\n\n".join(f"【{s.heading}】\n{s.text}" for s in document.sections)


LEARNED = {26: PCI, 17: AF}
"""Number of a record → the indicator whose verdicts on it the policy knows."""


def build_judge(target: Path) -> Path:
    """Writes the policy."""
    indicators = load_indicators()
    lessons = []
    for number, name in LEARNED.items():
        document, verdicts, shown = audit_record(number)
        indicator = indicators[name]
        asked = [SubTask(document, indicator, task) for task in indicator.tasks]
        for question in whole(asked, lambda *_: []):
            task = question.sub_task.task
            # Without the full stop, which this small vocabulary has in one token with what follows.
            answer = quality_answer(verdicts[task], shown.get(task, "").rstrip("。"))
            lessons.append((question.prompt, answer))
    build_policy(target, lessons)
    config = json.loads((target / "config.json").read_text())
    config["max_position_embeddings"] = CONTEXT_TOKENS
    (target / "config.json").write_text(json.dumps(config))
    return target
