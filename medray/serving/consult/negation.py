"""Whether words that are found in a patient's text are said or denied.

In: a text and where a term begins and ends in it. Out: True if it is denied: "没有胸痛",
"无发热、胸痛", "no fever, chest pain or cough". Not denied: "胸痛没有缓解", "没睡好胸痛",
"从没有这么痛过", "no relief from the chest pain". Between a denial and its term only such words may
stand as are known to leave it one: what may be read either way counts as said, for of the two
mistakes, missing an emergency and sending somebody to a doctor for nothing, the second is chosen.
Source: not given in the method; triggers and scopes as in NegEx (Chapman 2001).
"""

import re

LONGEST_REACH = 80
"""Characters that a denial reaches ahead at most."""
LONGEST_LIST = 400
"""Characters behind a term in which an `or` is looked for; what is listed longer counts as said."""
HAN_SPACE = r"(?<=[\u4e00-\u9fff])\s+(?![A-Za-z0-9])"
CHINESE_END = re.compile(rf"[，。；！？：\n,;!?:]|\.(?:\s|$)|{HAN_SPACE}")
ASKED = re.compile(r"有没有|有无|没有没有|无缘无故")
"""A question and an idiom, which deny nothing."""
NEVER_NOT = re.compile(
    r"(?:无时无刻|没有?(?:哪怕)?[一哪]一?个?(?:[天刻日分秒夜晚]|小时|瞬间)[，,]?"
    r"|不可能|没办法|没法|无法|[忍禁]不住|控制不住|做不到|情不自禁)[^，,。；;\n]{0,6}$"
    r"|(?:(?:不|由)得|不能|怎么?(?:可能|能|会)|很难|难以|何尝|不是|哪一?天)$"
    r"|(?:\bnot|n['’]t|\bnever|\bhardly|\bscarcely|\bbarely)(?: been)? an? (?:single )?"
    r"(?:day|night|hour|moment|minute)\b[^,.;\n]{0,40}$"
    r"|\bno (?:day|night|hour|moment)\b[^,.;\n]{0,40}$"
    r"|(?:n['’]t|\bcannot|\bnever|\bnot|\bimpossible)(?: to)? $",
    re.IGNORECASE,
)
"""Before a denial it makes it said: 没有一天不想, not a day goes by that I don't."""
LINK_BEGIN = re.compile(r"(?=(、|和|或者?|及|与|跟|以及|还有|也没有|也无))")
WORD = (
    r"(?:明显|任何|出现|发生|感到|感觉到?|觉得|有|伴|什么|再|特别|太|怎么|过|的|想|要|会"
    r"|发现|真|打算|考虑"
    r"|剧烈|严重|突然|持续|反复|典型|大量|急性|轻微|一点儿?|动过|说|见|曾)"
)
# None of the words is made of others: a text that can be read in two ways at each of them would be
# read in all, twice as many with every one.
BETWEEN = f"{WORD}*+"
ONE_WORD = re.compile(WORD)
CHINESE_BEGIN = re.compile(r"(?=没|无|未|否认|并?不是|并非|不)")
CHINESE_DENIES = re.compile(rf"(?:没有?|无|未|否认|并?不是|并非|不){BETWEEN}$")
DENIES_LIST = re.compile(r"没有|无|未|否认")
LISTED_ONE = re.compile(r"[^、和或及与跟]{1,8}")
LIST_END = re.compile(f"{BETWEEN}$")
LIKE_THIS = re.compile(r"这么|这样|如此|那么|这种")
"""没有过这么痛: what is denied is that it was so before."""
BEHIND = re.compile(
    r"\s*+(?:(?:症状|史)\s*+)?(?:[:：]\s*(?:无|没有|否|no\b|none\b)"
    r"|(?:也|都)?(?:没有|未见|不存在)(?=[，。；！？,;.!?\s]|$)|[（(]\s*[-－—–]\s*[)）])",
    re.IGNORECASE,
)
ENGLISH_END = re.compile(
    r"[。；！？\n;!?:]|\.(?:\s|$)|\b(?:and|but|however|though|although|except|now|just|because)\b"
    r"|\bi (?:have|had|feel|am|get|got)\b|\bi['’](?:m|ve)\b|\bthere (?:is|are)\b",
    re.IGNORECASE,
)
LISTED = re.compile(r"\b(?:or|nor)\b", re.IGNORECASE)
ENGLISH_DENIES = re.compile(
    r"\b(?:no|not|never|without|den(?:y|ies|ied|ying)|neither|nor)\b|n['’]t\b", re.IGNORECASE
)
SOMETHING_ELSE = re.compile(
    r"\b(?:not (?:only|just|sure)|no (?:idea|doubt|wonder|longer)|can(?:no|['’])t)\b", re.IGNORECASE
)
RELIEVED = re.compile(
    r"\b(?:relie\w+|better|help\w*|stop\w*|gone|improve\w*|sleep|slept|eat|eaten|such|like this"
    r"|this|so|worse)\b",
    re.IGNORECASE,
)
"""Where one of these stands between, that is what is denied."""


