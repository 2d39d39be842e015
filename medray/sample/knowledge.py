"""The hospital's medical knowledge, read from YAML.

In: `knowledge/*.yaml` (package data). Out: `Knowledge`: departments, diseases, findings with
their wordings, numeric items. Textbook facts, simplified; nothing here is for clinical use.
Source: textbook knowledge (Chinese undergraduate internal medicine, surgery, gynaecology,
neurology, psychiatry); departments of [ClinicalGPT] plus cardiology and thoracic surgery.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from medray.common.config import Config

FOLDER = Path(__file__).with_name("knowledge")


class Item(Config):
    """A number that is measured: unit, decimals and the normal distribution of the healthy."""

    name: str
    unit: str
    decimals: int
    mean: float
    sd: float
    low: float
    high: float
    """Values are clipped to [low, high]; the end values take the tails."""

    def write(self, k: int) -> str:
        """The value of step `k` (value = k / 10^decimals), without unit."""
        return f"{k / 10**self.decimals:.{self.decimals}f}"

    def report(self, k: int) -> str:
        """Name, value and unit; a blank keeps a name's last digit apart from the value."""
        blank = " " if self.name[-1].isascii() else ""
        return f"{self.name}{blank}{self.write(k)}{self.unit}"


class Disease(Config):
    """What the generator knows about a disease."""

    name: str
    aliases: list[str]
    icd10: str
    weight: float
    """Prior weight among all diseases."""
    male: float
    age: tuple[float, float]
    """Mean and standard deviation in years."""
    course: Literal["acute", "subacute", "chronic"]
    symptoms: dict[str, float]
    signs: dict[str, float]
    vitals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Item → (mean, standard deviation) where it differs from the healthy."""
    labs: dict[str, tuple[float, float]]
    imaging: dict[str, float]
    """Finding → probability; the rest is a normal result."""
    history: dict[str, float]
    first: tuple[str, str]
    """First-line treatment and its dose."""
    second: tuple[str, str]
    avoid: tuple[str, str]
    """Contraindicated treatment and the reason."""
    followup: str
    check: str
    """Examination to repeat after `followup`."""
    red_flag: str
    cause: str
    complications: list[str]
    diet: str
    duration: str
    """Length of treatment."""
    procedure: Literal["pci", "lung"] | None = None
    department: str


class Department(Config):
    """A department: its laboratory panel and the normal results of its examinations."""

    name: str
    panel: list[str]
    normal_imaging: list[str]


class Knowledge(Config):
    """Everything the generator draws from; order is fixed, so that seeds reproduce."""

    departments: list[Department]
    diseases: list[Disease]
    symptoms: dict[str, list[str]]
    """Canonical name → wordings."""
    systems: dict[str, list[str]]
    """Body system → symptoms, for pertinent negatives."""
    signs: dict[str, list[str]]
    history: dict[str, list[str]]
    vitals: list[Item]
    labs: list[Item]
    female_only: frozenset[str] = frozenset()
    male_only: frozenset[str] = frozenset()
    misspellings: dict[str, str] = Field(default_factory=dict)
    """Character → characters it is mistaken for."""

    def of_department(self, name: str) -> list[Disease]:
        """The diseases of one department."""
        return [d for d in self.diseases if d.department == name]

    def disease(self, name: str) -> Disease:
        """The disease of that name.

        Raises:
            KeyError: if there is none.
        """
        for disease in self.diseases:
            if disease.name == name:
                return disease
        raise KeyError(name)


@lru_cache(maxsize=1)
def load_knowledge() -> Knowledge:
    """The shipped knowledge."""
    findings = _read(FOLDER / "findings.yaml")
    departments, diseases = [], []
    for path in sorted(FOLDER.glob("*.yaml")):
        content = _read(path)
        if "diseases" not in content:
            continue
        name = content["department"]
        departments.append(
            Department(name=name, panel=content["panel"], normal_imaging=content["normal_imaging"])
        )
        diseases += [
            Disease.parse(d | {"department": name}, path.name) for d in content["diseases"]
        ]
    return Knowledge(
        departments=departments,
        diseases=diseases,
        symptoms={k: w for group in findings["symptoms"].values() for k, w in group.items()},
        systems={system: list(group) for system, group in findings["symptoms"].items()},
        signs=findings["signs"],
        history=findings["history"],
        vitals=_items(findings["vitals"]),
        labs=_items(findings["labs"]),
        female_only=frozenset(findings["female_only"]),
        male_only=frozenset(findings["male_only"]),
        misspellings=_read(FOLDER / "misspellings.yaml"),
    )


def _items(rows: dict[str, list[Any]]) -> list[Item]:
    keys = ("unit", "decimals", "mean", "sd", "low", "high")
    return [Item(name=name, **dict(zip(keys, row, strict=True))) for name, row in rows.items()]


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
