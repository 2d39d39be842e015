"""Abnormal values by the ranges and marks that a record prints, case by case."""

import time

import pytest

from medray.serving.record.abnormal import LONGEST_BEHIND, abnormal_values
from medray.serving.schema.record import MOST_FILE_CHARS

# Text → (value, direction) of each that is abnormal, as one reads it.
CASES = {
    # A range in brackets, Chinese and English, half and full width.
    "白细胞 12.3 ×10^9/L (3.5-9.5)": "12.3 high",
    "白细胞 8.3 ×10^9/L (3.5-9.5)": "",
    "白细胞 9.5 ×10^9/L (3.5-9.5)": "",  # the bound belongs to the range
    "血红蛋白：98 g/L（参考值：130～175 g/L）": "98 low",
    "Hemoglobin 9.8 g/dL [13.0-17.5]": "9.8 low",
    "体温 38.5℃ (36.0-37.2)": "38.5 high",
    "总胆固醇 6.1 mmol/L (<5.2)，HDL 0.8 (>1.04)": "6.1 high, 0.8 low",
    "总胆固醇 5.2 mmol/L（≤5.2）": "",
    "BE -5.2 mmol/L (-3-3), 复查 -2.0 mmol/L (-3～3)": "-5.2 low",
    "PLT 12,000 /μL (100,000-300,000)": "12,000 low",
    "25-OH-D 18.2 ng/mL (30-100)": "18.2 low",
    "CA125 48 U/mL (0-35)": "48 high",
    "WBC12.3×10⁹/L（3.5～9.5），Hb 98 g/L↓，PLT 200×10^9/L": "12.3 high, 98 low",
    # Named, or bare at the line's end.
    "血糖 11.2 mmol/L 参考范围：3.9-6.1": "11.2 high",
    "Glucose 11.2 mmol/L, ref 3.9 to 6.1": "11.2 high",
    "WBC 2.1 10^9/L 3.5-9.5": "2.1 low",
    # Beyond what could be measured.
    "hs-cTnI >1000 ng/L (0-40)": ">1000 high",
    "肌钙蛋白 <0.01 ng/mL (0-0.04)": "",
    "AFP <5 ng/mL (0-3)": "",  # may be 4 or 1
    "FSH <0.3 IU/L (1.5-12.4)": "<0.3 low",
    # Arrows and letters.
    "AST 80↑ ALT 90 U/L↑ ALP 70": "80 high, 90 high",
    "AST↑80 U/L，Alb ↓ 28 g/L": "80 high, 28 low",
    "CRP 12.3mg/L↑↑": "12.3 high",
    "K 3.1 mmol/L L, Na 150 mmol/L H": "3.1 low, 150 high",
    "Hb 9.8 g/dL (L), K 6.1 (H)": "9.8 low, 6.1 high",
    "TSH 4.0 mIU/L ↑ (0.3-4.2)": "4.0 high",  # the laboratory says so
    "FVC 3.2 L (2.5-4.5)": "",  # a unit, no mark
    "FVC 3.2 L": "",
    "24 H尿蛋白 0.1 g": "",
    # Rows of tables.
    "白细胞\t12.3\t↑\t3.5-9.5\t10^9/L": "12.3 high",
    "1\t血红蛋白\t98\t130--175\tg/L": "98 low",
    "| Sodium | 128 | L | 135 - 145 | mmol/L |": "128 low",
    "尿酸  500  偏高": "500 high",
    "钾  4.1  3.5-5.3  mmol/L    钠  150  137-147  mmol/L": "150 high",
    "FVC  3.2  L  2.5-4.5": "",
    "总胆红素  30.1  <21  μmol/L": "30.1 high",
    # No results, or none that says what is normal.
    "血压 160/100 mmHg (90-140)": "",
    "口服 5 mg (1-2次/日)": "",
    "5 mg 1-2 times daily": "",
    "2024-01-02 入院，2018年(2015-2020)住院": "",
    "第3天（1-2）": "",
    "葡萄糖 11.2 mmol/L (9-3)": "",  # no range
    "白细胞 12.3": "",
}


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_what_is_marked(text: str, expected: str) -> None:
    found = abnormal_values(text)
    assert ", ".join(f"{text[v.start : v.end]} {v.direction}" for v in found) == expected


def test_offsets_are_of_the_whole_text() -> None:
    text = "\n".join(CASES)
    found = [f"{text[v.start : v.end]} {v.direction}" for v in abnormal_values(text)]
    assert found == [case for cases in CASES.values() for case in cases.split(", ") if case]


HALF = "1" * (MOST_FILE_CHARS // 2 - 2)


@pytest.mark.parametrize(("text", "count"), [
    ("↑1;" * (MOST_FILE_CHARS // 3), MOST_FILE_CHARS // 3),
    ("1↑;" * (MOST_FILE_CHARS // 3), MOST_FILE_CHARS // 3),
    ("↑1 mmol/L " * (MOST_FILE_CHARS // 10), MOST_FILE_CHARS // 10 - 1),  # the value's before it
    (f"{HALF}.{HALF}.1", 0), (f"1 {HALF}-{HALF}x", 0), (" " * MOST_FILE_CHARS, 0),
    ("1 1-1" + " " * MOST_FILE_CHARS, 0), ("1.1" * (MOST_FILE_CHARS // 3), 0),
], ids=range(8))  # fmt: skip
def test_the_longest_file_is_read_in_one_pass(text: str, count: int) -> None:
    """Half a minute of the processor is ten times what one pass takes; each of these took minutes
    at least where a value looked at all that stands before or behind it."""
    began = time.process_time()
    assert len(abnormal_values(text)) == count
    assert time.process_time() - began < 30


def test_a_value_with_its_unit_is_seen_as_far_back_as_one_is_long() -> None:
    """The longest unit has 12 + 3 · 13 letters and signs: 1 digit, 2 spaces and these are 54."""
    unit = "a" * 12 + ("/" + "a" * 12) * 3
    text = f"7 {unit} ↑1"
    assert len(text) - 2 == 54 <= LONGEST_BEHIND
    found = abnormal_values(text)
    assert [(v.start, v.end) for v in found] == [(0, 1)]
