"""Signs of an emergency in what a patient writes. Rules of words, never the model's to decide.

In: all that a patient has said in one consultation, the newest last. Out: the first sign that the
newest message completes, or none. A sign's two parts may come in different messages, each said and
not denied: "胸痛" now and "出了一身冷汗" later is one. An answer that is a bare yes stands for the
question that it answers.

Rules of words miss what is said otherwise and send some people to hospital for nothing: of the two
mistakes the second is chosen.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from medray.serving.answering.despair import cries_for_help
from medray.serving.answering.guard import HAN
from medray.serving.consult.negation import LONGEST_REACH, denied
from medray.serving.consult.signs import LISTS, ONCE, SIGNS, Sign

GAP = "(?:(?![没无未不，。；,;]).){0,6}"
ENGLISH_GAP = r"(?:(?!\b(?:no|not|never|without)\b|n['’]t|[.;!?]).){0,30}"
CLAUSE_END = re.compile(r"[，。；！？,;!?\n]|\.(?:\s|$)")
LONG_AGO = re.compile(
    r"去年|前年|上个?月|以前|曾经?|小时候|年轻时|当年|[\d一二两三四五六七八九十几多半]个?[年月]多?[以之]?前"
    r"|\b(?:years?|months?) ago\b|\blast (?:year|month)\b|\bin (?:19|20)\d\d\b|\bas a child\b",
    re.IGNORECASE,
)
NOW = re.compile(
    r"今天|今早|今晚|昨|刚|现在|目前|突然|突发|忽然|正在|又|早上|上午|中午|下午|晚上"
    r"|\b(?:today|tonight|yesterday|now|just|sudden(?:ly)?|again|this (?:morning|evening))\b",
    re.IGNORECASE,
)
YES = re.compile(
    r"\s*(?:有|有的|有过|是|是的|是啊|有啊|对|对的|嗯+|会|会的|都有"
    r"|yes|yeah|yep|yup|i do|i have|it does|both|all of them)[\s，。,.!！]*",
    re.IGNORECASE,
)


def _compiled(listed: str) -> re.Pattern[str]:
    lines = []
    for line in filter(None, listed.splitlines()):
        for name, words in LISTS.items():
            line = line.replace(f"{{{name}}}", words)
        line = line.replace("'", "['’]?")
        lines.append(line.replace("…", GAP if HAN.search(line) else ENGLISH_GAP))
    return re.compile("|".join(lines), re.IGNORECASE)


class Rule(NamedTuple):
    """A sign's parts, which must all be said."""

    sign: Sign
    parts: list[re.Pattern[str]]
    once: bool


RULES = [Rule(sign, [_compiled(part) for part in parts], parts[0] in ONCE) for sign, parts in SIGNS]


def red_flag(said: Sequence[str], question: str = "") -> Sign | None:
    """The sign that the newest of a patient's messages shows, by itself or with earlier ones.

    Args:
        said: the patient's messages, the newest last.
        question: the one that it answers, where it is an answer.
    """
    newest = f"{said[-1]}\n{question}" if YES.fullmatch(said[-1]) else said[-1]
    for rule in RULES:
        if rule.sign == "self_harm" and cries_for_help(newest):
            return rule.sign
        new = [_said(part, newest, rule.once) for part in rule.parts]
        if any(new) and all(
            here or any(_said(part, text, rule.once) for text in said[:-1])
            for part, here in zip(rule.parts, new, strict=True)
        ):
            return rule.sign
    return None


def _said(part: re.Pattern[str], text: str, once: bool) -> bool:
    return any(
        not denied(text, *found.span()) and not (once and _long_ago(text, *found.span()))
        for found in part.finditer(text)
    )


def _long_ago(text: str, start: int, end: int) -> bool:
    """Whether the clause around `text[start:end]` says so, and nothing of now."""
    before = CLAUSE_END.split(text[max(0, start - LONGEST_REACH) : start])[-1]
    after = CLAUSE_END.split(text[end : end + LONGEST_REACH], maxsplit=1)[0]
    clause = f"{before}{text[start:end]}{after}"
    return bool(LONG_AGO.search(clause)) and not NOW.search(clause)
