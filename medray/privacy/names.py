"""Personal names in Chinese clinical text. In: text. Out: spans of names and whether the person
is staff.

A surname list alone finds a name in every 黄疸 and 白蛋白. So a would-be name is weighed: what
stands before it (a field label, a role, a verb), what stands after it (a title, a sex, a stop),
whether its characters are usual in given names, and whether it reads as a word of the language.
Source: EVALUATION.md 4; the weights are chosen on benchmarks/phi_templates/tuning.yaml.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from medray.privacy.lexicon import (
    COMPOUND,
    FOLLOWERS,
    FUNCTION_WORDS,
    HAN,
    LOOSE_SURNAMES,
    MEDICAL_WORDS,
    NOT_IN_NAMES,
    is_given,
    is_surname,
    words,
)

THRESHOLD = 2.5
TITLES = (
    "(?:副?主任|主治|住院|经治|值班|主管|管床|执业|规培|进修)?(?:医师|医生|大夫)|副?主任|副?教授|"
    "(?:副|总)?护士长?|主管护师|护师|护工|技师|药师|麻醉师|老师|院长|专家|博士|主刀|所长|处长"
)
POLITE = "先生|女士|小姐|阿姨|大爷|大妈|大娘|奶奶|爷爷|叔叔|伯伯|同志|老人|老太|婆婆|师傅|小朋友"
_KIN = (
    "父亲?|母亲?|爸爸?|妈妈?|妻子?|丈夫|夫|子|女儿?|儿子|儿媳妇?|媳妇?|女婿|[长次幼独][子女]|爱人|"
    "老伴|配偶|对象|"
    "哥哥?|弟弟?|姐姐?|妹妹?|兄|兄长|嫂子?|姐夫|妹夫|孙子|孙女|外孙女?|外甥女?|侄[子女]|叔叔?|"
    "舅舅?|姑姑?|姨妈?|"
    "祖父|祖母|爷爷|奶奶|外公|外婆|公公|婆婆|岳[父母]|养[父母子女]|继[父母子女]|男友|女友|前[夫妻]"
)
ROLES = (
    rf"(?:患者|病人|病员|患儿|产妇|孕妇|伤者|死者|逝者|老人|老太|新生儿|受检者|参保人|供者|受者|"
    rf"家属|家长|[其之他她的](?:{_KIN})|"
    r"父亲|母亲|妻子|丈夫|爱人|老伴|配偶|儿子|女儿|儿媳|女婿|孙子|孙女|外甥|侄子|侄女|侄儿|哥哥|"
    r"弟弟|姐姐|妹妹|嫂子|"
    r"爷爷|奶奶|外公|外婆|岳父|岳母|公公|婆婆|朋友|好友|同事|邻居|同学|室友|工友|战友|老乡|村民|"
    r"保姆|护工|陪护|陪人|"
    r"司机|翻译|律师|民警|网格员|代理人|被?委托人|监护人|联系人|介绍人|见证人|签署人|经办人|报案人"
    r"|送诊人|陪同人员?|陪诊人|"
    r"接听者|收件人|户名|户主|法人|供史者|陈述者|代诉人|签字人|患方|本人|病友|我叫|名叫|叫做|名为|"
    r"姓名)"
)
STAFF = (
    r"(?:医师|医生|大夫|护士长?|主任|教授|老师|专家|术者|主刀|助手|[一二三]助|第[一二三]助手|"
    r"麻醉[者师]?|巡回|洗手|器械|"
    r"责护|责任护士|管床|主管|主治|上级医师|记录[者人]?|审核[者人]?|审签|复核[者人]?|报告[者人]|"
    r"书写[者人]?|病历书写|操作[者人]|"
    r"检查[者人]|签名|签字|签章|查房者?|主持[者人]?|汇报者?|送检者?|会诊者|护师|技师|药师|社工|"
    r"值班|随车|带教|院长|执行[者人]|"
    r"住院|接诊|交班者?|接班者?|整理|指导|核对|复核|收样|采样|签收|接收|护送|陪送|登记|录入|签发|"
    r"申请|开单|带组|检验者?|采血者?|穿刺者?|阅片者?|录入者?|医师签[名字]|"
    r"患者签[名字]|家属签[名字]|[\u4e00-\u9fff]{2}[者人员师])"
)
_VERBS = (
    r"(?:由|经|请|随|与|和|及|向|嘱|遵|找|挂|联系|通知|报告|告知|打给|交给|电告|询问|问|见|接|新收"
    r"|收治|跟|同|邀|"
    r"[、（(/|]|是|系|给|让|叫|为|床|：|:|—|→|》|“)"
)
_STRONG_AFTER = (
    r"\s?[，,/／|、（(]\s?[男女](?![儿婿友方])|\s[男女](?![\u4e00-\u9fff])|[男女](?=性|[，,、/ "
    r"]{0,2}\d|[，,](?:因|汉|已婚|未婚|\s?住))|"
    r"签[名字署]|代诉|代述|代签|查房|"
    r"主刀|主持|会诊|"
    r"陪[同伴着护诊]|提供|本人|的?家属|之[子女妻夫父母]|的(?:儿子|女儿|妻子|丈夫|父亲|母亲|家里)|"
    r"接听|收[，,]|代理|代办|走访|"
    r"介绍来|医嘱|[（(]\s?(?:\+?86)?\s?1[3-9]\d|[（(]?\s?[父母夫妻子女儿]+[）)]|等[人]|及其?"
    r"(?:家属|[父母妻夫子女])|体健|家属|参加|"
    r"记录|汇报|审核|联系|沟通|交代|护送|转述|"
    r"在[场旁]|[，,]?\s?\d{1,3}\s?岁|[/|]\s?\d"
)
_FIELDS = (
    r"性别|年龄|[男女](?=性|[，,、/ ]{0,2}\d)|民族|婚姻|婚|职业|出生|身份|电话|手机|联系|科室|科别"
    r"|床号|床位|住院|门诊|病[历案]|与患|与病|关系|工作"
    r"|住址|地址|证件|"
    "单位|籍贯|入院|就诊|日期|时间|医师|医生|护士|审核|报告|记录|助手|[一二三]助|麻醉|签[名字]|"
    "主治|主任|教授|上级|体健"
)
_LABEL = re.compile(
    r"(?P<person>(?:患者|病人|家属|联系人|监护人|产妇|孕妇|新生儿|受检者|委托人)?姓[ \u3000]{0,"
    r"4}名|联系人|监护人|户名|收件人|经办人|代理人|"
    r"病史陈述者|供史者|被?委托人|患者签[名字]|家属签[名字]|送诊人|陪同人|陪护人|紧急联系人|"
    r"签署人)[:：]\s{0,3}"
    r"|(?P<staff>[\u4e00-\u9fff]{0,4}(?:医师|医生|护士长?|签名|签字)|(?:术|手术|麻醉|记录|报告|"
    r"审核|"
    r"书写|查房|操作|检查)[者人]|"
    r"第?[一二三]助手?|助手|主刀)[:：]\s{0,3}"
)
_LABELLED = re.compile(
    rf"[{HAN}]{{1,7}}(?:[·•・‧][{HAN}]{{1,7}}?)+(?={_FIELDS}|[^{HAN}]|$)"
    rf"|[{HAN}]{{2,4}}?(?={_FIELDS}|[^{HAN}]|$)(?! [{HAN}](?:[^{HAN}]|$))"
    rf"|[{HAN}][ \u3000]{{1,3}}[{HAN}]{{1,2}}(?=[^{HAN}]|$)|[A-Z][A-Za-z]+(?:[ "
    rf"·][A-Z][A-Za-z]+){{0,3}}"
)  # fmt: skip
_NO_NAME = re.compile(
    "本人|患者|病人|家属|不详|同上|未|无|详见|见|如下|父|母|妻|夫|子|女|儿|医[师生]|护士|主任|教授"
    "|拒|已|同意|签|男|女|暂|其|门诊|急诊"
)
_SOUNDS = frozenset(
    "卜别孜杜度明提依帕尔阿艾安奥巴巴拜班包贝比布才仓策查茨次措达代丹当道德登迪地丁东都顿多额恩尔"
    "法凡古贡格嘎哈海罕汗合和赫胡花吉加嘉江杰金卡凯康"
    "柯科克库拉来莱兰朗勒里力丽利莲林洛伦马玛买迈曼麦米密敏木慕穆娜纳尼宁努诺帕潘其奇恰强乔琼曲热"
    "仁荣萨赛桑色沙莎山苏孙索"
    "塔泰坦特提图吐推托瓦旺维文乌西希夏肖辛雪逊亚娅彦央羊耶伊依易益因尤玉扎泽扎增占珠卓孜宗左孙日"
    "朝鲁敦其木斯琴不的什甫"
)
_DOTTED = re.compile(rf"[{HAN}]{{2,12}}(?:[·•・‧][{HAN}]{{1,8}})+")
_DOT = re.compile("[·•・‧]")
_BEFORE = re.compile(
    rf"(?P<role>{ROLES})(?:[:：]\s?|[ （(“\"]{{0,3}})"
    rf"|(?P<staff>{STAFF}[者人员]?)(?:[:：]\s?|[ （(]{{0,3}})"
    rf"|(?P<verb>{_VERBS})\s?"
    rf"|(?P<start>(?:^|(?<=[^{HAN}·\d])))(?=[{HAN}])"
)  # fmt: skip
_AFTER_TITLE = re.compile(rf"\s?(?:{TITLES})")
_AFTER_POLITE = re.compile(f"(?:{POLITE})")
_AFTER_STRONG = re.compile(_STRONG_AFTER)
_BEFORE_TITLE = re.compile(rf"(?=(?P<title>{TITLES})|(?P<polite>{POLITE}))")
_TITLE_ITSELF = re.compile(f"{TITLES}|{POLITE}")
_NEXT = re.compile(r"(?:[、/，,和与及]|\s{1,4})\s?")
_LONE = frozenset(
    "于向成曾何任单安方高尚易关时全应和连师相来由门位原初满支母查居那干但元信平公国利都云强海花者"
    "的家老小"
)


_OPEN, _CLOSE = frozenset("（("), frozenset("）)")
_PLACES = frozenset("中里间上下内外旁边晨节期初末底处地")  # 于家中, 于夜间


class Name(NamedTuple):
    """A name at text[start:end]."""

    start: int
    end: int
    is_doctor: bool
    weight: float


def find_names(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yields (start, end, is_doctor) of every name, best first where they overlap."""
    found = sorted(_candidates(text), key=lambda n: (-n.weight, n.start - n.end))
    taken: list[Name] = []
    for name in found:
        if not any(name.start < other.end and other.start < name.end for other in taken):
            taken.append(name)
    for name in taken:
        yield name.start, name.end, name.is_doctor
        yield from _listed(text, name)


