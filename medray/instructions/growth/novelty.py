"""Which grown tasks are let in. In: a model's reply. Out: new tasks, and why others are none.

Source: Self-Instruct (Wang et al. 2023), 2.2: ROUGE-L with every known task below 0.7, and rules on
words and lengths. Differs: ROUGE-L is of characters, and a task with an identifier is left out.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from pydantic import Field
from rapidfuzz import fuzz, process

from medray.common.config import Config
from medray.privacy.recognise import find_phi

_NOT_TEXT = re.compile(
    r"图片|图像如下|附件|视频|音频|链接|https?:|\b(?:image|picture|attachment|video|url)s?\b", re.I
)
_REFUSAL = re.compile(
    r"\s*(?:抱歉|对不起|很遗憾|作为一个?(?:AI|人工智能|语言模型)|I'?m sorry|As an AI)", re.I
)
_OBJECT = re.compile(r"\{.*\}")


class NoveltyConfig(Config):
    """What is let in."""

    max_similarity: float = Field(default=0.7, gt=0, le=1)
    """Least ROUGE-L (F1, characters) at which a task counts as known. Source: Self-Instruct 2.2."""
    min_chars: int = Field(default=4, ge=1)
    """Of the instruction."""
    max_prompt_chars: int = Field(default=1000, ge=1)
    max_answer_chars: int = Field(default=600, ge=1)


def choose(
    config: NoveltyConfig, reply: str, known: Sequence[str]
) -> tuple[list[dict[str, str]], dict[str, int]]:
    """The tasks of a reply that are let in, and how many are not, by reason."""
    tasks = list(known)
    rows: list[dict[str, str]] = []
    rejected: Counter[str] = Counter()
    for row in _parse(reply):
        reason = "unparsed" if row is None else fault(row, config)
        if row is not None and reason is None:
            best = process.extractOne(row["instruction"], tasks, scorer=fuzz.ratio)
            if best is not None and best[1] >= 100 * config.max_similarity:
                reason = "similar"
        if reason is not None:
            rejected[reason] += 1
        elif row is not None:
            rows.append(row)
            tasks.append(row["instruction"])
    return rows, dict(rejected)


def fault(row: dict[str, str], config: NoveltyConfig) -> str | None:
    """Why a task is not let in by itself, or None."""
    asked, answer = f"{row['instruction']}\n{row['input']}".strip(), row["output"]
    if not config.min_chars <= len(row["instruction"]) or not answer:
        return "too_short"
    if len(asked) > config.max_prompt_chars or len(answer) > config.max_answer_chars:
        return "too_long"
    if _NOT_TEXT.search(asked):
        return "not_text"
    if _REFUSAL.match(answer):
        return "refusal"
    if answer in (row["instruction"], row["input"]):
        return "echo"
    grams = [answer[k : k + 4] for k in range(len(answer) - 3)]
    if grams and len(set(grams)) < 0.5 * len(grams):
        return "repetitive"
    if any(
        span.label not in ("DATE", "AGE") for text in (asked, answer) for span in find_phi(text)
    ):
        return "identifier"
    return None


def _parse(reply: str) -> Iterator[dict[str, str] | None]:
    """The JSON objects of a reply, one a line; None for a line that looks like one and is none."""
    for line in reply.splitlines():
        found = _OBJECT.search(line)
        if found is None:
            continue
        try:
            value = json.loads(found.group())
        except json.JSONDecodeError:
            yield None
            continue
        fields = [value.get(name, "") for name in ("instruction", "input", "output")]
        if all(isinstance(text, str) for text in fields):
            instruction, given, output = (text.strip() for text in fields)
            yield {"instruction": instruction, "input": given, "output": output}
        else:
            yield None
