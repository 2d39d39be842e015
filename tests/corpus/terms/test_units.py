"""Units: each spelling, what is no unit, and that nothing else ever changes."""

import random
import re

import pytest

from medray.common.sentences import split_sentences
from medray.corpus.terms.edits import apply_edits
from medray.corpus.terms.units import find_units, load_units


def respelled(text: str) -> str:
    return apply_edits(text, find_units(text))


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("88umol/l", "88μmol/L"), ("88 µmol/L", "88 μmol/L"), ("88UMOL/L", "88μmol/L"),
        ("88μmol / l", "88μmol/L"), ("4.2毫摩尔/升", "4.2mmol/L"), ("12 u/l", "12 U/L"),
        ("5.0×10⁹/L", "5.0×10^9/L"), ("5.0*10^9/l", "5.0×10^9/L"), ("5.0*10*9/L", "5.0×10^9/L"),
        ("5.0x10E9/L", "5.0×10^9/L"), ("5.0 10^9/L", "5.0 ×10^9/L"), ("5.0×109／L", "5.0×10^9/L"),
        ("4.1X1012/L", "4.1×10^12/L"), ("4 × 10¹² / L", "4 ×10^12/L"), ("5×10^3/ul", "5×10^3/μL"),
        ("120/80mmhg", "120/80mmHg"), ("120 mm Hg", "120 mmHg"), ("120毫米汞柱", "120mmHg"),
        ("36.8°C", "36.8℃"), ("36.8摄氏度", "36.8℃"), ("体温38.5度", "体温38.5℃"),
        ("体温最高39度", "体温最高39℃"), ("发热，最高达39.2度", "发热，最高达39.2℃"),
        ("T:37.8度", "T:37.8℃"), ("22kg/m2", "22kg/m²"), ("80次/分钟", "80次/分"),
        ("120MG，3ug", "120mg，3μg"),
        ("110g/l", "110g/L"), ("CA125 35u/ml", "CA125 35U/mL"),
    ],
)  # fmt: skip
def test_one_spelling(written: str, wanted: str) -> None:
    assert respelled(f"（{written}）。") == f"（{wanted}）。"
    assert find_units(wanted) == []


@pytest.mark.parametrize(
    "text",
    [
        "umol/l", "单位umol/l", "屈曲30度", "皮温高，屈曲35度", "烧伤面积40度", "Ⅱ度",
        "体温38.5度2", "HGB 110G/L", "20G穿刺针", "Ca 2.1 Mg 0.8", "120MGD1", "MG/M2",
        "6.510^9/L", "7 109/L", "3\numol/l", "3μ/L", "umol/l3", "12mmol/L/h", "",
    ],
)  # fmt: skip
def test_what_is_left_alone(text: str) -> None:
    assert respelled(text) == text


def test_the_table_has_no_spelling_of_two_units() -> None:
    table = load_units()
    assert table.any_case["umol/l"] == "μmol/L" and table.any_case["u/l"] == "U/L"
    assert not {key.lower() for key in table.exact} & set(table.any_case)
    for unit in {*table.any_case.values(), *table.exact.values()}:
        assert find_units(f"1{unit}") == []


def test_numbers_and_sentences_stay_and_a_second_pass_changes_nothing() -> None:
    rng, num = random.Random(3), 0
    pieces = [
        "1", "38", "5.0", " ", "，", "。", "\n", "体温", "T", "度", "×10", "*10^", "9/L", "/l", "m",
        "mol", "u", "µ", "mg", "MG", "ml", "mm", "Hg", "°C", "毫米汞柱", "kg/m2", "血",
        "/", "E9", "g",
    ]  # fmt: skip
    for _ in range(3_000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 25)))
        edits = find_units(text)
        new, num = apply_edits(text, edits), num + len(edits)
        assert find_units(new) == [], text
        assert len(split_sentences(new)) == len(split_sentences(text))
        assert all(re.search("[0-9] ?$", text[: edit.start]) for edit in edits)
        kept = "".join(_outside(text, [(e.start, e.end) for e in edits]))
        assert kept == "".join(_outside(new, _places(edits)))
    assert num > 500


def _places(edits: list) -> list[tuple[int, int]]:
    """Where the edits stand in the new text."""
    places, moved = [], 0
    for start, end, unit in edits:
        places.append((start + moved, start + moved + len(unit)))
        moved += len(unit) - (end - start)
    return places


def _outside(text: str, spans: list[tuple[int, int]]) -> list[str]:
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
