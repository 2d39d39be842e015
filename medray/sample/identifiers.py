"""Identifiers of nobody, in the many forms that records write them.

In: a random stream. Out: values as text. Wider than `identity`, which the sample hospital's
records use: compound, rare and minority names, landlines, numbers with blanks or in full width,
dates in twenty forms. Resident numbers carry a right check digit and a region that does not exist.
"""

import random
from datetime import date, timedelta
from pathlib import Path

import yaml

from medray.sample.identity import check_digit

PARTS: dict[str, list[str]] = yaml.safe_load(
    Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
)
"""Names, places and institutions of nobody and nowhere."""

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
        return rng.choice(PARTS["minority"])
    surname = rng.choice(PARTS["compound"]) if draw < 0.18 else rng.choice(PARTS["surnames"])
    given = rng.choice(PARTS["rare_given"] if rng.random() < 0.17 else PARTS["common_given"])
    if len(surname + given) == 2 and rng.random() < 0.05:
        return f"{surname} {given}"
    return surname + given


def draw_name_en(rng: random.Random) -> str:
    """An English name, mostly first and last."""
    first, last = rng.choice(PARTS["first"]), rng.choice(PARTS["last"])
    form = rng.randrange(8)
    if form == 0:
        return f"{first} {rng.choice('ABCDEFGHJKLMRSTW')}. {last}"
    return f"{last}, {first}" if form == 1 else f"{first} {last}"


def draw_address(rng: random.Random) -> str:
    """Where somebody lives: town or country, whole or in part."""
    city = f"{rng.choice(PARTS['provinces'])}{rng.choice(PARTS['cities'])}市"
    road = f"{rng.choice(PARTS['roads'])}{rng.randrange(1, 900)}号"
    flat = f"{rng.randrange(1, 30)}栋{rng.randrange(1, 5)}单元{rng.randrange(101, 3203)}室"
    estate = rng.choice(PARTS["estates"])
    return rng.choice(
        (
            f"{city}{road}{flat}",
            f"{city}{rng.choice(PARTS['districts'])}{road}",
            f"{city}{rng.choice(PARTS['districts'])}{estate}{rng.randrange(1, 40)}号楼"
            f"{rng.randrange(101, 2805)}",
            f"{rng.choice(PARTS['cities'])}县{rng.choice(PARTS['towns'])}"
            f"{rng.choice(PARTS['villages'])}{rng.randrange(1, 20)}"
            f"组",
            f"{city}{rng.choice(PARTS['districts'])}{rng.choice(PARTS['towns'])}"
            f"{rng.choice(PARTS['villages'])}",
            f"{road}{estate}{flat}",
            f"{rng.choice(PARTS['cities'])}市{rng.choice(PARTS['districts'])}",
            f"{estate}{rng.randrange(1, 40)}-{rng.randrange(1, 5)}-{rng.randrange(101, 2805)}",
            f"{rng.choice(PARTS['towns'])}{rng.choice(PARTS['villages'])}",
        )
    )


def draw_address_en(rng: random.Random) -> str:
    """A street address."""
    street = f"{rng.randrange(1, 9999)} {rng.choice(PARTS['streets_en'])}"
    unit = rng.choice(
        (
            "",
            "",
            f", Apt {rng.randrange(1, 40)}{rng.choice('ABC')}",
            f", Suite {rng.randrange(100, 900)}",
        )
    )
    town = rng.choice(PARTS["towns_en"])
    return f"{street}{unit}" + (f", {town}" if town else "")


def draw_hospital(rng: random.Random) -> str:
    """A named institution of care."""
    return rng.choice(PARTS["hospitals"]).format(
        c=rng.choice(PARTS["cities"]), n=rng.choice("二三四五六七八九")
    )


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
    domain = rng.choice(PARTS["domains"])
    return rng.choice(
        (f"{user}@{domain}",) * 4
        + (f"{user} @ {domain}", f"{user}＠{domain}", f"{user}@{domain}".upper())
    )


def draw_url(rng: random.Random) -> str:
    """A page of a domain that documentation may use, or an address of a private network."""
    page = f"{rng.choice(('report', 'pacs/view', 'q'))}?id={rng.randrange(10**6)}"
    return rng.choice(
        (
            f"https://www.hospital.example.org/{page}",
            f"http://pacs.example.com:8080/{page}",
            "www.example.org",
            f"192.168.{rng.randrange(256)}.{rng.randrange(1, 255)}",
            f"10.{rng.randrange(256)}.{rng.randrange(32, 256)}.{rng.randrange(1, 255)}",
        )
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
