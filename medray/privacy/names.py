"""Personal names in Chinese clinical text. In: text. Out: spans of names and whether the person
is a doctor.

A surname list alone finds a name in every 黄疸 and 白蛋白, so a name needs a field label, or a
label word and a surname and no medical word. Source: EVALUATION.md 4.
"""

import re
from collections.abc import Iterator

SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程"
    "苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝"
    "龚邵万钱严覃武戴莫孔向汤温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷詹申欧耿关兰焦俞柳"
    "甘祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷盛曲翁冉骆蓝路游辛靳傅屈萧"
)
COMPOUND = "欧阳|上官|司马|诸葛|东方|皇甫|尉迟|公孙|慕容|令狐|司徒|夏侯"
HAN = "\u4e00-\u9fff"

# Words of clinical text that start with a surname and could pass for one.
MEDICAL_WORDS = """
黄疸 黄染 黄斑 黄体 黄芪 黄连 黄绿 黄痰 黄色 黄白 白带 白痰 白色 白蛋白
白细胞 白血病 白内障 白天 白癜风 高热 高烧 高龄 高危 高度 高压 高脂 高糖
高血压 高血糖 高血脂 高尿酸 高钾 高枕 高年资 高位 高级 安静 安好 安排 安全
安眠 安慰 康复 任何 何时 何种 何处 马上 毛发 毛糙 石膏 石淋 金属 龙胆 武断
方可 方才 方能 梅毒 霍乱 凌晨 莫名 焦虑 包块 包皮 包括 颜面 温度 温热 童年
季节 单独 单侧 单纯 单位 易感 易怒 易醒 易饥 舒适 陆续 严重 严格 夏季 江湖
雷同 万一 牛奶 牛皮癣 胡言 胡须 关节 关注 兰尾 宁静 余无 余可 余不 成年 成功
曲张 游走 辛辣 路过 路人 向上 向下 文化 文盲 向左 向右 苗条 盛怒 纪录 申请
申诉 章节 符合 尚可 尚好 尚无 段落 常规 叶酸 田间 金黄 时有 程度 连续 曾有
曾行 曾在 曾因 曾于 曾服 曾用 付费 何故 谢绝 许可 顾虑 甘露醇 于今 于昨 于前
于我 于外 于当 于本 于门 于急 于晨 于夜 于家 于近 于上 于下 于年 于入 于术
于出 于劳 于受 于进 于活 于饮 于餐 于睡 于静 于数 于半 于凌 于安 于无
"""
# Characters that hardly stand in a given name but often in a finding, a time or a function word.
NOT_IN_NAMES = frozenset(
    "疸疹斑痛咳喘肿瘤癌症病炎热烧血压糖脂胞尿便食欲痰汗吐泻晕厥胀闷悸疼痒麻木溃疡肺肾胃肠肝脾胸腹腰背肢颅"
    "脑颈膝关节骨的了无未有不否已曾再又均可能院科室诊治疗药术后前昨今年日周时岁夜晚我本外当入出转复"
    "感觉因于自诉述是为及或与和并至到在从由被将行予给服用查见示提体脉舌苔面色神情绪精检"
)
TITLES = "(?:副?主任|主治|住院|经治|值班)?(?:医师|医生|大夫)|副?主任|副?教授|护士长?|护师|技师"
STRONG_NAME = (
    "(?:患者|病人|家属|联系人|监护人|产妇|孕妇|新生儿|受检者|委托人)?姓名|联系人|监护人|患者签[名字]|"
    "家属签[名字]|病史陈述者|供史者|被委托人"
)
WEAK_NAME = (
    "患者|病人|患儿|产妇|孕妇|家属|其父|其母|其妻|其夫|其子|其女|父亲|母亲|妻子|丈夫|"
    "儿子|女儿|配偶|陪同人"
)
STRONG_DOCTOR = (
    "(?:主管|主治|住院|经治|管床|主任|副主任|报告|审核|麻醉|手术|记录|接诊|责任|值班|会诊)?"
    "(?:医师|医生|护士)(?:签[名字])?|术者|手术者|主刀|第?[一二三]助手?|麻醉者|记录者|记录人|书写者|"
    "审核者|报告者|签名|查房者"
)
FOLLOWS = "性别|年龄|男|女|民族|婚|职业|出生|身份|电话|联系|科室|床号|住院|与|关系|工作|住址"
FULL_NAME = (
    f"(?P<name>[{HAN}]+(?:·[{HAN}]+)+|[{HAN}]{{2,4}}?(?={FOLLOWS}|[^{HAN}]|$)"
    f"|[{HAN}][ \u3000][{HAN}]{{1,2}}(?=[^{HAN}]|$)|[A-Z][A-Za-z]+(?:[ ·][A-Z][A-Za-z]+)*"
    f"|(?:{COMPOUND}|[{SURNAMES}])[{HAN}]{{2}})"
)
SURNAMED = f"(?P<name>(?:{COMPOUND}|[{SURNAMES}])[{HAN}]{{%s}}?)"
AFTER_NAME = (
    r"(?=[，,。；;、:：\s（(）)/]|男|女|因|诉|代诉|代述|签|同意|来院|到院|入院|就诊|陪同|陪伴|护送|代为|"
    r"要求|拒绝|在场|表示|知情|转述|为|$)"
)

_NAME_LABELLED = re.compile(rf"(?:{STRONG_NAME})\s*[:：]\s*{FULL_NAME}")
_NAME_WEAK = re.compile(rf"(?:{WEAK_NAME})[:：]?\s*{SURNAMED % '1,2'}{AFTER_NAME}")
_NAME_ADDRESSED = re.compile(rf"{SURNAMED % '0,2'}(?=先生|女士|小姐|阿姨|大爷|大妈|奶奶|爷爷|同志)")
_DOCTOR_LABELLED = re.compile(rf"(?:{STRONG_DOCTOR})\s*[:：]\s*{FULL_NAME}")
_DOCTOR_TITLED = re.compile(rf"{SURNAMED % '0,2'}(?=\s?(?:{TITLES}))")


def find_names(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yields (start, end, is_doctor) of every name, in no order; the same name may come twice."""
    for pattern, is_doctor, is_strong in (
        (_NAME_LABELLED, False, True),
        (_DOCTOR_LABELLED, True, True),
        (_NAME_WEAK, False, False),
        (_NAME_ADDRESSED, False, False),
        (_DOCTOR_TITLED, True, False),
    ):
        for match in pattern.finditer(text):
            start, end = match.span("name")
            if is_strong or _is_plausible(text, start, end):
                yield start, end, is_doctor


def _is_plausible(text: str, start: int, end: int) -> bool:
    """False where the would-be name is medical language: 黄疸, 于我院, 高年资."""
    name = text[start:end]
    given = name[2:] if re.match(COMPOUND, name) else name[1:]
    if not given:  # 于主任: a lone surname that is also a function word
        return name not in "于向成曾何任单安方高尚向易关" and text[start - 1 : start] not in (
            "主",
            "副",
        )
    if any(text.startswith(word, start) for word in _words_from(name[0])):
        return False
    return not any(character in NOT_IN_NAMES for character in given)


_BY_SURNAME: dict[str, list[str]] = {}
for _word in MEDICAL_WORDS.split():
    _BY_SURNAME.setdefault(_word[0], []).append(_word)


def _words_from(surname: str) -> list[str]:
    return _BY_SURNAME.get(surname, [])
