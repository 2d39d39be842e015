"""Identifiers of nobody, in the many forms that records write them.

In: a random stream. Out: values as text. Wider than `identity`, which the sample hospital's
records use: compound, rare and minority names, landlines, numbers with blanks or in full width,
dates in twenty forms. Resident numbers carry a right check digit and a region that does not exist.
"""

import random
from datetime import date, timedelta

from medray.sample.identity import check_digit

SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛"
    "叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔"
    "贺赖龚文安向辛管殷温季古丛鲍尤岑鄢蔺仇宁甄芮郜缪晏柴桑卓瞿褚娄匡闵"
)
COMPOUND = (
    "欧阳",
    "上官",
    "司马",
    "诸葛",
    "皇甫",
    "尉迟",
    "公孙",
    "慕容",
    "令狐",
    "司徒",
    "夏侯",
    "东方",
)
COMMON_GIVEN = [
    "建国",
    "秀英",
    "志强",
    "丽华",
    "淑珍",
    "桂兰",
    "玉梅",
    "国庆",
    "海燕",
    "晓明",
    "雪梅",
    "文杰",
    "子轩",
    "梓涵",
    "雨桐",
    "浩然",
    "思远",
    "佳怡",
    "俊杰",
    "一诺",
    "欣怡",
    "宇航",
    "春花",
    "秋菊",
    "福生",
    "长贵",
    "根宝",
    "金凤",
    "凤霞",
    "银花",
    "水生",
    "德胜",
    "爱民",
    "卫东",
    "红卫",
    "援朝",
    "跃进",
    "立新",
    "永康",
    "振华",
    "兴旺",
    "家豪",
    "婷婷",
    "莉莉",
    "圆圆",
    "乐乐",
    "伟",
    "芳",
    "娜",
    "敏",
    "静",
    "强",
    "磊",
    "军",
    "洋",
    "勇",
    "艳",
    "杰",
    "娟",
    "涛",
    "超",
    "霞",
    "平",
    "刚",
    "辉",
    "琴",
    "玲",
    "燕",
    "斌",
    "波",
    "宁",
    "健",
    "鑫",
    "琪",
    "晨曦",
    "若曦",
    "沐宸",
    "可馨",
    "诗涵",
    "天佑",
    "安琪",
    "乐天",
    "明月",
    "清源",
    "长安",
    "平安",
    "健康",
    "来福",
    "小妹",
    "大成",
    "胜男",
    "招娣",
    "文化",
    "向阳",
    "高峰",
]
RARE_GIVEN = [
    "彧",
    "翀",
    "燚",
    "垚",
    "赟",
    "祎",
    "曌",
    "喆",
    "頔",
    "骁",
    "翊然",
    "昱霏",
    "甯远",
    "芃芃",
    "韫玉",
    "淼淼",
    "懿轩",
    "濯缨",
    "湜",
    "焱",
    "瑀璠",
    "旸",
    "玘",
    "粲然",
    "攸宁",
    "偲琪",
    "嵘",
    "岫云",
    "霁月",
    "蘅芜",
    "砚",
    "椿",
    "楠",
    "煜祺",
    "烨磊",
    "晗",
    "翾",
    "颢",
    "苡沫",
    "祺",
    "鹭",
    "骞",
    "晁",
    "桉",
    "豆豆",
    "拾",
    "九妹",
    "六斤",
    "石头",
]
MINORITY = (
    "阿卜杜拉·买买提",
    "古丽娜尔·艾山",
    "买买提江·吐尔逊",
    "阿依古丽·热合曼",
    "巴特尔·额尔敦",
    "迪丽热巴·木合塔尔",
    "扎西·次仁",
    "库尔班·依明",
    "帕提古丽·阿不都热依木",
    "努尔兰·哈布都拉",
)
FIRST = [
    "James",
    "Mary",
    "Robert",
    "Patricia",
    "John",
    "Jennifer",
    "Michael",
    "Linda",
    "David",
    "Elizabeth",
    "William",
    "Susan",
    "Carlos",
    "Maria",
    "Wei",
    "Aisha",
    "Dmitri",
    "Fatima",
    "Grace",
    "Will",
    "Mark",
    "Rose",
    "June",
    "Hunter",
    "Chase",
    "Joy",
    "Hope",
    "Siobhan",
    "Oluwaseun",
    "Priya",
    "Nguyen",
    "Thomas",
    "Anne-Marie",
]
LAST = [
    "Smith",
    "Johnson",
    "Williams",
    "Brown",
    "Garcia",
    "Miller",
    "Davis",
    "Martinez",
    "Lopez",
    "Wilson",
    "Anderson",
    "Taylor",
    "Moore",
    "Jackson",
    "Lee",
    "O'Brien",
    "McDonald",
    "Nguyen",
    "Patel",
    "Kowalski",
    "van-Dyke",
    "Okafor",
    "Petrov",
    "Haddad",
    "Yamamoto",
    "Young",
    "White",
    "Bush",
    "Rice",
    "Long",
    "Wood",
    "Fernandez-Ruiz",
    "DeLuca",
    "Schwarzkopf",
    "Achterberg",
]
PROVINCES = (
    "江西省",
    "安徽省",
    "山东省",
    "河北省",
    "四川省",
    "云南省",
    "黑龙江省",
    "广西壮族自治区",
    "内蒙古自治区",
    "",
)
CITIES = (
    "江宁",
    "临川",
    "安平",
    "青河",
    "云岭",
    "东港",
    "南屏",
    "北原",
    "西陵",
    "白沙",
    "石门",
    "金沙",
    "长岭",
    "和田坝",
)
DISTRICTS = (
    "城关区",
    "东湖区",
    "高新区",
    "青山区",
    "河东区",
    "新城区",
    "平安县",
    "白云县",
    "黄陂县",
    "龙泉镇",
)
ROADS = (
    "人民路",
    "解放大道",
    "建设路",
    "中山北路",
    "文化街",
    "和平里",
    "学府路",
    "滨河东路",
    "新华胡同",
    "长春巷",
    "八一大街",
)
ESTATES = (
    "阳光花园",
    "翠湖小区",
    "金色家园",
    "锦绣苑",
    "东方名城",
    "机关家属院",
    "丽景湾",
    "教师公寓",
)
VILLAGES = ("白沙村", "李家庄", "王家湾村", "大河坝村", "三岔口村", "柳树屯", "石桥村", "上坪村")
TOWNS = ("清水镇", "龙泉镇", "马家乡", "大营镇", "三河乡", "桃源镇")
FIRMS = (
    "红星机械厂",
    "东方纺织有限公司",
    "安平市第三中学",
    "云岭煤矿",
    "江宁大学",
    "青河县税务局",
    "宏达物流公司",
    "南屏小学",
    "金沙供电所",
    "华光电子集团",
)
HOSPITALS = (
    "{c}市第一人民医院",
    "{c}市中心医院",
    "{c}县人民医院",
    "{c}市中医院",
    "{c}医科大学附属第二医院",
    "{c}县妇幼保健院",
    "仁济医院",
    "同德医院",
    "{c}市第{n}医院",
    "{c}镇中心卫生院",
    "{c}街道社区卫生服务中心",
    "{c}大学附属肿瘤医院",
    "{c}眼科医院",
    "{c}市传染病医院",
    "武警{c}总队医院",
    "解放军第{n}{n}{n}医院",
    "{c}钢铁公司职工医院",
    "{c}疗养院",
    "康宁体检中心",
    "{c}市急救中心",
    "{c}精神卫生中心",
    "{c}博爱医院",
    "广济骨科医院",
    "{c}儿童医院",
    "{c}口腔门诊部",
)
HOSPITALS_EN = (
    "Eastport General Hospital",
    "St. Mary's Medical Center",
    "Northfield Clinic",
    "Riverside Community Hospital",
    "Lakeview Memorial Hospital",
    "University of Westbrook Medical Center",
    "Mercy Hospital",
    "Brookdale Nursing Home",
    "Harbor Rehabilitation Center",
    "St. Luke's Hospital",
    "Pinewood Children's Hospital",
    "Cedar Valley Health Center",
)
STREETS_EN = (
    "Maple Street",
    "Oak Avenue",
    "Elm St.",
    "Park Road",
    "Washington Blvd",
    "Hillcrest Drive",
    "Birch Lane",
    "2nd Ave",
)
TOWNS_EN = (
    "Springfield, IL 62704",
    "Eastport, ME 04631",
    "Westbrook, CT",
    "Northfield",
    "Cedar Falls, Iowa",
    "",
)
DOMAINS = (
    "163.com",
    "qq.com",
    "126.com",
    "hotmail.com",
    "mail.example.cn",
    "hospital.example.org",
    "sina.com.cn",
)
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
NUMERALS = "〇一二三四五六七八九"
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