def _candidates(text: str) -> Iterator[Name]:
    for match in _LABEL.finditer(text):
        value = _LABELLED.match(text, match.end())
        if value and _is_labelled_name(value.group()):
            yield Name(*value.span(), match.lastgroup == "staff", 9)
    for match in _DOTTED.finditer(text):
        yield _dotted(text, *match.span())
    for match in _BEFORE.finditer(text):
        kind = match.lastgroup
        before = {"role": 3.0, "staff": 2.5, "verb": 1.0, "start": 0.5}[kind or "start"]
        if kind == "start" and text[match.start() - 1 : match.start()] not in (
            "，",
            ",",
            "；",
            ";",
        ):
            before = 0.75  # a sentence, not a clause
        yield from _from(text, match.end(), before, kind == "staff")
    for match in _BEFORE_TITLE.finditer(text):
        yield from _until(text, match.start(), match.lastgroup == "title")
    for match in _AFTER_STRONG.finditer(text):
        yield from _until(text, match.start(), False, after=2.0)


def _dotted(text: str, start: int, end: int) -> Name:
    """A name written with dots, without the words before and after it: 患者阿里·买买提因."""
    first = _DOT.search(text, start, end)
    last = max(m.end() for m in _DOT.finditer(text, start, end))
    assert first is not None
    lead = first.start()
    while lead > start and text[lead - 1] in _SOUNDS:
        lead -= 1
    if first.start() - lead >= 2:
        start = lead
    stop = last
    while stop < end and text[stop] in _SOUNDS:
        stop += 1
    return Name(start, stop if stop - last >= 2 else min(end, last + 2), False, 8)


