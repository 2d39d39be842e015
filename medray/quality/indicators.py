"""Indicators as data. In: YAML files, one per specialty. Out: checked `Indicator`s.

Population keys are the codes of FHIR's Measure. Everything that can be wrong with a definition
is found when it is loaded: an unknown key, an expression that does not parse, a symbol that is
no task.
Source: EVALUATION.md 3; [MedQC 3.3, 4.2] for sub-tasks + logic.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from medray.common.config import Config, explain
from medray.common.errors import QualityError
from medray.corpus.readers.headings import canonical
from medray.quality.logic import parse_expression

SHIPPED = Path(__file__).parent / "indicators"
PopulationCode = Literal[
    "initial-population",
    "denominator",
    "denominator-exclusion",
    "denominator-exception",
    "numerator",
    "numerator-exclusion",
]
REQUIRED: tuple[PopulationCode, ...] = ("initial-population", "denominator", "numerator")
Stratifier = Literal["hospital", "department", "month"]
AbsentMeans = Literal["unknown"] | bool


class Knowledge(Config):
    """How much retrieved knowledge a sub-task's prompt holds."""

    top_k: int = Field(default=3, ge=0, le=20)
    """Source: not given; 3 passages fit a short context."""


class Task(Config):
    """One question to a record, answered yes, no or not mentioned."""

    ask: str = Field(min_length=1)
    when: str = ""
    """The procedure or state that the question is about; the prompt names it."""
    absent_means: AbsentMeans | None = None
    """What "not mentioned" counts as. A documentation indicator fails on absence (false); an
    outcome becomes unknown. None: the indicator's default."""
    sections: list[str] | None = None
    """Headings to read; None: the indicator's default."""

    @property
    def question(self) -> str:
        """The question as the prompt puts it."""
        is_named = not self.when or self.when in self.ask
        return self.ask if is_named else f"{self.ask}（限{self.when}）"


class Defaults(Config):
    """What a task uses unless it says otherwise."""

    absent_means: AbsentMeans = "unknown"
    evidence: Literal["required", "optional"] = "required"
    sections: list[str] | None = None
    """Headings to read; None: all."""
    knowledge: Knowledge = Knowledge(top_k=3)


class Indicator(Config):
    """A quality indicator: populations as Boolean expressions over its tasks."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str = ""
    unit: Literal["patient", "encounter", "procedure"]
    populations: dict[PopulationCode, str]
    tasks: dict[str, Task] = Field(min_length=1)
    defaults: Defaults = Defaults()
    stratifiers: list[Stratifier] = Field(default_factory=list)
    source: str = ""
    """Where the definition comes from."""

    @model_validator(mode="after")
    def _check(self) -> "Indicator":
        for code in REQUIRED:
            if code not in self.populations:
                raise ValueError(f"populations.{code}: required, but not set")
        for code, text in self.populations.items():
            for symbol in sorted(parse_expression(text, f"populations.{code}").symbols):
                if symbol not in self.tasks:
                    raise ValueError(
                        f"populations.{code}: {symbol} is no task; declare it under tasks "
                        f"(there are: {', '.join(self.tasks)})"
                    )
        return self

    def absent_value(self, task: str) -> bool | None:
        """The verdict that "not mentioned" stands for; None = unknown."""
        means = self.tasks[task].absent_means
        means = self.defaults.absent_means if means is None else means
        return None if means == "unknown" else bool(means)

    def sections(self, task: str) -> list[str] | None:
        """Headings that `task` reads, and the common names that a text's readers give them; None:
        all."""
        own = self.tasks[task].sections
        named = self.defaults.sections if own is None else own
        return None if named is None else [*dict.fromkeys([*named, *map(canonical, named)])]


def load_indicators(
    paths: Iterable[Path] | None = None, ids: Iterable[str] | None = None
) -> dict[str, Indicator]:
    """Reads indicator files (None: those shipped), returns {id: indicator}, only `ids` if given.

    Raises:
        QualityError: naming the file, the indicator's id and the key that is wrong.
    """
    found: dict[str, Indicator] = {}
    files = sorted(SHIPPED.glob("*.yaml")) if paths is None else list(paths)
    for path in files:
        for indicator in read_indicators(path):
            if indicator.id in found:
                raise QualityError(f"{path}: indicator {indicator.id} is defined twice; rename one")
            found[indicator.id] = indicator
    if ids is None:
        return found
    wanted = list(ids)
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise QualityError(
            f"no indicator {', '.join(unknown)}; there are: {', '.join(sorted(found))}"
        )
    return {name: found[name] for name in wanted}


def read_indicators(path: Path) -> list[Indicator]:
    """Reads one indicator file: a YAML list."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise QualityError(f"no indicator file at {path}; check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise QualityError(f"{path} is not valid UTF-8 YAML: {error}") from None
    if not isinstance(values, list):
        raise QualityError(f"{path} must hold a list of indicators")
    return [_parse(entry, path, number) for number, entry in enumerate(values, 1)]


def _parse(entry: Any, path: Path, number: int) -> Indicator:
    name = entry.get("id", f"number {number}") if isinstance(entry, dict) else f"number {number}"
    try:
        return Indicator.model_validate(entry)
    except ValidationError as error:
        causes = [fault.get("ctx", {}).get("error") for fault in error.errors(include_url=False)]
        if all(isinstance(cause, ValueError) for cause in causes):
            said = "; ".join(str(cause) for cause in causes)
            raise QualityError(f"{path}, indicator {name}: {said}") from None
        raise QualityError(explain(error, f"{path}, indicator {name}")) from None
