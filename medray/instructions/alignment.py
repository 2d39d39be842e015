"""Alignment prompts: a fine-tuning row once more, asked in another way. In: rows, pairs, facts.
Out: further training rows, or why there is none.

    example      worked examples of the same task stand before the question
    knowledge    facts of the knowledge graph about what the question names stand before it
    contrast     of two responses, which is better, and its text
    multi_task   several tasks on one record, answered in order

Source: [MedFM 4.3], which names the four and gives no wording; the wordings are ours.
"""

import re
from collections.abc import Mapping, Sequence

from pydantic import Field

from medray.common.config import Config
from medray.common.records import Instruction, PreferencePair
from medray.common.split import unit_hash
from medray.instructions.examples import Skipped, exchange

_HAN = re.compile("[\u4e00-\u9fff]")
_WORDS = {
    True: {
        "example": "示例：", "ask": "问：", "answer": "答：", "facts": "已知：",
        "better": "下面两个回答中哪个更好？先写A或B，再写出更好的回答。",
        "tasks": "依次完成下面的任务：",
    },
    False: {
        "example": "Examples:", "ask": "Q: ", "answer": "A: ", "facts": "Known:",
        "better": "Which of the two answers is better? Write A or B, then the better answer.",
        "tasks": "Do the following tasks in order:",
    },
}  # fmt: skip


class AlignmentConfig(Config):
    """How many rows are asked once more; 0 leaves a way out, which is the default."""

    example: float = Field(default=0.0, ge=0, le=1)
    """Share of the training rows of one exchange."""
    num_examples: int = Field(default=2, ge=1)
    """Worked examples shown. Source: not given; more do not fit beside a record."""
    knowledge: float = Field(default=0.0, ge=0, le=1)
    """Share of the training rows that name a head of the knowledge graph."""
    max_facts: int = Field(default=3, ge=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Share of the training preference pairs."""
    multi_task: float = Field(default=0.0, ge=0, le=1)
    """Share of the training records with two tasks or more."""


def is_chosen(fraction: float, way: str, row_id: str) -> bool:
    """True for `fraction` of the ids, the same in every run."""
    return unit_hash(f"{way}/{row_id}") < fraction


def example_based(
    row: Instruction, examples: Sequence[Instruction], max_prompt_chars: int
) -> Instruction | Skipped:
    """The row behind worked examples of its task, none of which is made from a record: an erasure
    finds a row by its own record alone."""
    examples = [example for example in examples if not example.doc_id]
    if not examples:
        return Skipped("no_example")
    words = _words(row)
    shown = [f"{words['ask']}{_question(e)}\n{words['answer']}{e.messages[-1].content}"
             for e in examples]  # fmt: skip
    prompt = "\n".join([words["example"], *shown, f"{words['ask']}{_question(row)}"])
    return _again(row, "example", prompt, row.messages[-1].content, max_prompt_chars)


def knowledge_based(
    row: Instruction, facts: Sequence[str], max_prompt_chars: int
) -> Instruction | Skipped:
    """The row behind facts about what it names."""
    if not facts:
        return Skipped("no_fact")
    prompt = "\n".join([_words(row)["facts"], *facts, _question(row)])
    return _again(row, "knowledge", prompt, row.messages[-1].content, max_prompt_chars)


def contrast_based(pair: PreferencePair, max_prompt_chars: int) -> Instruction | Skipped:
    """Both responses under letters, the better one's by a hash, and which is better."""
    words = _WORDS[_HAN.search(pair.prompt) is not None]
    is_first = is_chosen(0.5, "order", pair.id)
    first, second = (pair.chosen, pair.rejected) if is_first else (pair.rejected, pair.chosen)
    prompt = f"{words['better']}\n{pair.prompt}\nA. {first}\nB. {second}"
    letter = "A" if is_first else "B"
    if len(prompt) > max_prompt_chars:
        return Skipped("prompt_too_long")
    return Instruction(
        id=f"contrast-{pair.id}",
        task="alignment",
        messages=exchange(prompt, f"{letter}\n{pair.chosen}"),
        split=pair.split,
        answer=letter,
        group="contrast",
    )


def multi_task_based(rows: Sequence[Instruction], max_prompt_chars: int) -> Instruction | Skipped:
    """The tasks on one record as one prompt, the record once.

    Args:
        rows: of one record; what their prompts end with alike is the record.
    """
    if len(rows) < 2:
        return Skipped("single_task")
    asked = [_question(row) for row in rows]
    record, tasks = _apart(asked)
    if not record or not all(tasks):
        return Skipped("no_common_record")
    words = _words(rows[0])
    listed = "\n".join(f"{k}. {task}" for k, task in enumerate(tasks, 1))
    answer = "\n".join(f"{k}. {row.messages[-1].content}" for k, row in enumerate(rows, 1))
    return _again(
        rows[0], "multi_task", f"{words['tasks']}\n{listed}\n{record}", answer, max_prompt_chars
    )


def facts_of(graph: Mapping[str, Sequence[str]], heads: Sequence[str], limit: int) -> list[str]:
    """Facts about the first heads that have some, at most `limit`."""
    return [fact for head in dict.fromkeys(heads) for fact in graph.get(head, ())][:limit]


def _again(
    row: Instruction, way: str, prompt: str, answer: str, max_prompt_chars: int
) -> Instruction | Skipped:
    if len(prompt) > max_prompt_chars:
        return Skipped("prompt_too_long")
    return Instruction(
        id=f"{row.id}~{way}",
        task="alignment",
        messages=exchange(prompt, answer),
        split=row.split,
        answer=row.answer,
        group=way,
        doc_id=row.doc_id,
    )


def _question(row: Instruction) -> str:
    return row.messages[0].content


def _words(row: Instruction) -> dict[str, str]:
    return _WORDS[_HAN.search(_question(row)) is not None]


def _apart(texts: Sequence[str]) -> tuple[str, list[str]]:
    """The longest common end of the texts, and what stands before it in each."""
    length = min(map(len, texts))
    tail = next((k for k in range(length) if len({t[-1 - k] for t in texts}) > 1), length)
    common = texts[0][len(texts[0]) - tail :].lstrip("：:。.\n ")
    return common, [text[: len(text) - tail].strip() for text in texts]
