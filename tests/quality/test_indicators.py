"""Shipped indicators load; a wrong definition is refused with file, id and key."""

from pathlib import Path

import pytest

from medray.common.errors import QualityError
from medray.quality.indicators import load_indicators

GOOD = """
- id: good-one
  unit: encounter
  populations: {initial-population: A, denominator: A, numerator: T}
  tasks:
    A: {ask: 是否心房颤动, absent_means: false}
    T: {ask: 是否评估}
"""


def test_shipped_indicators_load_and_keep_their_definitions() -> None:
    shipped = load_indicators()
    assert {"af-risk-assessed", "pci-angio-success", "lung-cancer-margin-negative"} <= set(shipped)
    pci = shipped["pci-angio-success"]
    assert pci.populations["numerator"] == "(T1 or T2) and T3"
    assert pci.sections("T3") == ["手术记录", "手术操作"]  # which readers call it in a text
    assert pci.absent_value("T3") is None, "an outcome that is not mentioned is unknown"
    assert shipped["af-risk-assessed"].absent_value("T1") is False, "documentation fails on absence"
    assert shipped["af-risk-assessed"].sections("T1") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("numerator: T}", "numerator: T and X}", "X is no task"),
        ("numerator: T}", "numerator: T and}", r"populations\.numerator.*no expression"),
        ("numerator: T}", "numerator: T, numerators: T}", r"populations\.numerators"),
        (", numerator: T}", "}", r"populations\.numerator: required"),
        ("{ask: 是否评估}", "{ask: 是否评估, absent_mean: true}", r"absent_mean: unknown key"),
        ("{ask: 是否评估}", "{ask: 是否评估, absent_means: maybe}", r"tasks\.T\.absent_means"),
        ("unit: encounter", "unit: month", "unit"),
    ],
)
def test_a_wrong_definition_names_file_indicator_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(QualityError, match=rf"(?s)own\.yaml.*good-one.*{message}"):
        load_indicators([path])


def test_unknown_ids_doubled_ids_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(GOOD, encoding="utf-8")
    with pytest.raises(QualityError, match="no indicator other; there are: good-one"):
        load_indicators([path], ["other"])
    with pytest.raises(QualityError, match="defined twice"):
        load_indicators([path, path])
    with pytest.raises(QualityError, match="no indicator file"):
        load_indicators([tmp_path / "none.yaml"])