def denied(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` is denied by the words around it."""
    before = text[max(0, start - LONGEST_REACH) : start]
    return bool(BEHIND.match(text, end)) or _in_chinese(before) or _in_english(text, start, before)


def _in_chinese(before: str) -> bool:
    clause = ASKED.sub("", CHINESE_END.split(before)[-1])
    links = _links(clause)
    for begin in CHINESE_BEGIN.finditer(clause):
        start = begin.start()
        if NEVER_NOT.search(clause, 0, start):
            continue
        if CHINESE_DENIES.match(clause, start) or (links and _is_list(clause, start, links)):
            return LIKE_THIS.search(clause, start) is None
    return False


def _links(clause: str) -> dict[int, list[int]]:
    """Where words begin that link what is listed, and where each ends; none if behind none of them
    the list's last thing, the term, may stand."""
    links: dict[int, list[int]] = {}
    for found in LINK_BEGIN.finditer(clause):
        start, end = found.span(1)
        links[start] = [end - 1, end] if found[1] == "或者" else [end]
    ends = (end for each in links.values() for end in each)
    return links if any(LIST_END.match(clause, end) for end in ends) else {}


def _is_list(clause: str, start: int, links: dict[int, list[int]]) -> bool:
    """Whether a denial at `start` is followed by a list of things up to the clause's end, as in
    `无发热、胸痛`. Each place is looked at once, however many ways lead to it."""
    denial = DENIES_LIST.match(clause, start)
    if denial is None:
        return False
    begun = [denial.end()]
    while word := ONE_WORD.match(clause, begun[-1]):
        begun.append(word.end())
    linked: dict[int, None] = {}
    for place in begun:  # grows
        one = LISTED_ONE.match(clause, place)
        for at in range(place + 1, one.end() + 1 if one else 0):
            new = [end for end in links.get(at, ()) if end not in linked]
            linked |= dict.fromkeys(new)
            begun += new
    return any(LIST_END.match(clause, place) for place in linked)


def _in_english(text: str, start: int, before: str) -> bool:
    clause = ENGLISH_END.split(before)[-1]
    if not ENGLISH_DENIES.search(clause):
        return False
    whole = clause + ENGLISH_END.split(text[start : start + LONGEST_LIST], maxsplit=1)[0]
    if not LISTED.search(whole):  # a comma stands inside a list only: no a, b or c
        clause = re.split("[,，]", clause)[-1]
    clause = SOMETHING_ELSE.sub(lambda found: " " * len(found[0]), clause)
    triggers = list(ENGLISH_DENIES.finditer(clause))
    # A denial of the denial may stand in a part that is cut off: there is no day that I am not ...
    last = len(before) - len(clause) + triggers[-1].start() if triggers else 0
    if not triggers or NEVER_NOT.search(before, 0, last):
        return False
    return not RELIEVED.search(clause, triggers[-1].end())
