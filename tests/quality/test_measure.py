"""Populations, scores and bounds by hand."""

import pytest

from medray.quality.indicators import Indicator, Task
from medray.quality.intervals import balanced_accuracy, wilson
from medray.quality.measure import Measure, Tally, classify
from medray.quality.report import html_report, measure_reports

FULL = Indicator(
    id="full",
    unit="encounter",
    populations={
        "initial-population": "A",
        "denominator": "A",
        "denominator-exclusion": "X",
        "denominator-exception": "E",
        "numerator": "N",
        "numerator-exclusion": "Y",
    },
    tasks={name: Task(ask=name) for name in "AXENY"},
    stratifiers=["department", "month"],
)


def verdicts(**given):
    return {"A": True, "X": False, "E": False, "N": False, "Y": False} | given


CASES = [
    (verdicts(N=True), "met"),
    (verdicts(N=True), "met"),
    (verdicts(N=True, E=True), "met"),  # an exception that is met stays in
    (verdicts(N=True, Y=True), "unmet"),  # a numerator exclusion counts as unmet
    (verdicts(), "unmet"),
    (verdicts(E=True), "excluded"),
    (verdicts(X=True, N=True), "excluded"),
    (verdicts(A=False), "excluded"),
]


def test_score_is_fhirs_formula(record) -> None:
    tally = Tally()
    for values, status in CASES:
        case = classify(FULL, values)
        assert case.status == status
        tally.add(case)
    # D 7, DX 1, exceptions not in N 1 → 5; N 4 (of those left), NX 1 → 3.
    assert tally.populations == {
        "initial-population": 7,
        "denominator": 7,
        "denominator-exclusion": 1,
        "denominator-exception": 1,
        "numerator": 4,
        "numerator-exclusion": 1,
    }
    assert tally.rate == pytest.approx((4 - 1) / (7 - 1 - 1))
    assert tally.bounds == pytest.approx((0.6, 0.6))


def test_open_cases_widen_the_bounds_only() -> None:
    tally = Tally()
    for values in (verdicts(N=True), verdicts(), verdicts(N=None), verdicts(A=None)):
        tally.add(classify(FULL, values))
    assert (tally.met, tally.unmet, tally.unknown, tally.undetermined) == (1, 1, 1, 1)
    assert tally.rate == 0.5
    # The undetermined record has N false: it can only count as unmet.
    # Worst: 1 of 1 + 1 + 1 + 1; best: (1 + 1) of 1 + 1 + 1.
    assert tally.bounds == pytest.approx((1 / 4, 2 / 3))


def test_nothing_counted_gives_no_rate() -> None:
    tally = Tally()
    tally.add(classify(FULL, verdicts(A=False)))
    assert (tally.rate, tally.bounds, tally.interval) == (None, None, None)


def test_reports_hold_scores_strata_and_intervals(record) -> None:
    measure = Measure(FULL)
    for number, (values, _) in enumerate(CASES):
        date = "2024-03-05" if number < 4 else "2024-04-01"
        measure.add(record(date=date, 主诉="x。"), classify(FULL, values))
    bundle = measure_reports([measure], "2026-01-01T00:00:00+00:00")
    report = bundle["entry"][0]["resource"]
    assert (report["resourceType"], report["status"], report["type"]) == (
        "MeasureReport", "complete", "summary",
    )  # fmt: skip
    assert report["period"] == {"start": "2024-03-05", "end": "2024-04-01"}
    group = report["group"][0]
    assert group["measureScore"]["value"] == 0.6
    months = next(s for s in group["stratifier"] if s["code"][0]["text"] == "month")["stratum"]
    # March: met, met, met, unmet; April: one unmet, the rest not counted.
    assert [(m["value"]["text"], m["measureScore"]["value"]) for m in months] == [
        ("2024-03", 0.75), ("2024-04", 0.0),
    ]  # fmt: skip
    page = html_report([measure], [], "2026-01-01")
    assert "60.0%" in page
    assert "month：2024-03" in page


def test_wilson_equals_known_values() -> None:
    # statsmodels.stats.proportion.proportion_confint(8, 10, method="wilson")
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)
    assert wilson(0, 0) is None


def test_wilson_equals_scipy() -> None:
    from scipy.stats import binomtest

    for k, n in ((0, 5), (3, 7), (50, 60), (60, 60)):
        interval = binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k, n) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_balanced_accuracy_equals_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score

    gold = ["yes", "no", "no", "not mentioned", "yes", "no"]
    guess = ["yes", "no", "yes", "no", "yes", "no"]
    # Recalls 1, 2/3, 0.
    assert balanced_accuracy(gold, guess) == pytest.approx(5 / 9)
    assert balanced_accuracy(gold, guess) == pytest.approx(balanced_accuracy_score(gold, guess))
    assert balanced_accuracy([], []) is None
