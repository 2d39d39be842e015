"""Addresses and institutions in clinical text. In: text. Out: spans.

An address is a chain of places, from the province down to the room, that is either long enough or
has a number in it; an institution is a name in front of 医院 and its like. Chinese leaves no blank
before them, so the words that lead up to a place (就诊于, 转至) are cut off, and what stays must be
more than a generic word (当地医院). Source: EVALUATION.md 4.
"""

import re
from collections.abc import Iterator

from medray.privacy.lexicon import HAN

# Words that can stand right before an address or a hospital; the last of them ends the lead.
LEAD = re.compile(
    r"患者|病人|家住|现住|住在|住于|居住|常住|暂住|曾在|曾于|曾至|就诊于|转诊至|转入|转至|转往|"
    r"转来|转回|转|入住|前往|送往|送至|送到|"
    r"遂至|遂到|遂来|遂于|即至|即到|随后|之后|先后|辗转|收入|就诊|门诊|推荐|介绍|预约|带来|携带|"
    r"带入|外院|(?<!协)(?<!仁)和(?!平|田|县|里|睦|顺)|"
    r"建议|及时|天后|小时后|月后|年后|回(?!民|春|龙)|[遂并其已曾未需要或则我你他她该贵本]|"
    r"[于在至到往赴从由去经](?!和里)|(?<!未|将)来(?!宾|安|凤)|"
    r"[及与、系是自因向找挂请嘱让被]|(?<=\d)[年月日号]|地址|住址|单位|籍贯|老家|户口|户籍|地点|寄"
    r"(?:至|到|往)?|走访|诊于"
)
_SUFFIX = (
    "妇幼保健计划生育服务中心|社区卫生服务中心|社区卫生服务站|卫生服务中心|卫生服务站|中心卫生院|"
    "卫生院|妇幼保健院|保健院|精神卫生中心|"
    "医学中心|医疗中心|疾病预防控制中心|疾控中心|急救中心|体检中心|透析中心|康复中心|血液中心|"
    "肿瘤中心|心血管病?中心|疗养院|护理院|养老院|"
    "敬老院|福利院|休养所|防治院|防治所|卫生所|卫生室|医务室|门诊部|诊所|医馆|医院"
)
HOSPITAL = re.compile(
    rf"(?P<value>[{HAN}]{{2,24}}?(?P<suffix>{_SUFFIX}))(?!感染|获得)"
    rf"(?P<branch>[{HAN}]{{1,3}}(?:分院|院区)|第[一二三四五六七八九]医学中心|[（"
    rf"(][{HAN}]{{1,6}}院区?[）)])?"
)
SHORT_HOSPITAL = re.compile(
    rf"(?P<value>[{HAN}]{{2,8}}?(?P<suffix>[一二三四五六]院|附[一二三四五六]院?|医大[一二三四]院))"
    rf"(?![{HAN}]?[长])"
)
GENERIC = re.compile(
    r"(?:当地|外地|外|某|我|本|该|贵|上级|下级|上一级|同级|基层|社区|综合性?|专科|专业|三甲|三级|"
    r"二级|一级|甲等|乙等|其他|其它|其余|附近|就近|"
    r"多家?|单位|职工|各|别的?|家|省|市|县|区|镇|乡|村|街道|级|大|小|私立|私人|公立|人民|中心|中医"
    r"|西医|中西医结合|精神病?|心理|儿童|妇幼|妇产|"
    r"妇科|肿瘤|传染病|胸科|口腔|牙科|眼科|骨科|康复|老年|等|的|一|两|二|三|几|数|院外|院内|大型|"
    r"正规|民营|市级|省级|县级|区级|州|教学|定点|有条件|"
    r"具备|协作|合作|医联体|联盟|住院|门急诊|急诊|不同|同一|原|首诊|附属|医学|医科|大学|大医|本地|"
    r"国内|国外|北京|上海|就医|卫生|健康|保健|服务|"
    r"体检|血液|透析|患病|因病|现|前|后|再|次|入|出|每|天|日|时|月|年|周|今|昨|近|初|又|仍|也|均|"
    r"曾|先|即|经|为|以|对|所|有|无|不|未|若|如|可|"
    r"送|赶|叫|离|进|抵|达|拟|赴|行|做|查|看|诊|治|疗|术|治疗|检查|复查|复诊|随诊|随访|联系|更|较|"
    r"最|好|高|低|这|那|哪|何|此|任何|整个|全)+"
)
SUFFIX = re.compile(rf"(?:{_SUFFIX}|[一二三四五六]院)$")

