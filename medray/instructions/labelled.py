"""Fine-tuning tasks whose answers a source brings: text in, label out.

In: rows of {text, label} and the source's task. Out: an `Instruction`, or why there is none. A text
or a label is what a set holds: a text, a list of terms, turns of a dialogue, sections of a record
({heading: text}), or entities ({type, text}); each has one way to be written.
Source: [EMR-LLM 1.3], [MedQC 4.1.1]; the wordings are data, in labelled.yaml.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml

from medray.common.config import Config
from medray.common.records import Instruction
from medray.common.split import Split
from medray.common.spool import hash_key
from medray.instructions.examples import Mask, Skipped, clip, exchange
from medray.instructions.raw import SPEAKERS, Labelled

_HAN = re.compile("[\u4e00-\u9fff]")
_SPOKEN = {"patient": ("患者", "Patient"), "doctor": ("医生", "Doctor")}


class Wordings(Config):
    """The wordings of one task; each holds {text}, some {choices}."""

    zh: list[str]
    en: list[str]


@cache
def load_wordings() -> dict[str, Wordings]:
    """Task → its wordings."""
    text = resources.files("medray.instructions").joinpath("labelled.yaml").read_text("utf-8")
    return {name: Wordings.model_validate(value) for name, value in yaml.safe_load(text).items()}


def labelled(
    row: Labelled,
    task: str,
    choices: Sequence[str],
    split: Split,
    mask: Mask,
    max_prompt_chars: int,
    max_answer_chars: int,
) -> Instruction | Skipped:
    """Text → label, in one of the task's wordings, chosen by a hash of the row's id.

    Args:
        choices: the labels that there are, for wordings that name them; may be empty.
    Raises:
        KeyError: if there is no such task; `load_wordings` names those there are.
    """
    is_chinese = _HAN.search(str(row.text)) is not None
    text, label = as_text(row.text, is_chinese), as_text(row.label, is_chinese)
    if not text or not label:
        return Skipped("empty_text")
    row_id = row.id or hash_key(text, label)[:16]
    named = load_wordings()[task]
    wordings = [
        wording
        for wording in (named.zh if is_chinese else named.en)
        if choices or "{choices}" not in wording
    ]
    chosen = min(wordings, key=lambda wording: hash_key(row_id, wording))
    listed = ("、" if is_chinese else ", ").join(choices)
    prompt = mask(chosen.replace("{choices}", listed).replace("{text}", text))
    if len(prompt) > max_prompt_chars:
        return Skipped("prompt_too_long")
    answer = clip(mask(label), max_answer_chars)
    return Instruction(
        id=f"{task}-{row_id}",
        task="labelled",
        messages=exchange(prompt, answer),
        split=split,
        answer=answer,
        group=task,
    )


def as_text(value: Any, is_chinese: bool = True) -> str:
    """A text, terms, turns, sections or entities as one text; what is empty is left out.

    >>> as_text([{"type": "药物", "text": "甘露醇"}, {"type": "药物", "text": "硝苯地平"}])
    '药物：甘露醇、硝苯地平'
    >>> as_text({"主诉": "咳嗽", "既往史": ""})
    '主诉：咳嗽'
    """
    comma, colon = ("、", "：") if is_chinese else (", ", ": ")
    if isinstance(value, Mapping):
        parts = {name: as_text(inner, is_chinese) for name, inner in value.items()}
        return "\n".join(f"{name}{colon}{part}" for name, part in parts.items() if part)
    if not isinstance(value, list):
        return "" if value is None else str(value).strip()
    items = [item for item in value if item not in (None, "", {}, [])]
    if items and all(isinstance(item, Mapping) and "type" in item for item in items):
        of_type: dict[str, dict[str, None]] = {}
        for item in items:
            of_type.setdefault(str(item["type"]), {})[str(item.get("text", "")).strip()] = None
        return as_text({name: comma.join(filter(None, found)) for name, found in of_type.items()},
                       is_chinese)  # fmt: skip
    if items and all(isinstance(item, Mapping) for item in items):
        return "\n".join(filter(None, (_turn(item, is_chinese) for item in items)))
    return comma.join(filter(None, (as_text(item, is_chinese) for item in items)))


def _turn(item: Mapping[str, Any], is_chinese: bool) -> str:
    """One turn of a dialogue: 患者：咳嗽三天."""
    role = str(item.get("role", item.get("from", item.get("speaker", "")))).strip()
    text = as_text(item.get("text", item.get("value", item.get("content"))), is_chinese)
    known = SPEAKERS.get(role.lower())
    speaker = _SPOKEN[known][0 if is_chinese else 1] if known else role
    return f"{speaker}{'：' if is_chinese else ': '}{text}" if text else ""
