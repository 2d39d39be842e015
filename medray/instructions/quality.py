"""Quality-control sub-tasks as fine-tuning examples, and the audit set to check.

In: audit records (de-identified `Document`s) and quality control's verdicts on them. Out:
`Instruction`s that answer with the evidence sentence and the verdict; `QualityLabel`s.
Source: [MedQC 3.1, 4.1] instructions of quality control; `<sub-task, knowledge, record>`
[MedQC 4.2]. Differs: no knowledge in training prompts; the sub-tasks on a record share its text.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from medray.common.config import Config
from medray.common.errors import ConfigError
from medray.common.records import Document, Instruction, Row
from medray.common.sentences import Sentence, numbered_sentences
from medray.common.split import Split
from medray.corpus.readers.headings import canonical
from medray.generation.prompts import quality_answer, quality_prompt, split_quality_prompt
from medray.instructions.examples import Skipped, exchange
from medray.instructions.raw import Evidence, QualityLabels

PACKAGE = Path(__file__).parents[1]


class QualityTasksConfig(Config):
    """The audit sample and the indicators it was judged by."""

    document_sources: tuple[str, ...] = ("audit",)
    """Corpus documents of these sources are audit records: they give quality sub-tasks and no
    other task."""
    indicators: str = "quality/indicators/*.yaml"
    """Indicator files, a glob in the last part of the path; a relative path starts in the medray
    package. The files are data: quality control checks them, here only what is asked is read."""
    dev_fraction: float | None = None
    """Share of audit patients held out to check the verdicts on, beyond those that the corpus holds
    out; None keeps the corpus's split. Better set on the audit source of the corpus, so that
    pretraining does not see them either."""


class SubTask(NamedTuple):
    """What one sub-task asks, and of which sections (None: all), by their names and by those that
    readers give them in a text."""

    ask: str
    sections: tuple[str, ...] | None


class QualityLabel(Row):
    """Quality control's verdict on one record, for one sub-task or population of an indicator."""

    record_id: str
    indicator: str
    level: Literal["task", "population"]
    name: str
    value: bool | None
    """None: not mentioned."""
    section: str = ""
    """Heading of the evidence's section; empty if the label names no evidence."""
    sentence: int | None = None
    """Number of the evidence sentence within its section, from 0."""
    split: Split


def load_sub_tasks(pattern: str) -> dict[tuple[str, str], SubTask]:
    """(indicator, task) → what is asked, from indicator files (EVALUATION.md 3).

    Raises:
        ConfigError: if no file matches or one lacks `id`, `tasks` or `ask`.
    """
    path = PACKAGE / pattern  # an absolute pattern stays as it is
    files = sorted(path.parent.glob(path.name))
    if not files:
        raise ConfigError(f"no indicator file matches {pattern}; set quality.indicators")
    sub_tasks = {}
    for file in files:
        try:
            for indicator in yaml.safe_load(file.read_text(encoding="utf-8")):
                sub_tasks.update(_sub_tasks(indicator))
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{file.name} is no list of indicators with id and tasks ({type(error).__name__})"
            ) from None
    return sub_tasks


def quality(
    record: Document,
    labels: QualityLabels,
    sub_tasks: Mapping[tuple[str, str], SubTask],
    max_prompt_chars: int,
) -> Iterator[tuple[str, Instruction | Skipped]]:
    """Yields (task, example) for every verdict of `labels`."""
    for task, value in sorted(labels.tasks.items()):
        sub_task = sub_tasks.get((labels.indicator, task))
        if sub_task is None:
            yield task, Skipped("unknown_sub_task")
            continue
        sentences = numbered_sentences(record.sections, sub_task.sections)
        prompt = quality_prompt(sub_task.ask, [], [s.text for s in sentences])
        if not sentences:
            yield task, Skipped("no_section")
        elif len(prompt) > max_prompt_chars:
            yield task, Skipped("prompt_too_long")
        else:
            answer = quality_answer(
                value, evidence_sentence(record, sentences, labels.evidence.get(task))
            )
            yield (
                task,
                Instruction(
                    id=f"quality-{record.doc_id}-{labels.indicator}-{task}",
                    task="quality",
                    messages=exchange(prompt, answer),
                    split=record.split,
                    answer=answer,
                    group=f"{labels.indicator}/{task}",
                    doc_id=record.doc_id,
                ),
            )


def on_one_record(examples: Sequence[Instruction]) -> list[Instruction]:
    """Joins the sub-tasks that are shown the same text into rows that hold it once.

    A row of k questions teaches k verdicts for little more than the tokens of one. Each question
    is learnt as quality control asks it, by itself: no turn sees another.
    """
    asked: dict[str, list[Instruction]] = {}
    for example in examples:
        record, _ = split_quality_prompt(example.messages[0].content)
        asked.setdefault(record, []).append(example)
    rows = []
    for record, same in asked.items():
        messages = [*same[0].messages]
        for example in same[1:]:
            prompt, answer = example.messages
            _, question = split_quality_prompt(prompt.content)
            messages += exchange(question, answer.content)
        joined = {"messages": messages, "answer": "", "shared_chars": len(record)}
        rows.append(same[0].model_copy(update=joined))
    return rows


def evidence_sentence(
    record: Document, sentences: list[Sentence], evidence: Evidence | None
) -> str:
    """The evidence among the prompt's sentences; empty if it is not there."""
    if evidence is None:
        return ""
    for sentence in sentences:
        heading = record.sections[sentence.section].heading
        if (heading, sentence.index) == (evidence.section, evidence.sentence):
            return sentence.text
    return ""


def flat_labels(labels: QualityLabels, split: Split) -> Iterator[QualityLabel]:
    """One row per verdict, tasks first."""
    for task, value in sorted(labels.tasks.items()):
        evidence = labels.evidence.get(task)
        yield QualityLabel(
            record_id=labels.record_id,
            indicator=labels.indicator,
            level="task",
            name=task,
            value=value,
            section=evidence.section if evidence else "",
            sentence=evidence.sentence if evidence else None,
            split=split,
        )
    for population, value in sorted(labels.populations.items()):
        yield QualityLabel(
            record_id=labels.record_id,
            indicator=labels.indicator,
            level="population",
            name=population,
            value=value,
            split=split,
        )


def _sub_tasks(indicator: dict[str, Any]) -> dict[tuple[str, str], SubTask]:
    defaults = indicator.get("defaults") or {}
    found = {}
    for name, task in indicator["tasks"].items():
        sections = task.get("sections", defaults.get("sections"))
        ask, when = task["ask"], task.get("when", "")
        found[indicator["id"], name] = SubTask(
            f"{ask}（限{when}）" if when and when not in ask else ask,
            tuple(dict.fromkeys([*sections, *map(canonical, sections)])) if sections else None,
        )
    return found