def draw_name(rng: random.Random) -> str:
    """A Chinese name: one in twelve of a minority, one in ten with a compound surname, one in six
    with a rare given name; some with the blank that a form's layout leaves."""
    draw = rng.random()
    if draw < 0.08:
        return rng.choice(MINORITY)
    surname = rng.choice(COMPOUND) if draw < 0.18 else rng.choice(SURNAMES)
    given = rng.choice(RARE_GIVEN if rng.random() < 0.17 else COMMON_GIVEN)
    if len(surname + given) == 2 and rng.random() < 0.05:
        return f"{surname} {given}"
    return surname + given


def draw_name_en(rng: random.Random) -> str:
    """An English name, mostly first and last."""
    first, last = rng.choice(FIRST), rng.choice(LAST)
    form = rng.randrange(8)
    if form == 0:
        return f"{first} {rng.choice('ABCDEFGHJKLMRSTW')}. {last}"
    return f"{last}, {first}" if form == 1 else f"{first} {last}"


def draw_address(rng: random.Random) -> str:
    """Where somebody lives: town or country, whole or in part."""
    city = f"{rng.choice(PROVINCES)}{rng.choice(CITIES)}市"
    road = f"{rng.choice(ROADS)}{rng.randrange(1, 900)}号"
    flat = f"{rng.randrange(1, 30)}栋{rng.randrange(1, 5)}单元{rng.randrange(101, 3203)}室"
    estate = rng.choice(ESTATES)
    return rng.choice(
        (
            f"{city}{road}{flat}",
            f"{city}{rng.choice(DISTRICTS)}{road}",
            f"{city}{rng.choice(DISTRICTS)}{estate}{rng.randrange(1, 40)}号楼"
            f"{rng.randrange(101, 2805)}",
            f"{rng.choice(CITIES)}县{rng.choice(TOWNS)}{rng.choice(VILLAGES)}{rng.randrange(1, 20)}"
            f"组",
            f"{city}{rng.choice(DISTRICTS)}{rng.choice(TOWNS)}{rng.choice(VILLAGES)}",
            f"{road}{estate}{flat}",
            f"{rng.choice(CITIES)}市{rng.choice(DISTRICTS)}",
            f"{estate}{rng.randrange(1, 40)}-{rng.randrange(1, 5)}-{rng.randrange(101, 2805)}",
            f"{rng.choice(TOWNS)}{rng.choice(VILLAGES)}",
        )
    )


