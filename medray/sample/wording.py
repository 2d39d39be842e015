"""Wording templates filled with identifiers of nobody. In: a template file. Out: text and spans.

A template is a string with typed slots, {NAME} or {DATE2}; the format is documented at the head of
benchmarks/phi_templates/tuning.yaml. Anybody may write such a file to try the recogniser on wording
that it was not made for.
"""

import random
import re
from datetime import timedelta
from pathlib import Path

import yaml

from medray.common.errors import DataError
from medray.sample import identifiers as ids
from medray.sample.text import Span

# Slot → class of the benchmark; None is no PHI.
SLOTS: dict[str, str | None] = {
    "NAME": "name",
    "RELATIVE": "name",
    "DOCTOR": "name",
    "DATE": "date",
    "YEAR": "date",
    "ADDRESS": "address",
    "EMPLOYER": "address",
    "PHONE": "phone",
    "ID": "id",
    "INSURANCE": "id",
    "PASSPORT": "id",
    "CARD": "id",
    "PLATE": "id",
    "ACCOUNT": "id",
    "MRN": "record_or_bed",
    "BED": "record_or_bed",
    "HOSPITAL": "institution",
    "EMAIL": "email",
    "URL": "url",
    "AGE": None,
    "SEX": None,
    "COMPLAINT": None,
    "FINDING": None,
    "DIAGNOSIS": None,
    "DRUG": None,
    "DEPARTMENT": None,
}
CLASSES = (*dict.fromkeys(name for name in SLOTS.values() if name), "age")
MAX_AGE = 89
"""Safe Harbor: a higher age is an identifier."""
_SLOT = re.compile(r"\{\{|\}\}|\{([A-Z]+)(\d*)\}")
_HAN = re.compile("[\u4e00-\u9fff]")

FILLERS = {
    True: {
        "SEX": ("男", "女"),
        "COMPLAINT": (
            "咳嗽咳痰3天",
            "反复胸闷半年",
            "腹痛伴呕吐",
            "头晕乏力",
            "右下肢肿胀疼痛",
            "发热2天",
        ),
        "FINDING": (
            "双肺呼吸音粗",
            "未见明显异常",
            "左室射血分数58%",
            "肝内低密度灶约2.3×1.8cm",
            "白细胞12.6×10^9/L",
            "伤口愈合良好",
            "血压138/86mmHg",
            "心肺听诊无异常",
        ),
        "DIAGNOSIS": (
            "高血压病3级",
            "2型糖尿病",
            "肺部感染",
            "冠心病",
            "胃窦癌",
            "脑梗死",
            "白血病",
            "黄疸待查",
        ),
        "DRUG": ("阿司匹林100mg", "头孢曲松2g", "二甲双胍0.5g", "甘露醇125ml", "白蛋白10g"),
        "DEPARTMENT": ("心内科", "普外科", "呼吸与危重症医学科", "ICU", "肿瘤科", "神经外科"),
    },
    False: {
        "SEX": ("male", "female"),
        "COMPLAINT": (
            "chest pain",
            "shortness of breath",
            "a 3-day history of fever",
            "low back pain",
            "syncope",
        ),
        "FINDING": (
            "lungs clear to auscultation",
            "2/6 systolic murmur",
            "blood pressure 132/78",
            "no acute distress",
            "Babinski sign negative",
            "WBC 12.3",
        ),
        "DIAGNOSIS": (
            "type 2 diabetes mellitus",
            "Parkinson disease",
            "pneumonia",
            "Crohn disease",
        ),
        "DRUG": ("aspirin 81 mg", "metoprolol 25 mg", "Lasix 40 mg", "ceftriaxone 1 g"),
        "DEPARTMENT": ("Cardiology", "the ICU", "General Surgery", "Neurology"),
    },
}


def load_templates(path: Path) -> list[str]:
    """Reads a template file.

    Raises:
        DataError: if the file cannot be read, is not of the form, or names an unknown slot.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"template file {path} cannot be read: {error}") from None
    templates = content.get("templates") if isinstance(content, dict) else None
    if not isinstance(templates, list) or not all(isinstance(t, str) and t for t in templates):
        raise DataError(f"{path} must hold `templates`, a list of strings")
    for number, template in enumerate(templates, 1):
        for match in _SLOT.finditer(template):
            if match[1] is not None and match[1] not in SLOTS:
                known = ", ".join(SLOTS)
                raise DataError(f"{path}, template {number}: no slot {match[1]}; there are {known}")
    if not templates:
        raise DataError(f"{path} holds no template")
    return templates


def is_chinese(template: str) -> bool:
    """Whether a template gets Chinese values."""
    return _HAN.search(template) is not None


class Filler:
    """Fills the templates of one record: its patient stays the same person."""

    def __init__(self, rng: random.Random, chinese: bool) -> None:
        self._rng = rng
        self._chinese = chinese
        self._kept: dict[str, str] = {}
        self._admitted = ids.draw_day(rng)

    def fill(self, template: str) -> tuple[str, list[Span]]:
        """The text and the spans of its PHI, by class of the benchmark, in their order."""
        pieces: list[str] = []
        spans: list[Span] = []
        here: dict[str, str] = {}
        at = length = 0
        for match in _SLOT.finditer(template):
            before = template[at : match.start()]
            slot = match[1]
            if slot is None:
                value = match.group()[0]
            elif slot in ("NAME", "MRN", "ID") and not match[2]:
                value = self._kept.setdefault(slot, self._draw(slot))
            else:
                value = here.setdefault(slot + match[2], self._draw(slot))
            pieces += [before, value]
            length += len(before)
            phi_class = SLOTS[slot] if slot is not None else None
            if slot == "AGE" and int(value) > MAX_AGE:
                phi_class = "age"
            if phi_class is not None:
                spans.append(Span(length, length + len(value), phi_class))
            length += len(value)
            at = match.end()
        return "".join([*pieces, template[at:]]), spans

    def _draw(self, slot: str) -> str:
        rng, chinese = self._rng, self._chinese
        if slot in FILLERS[True]:
            return rng.choice(FILLERS[chinese][slot])
        match slot:
            case "NAME" | "RELATIVE" | "DOCTOR":
                return ids.draw_name(rng) if chinese else ids.draw_name_en(rng)
            case "DATE":
                day = self._admitted + timedelta(days=rng.randrange(-900, 40))
                return ids.write_day(rng, day) if chinese else ids.write_day_en(rng, day)
            case "YEAR":
                return str(self._admitted.year - rng.randrange(15))
            case "ADDRESS":
                return ids.draw_address(rng) if chinese else ids.draw_address_en(rng)
            case "EMPLOYER":
                return rng.choice(ids.PARTS["firms"])
            case "PHONE":
                return ids.draw_phone(rng) if chinese else ids.draw_phone_en(rng)
            case "ID":
                return ids.draw_resident_id(rng) if chinese else ids.draw_ssn(rng)
            case "HOSPITAL":
                return ids.draw_hospital(rng) if chinese else rng.choice(ids.PARTS["hospitals_en"])
            case "AGE":
                return str(rng.randrange(1, 96))
            case "INSURANCE" | "PASSPORT":
                return rng.choice("EGH") + f"{rng.randrange(10**8):08d}"
            case "MRN":
                return ids.draw_mrn(rng)
            case "BED":
                return ids.draw_bed(rng)
            case "EMAIL":
                return ids.draw_email(rng)
            case "URL":
                return ids.draw_url(rng)
            case "CARD":
                return ids.draw_card(rng)
            case "PLATE":
                return ids.draw_plate(rng)
            case _:
                return ids.draw_account(rng)
