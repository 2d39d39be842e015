"""From verdicts to a measure. In: the verdicts of one record. Out: its place in the measure, and
tallies of all records, whole and by stratum, in constant memory.

Score = (N − NX) / (D − DX − exceptions not in N). Composed into two expressions, so that the
three-valued logic works on the whole: counted = IP ∧ D ∧ ¬DX ∧ (N ∨ ¬exception), and
met = N ∧ ¬NX.
Source: EVALUATION.md 3; FHIR R4 Measure, population codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from medray.common.records import Document
from medray.quality.indicators import REQUIRED, Indicator, PopulationCode, Stratifier
from medray.quality.intervals import wilson
from medray.quality.logic import Outcome, evaluate, parse_expression

Status = Literal["met", "unmet", "unknown", "undetermined", "excluded"]
"""`unknown`: counted, but whether it is met is open. `undetermined`: whether it counts is open."""
CODES: tuple[PopulationCode, ...] = (
    "initial-population",
    "denominator",
    "denominator-exclusion",
    "denominator-exception",
    "numerator",
    "numerator-exclusion",
)


class Case(NamedTuple):
    """One record under one indicator."""

    status: Status
    deciding: tuple[str, ...]
    """Tasks whose verdicts decide the status, or are still to be known."""
    can_be_met: bool
    can_be_unmet: bool
    populations: dict[PopulationCode, bool | None]


@dataclass
class Tally:
    """How many records have which status, and stand in which population."""

    met: int = 0
    unmet: int = 0
    unknown: int = 0
    undetermined: int = 0
    excluded: int = 0
    maybe_met: int = 0
    """Of the undetermined: those that may count as met."""
    maybe_unmet: int = 0
    populations: dict[PopulationCode, int] = field(default_factory=dict)

    def add(self, case: Case) -> None:
        """Counts one record."""
        setattr(self, case.status, getattr(self, case.status) + 1)
        if case.status == "undetermined":
            self.maybe_met += case.can_be_met
            self.maybe_unmet += case.can_be_unmet
        for code, inside in case.populations.items():
            self.populations[code] = self.populations.get(code, 0) + (inside is True)

    @property
    def decided(self) -> int:
        """Records that are met or unmet."""
        return self.met + self.unmet

    @property
    def rate(self) -> float | None:
        """Met among the decided; None if none is decided."""
        return self.met / self.decided if self.decided else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The rate if every open case went against the measure, and if every one went for it."""
        sure = self.met + self.unmet + self.unknown
        low, high = sure + self.maybe_unmet, sure + self.maybe_met
        if not low and not high:
            return None
        lowest = self.met / low if low else 0.0
        highest = (self.met + self.unknown + self.maybe_met) / high if high else 1.0
        return lowest, highest

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval on the decided cases."""
        return wilson(self.met, self.decided)


@dataclass
class Measure:
    """All tallies of one indicator."""

    indicator: Indicator
    total: Tally = field(default_factory=Tally)
    strata: dict[tuple[Stratifier, str], Tally] = field(default_factory=dict)
    first_date: str = ""
    last_date: str = ""

    def add(self, document: Document, case: Case) -> None:
        """Counts one record, in the whole and in its strata."""
        self.total.add(case)
        for stratifier in self.indicator.stratifiers:
            key = (stratifier, stratum(document, stratifier))
            self.strata.setdefault(key, Tally()).add(case)
        if document.date:
            self.first_date = min(self.first_date or document.date, document.date)
            self.last_date = max(self.last_date, document.date)


def stratum(document: Document, stratifier: Stratifier) -> str:
    """The stratum of a record. `hospital` is the record's source; dates are surrogates."""
    value = {
        "hospital": document.source,
        "department": document.department,
        "month": document.date[:7],
    }[stratifier]
    return value or "not stated"


def classify(indicator: Indicator, verdicts: Mapping[str, bool | None]) -> Case:
    """Where a record with these sub-task verdicts stands."""
    part = {code: f"({indicator.populations[code]})" for code in indicator.populations}
    ip, d, n = (part[code] for code in REQUIRED)
    dx, exception, nx = (
        part.get(code)
        for code in ("denominator-exclusion", "denominator-exception", "numerator-exclusion")
    )

    def value(*terms: str | None) -> Outcome:
        return evaluate(parse_expression(" and ".join(t for t in terms if t)), verdicts)

    included = (ip, d, dx and f"not {dx}")
    counts = (*included, exception and f"({n} or not {exception})")
    is_met = (n, nx and f"not {nx}")
    counted, met = value(*counts), value(*is_met)
    populations: dict[PopulationCode, bool | None] = {
        "initial-population": value(ip).value,
        "denominator": value(ip, d).value,
        "numerator": value(*included, n).value,
    }
    if dx:
        populations["denominator-exclusion"] = value(ip, d, dx).value
    if exception:
        populations["denominator-exception"] = value(*included, f"not {n}", exception).value
    if nx:
        populations["numerator-exclusion"] = value(*included, n, nx).value
    both = value(*counts, *is_met)
    neither = value(*counts, f"not ({' and '.join(t for t in is_met if t)})")
    status: Status
    if counted.value is None:
        status, deciding = "undetermined", counted.deciding
    elif not counted.value:
        status, deciding = "excluded", counted.deciding
    else:
        status = "unknown" if met.value is None else "met" if met.value else "unmet"
        deciding = met.deciding
    ordered: dict[PopulationCode, bool | None] = {
        code: populations[code] for code in CODES if code in populations
    }
    return Case(status, deciding, both.value is not False, neither.value is not False, ordered)