def draw_address_en(rng: random.Random) -> str:
    """A street address."""
    street = f"{rng.randrange(1, 9999)} {rng.choice(STREETS_EN)}"
    unit = rng.choice(
        (
            "",
            "",
            f", Apt {rng.randrange(1, 40)}{rng.choice('ABC')}",
            f", Suite {rng.randrange(100, 900)}",
        )
    )
    town = rng.choice(TOWNS_EN)
    return f"{street}{unit}" + (f", {town}" if town else "")


def draw_hospital(rng: random.Random) -> str:
    """A named institution of care."""
    return rng.choice(HOSPITALS).format(c=rng.choice(CITIES), n=rng.choice("二三四五六七八九"))


def draw_phone(rng: random.Random) -> str:
    """A mobile number or a landline."""
    operator = rng.choice(("13", "15", "17", "18", "19"))
    a, b, c = (
        f"{operator}{rng.randrange(10)}",
        f"{rng.randrange(10**4):04d}",
        f"{rng.randrange(10**4):04d}",
    )
    area, line = (
        rng.choice(("010", "021", "0571", "0871", "0451")),
        f"{rng.randrange(2, 9)}{rng.randrange(10**7):07d}",
    )
    return rng.choice(
        (
            a + b + c,
            a + b + c,
            f"{a} {b} {c}",
            f"{a}-{b}-{c}",
            f"+86 {a}{b}{c}",
            f"86-{a}{b}{c}",
            wide(a + b + c),
            f"{a + b[:2]} {b[2:] + c}",
            f"{area}-{line}",
            f"({area}){line}",
            f"（{area}）{line}",
            f"{area}{line}",
            f"{area} {line}",
            f"{area}-{line}转{rng.randrange(100, 9999)}",
            f"{area}-{line}-{rng.randrange(100, 9999)}",
        )
    )


