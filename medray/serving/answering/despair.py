"""Whether somebody cries for help: wants to die, or to harm themselves.

In: a text. Out: whether it holds such words that are not denied: "我没有一天不想自杀" is a cry,
"我没有想过自杀" and "如何评估自杀风险" are none. Consultations listen for the same and for more
(`medray.serving.consult.signs`): there patients speak of themselves.
Source: not given in the method.
"""

import re

from medray.serving.consult.negation import NEVER_NOT

CELLS = "菌胞毒皮物花树草胚鱼虫"
SURVIVE = rf"(?<![{CELLS}])(?<![{CELLS}][就也都])活不下去"
WANT_DEATH = r"想去?死(?![亡皮角肉骨细]|在家|[你您他她它我]们?了)"
"""Without 想死你了, which misses somebody, and what only holds the words: 想去死皮."""
DIE = (
    r"自杀(?!风险评估|率|预防|干预|评估|基因)|轻生|自残|自尽|割腕(?![管横部关骨])|割脉|跳楼|跳[河江桥崖]"
    r"|上吊(?![瓶针杆带架塔])|去死(?![皮亡角肉骨细])|不想活(?![动血检跃])|结束(?:自己的)?生命"
    rf"|{SURVIVE}|{WANT_DEATH}|了结(?:自己|生命)|伤害我?自己|想不开"
)
"""Without what only holds the words: 去死皮, 打上吊瓶, 割腕横韧带, 自杀率, 不想活动."""
ENGLISH_DIE = (
    r"(?:suicid\w+(?: thoughts?)?|want to die|wanna die|thought about suicide|self[- ]?harm\w*"
    r"|wish(?:ed)? (?:that )?i (?:was|were) dead|(?:kill|hurt|harm|cutt?)(?:ing)? myself)"
)
DENIED = re.compile(
    r"(?:(?<![非有])没有?|从未|否认|(?<![要想会该是么何得])不(?=[想会要打考伤]))"
    rf"(?:再|真的?|有过?|想过?|要|会|考虑过?|打算|动过|任何|过|去)*(?:{DIE})(?:的?(?:念头|想法))?"
    r"|(?:\bnot|n['’]t|\bnever|\bno)"
    r"(?: (?:really|currently|actually|ever|feel|feeling|been|had|have|having|any))*"
    rf" {ENGLISH_DIE}",
    re.IGNORECASE,
)
"""Only where nothing stands between that could make it said: of the two mistakes, missing a cry for
help and answering one that is none, the second is chosen."""
CHINESE_CRY = (
    rf"(?:我|自己|本人).{{0,12}}(?:{DIE})|(?:{DIE}).{{0,6}}(?:算了|的念头|的想法|怎么办)"
    rf"|[想要](?:{DIE})|不想活了|{SURVIVE}了|{WANT_DEATH}|不想再?活(?:下去|着)"
    r"|(?<!生)不如去?死|活[得的着]生不如死|死了(?:算了|拉倒)|一了百了|一死了之|生无可恋|活[够腻]了"
    r"|活着[真好很太也就都还]*(?:没有?什?么?|有什么)(?:意思|意义)"
    r"|(?:写|留)[好下了]*遗书|我.{0,4}遗书|离开这个世界|[想要]离开人世|我[真只好]?想消失"
    r"|没有?(?:任何)?活(?:下去|着)的(?:意义|意思|勇气|动力|必要|理由|希望)"
)
"""生不如死 speaks of suffering, and so does 疼得要死."""
ENGLISH_CRY = (
    r"\bkill(?:ing)? myself\b|\bharm(?:ing)? myself\b"
    r"|\bhurt(?:ing)? myself\b(?! (?:at work|at the gym|(?:while |by )?(?:lifting|falling|playing"
    r"|running|working)|by (?:accident|mistake))\b)"
    r"|\bcutting myself\b(?! (?:off|(?:while |when )?(?:shaving|cooking|chopping|gardening)"
    r"|by (?:accident|mistake))\b)"
    r"|\bi (?:\w+ ){0,3}self[- ]?harm\w*"
    r"|\b(?:end(?:ing)?|tak(?:e|ing)) my (?:own )?life\b|\bend(?:ing)? it all\b"
    r"|\bi\b.{0,40}\b(?:suicid\w+|wanna die"
    r"|want(?:ed)? to die(?! (?:at home|in (?:a |the )?hosp(?:ice|ital))\b)"
    r"|(?:don['’]?t|do not|no longer) want to (?:be alive|exist|wake up"
    r"|live(?! (?:in|at|near|alone|abroad)\b)))\b"
    r"|\bwish (?:that )?i (?:was|were|had) (?:dead|(?:never|not) (?:been )?born)\b"
    r"|\bbetter off (?:dead|without me)\b|\b(?:no reason|nothing) (?:left )?to live\b"
    r"|\bsleep and (?:never|not) wake up\b|\b(?:goodbye|suicide) (?:note|letter)\b"
    r"|\blife (?:is not|isn['’]?t|is no longer) worth living\b"
)
CRY = re.compile(f"{CHINESE_CRY}|{ENGLISH_CRY}", re.IGNORECASE)
REACH = 60
"""Characters before a denial in which it may be denied itself."""


def cries_for_help(text: str) -> bool:
    """Whether it holds such words that are not denied."""
    return bool(CRY.search(DENIED.sub(_undenied, text)))


def _undenied(found: re.Match[str]) -> str:
    before = max(0, found.start() - REACH)
    return found[0] if NEVER_NOT.search(found.string, before, found.start()) else "，"