def _is_labelled_name(value: str) -> bool:
    if _NO_NAME.match(value) or value in MEDICAL_WORDS:
        return False
    if value[:2] in MEDICAL_WORDS and not all(map(is_given, value[1:])):
        return False
    return value.isascii() or is_surname(value, 0) > 0 or value not in words()


def _from(text: str, start: int, before: float, is_staff: bool) -> Iterator[Name]:
    """The best name that starts at `start`."""
    surname = is_surname(text, start)
    if not surname:
        return
    best: Name | None = None
    for given in (2, 1):
        end = start + surname + given
        after, is_title = _after(text, end)
        weight = before + after + _shape(text, start, start + surname, end, after)
        if weight >= THRESHOLD and (best is None or weight > best.weight):
            best = Name(start, end, is_staff or is_title, weight)
    if best is None and surname == 1 and before >= 2.5 and text[start + 1 : start + 2] == " ":
        after, is_title = _after(text, start + 3)
        weight = before + after + _shape(text, start, start + 2, start + 3, after)
        if weight >= THRESHOLD:
            best = Name(start, start + 3, is_staff or is_title, weight)
    if best:
        yield best


def _until(text: str, end: int, is_staff: bool, after: float = 2.5) -> Iterator[Name]:
    """The best name that ends at `end`; a lone surname before a title counts too."""
    while end and text[end - 1] == " ":
        end -= 1
    best: Name | None = None
    for length in (2, 3, 4):
        start = end - length
        surname = is_surname(text, start) if start >= 0 else 0
        if not surname or not 1 <= length - surname <= 2:
            continue
        given_at = start + surname + (length == 3 and text[start + 1] == " ")
        before = (-0.5 if is_staff else -1.0) if text[start - 1 : start + 1] in words() else 0.5
        if start == 0 or text[start - 1] in "科部组室院心" or not _is_han(text[start - 1]):
            before = 1.5
        weight = before + after + _shape(text, start, given_at, end, after)
        if weight >= THRESHOLD and (best is None or weight > best.weight):
            best = Name(start, end, is_staff, weight)
    if best is None and after == 2.5 and end:
        start = end - 2 if re.match(COMPOUND, text[max(0, end - 2) : end]) else end - 1
        surname = text[start:end]
        is_lone = surname not in _LONE and text[start - 1 : end] not in words()
        if is_surname(text, start) == len(surname) and is_lone:
            best = Name(start, end, is_staff, 2.5)
    if best:
        yield best


