"""What a record is asked. In: records, indicators. Out: one prompt for each sub-task and window.

A prompt is `<sub-task, knowledge, record>`. A record too long for the model is read in windows of
whole sentences, none left out. Who asks counts the tokens; nothing here knows a model.
Source: [MedQC 4.2]; EVALUATION.md 3.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from medray.common.errors import QualityError
from medray.common.records import Document
from medray.common.sentences import Sentence, numbered_sentences
from medray.generation.prompts import quality_prompt
from medray.quality.indicators import Indicator

ANSWER_TOKENS = 128
"""A sentence of a record and the verdict."""
CHAT_TOKENS = 16
"""Room for the turn marks of a chat template (ChatML takes 7)."""


class SubTask(NamedTuple):
    """A task of an indicator, put to a record."""

    document: Document
    indicator: Indicator
    task: str


class Question(NamedTuple):
    """One prompt: a sub-task over one window of its record."""

    row: int
    """Place of the sub-task among those asked."""
    sub_task: SubTask
    notes: list[str]
    """Texts of knowledge."""
    sentences: list[Sentence]
    prompt: str


class TooLong(QualityError):
    """A sentence that does not fit into the context with its question. Holds no text."""

    def __init__(self, sub_task: SubTask, sentence: Sentence, budget: int) -> None:
        document, indicator, task = sub_task
        super().__init__(
            f"indicator {indicator.id}, task {task}: a sentence of record {document.doc_id} "
            f"(section {sentence.section}, offset {sentence.start}) does not fit into "
            f"{budget} tokens with its question; lower knowledge.top_k or use a longer context"
        )
        self.sentence, self.budget = sentence, budget


def sub_tasks(documents: Iterable[Document], indicators: Iterable[Indicator]) -> list[SubTask]:
    """All of them, ordered by document, indicator, task."""
    chosen = list(indicators)
    return [
        SubTask(document, indicator, task)
        for document in documents
        for indicator in chosen
        for task in indicator.tasks
    ]


def whole(asked: Iterable[SubTask], notes: Callable[[Indicator, str], list[str]]) -> list[Question]:
    """A question a sub-task, over all that it reads of its record; none where that is nothing."""
    questions = []
    for row, sub_task in enumerate(asked):
        document, indicator, task = sub_task
        sentences = numbered_sentences(document.sections, indicator.sections(task))
        if sentences:
            questions.append(_question(row, sub_task, notes(indicator, task), sentences))
    return questions


def halve(
    questions: Iterable[Question], counts: Iterable[int], budget: int
) -> tuple[list[Question], list[Question]]:
    """Those that fit, and the halves of the others, which are to be counted in turn.

    Args:
        counts: tokens of each prompt.
        budget: tokens that a prompt may take, so that its answer has room.
    Raises:
        TooLong: if a single sentence does not fit.
    """
    fitting, halves = [], []
    for question, count in zip(questions, counts, strict=True):
        row, sub_task, notes, window, _ = question
        if count + CHAT_TOKENS <= budget:
            fitting.append(question)
        elif len(window) == 1:
            raise TooLong(sub_task, window[0], budget)
        else:
            middle = len(window) // 2
            halves += [
                _question(row, sub_task, notes, half) for half in (window[:middle], window[middle:])
            ]
    return fitting, halves


def place(question: Question) -> tuple[int, int, int]:
    """Orders questions by sub-task, and its windows as they stand in the record."""
    first = question.sentences[0]
    return question.row, first.section, first.start


def _question(
    row: int, sub_task: SubTask, notes: list[str], sentences: Sequence[Sentence]
) -> Question:
    task = sub_task.indicator.tasks[sub_task.task]
    prompt = quality_prompt(task.question, notes, [sentence.text for sentence in sentences])
    return Question(row, sub_task, notes, list(sentences), prompt)
