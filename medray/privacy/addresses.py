"""Addresses and employers in clinical text. In: text. Out: spans.

An address is a chain of places, from the province down to the room, that is either long enough or
has a number in it. Chinese leaves no blank before one, so the words that lead up to it (家住, 来自)
are cut off. Source: EVALUATION.md 4.
"""

import re
from collections.abc import Iterator

from medray.privacy.lexicon import HAN
from medray.privacy.lexicon_en import NO_NAMES_EN
from medray.privacy.place_leads import GENERIC, after_lead

_NUMBER = (
    r"(?:\d{1,5}(?:-\d{1,4}){0,3}|[一二三四五六七八九十]{1,3})(?:号楼?|号院|栋|幢|座|单元|室|组|队"
    r"|社|楼|层|弄|房|户|门|巷|街坊)|"
    r"\d{1,5}(?:-\d{1,4}){1,3}|[A-Za-z]\d{0,2}座|(?<=[栋幢座楼元号])\d{2,4}(?!\d)"
)
_ADMIN = "省|自治区|特别行政区|市|自治州|自治县|地区|县|区|旗|盟|州|镇(?![痛静咳吐])|乡|街道"
_PLACE = (
    "街道|大道|大街|社区|小区|花园|公寓|家园|家属院|家属楼|宿舍|大厦|广场|新村|新城|名城|名苑|名邸"
    "|胡同|开发区|工业园|"
    "路|街|道|巷|弄|(?<![这那哪夜心])里|村|庄|屯|寨|苑|湾|府|城|坊|园|(?<!家)庭|居|邸|塘|营|沟|岭|坪|坝|组"
)
# A unit may end in two signs of place: 大河坝村, 新城区.
_LINK = rf"[{HAN}]{{1,9}}?(?:{_ADMIN}|{_PLACE}){{1,2}}"
ADDRESS = re.compile(
    rf"(?P<value>(?P<chain>[{HAN}]{{1,9}}?(?:{_ADMIN})(?:{_LINK})*)?"
    rf"(?P<street>(?:[{HAN}]{{1,8}}?(?:{_PLACE}){{1,2}})*)"
    rf"(?P<detail>(?:{_NUMBER})(?:(?:[{HAN}]{{1,6}}(?:{_PLACE}))?(?:{_NUMBER}))*)?)"
)
_UNIT = re.compile(rf"{_ADMIN}|{_PLACE}")
_FIELD_END = (
    r"(?=\s{2,}|\s?(?:电话|手机|邮编|邮箱|联系|电邮|户口|工作|单位|职业|身份|住院|病案|姓名|性别|"
    r"床号|入院|民族|婚|年龄|科室|主诉|QQ|微信)|[，,。；;、！\n|]|$)"
)
LABELLED_ADDRESS = re.compile(
    r"(?:家庭[住地]址|现住[地址]?址?|常住地?址?|户籍地?址?|户口所?在?地?址?|联系地址|通讯地址|"
    r"邮寄地址|住\s{0,4}址|地\s{0,4}址|出生地|居住地|"
    r"籍\s{0,4}贯|"
    rf"工作单位|工作地点|单位(?!\s*[:：]\s*[\da-zA-Zμ%×]))(?:名称)?\s*[:：]\s*(?P<value>[^，,。；;、\n|]{{2,50}}?){_FIELD_END}"
)
LED_ADDRESS = re.compile(
    r"(?:家住|现住|住在|住于|居住于|居住在|现住址|住址|地址|户口|户籍|籍贯|老家|家在|家居|来自|"
    r"寄至|寄到|寄往|邮寄至|走访|系|是|住|从|回|为|在)\s?"
    rf"(?P<value>[{HAN}]{{1,10}}?(?:{_ADMIN}|{_PLACE})[{HAN}\dA-Za-z\-]{{0,40}}?)(?=[，,"
    rf"。；;、！（(\s]|"
    rf"人[，,。]|收|就诊|赶来|独居|邮编|电话|手机|联系|$)"
)
_FIRM = (
    "有限责任公司|有限公司|股份公司|公司|集团|厂|煤矿|矿务局|学院|大学|中学|小学|幼儿园|供电所|"
    "供电局|税务局|公安局|派出所|银行|合作社|研究[所院]|事务所|村委会|居委会|街道办|消防队|车队"
)
EMPLOYER = re.compile(
    rf"(?:系|在|是|于|单位[:：]?|任职于?|就职于?|供职于?|退休前?[为于])\s?"
    rf"(?P<value>[{HAN}]{{2,20}}?(?P<firm>{_FIRM}))(?!附属|"
    rf"医院)"
)
# A name that stands by itself: |云岭煤矿|, 发票抬头宏达物流公司，.
FREE_EMPLOYER = re.compile(
    rf"(?<![{HAN}])(?P<value>[{HAN}]{{2,12}}?(?P<firm>{_FIRM}))(?=[^{HAN}]|$|职工|职员|干部|员工|工人|退休|"
    r"上[班课学]|工作|教师|学生|司机|会计|人事|确认|证明|出具|派遣|派[来往驻]|组织|开具|担保|同事|"
    r"食堂|车间|宿舍|门口|附近|负责人|单位体检|的(?:同事|领导|老板|员工|工人|同学|老师))"
)
# In a sentence, a word that leads up to it must stand before it: 费用由红星机械厂垫付.
_LED_FIRM = re.compile(
    r"(?:由|与|和|向|经|持|至|到|从|被|[,，]|同住|调[到至]|调往|[在系为于是])"
    rf"(?P<value>[{HAN}]{{2,12}}?(?P<firm>{_FIRM}))(?![{HAN}]{{0,4}}医院|附属|文化|毕业|学历|程度|[卡账帐])"
)
NO_EMPLOYER = re.compile(
    r".*(?:保险|药业|制药|医药|生物|器械|科技|人寿|用品)(?:股份|集团|有限|责任)*"
)
_STATES = r"(?:[A-Z]{2}|Iowa|Texas|Ohio|Maine|Utah|California|Florida|New York|Illinois)"
ADDRESS_EN = re.compile(
    r"(?<![\w/.#-])\d{1,5}\s(?:[NSEW]\.?\s)?(?:(?:[A-Z][\w.'’]*|\d{1,3}(?:st|nd|rd|th))\s){1,4}"
    r"(?:Street|St\b|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Way|Place|Pl|"
    r"Terrace|Circle|Highway|Hwy|Parkway|Square)\b\.?"
    r"(?:,?\s(?:Apt|Apartment|Suite|Ste|Unit|Room|#)\.?\s?#?\w{1,6})?"
    rf"(?:, [A-Z][a-z]+(?: [A-Z][a-z]+){{0,2}}(?:, {_STATES}\b)?)?(?: \d{{5}}(?:-\d{{4}})?)?"
)
TOWN_EN = re.compile(
    r"(?:\b[Ll]ives? in|\b[Ll]iving in|\b[Rr]esid(?:es|ing|ent) (?:in|of)|\b[Nn]ative of|"
    r"\b[Bb]orn in|\b[Mm]oved (?:to|from))\s"
    rf"(?P<value>[A-Z][a-z]+(?:\s[A-Z][a-z]+){{0,2}}(?:,\s{_STATES}\b)?)"
)
_LABEL_ITSELF = re.compile("家庭[住地]址|[住地]址|单位")
_ADMIN_UNIT = re.compile(_ADMIN)
_NO_PLACE = re.compile("[无否非]|[外本我该各全跨出]省|[外本我该各全跨出进]市|省[内外]|市[内外]")
_DETAIL = re.compile(_NUMBER)