def _after(text: str, end: int) -> tuple[float, bool]:
    """How well a name can end here, and whether a title of staff follows."""
    following = text[end : end + 1]
    if _AFTER_TITLE.match(text, end):
        return 2.5, True
    if _AFTER_STRONG.match(text, end) or _AFTER_POLITE.match(text, end):
        return 2.0, False
    if not _is_han(following):
        return 1.0, False
    if text[end : end + 2] in words():
        return 0.75, False
    return (0.5, False) if following in FOLLOWERS else (-0.75, False)


def _shape(text: str, start: int, given_at: int, end: int, after: float) -> float:
    """How much text[start:end] looks like a name by itself."""
    given = text[given_at:end]
    if len(given) < end - given_at or not all(map(_is_han, given)):
        return -9
    if not NOT_IN_NAMES.isdisjoint(given) or _TITLE_ITSELF.match(text, given_at):
        return -9
    usual = sum(map(is_given, given))
    weight = {0: -1.0, len(given): 1.0}.get(usual, 0.0) + (0.5 if len(given) == 2 else 0)
    if text[start : start + 2] in words() and given_at - start == 1:
        weight -= 3 if end - start == 2 or text[start : start + 2] in MEDICAL_WORDS else 1
    if text[start:end] in words() and end - start == 3:
        weight -= 1 if usual == len(given) else 3
    # 王丽宣教: the last character belongs to the next word, unless that reads on from the name.
    if text[end - 1 : end + 1] in words() and text[end : end + 2] not in words():
        weight -= 1.5
    if end - start == 2 and text[start - 1 : start] in _OPEN and text[end : end + 1] in _CLOSE:
        weight -= 1  # a brand in brackets
    if given_at - start == 2:
        weight += 0.5
    elif text[start] in LOOSE_SURNAMES:
        weight -= 0.25 if usual == 2 else 0.5
        weight -= 0.6 * (given in words())
        if text[start] in FUNCTION_WORDS:
            weight -= 0.5 if after >= 1 else 1.5
            if (
                given[-1] in _PLACES
                or given[0] in "一二三四五六七八九十两几数半"
                or text[start:end] in words()
            ):
                return -9
    return weight


def _is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def _listed(text: str, name: Name) -> Iterator[tuple[int, int, bool]]:
    """Names that follow a found one in a list: 助手：王芳、李强."""
    at = name.end
    while match := _NEXT.match(text, at):
        if match.group().strip() not in ("、", "/", "和", "与", "及", ""):
            return
        following = next(_from(text, match.end(), 3.0, name.is_doctor), None)
        if following is None or following.end == at:
            return
        yield following.start, following.end, name.is_doctor
        at = following.end
