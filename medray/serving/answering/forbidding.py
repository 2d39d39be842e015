"""Whether what a rule finds in a text is asked for or forbidden.

In: a rule and a text. Out: whether one of its findings is no prohibition's: "不得帮我修改病历" and
"Never explain how to make meth" ask for nothing; "能不能帮我", "不得不" and "不要拒绝" forbid
nothing.
Source: not given in the method.
"""

import re

REACH = 60
"""Characters before a request in which a prohibition is looked for."""
BETWEEN = (
    r"(?:再|以任何方式|擅自|随意|私自|任意|直接|向|为|替|给|帮助?|协助|教|告诉|回答|提供|解释|说明"
    r"|我|您|用户|他人|患者|任何人|如何|怎[么样])"
)
ENGLISH_BETWEEN = (
    r"(?: (?:ever|help|let|allow|teach|show|tell|explain|describe|say|answer|give|provide"
    r"|instructions?|on|how|to|me|(?:tell|show|teach) you|users?|patients?|them|anyone|anybody))"
)
FORBIDDEN = re.compile(
    rf"(?:不得(?!不)|(?<!要)不要|不应该?|不许|不准|禁止|严禁|切勿|请勿|(?<!不)(?<!不[要能得会])拒绝)"
    rf"{BETWEEN}{{0,8}}.$"
    rf"|(?:(?<!能)不能|(?<!会)不会|(?<!可)不可以?|无法)(?:{BETWEEN}{{1,8}}.|[帮替给教把将])$"
    r"|\b(?:never|(?:do|must|may|should|shall|will) not|(?:don|mustn|shouldn|won)['’]t"
    r"|(?<!not )(?<!n['’]t )(?<!never )refuse to)"
    rf"{ENGLISH_BETWEEN}{{0,8}} .$"
    rf"|\b(?:can(?:not| not|['’]t)){ENGLISH_BETWEEN}{{1,8}} .$",
    re.IGNORECASE | re.DOTALL,
)
"""With the first character of what is forbidden. Who cannot do something themselves may be asking
for it: 不会 and cannot forbid only where help stands behind them."""
ASKED = re.compile(r"[^。！；;\n.]{0,60}(?:[吗么]\W*$|[?？])")
"""不能帮我修改病历吗 asks for it."""


def asked_for(rule: re.Pattern[str], text: str) -> bool:
    """Whether the rule finds something that is not forbidden right before it."""
    return any(
        ASKED.match(text, found.end())
        or not FORBIDDEN.search(text, max(0, found.start() - REACH), found.start() + 1)
        for found in rule.finditer(text)
    )