def draw_phone_en(rng: random.Random) -> str:
    """A North American number of the fictional exchange 555."""
    area, line = rng.randrange(201, 989), f"{rng.randrange(10**4):04d}"
    return rng.choice(
        (
            f"({area}) 555-{line}",
            f"{area}-555-{line}",
            f"{area}.555.{line}",
            f"1-{area}-555-{line}",
            f"+1 {area} 555 {line}",
            f"555-{line}",
            f"{area}-555-{line} ext. {rng.randrange(10, 999)}",
        )
    )


def draw_resident_id(rng: random.Random) -> str:
    """A resident number; sometimes in groups, in full width or with a small x."""
    born = date(1925, 1, 1) + timedelta(days=rng.randrange(34_000))
    body = f"990{rng.randrange(1000):03d}{born:%Y%m%d}{rng.randrange(1000):03d}"
    number = body + check_digit(body)
    return rng.choice(
        (
            number,
            number,
            number,
            number.lower(),
            wide(number),
            f"{number[:6]} {number[6:14]} {number[14:]}",
        )
    )


def draw_ssn(rng: random.Random) -> str:
    """A social security number of the area 900, which is never given out."""
    return f"9{rng.randrange(100):02d}-{rng.randrange(1, 100):02d}-{rng.randrange(1, 10**4):04d}"


def draw_mrn(rng: random.Random) -> str:
    """A number of an admission, a visit, a specimen or a film."""
    number = f"{rng.randrange(10**8):08d}"
    return rng.choice(
        (
            f"ZY{number}",
            number,
            number[:7],
            number[:6],
            f"B{number[:7]}",
            f"20{rng.randrange(10, 26)}-{number[:5]}",
            wide(number),
            f"{number[:2]} {number[2:5]} {number[5:]}",
            f"MZ-{number[:6]}",
            f"{number}{number[:2]}",
        )
    )


def draw_bed(rng: random.Random) -> str:
    """A bed, without 床."""
    number = rng.randrange(1, 68)
    return rng.choice(
        (
            f"{number}",
            f"{number:02d}",
            f"+{number % 20 + 1}",
            f"加{number % 9 + 1}",
            f"{rng.randrange(1, 20)}-{number}",
            f"{rng.choice('ABC')}{number:02d}",
            wide(str(number)),
        )
    )


def draw_email(rng: random.Random) -> str:
    """An address; sometimes with the blanks or the sign of a scanned form."""
    user = rng.choice(
        ("wangjg", "li.wei", "zhao_min88", "x1990", "chen-xy", "13900001111", "happy_sun")
    )
    domain = rng.choice(DOMAINS)
    return rng.choice(
        (f"{user}@{domain}",) * 4
        + (f"{user} @ {domain}", f"{user}＠{domain}", f"{user}@{domain}".upper())
    )


