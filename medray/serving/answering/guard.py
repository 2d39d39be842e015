"""What the service does not answer, and where it sends people instead.

In: a question and the role of who asks. Out: a refusal, or none. Rules of words, in Chinese and
English: they miss what is said otherwise, and the text that they give is fit for whoever it
reaches by mistake. Clinicians and quality staff ask about self-harm and doses as their work;
patients do not get a dose for themselves, nor an answer to a cry for help that a model made up.
Source: not given in the method; kinds of the safety set of CMtMedQA's test questions.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

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
    pattern: re.Pattern[str]
    chinese: str
    english: str


EVERYONE: tuple[Role, ...] = ("patient", "clinician", "quality", "admin")
PATIENTS: tuple[Role, ...] = ("patient",)
DIE = (
    r"自杀|轻生|自残|自尽|割腕|跳楼|上吊|去死|不想活|活不下去|结束(?:自己的)?生命|了结(?:自己|生命)"
)
RULES = (
    Rule(
        "self_harm",
        PATIENTS,
        re.compile(
            rf"(?:我|自己|本人).{{0,12}}(?:{DIE})|(?:{DIE}).{{0,6}}(?:算了|的念头|的想法|怎么办)"
            r"|不想活了|活不下去了"
            r"|\b(?:kill(?:ing)?|hurt(?:ing)?|harm(?:ing)?) myself\b"
            r"|\bend(?:ing)? my (?:own )?life\b"
            r"|\bi\b.{0,40}\b(?:suicid\w+|want to die|don'?t want to live)\b",
            re.IGNORECASE,
        ),
        "您提到的情况很重要，请不要独自面对。请立即告诉身边的人，拨打120，"
        "或拨打全国统一心理援助热线12356，"
        "也可以到最近的医院急诊。",
        "What you say matters; please do not stay alone with it. Tell someone near you now, call "
        "the emergency number, or go to the nearest emergency department.",
    ),
    Rule(
        "harm_others",
        EVERYONE,
        re.compile(
            r"(?:怎么|怎样|如何|教我|帮我).{0,12}(?:投毒|下毒|毒死|毒杀|杀人|制毒|迷晕|迷奸"
            r"|(?:弄|杀)死(?:一个|某|别|他|她|人|邻居|同事|丈夫|妻子))"
            r"|(?:合成|制作|制造|提炼).{0,6}(?:冰毒|海洛因|甲基苯丙胺|毒品|毒气|炸药)"
            r"|\b(?:how (?:to|do i|can i)|help me)\b.{0,40}\b(?:poison|kill|drug) "
            r"(?:someone|somebody|a person|my|him|her|them)\b"
            r"|\b(?:synthesi[sz]e|make|cook)\b.{0,20}"
            r"\b(?:meth|heroin|methamphetamine|nerve agent|explosives?)\b",
            re.IGNORECASE,
        ),
        "这里不提供可能伤害他人的信息。如有人正处于危险中，请拨打110或120。",
        "This service gives no information that may harm others. If someone is in danger, call the "
        "emergency number.",
    ),
    Rule(
        "change_record",
        EVERYONE,
        re.compile(
            r"(?:修改|篡改|更改|改写|改成|改为|删除|删掉|伪造|编造|补造).{0,15}"
            r"(?:病历|病程|诊断|检验结果|检查结果|化验单|医嘱|手术记录|知情同意|签名)"
            r"|(?:病历|病程|诊断|检验结果|检查结果|化验单|医嘱|手术记录|知情同意|签名).{0,15}"
            r"(?:改成|改为|删掉|删除|篡改|伪造|改一下|改掉)"
            r"|\b(?:change|alter|edit|delete|falsify|forge|backdate)\b.{0,30}\b(?:record|chart|"
            r"diagnosis|lab result|consent|signature)s?\b",
            re.IGNORECASE,
        ),
        "本系统只读资料，不能也不会修改病历。更正病历请按本院病历管理规定，"
        "由有权限的医师在电子病历系统中完成并留痕。",
        "This service reads and never changes records. A record is corrected in the record system, "
        "by a physician who may, under the hospital's rules, so that the change can be traced.",
    ),
    Rule(
        "own_dose",
        PATIENTS,
        re.compile(
            r"(?:吃|服|用|打|注射|加|减|停)"
            r".{0,12}(?:几片|几粒|几颗|几支|几毫克|多少(?:片|粒|颗|支|毫克|毫升|单位|剂量|量)?|多大剂量|什么剂量)"
            r"|(?:加倍|加量|减量|停药)(?:吗|可以吗|行吗|行不行)"
            r"|\b(?:how (?:much|many)|what dose)\b.{0,60}\b(?:take|give|inject|should i|can i)\b"
            r"|\b(?:double|increase|stop|skip)\b.{0,20}\bmy\b.{0,20}\b(?:dose|medication|medicine|"
            r"tablets?|insulin)\b",
            re.IGNORECASE,
        ),
        "剂量要由看过您病历的医生或药师决定，这里不能给出。请联系开药的医生、医院药房，或致电本院；"
        "如果已经多服了药或感到不适，请拨打120。",
        "A dose is decided by a doctor or pharmacist who has seen your record; it cannot be given "
        "here. Ask whoever prescribed it or the hospital's pharmacy; if you took too much or feel "
        "unwell, call the emergency number.",
    ),
)
"""In the order in which they are tried."""
HAN = re.compile(r"[\u4e00-\u9fff]")


def refusal(question: str, role: Role) -> Refusal | None:
    """Whether a question of someone in this role is refused, and with what words."""
    for rule in RULES:
        if role in rule.roles and rule.pattern.search(question):
            return Refusal(rule.kind, rule.chinese if HAN.search(question) else rule.english)
    return None
