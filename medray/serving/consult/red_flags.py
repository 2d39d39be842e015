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

from medray.serving.answering.despair import cries_for_help
from medray.serving.answering.guard import HAN
from medray.serving.consult.negation import denied
from medray.serving.consult.signs import LISTS, SIGNS, Sign

GAP = "(?:(?![没无未不，。；,;]).){0,6}"
ENGLISH_GAP = r"(?:(?!\b(?:no|not|never|without)\b|n['’]t|[.;!?]).){0,30}"
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


RULES: list[tuple[Sign, list[re.Pattern[str]]]] = [
    (sign, [_compiled(part) for part in parts]) for sign, parts in SIGNS
]


def red_flag(said: Sequence[str], question: str = "") -> Sign | None:
    """The sign that the newest of a patient's messages shows, by itself or with earlier ones.

    Args:
        said: the patient's messages, the newest last.
        question: the one that it answers, where it is an answer.
    """
    newest = f"{said[-1]}\n{question}" if YES.fullmatch(said[-1]) else said[-1]
    for sign, parts in RULES:
        if sign == "self_harm" and cries_for_help(newest):
            return sign
        new = [_said(part, newest) for part in parts]
        if any(new) and all(
            here or any(_said(part, text) for text in said[:-1])
            for part, here in zip(parts, new, strict=True)
        ):
            return sign
    return None


def _said(part: re.Pattern[str], text: str) -> bool:
    return any(not denied(text, *match.span()) for match in part.finditer(text))
