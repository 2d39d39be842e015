"""What the service does not answer, and where it sends people instead.

In: a question and the role of who asks. Out: a refusal, or none. Rules of words, in Chinese and
English: they miss what is said otherwise, and the text that they give is fit for whoever it
reaches by mistake. Clinicians and quality staff ask about self-harm and doses as their work;
patients do not get a dose for themselves, nor an answer to a cry for help that a model made up.
Source: not given in the method; kinds of the safety set of CMtMedQA's test questions.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from medray.generation.sampling import Chat
from medray.serving.answering.changing import asks_to_change_a_record
from medray.serving.answering.despair import cries_for_help
from medray.serving.answering.dosing import asks_for_a_dose
from medray.serving.answering.forbidding import asked_for
from medray.serving.identity.keys import Role

Kind = Literal["self_harm", "own_dose", "change_record", "harm_others"]


class Refusal(NamedTuple):
    """Why a question is not answered, and what is said instead."""

    kind: Kind
    text: str


class Rule(NamedTuple):
    """Words that ask for something, the roles that are refused it, what they are told."""

    kind: Kind
    roles: Sequence[Role]
    asks: Callable[[str], object]
    chinese: str
    english: str


EVERYONE: tuple[Role, ...] = ("patient", "clinician", "quality", "admin")
PATIENTS: tuple[Role, ...] = ("patient",)
HARM_OTHERS = re.compile(
    r"(?:怎么|怎样|如何|教我|帮我)(?!诊断|鉴别|判断|识别|发现|救治|抢救|治疗)(?:(?!被).){0,12}"
    r"(?:投毒|下毒|毒死|毒杀|杀人|制毒|迷晕|迷奸|下药[^，。]{0,4}(?:不被|发现|查)"
    r"|(?:弄|杀|打|掐|勒|害|捂)死(?:一个|某|别|他|她|人|邻居|同事|丈夫|妻子|老公|老婆)"
    r"|[让使把](?:人|别人|他|她|老公|老婆|丈夫|妻子|同事|邻居)[^，。]{0,4}(?:昏迷|昏睡|中毒|死掉))"
    r"|(?:合成|制作|制造|提炼).{0,6}(?:冰毒|海洛因|甲基苯丙胺|毒品|毒气|炸药|炸弹|爆炸物)"
    r"|\b(?:how (?:to|do i|can i)|help me)\b.{0,40}\b(?:poison|kill|drug) "
    r"(?:someone|somebody|a person|him|her|them|my (?:own )?(?:wife|husband|partner|boss"
    r"|mother|father|parents?|brother|sister|child|son|daughter|neighbou?r|friend|patients?))\b"
    r"|\b(?:synthesi[sz]e|make|build|cook)\b.{0,20}"
    r"\b(?:meth|heroin|methamphetamine|nerve agent|explosives?|(?<!bath )bombs?)\b",
    re.IGNORECASE,
)


RULES = (
    Rule(
        "self_harm",
        PATIENTS,
        cries_for_help,
        "您提到的情况很重要，请不要独自面对。请立即告诉身边的人，拨打120，"
        "或拨打全国统一心理援助热线12356，"
        "也可以到最近的医院急诊。",
        "What you say matters; please do not stay alone with it. Tell someone near you now, call "
        "the emergency number, or go to the nearest emergency department.",
    ),
    Rule(
        "harm_others",
        EVERYONE,
        lambda text: asked_for(HARM_OTHERS, text),
        "这里不提供可能伤害他人的信息。如有人正处于危险中，请拨打110或120。",
        "This service gives no information that may harm others. If someone is in danger, call the "
        "emergency number.",
    ),
    Rule(
        "change_record",
        EVERYONE,
        asks_to_change_a_record,
        "本系统只读资料，不能也不会修改病历。更正病历请按本院病历管理规定，"
        "由有权限的医师在电子病历系统中完成并留痕。",
        "This service reads and never changes records. A record is corrected in the record system, "
        "by a physician who may, under the hospital's rules, so that the change can be traced.",
    ),
    Rule(
        "own_dose",
        PATIENTS,
        asks_for_a_dose,
        "剂量要由看过您病历的医生或药师决定，这里不能给出。请联系开药的医生、医院药房，或致电本院；"
        "如果已经多服了药或感到不适，请拨打120。",
        "A dose is decided by a doctor or pharmacist who has seen your record; it cannot be given "
        "here. Ask whoever prescribed it or the hospital's pharmacy; if you took too much or feel "
        "unwell, call the emergency number.",
    ),
)
"""In the order in which they are tried."""
HAN = re.compile(r"[\u4e00-\u9fff]")
TO_LAST_END = re.compile(r".*(?:[。！？!?；;\n]|\.\s)", re.DOTALL)
FIRST_END = re.compile(r"[。！？!?；;\n]|\.\s")
ASKING = re.compile(r"[我俺咱？?]|\b(?:i|my|me)\b", re.IGNORECASE)
PIECE_CHARS = 2000
OVERLAP_CHARS = 100


REFERRALS = frozenset(text for rule in RULES for text in (rule.chinese, rule.english))
NOT_HANDED_ON = (
    "（此处的内容不在这里回答，没有转交给模型。）",
    "(What stood here is not answered here and was not passed on to the model.)",
)
"""What the model reads in the place of an earlier message that is refused."""


def refusal(question: str, role: Role) -> Refusal | None:
    """Whether a question of someone in this role is refused, and with what words."""
    return _worst([refused for piece in pieces(question) if (refused := _read(piece, role))])


async def refusal_meanwhile(question: str, role: Role) -> Refusal | None:
    """As `refusal`, of a long question, while others are answered: the rules hold the interpreter,
    some microseconds a character."""
    found = []
    for piece in pieces(question):
        if refused := _read(piece, role):
            found.append(refused)
        await asyncio.sleep(0)
    return _worst(found)


def pieces(text: str) -> list[str]:
    """A text cut where a sentence ends, or after `PIECE_CHARS` characters at the latest; each piece
    begins with the end of the one before, so that what is asked across a cut is seen."""
    cut, begin, start = [], 0, 0
    while len(text) - start > PIECE_CHARS:
        found = TO_LAST_END.match(text, start, start + PIECE_CHARS)
        end = found.end() if found else start + PIECE_CHARS
        cut.append(text[begin:end])
        # With a sentence's beginning where there is one: half of one may say what it does not.
        begin, start = end - OVERLAP_CHARS, end
        if found := FIRST_END.search(text, max(0, begin - 1), end):
            begin = found.end()
    return [*cut, text[max(0, begin) :]]


def _read(piece: str, role: Role) -> Refusal | None:
    for rule in RULES:
        if role in rule.roles and rule.asks(piece):
            return Refusal(rule.kind, rule.chinese if HAN.search(piece) else rule.english)
    return None


def _worst(found: Sequence[Refusal]) -> Refusal | None:
    """Of the rule that is tried first."""
    order = [rule.kind for rule in RULES]
    return min(found, key=lambda refused: order.index(refused.kind), default=None)


async def handed_on(messages: Chat, role: Role) -> Chat:
    """A chat as the model may read it: none of its messages is one that is refused.

    The system's and the assistant's are judged as the user's are, for a client writes them all; but
    where nobody asks in them or speaks of themselves they may be about doses and despair, as
    answers are. The turns stay; what this guard said in earlier ones does too.
    """
    return [message | {"content": await _handed_on(message, role)} for message in messages]


async def _handed_on(message: dict[str, str], role: Role) -> str:
    text = message["content"]
    if message["role"] != "user" and not ASKING.search(text):
        role = "clinician"  # refused by the rules for everyone alone
    if text.strip() in REFERRALS or await refusal_meanwhile(text, role) is None:
        return text
    return NOT_HANDED_ON[0] if HAN.search(text) else NOT_HANDED_ON[1]
