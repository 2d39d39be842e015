"""Prompts, and the two answer formats that a program can check.

Grounded answers and quality-control verdicts both quote what they were shown, so that a citation
or a piece of evidence is always a span that can be looked up, never a paraphrase to be believed.
A passage's number stands right after its title: a model that copies the title then finds the
number and the text by continuing the copy, which even a very small model learns. A verdict comes
after the sentence it rests on: read so shortly before, it is judged by that sentence alone.

Source: `[q; d1; …; dk]` [EMR-LLM 1.5]; diagnosis and differential prompts [EMR-LLM 1.3];
`<sub-task, knowledge, record>` [MedQC 4.2].
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from medray.common.sentences import CLAUSE_MARKS, SENTENCE_MARKS

NO_ANSWER = "所给资料中没有答案。"
VERDICTS = {"是": True, "否": False, "未提及": None}


class Numbered(NamedTuple):
    """A passage as the model sees it."""

    title: str
    text: str


class Citation(NamedTuple):
    """A citation as the model wrote it: passage `number` (from 1) and the quoted clause."""

    title: str
    number: int
    quote: str


class Verdict(NamedTuple):
    """A sub-task's verdict: met, unmet or None (not mentioned), and the words it rests on."""

    value: bool | None
    quote: str = ""


def diagnosis_prompt(record_text: str) -> str:
    """Record → diagnosis [EMR-LLM 1.3]."""
    return f"根据以下症状进行诊断：{record_text}"


def treatment_prompt(diagnosis: str, brief: str) -> str:
    """Diagnosis and brief → treatment. Source: not given; chosen in the form of the others."""
    return f"患者诊断为{diagnosis}。{brief}请给出治疗方案："


def differential_prompt(record_text: str) -> str:
    """Record → differential diagnosis [EMR-LLM 1.3]."""
    return f"请对以下病例进行鉴别诊断分析：{record_text}"


def grounded_prompt(question: str, passages: Sequence[Numbered]) -> str:
    """`[q; d1; …; dk]`: the question, then numbered passages, quoted and marked as data."""
    listed = "\n".join(passage_line(k, passage) for k, passage in enumerate(passages, 1))
    return f"问题：{question}\n资料：\n{listed}"


def passage_line(number: int, passage: Numbered) -> str:
    """One numbered passage. An answer repeats its beginning, so that quoting is copying on."""
    return f"《{passage.title}》[{number}]：“{passage.text}”"


BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ONE_LINE = {ord(char): " " for char in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029" + BIDI}
IN_TITLE = ONE_LINE | {ord("《"): "〈", ord("》"): "〉"}


def shown(title: str, text: str) -> Numbered:
    """A passage as it may stand in a prompt: one line, whose title ends where its bracket does, so
    that no document can write a line of its own (a passage that is none, a question) around itself.
    Every character keeps its place, so that offsets hold."""
    return Numbered(title.translate(IN_TITLE), text.translate(ONE_LINE))


PASSAGE_LINE = re.compile(r"^《([^》\n]*)》\[(\d{1,9})\]：“(.*)”$", re.MULTILINE)


def read_passages(prompt: str) -> list[Numbered]:
    """The numbered passages of a grounded prompt."""
    return [Numbered(title, text) for title, _, text in PASSAGE_LINE.findall(prompt)]


RECORD = -1
"""Number of a record that is judged; no passage has it, and it is quoted without a head."""


def citable_texts(prompt: str) -> dict[int, Numbered]:
    """Number → what an answer may quote: the passages of a grounded prompt (of a number that comes
    twice, the later, since the passages follow the question) or the record of a quality prompt."""
    if (record := _quality_record(prompt)) is not None:
        return {RECORD: Numbered("", record)}
    found = PASSAGE_LINE.findall(prompt)
    return {int(number): Numbered(title, text) for title, number, text in found}


def grounded_answer(title: str, number: int, quote: str) -> str:
    """The answer a model is trained to give."""
    return f"《{title}》[{number}]：“{quote}”。"


BEHIND_TITLE = re.compile(r"》\[(\d{1,9})\]：“")


def parse_citations(answer: str) -> list[Citation]:
    """All citations of an answer, in order."""
    return [citation for _, _, citation in find_citations(answer)]


def find_citations(answer: str) -> Iterator[tuple[int, int, Citation]]:
    """Each 《title》[number]：“quote” with where it begins and ends. One pass: an expression would
    try every 《 of a text that closes none, and read on to its end each time."""
    begin = 0
    while (close := answer.find("》", begin)) >= 0:
        title = answer.find("《", begin, close)
        begin = close + 1
        head = BEHIND_TITLE.match(answer, close)
        if title < 0 or head is None:
            continue
        end = answer.find("”", head.end())
        if end < 0:
            return
        begin = end + 1
        quote = answer[head.end() : end]
        yield title, begin, Citation(answer[title + 1 : close], int(head[1]), quote)


def replace_citations(answer: str, text: Callable[[Citation], str]) -> str:
    """An answer with a text in the place of each of them."""
    parts, begin = [], 0
    for start, end, citation in find_citations(answer):
        parts += [answer[begin:start], text(citation)]
        begin = end
    return "".join([*parts, answer[begin:]])


def check_citation(citation: Citation, passages: Sequence[Numbered]) -> str | None:
    """Returns None if the citation holds, else what is wrong with it."""
    if not 1 <= citation.number <= len(passages):
        return "no_such_passage"
    if not citation.quote or citation.quote not in passages[citation.number - 1].text:
        return "quote_not_in_passage"
    return None


def quality_prompt(ask: str, knowledge: Sequence[str], sentences: Sequence[str]) -> str:
    """One quality-control sub-task over sentences of a record; the question comes last, so that
    the sub-tasks on one record share their prefix. A sentence without end mark ends its line."""
    record = "".join(s if s.endswith(tuple(SENTENCE_MARKS)) else f"{s}\n" for s in sentences)
    notes = "".join(f"说明：{' '.join(note.split())}\n" for note in knowledge)
    return f"病历：{record}\n{notes}{QUALITY_QUESTION}{ask}？"


QUALITY_QUESTION = "质控："


def _quality_record(prompt: str) -> str | None:
    """The record of a quality prompt, read from its end; None if it is no such prompt."""
    end = prompt.rfind("\n")
    if not prompt.startswith("病历：") or not prompt.startswith(QUALITY_QUESTION, end + 1):
        return None
    while prompt.startswith("说明：", (begin := prompt.rfind("\n", 0, end)) + 1):
        end = begin
    return prompt[len("病历：") : end]


def split_quality_prompt(prompt: str) -> tuple[str, str]:
    """Record with knowledge, and the question, which alone is a further one on that record."""
    record, mark, ask = prompt.rpartition(QUALITY_QUESTION)
    return record, mark + ask


def quality_answer(value: bool | None, sentence: str = "") -> str:
    """The verdict a model is trained to give: `“术后TIMI血流3级。”是`, or `未提及`.

    A sentence that holds a closing quote is quoted up to there, a long one up to a clause's end.
    """
    word = next(w for w, v in VERDICTS.items() if v is value)
    return word if value is None else f"{quoted(sentence)}{word}"


def quoted(sentence: str) -> str:
    """A sentence as a verdict quotes it; empty for none."""
    quote = sentence.split("”")[0]
    if len(quote) > MAX_QUOTE_CHARS:
        ends = [i + 1 for i, char in enumerate(quote) if char in CLAUSE_MARKS] or [len(quote)]
        quote = quote[: max((end for end in ends if end <= MAX_QUOTE_CHARS), default=ends[0])]
    return f"“{quote}”" if quote else ""


MAX_QUOTE_CHARS = 60
"""Source: not given; a sentence of a Chinese record is mostly shorter."""


VERDICT = re.compile(r"^(?:“([^”]*)”)?(是|否|未提及)")


def parse_verdict(answer: str) -> Verdict | None:
    """Reads a verdict; None if the answer is not one."""
    match = VERDICT.match(answer.strip())
    if match is None:
        return None
    value = VERDICTS[match[2]]
    return Verdict(value, "" if value is None else match[1] or "")


def exam_prompt(question: str, options: dict[str, str]) -> str:
    """A multiple-choice question, ended so that the next token is an option's letter."""
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return f"{question}\n{listed}\n答案："


def formats() -> list[str]:
    """Every prompt and answer format once, with little in it: what a tokenizer that is trained on
    records alone would spell byte by byte."""
    passage = Numbered("", "")
    return [
        diagnosis_prompt(""),
        treatment_prompt("", ""),
        differential_prompt(""),
        grounded_prompt("什么？怎么？哪些？如何？多久？请问", [passage]),
        grounded_answer("", 1, ""),
        NO_ANSWER,
        quality_prompt("是否", [""], [""]),
        *(quality_answer(value, "。") for value in VERDICTS.values()),
        exam_prompt("", {"A": ""}),
    ]
