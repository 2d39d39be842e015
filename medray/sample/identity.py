"""Fictional identities: names, numbers, addresses of nobody.

In: the uncounted random stream. Out: `Identity`. Resident numbers carry a right check digit
(GB 11643, ISO 7064 MOD 11-2) but the region code 990000, which no region has.
"""

import random
from datetime import date, timedelta
from typing import NamedTuple

SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
GIVEN = (
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红建文志国春梅海云峰雪飞鹏宇晨佳欣"
    "琳璐博浩然子涵思远雨桐嘉怡俊豪"
)
CITIES = ("江宁", "临川", "安平", "青河", "云岭", "东港", "南屏", "北原", "西陵", "白沙")
HOSPITALS = (
    "第一人民医院",
    "中心医院",
    "第二人民医院",
    "中医院",
    "医科大学附属医院",
    "仁济医院",
)
ROADS = ("人民路", "解放路", "建设路", "中山路", "文化路", "和平街", "学府路", "滨河路")
ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
ID_CHECKS = "10X98765432"
EPOCH = date(2021, 1, 1)


class Identity(NamedTuple):
    """Who the patient is. All fictional."""

    name: str
    resident_id: str
    phone: str
    address: str
    mrn: str
    """Admission number."""
    admitted: date
    hospital: str
    doctor: str
    relative: str
    earlier: date
    """Date of an earlier visit elsewhere."""
    earlier_hospital: str


def check_digit(first_17: str) -> str:
    """The 18th character of a resident number: weighted sum modulo 11."""
    total = sum(int(d) * w for d, w in zip(first_17, ID_WEIGHTS, strict=True))
    return ID_CHECKS[total % 11]


def draw_identity(rng: random.Random, age: int, sex: int, hospital: str) -> Identity:
    """An identity that fits age and sex (0 female, 1 male)."""
    admitted = EPOCH + timedelta(days=rng.randrange(1400))
    born = admitted - timedelta(days=age * 365 + 30 + rng.randrange(300))
    body = f"990{rng.randrange(1000):03d}{born:%Y%m%d}{rng.randrange(100):02d}"
    body += str(rng.randrange(5) * 2 + sex)
    city = rng.choice(CITIES)
    road = f"{rng.choice(ROADS)}{rng.randrange(1, 300)}号"
    return Identity(
        name=draw_name(rng),
        resident_id=body + check_digit(body),
        phone=f"1{rng.choice('3578')}{rng.randrange(10**9):09d}",
        address=f"{city}市{road}{rng.randrange(1, 30)}栋{rng.randrange(101, 1299)}室",
        mrn=f"ZY{rng.randrange(10**8):08d}",
        admitted=admitted,
        hospital=hospital,
        doctor=draw_name(rng),
        relative=draw_name(rng),
        earlier=admitted - timedelta(days=rng.randrange(20, 700)),
        earlier_hospital=draw_hospital(rng),
    )


def draw_name(rng: random.Random) -> str:
    """A surname and a given name of one or two characters."""
    given = "".join(rng.choice(GIVEN) for _ in range(1 + (rng.random() < 0.7)))
    return rng.choice(SURNAMES) + given


def draw_hospital(rng: random.Random) -> str:
    """A hospital in a city that does not exist."""
    return f"{rng.choice(CITIES)}市{rng.choice(HOSPITALS)}"


def write_date(rng: random.Random, day: date) -> str:
    """A date in one of the notations that records use."""
    form = rng.randrange(3)
    if form == 0:
        return f"{day.year}年{day.month}月{day.day}日"
    return day.isoformat() if form == 1 else f"{day:%Y.%m.%d}"