_NUMBER = (
    r"(?:\d{1,5}(?:-\d{1,4}){0,3}|[一二三四五六七八九十]{1,3})(?:号楼?|号院|栋|幢|座|单元|室|组|队"
    r"|社|楼|层|弄|房|户|门|巷|街坊)|"
    r"\d{1,5}(?:-\d{1,4}){1,3}|[A-Za-z]\d{0,2}座|(?<=[栋幢座楼元号])\d{2,4}(?!\d)"
)
_ADMIN = "省|自治区|特别行政区|市|自治州|自治县|地区|县|区|旗|盟|州|镇|乡|街道"
_PLACE = (
    "街道|大道|大街|社区|小区|花园|公寓|家园|家属院|家属楼|宿舍|大厦|广场|新村|新城|名城|名苑|名邸"
    "|胡同|开发区|工业园|"
    "路|街|道|巷|弄|里|村|庄|屯|寨|苑|湾|府|城|坊|园|庭|居|邸|塘|营|沟|岭|坪|坝|组"
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
    rf"工作单位|工作地点|单位)(?:名称)?\s*[:：]\s*(?P<value>[^，,。；;、\n|]{{2,50}}?){_FIELD_END}"
)
LED_ADDRESS = re.compile(
    r"(?:家住|现住|住在|住于|居住于|居住在|现住址|住址|地址|户口|户籍|籍贯|老家|家在|家居|来自|"
    r"寄至|寄到|寄往|邮寄至|走访|系|是|住|从|回|为|在)\s?"
    rf"(?P<value>[{HAN}]{{1,10}}?(?:{_ADMIN}|{_PLACE})[{HAN}\dA-Za-z\-]{{0,40}}?)(?=[，,"
    rf"。；;、！（(\s]|"
    rf"人[，,。]|收|就诊|赶来|独居|$)"
)
_FIRM = (
    "有限责任公司|有限公司|股份公司|公司|集团|厂|煤矿|矿务局|学院|大学|中学|小学|幼儿园|供电所|"
    "供电局|税务局|公安局|派出所|银行"
)
EMPLOYER = re.compile(
    rf"(?:系|在|是|于|单位[:：]?|任职于?|就职于?|供职于?|退休前?[为于])\s?"
    rf"(?P<value>[{HAN}]{{2,20}}?(?P<firm>{_FIRM}))(?!附属|"
    rf"医院)"
)
_STATES = r"(?:[A-Z]{2}|Iowa|Texas|Ohio|Maine|Utah|California|Florida|New York|Illinois)"
ADDRESS_EN = re.compile(
    r"(?<![\w/.#-])\d{1,5}\s(?:[NSEW]\.?\s)?(?:[A-Z0-9][\w.'’]*\s){1,4}"
    r"(?:Street|St\b|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Way|Place|Pl|"
    r"Terrace|Circle|Highway|Hwy|Parkway|Square)\b\.?"
    r"(?:,?\s(?:Apt|Apartment|Suite|Ste|Unit|Room|#)\.?\s?#?\w{1,6})?"
    rf"(?:,\s[A-Z][a-z]+(?:\s[A-Z][a-z]+){{0,2}}(?:,\s{_STATES}\b)?)?(?:\s\d{{5}}(?:-\d{{4}})?)?"
)
TOWN_EN = re.compile(
    r"(?:\b[Ll]ives? in|\b[Ll]iving in|\b[Rr]esid(?:es|ing|ent) (?:in|of)|\b[Nn]ative of|"
    r"\b[Bb]orn in|\b[Mm]oved (?:to|from))\s"
    rf"(?P<value>[A-Z][a-z]+(?:\s[A-Z][a-z]+){{0,2}}(?:,\s{_STATES}\b)?)"
)
_SUFFIX_EN = (
    r"(?:Hospitals?|Medical (?:Center|Group|Clinic)|Clinics?|Health (?:Center|System|Care)|"
    r"Nursing (?:Home|Facility)|Rehabilitation (?:Center|Hospital)|"
    r"Rehab|Hospice|Infirmary|Care Center|Surgery Center|Cancer (?:Center|Institute)|Heart "
    r"(?:Center|Institute)|Healthcare|Sanatorium)"
)
HOSPITAL_EN = re.compile(
    rf"(?P<value>\b(?:University of |(?:St|Mt|Ft)\. )?(?:[A-Z][\w&'’-]* (?:of (?:the )?|and |"
    rf"for )?){{1,6}}?{_SUFFIX_EN}\b(?: of [A-Z]\w+)?)"
)
_GENERIC_EN = frozenset(
    [
        "the",
        "a",
        "an",
        "at",
        "to",
        "in",
        "from",
        "our",
        "this",
        "that",
        "local",
        "emergency",
        "outpatient",
        "inpatient",
        "pain",
        "wound",
        "eye",
        "cardiology",
        "surgical",
        "mental",
        "health",
        "oncology",
        "orthopedic",
        "orthopaedic",
        "family",
        "specialty",
        "primary",
        "care",
        "urgent",
        "community",
        "day",
        "regional",
        "county",
        "city",
        "private",
        "public",
        "general",
        "acute",
        "psychiatric",
        "pediatric",
        "children's",
        "women's",
        "veterans",
        "veteran",
        "dental",
        "neurology",
        "surgery",
        "medical",
        "rehab",
        "rehabilitation",
        "nursing",
        "skilled",
        "home",
        "her",
        "his",
        "their",
        "discharge",
        "admission",
        "admit",
        "date",
        "other",
        "another",
        "outside",
        "referring",
        "walk-in",
        "follow-up",
        "and",
        "of",
        "for",
        "cancer",
        "heart",
        "clinic",
        "hospital",
        "center",
        "infusion",
        "coumadin",
        "anticoagulation",
        "diabetes",
        "hiv",
        "ent",
        "gi",
        "ob",
        "ob/gyn",
        "gyn",
        "prenatal",
        "sleep",
        "spine",
        "hand",
        "foot",
        "fertility",
        "allergy",
        "dermatology",
        "urology",
        "rheumatology",
        "he",
        "she",
        "was",
        "patient",
        "past",
    ]
)