def draw_plate(rng: random.Random) -> str:
    """A licence plate; a new-energy one has six signs."""
    body = "".join(rng.choice("0123456789ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(4)) + str(
        rng.randrange(10)
    )
    head = rng.choice(
        "京沪津渝冀豫云辽黑湘皖鲁苏浙赣鄂桂甘晋蒙陕吉闽贵粤川青藏琼宁新"
    ) + rng.choice("ABCDEFG")
    return rng.choice(
        (f"{head}{body}", f"{head}·{body}", f"{head} {body}", f"{head}{rng.choice('DF')}{body}")
    )


def draw_card(rng: random.Random) -> str:
    """A bank card number whose Luhn digit is right."""
    body = f"622{rng.randrange(10**15):015d}"
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(body)))
    number = body + str(-total % 10)
    return rng.choice((number, number, " ".join(number[i : i + 4] for i in range(0, 19, 4))))


def draw_account(rng: random.Random) -> str:
    """A WeChat or QQ number."""
    return rng.choice(
        (
            f"wxid_{rng.randrange(10**6):06d}ab",
            f"lily{rng.randrange(1000, 9999)}",
            f"{rng.randrange(10**5, 10**10)}",
            f"zhang_{rng.randrange(1960, 2010)}",
        )
    )


def draw_day(rng: random.Random) -> date:
    """A day of the years that records speak of."""
    return date(1996, 1, 1) + timedelta(days=rng.randrange(10_800))


def write_day(rng: random.Random, day: date) -> str:
    """A Chinese notation of a day, or of its month; a birth of before 2000 is written alike."""
    y, m, d = day.year, day.month, day.day
    return rng.choice(
        (
            f"{y}年{m}月{d}日",
            f"{y}年{m:02d}月{d:02d}日",
            f"{y}-{m:02d}-{d:02d}",
            f"{y}/{m}/{d}",
            f"{y}.{m:02d}.{d:02d}",
            f"{y}.{m}.{d}",
            f"{y}{m:02d}{d:02d}",
            f"{m}月{d}日",
            f"{m}月{d}号",
            f"{y}年{m}月",
            f"{y}-{m:02d}",
            f"{y} 年 {m} 月 {d} 日",
            wide(f"{y}-{m:02d}-{d:02d}"),
            wide(str(y)) + f"年{wide(str(m))}月{wide(str(d))}日",
            f"{numeral_year(y)}年{numeral(m)}月{numeral(d)}日",
            f"{numeral_year(y).replace('〇', '零')}年{numeral(m)}月",
            f"{numeral(m)}月{numeral(d)}日",
            f"{y % 100:02d}年{m}月{d}日",
            f"{y % 100:02d}.{m}.{d}",
            f"{y}- {m:02d} -{d:02d}",
            f"{y}年{m}月{d}号",
        )
    )


def write_day_en(rng: random.Random, day: date) -> str:
    """An English notation of a day, or of its month."""
    name, y, m, d = MONTHS[day.month - 1], day.year, day.month, day.day
    return rng.choice(
        (
            f"{name} {d}, {y}",
            f"{d} {name} {y}",
            f"{m:02d}/{d:02d}/{y}",
            f"{m}/{d}/{y % 100:02d}",
            f"{y}-{m:02d}-{d:02d}",
            f"{name} {d}",
            f"{name[:3]} {d}, {y}",
            f"{d:02d}-{name[:3]}-{y}",
            f"{name} {y}",
            f"{name} {ordinal(d)}, {y}",
            f"{m:02d}-{d:02d}-{y}",
            f"{name[:3].upper()} {d:02d} {y}",
            f"{m}/{d}",
        )
    )


def ordinal(number: int) -> str:
    """1 → 1st, 12 → 12th, 23 → 23rd."""
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def numeral(number: int) -> str:
    """1 to 31 as 一 to 三十一."""
    tens, ones = divmod(number, 10)
    return (("" if tens == 1 else NUMERALS[tens]) + "十" if tens else "") + (
        NUMERALS[ones] if ones else ""
    )


def numeral_year(year: int) -> str:
    """2023 → 二〇二三."""
    return "".join(NUMERALS[int(digit)] for digit in str(year))


def wide(text: str) -> str:
    """Full-width forms of ASCII letters, digits and signs."""
    return text.translate(FULL_WIDTH)