def find_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of addresses, employers included; they may overlap."""
    for pattern in (LABELLED_ADDRESS, EMPLOYER, FREE_EMPLOYER, _LED_FIRM):
        for match in pattern.finditer(text):
            start, end = match.span("value")
            if pattern is not LABELLED_ADDRESS:
                start = after_lead(text, start, match.start("firm"))
                own = text[start : match.start("firm")]
                if own.endswith(("程度", "学历", "文化")):
                    continue
                if len(own) < 2 or GENERIC.fullmatch(own) or NO_EMPLOYER.fullmatch(own):
                    continue
            if pattern is LABELLED_ADDRESS and _LABEL_ITSELF.fullmatch(text[start:end]):
                continue
            if not GENERIC.fullmatch(text[start:end]) and text[start:end] not in (
                "不详",
                "同上",
                "无业",
                "无",
            ):
                yield start, end
    # Neither makes an address without a number or a unit of administration: most texts have none.
    is_placed = _ADMIN_UNIT.search(text) or _DETAIL.search(text)
    for match in LED_ADDRESS.finditer(text) if is_placed else ():
        start, end = match.span("value")
        if _is_address(text[start:end], 2):
            yield start, end
    for match in ADDRESS.finditer(text) if is_placed else ():
        if match.end() - match.start() >= 4 and (match["chain"] or match["detail"]):
            start = after_lead(text, match.start(), _first_unit(match))
            if _is_address(text[start : match.end()], 2):
                yield start, match.end()
    if not text.isascii() and not re.search("[A-Z][a-z]", text):
        return
    for pattern in (ADDRESS_EN, TOWN_EN):
        for match in pattern.finditer(text):
            start, end = match.span(match.lastgroup or 0)
            if text[start:end].split()[0] not in NO_NAMES_EN:  # born in Hospital
                yield start, end


def _is_address(value: str, min_units: int) -> bool:
    """A province, town or village with another place below it, or a street with a number."""
    if _NO_PLACE.match(value):
        return False  # 无外省旅居史
    units = len(re.findall(rf"[{HAN}]{{1,9}}?(?:{_ADMIN}|{_PLACE})", value))
    has_number = _DETAIL.search(value) is not None
    is_admin = (
        re.match(rf"[{HAN}]{{1,9}}?(?:省|自治区|市|自治州|州|盟|县|旗|镇|乡)", value) is not None
    )
    if has_number:
        return units >= 1 and (
            is_admin or re.search("[路街道巷弄里村庄园苑城湾府区寓庭楼院厦]", value) is not None
        )
    return is_admin and units >= min_units


def _first_unit(match: re.Match[str]) -> int:
    unit = _UNIT.search(match.group(), 1)
    return match.start() + unit.start() if unit else match.end()