def find_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of addresses, employers included; they may overlap."""
    for pattern in (LABELLED_ADDRESS, EMPLOYER):
        for match in pattern.finditer(text):
            start, end = match.span("value")
            if pattern is EMPLOYER:
                start = _after_lead(text, start, match.start("firm"))
                if match.start("firm") - start < 2:
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
            start = _after_lead(text, match.start(), _first_unit(match))
            if _is_address(text[start : match.end()], 2):
                yield start, match.end()
    if not text.isascii() and not re.search("[A-Z][a-z]", text):
        return
    for pattern in (ADDRESS_EN, TOWN_EN):
        for match in pattern.finditer(text):
            yield match.span(match.lastgroup or 0)


def find_hospitals(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of institutions of care that are named, not just 当地医院."""
    for pattern in (HOSPITAL, SHORT_HOSPITAL):
        for match in pattern.finditer(text):
            start = _after_lead(text, match.start(), match.start("suffix"))
            proper = SUFFIX.sub("", text[start : match.end("value")])
            if len(proper) >= 2 and not GENERIC.fullmatch(proper):
                yield start, match.end()
    for match in HOSPITAL_EN.finditer(text):
        start, end = match.span("value")
        tokens = list(re.finditer(r"\S+", text[start:end]))
        if all(token.group().lower().rstrip(".,") in _GENERIC_EN for token in tokens):
            continue
        lead = next(
            t
            for t in tokens
            if t.group().lower() not in ("the", "a", "at", "from", "to", "in", "our")
        )
        yield start + lead.start(), end


_ADMIN_UNIT = re.compile(_ADMIN)
_DETAIL = re.compile(_NUMBER)


def _is_address(value: str, min_units: int) -> bool:
    """A province, town or village with another place below it, or a street with a number."""
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


def _after_lead(text: str, start: int, stop: int) -> int:
    """Where the value begins without the words before `stop` that lead up to it: 至协和医院."""
    for match in LEAD.finditer(text, start, max(start, stop)):
        start = match.end()
    return start
