"""The probability model that patients are drawn from, as arrays over diseases.

In: `Knowledge`. Out: `Model`: log-probabilities of every finding given disease and sex. Given
disease and sex all findings are independent, so posterior and log-probabilities are exact.
Shapes: D diseases, F findings of one block.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from medray.sample.knowledge import Item, Knowledge, load_knowledge

SEXES = ("女", "男")
UNITS = ("天", "周", "个月", "年")
UNIT_RANGE = {"天": (1, 13), "周": (2, 8), "个月": (2, 11), "年": (1, 15)}
COURSES = {
    "acute": (0.84, 0.12, 0.03, 0.01),
    "subacute": (0.20, 0.38, 0.34, 0.08),
    "chronic": (0.07, 0.13, 0.38, 0.42),
}
"""P(unit of duration | course). Source: not given; chosen so that courses overlap."""
BACKGROUND = 0.03
"""P(finding | disease that does not list it, but a disease of its department does)."""
ELSEWHERE = 0.002
"""P(finding | disease of a department where nobody lists it)."""
ORDER = 0.4
"""P(test of the department's panel is made)."""
ORDER_ELSEWHERE = 0.004
INCIDENTAL = 0.25
"""Share of imaging results that are drawn uniformly from the department's results."""
AGE = Item(name="age", unit="岁", decimals=0, mean=50, sd=15, low=14, high=92)


class Block:
    """Independent yes/no findings: P(present | disease, sex)."""

    def __init__(self, names: list[str], p_SDF: np.ndarray) -> None:
        self.names = names
        self.index = {name: i for i, name in enumerate(names)}
        with np.errstate(divide="ignore"):
            log_p, log_q = np.log(p_SDF), np.log1p(-p_SDF)
        self.absent_SD = log_q.sum(axis=2)
        """log P(nothing present)."""
        self.ratio_SFD = np.ascontiguousarray((log_p - log_q).transpose(0, 2, 1))
        """What a present finding adds to `absent_SD`."""
        self.draws = [
            [[(i, p) for i, p in enumerate(row) if p > 0] for row in p_DF.tolist()]
            for p_DF in p_SDF
        ]
        self.p_SDF = p_SDF

    def log_p_D(self, sex: int, present: list[int]) -> np.ndarray:
        """log P(exactly `present` | disease, sex), over diseases."""
        if not present:
            return self.absent_SD[sex]
        return self.absent_SD[sex] + self.ratio_SFD[sex, present].sum(axis=0)


class Choices(NamedTuple):
    """A categorical outcome: names and log P(outcome | disease, sex)."""

    names: list[str]
    log_p_SOD: np.ndarray


class Numbers:
    """Normally distributed numbers, rounded to their decimals and clipped."""

    def __init__(self, items: list[Item], params: list[list[tuple[float, float]]]) -> None:
        self.items = items
        self.params = params
        """[item][disease] → (mean, sd)."""
        self._cache: dict[tuple[int, int], np.ndarray] = {}

    def log_p_D(self, item: int, k: int) -> np.ndarray:
        """log P(value = k / 10^decimals | disease), over diseases."""
        found = self._cache.get((item, k))
        if found is None:
            spec = self.items[item]
            by_param = {p: math.log(step_p(spec, p[0], p[1], k)) for p in set(self.params[item])}
            found = np.array([by_param[p] for p in self.params[item]])
            if len(self._cache) < 50_000:  # bounds memory over a million records
                self._cache[item, k] = found
        return found


class Model(NamedTuple):
    """All distributions of the generator."""

    knowledge: Knowledge
    prior_D: np.ndarray
    """log prior."""
    sex_SD: np.ndarray
    """log P(sex | disease)."""
    unit_UD: np.ndarray
    ages: Numbers
    symptoms: Block
    signs: Block
    history: Block
    orders: Block
    """Which laboratory tests were made."""
    vitals: Numbers
    labs: Numbers
    imaging: Choices


def step_p(item: Item, mean: float, sd: float, k: int) -> float:
    """P(k) of the discretised normal; never 0, so that its logarithm exists."""
    scale = 10**item.decimals
    low, high = round(item.low * scale), round(item.high * scale)
    left = ((k - 0.5) / scale - mean) / (sd * math.sqrt(2))
    right = ((k + 0.5) / scale - mean) / (sd * math.sqrt(2))
    if left > 0:  # upper side: complements, which keep their digits there
        above_left = 2.0 if k <= low else math.erfc(left)
        p = above_left - (0.0 if k >= high else math.erfc(right))
    else:
        below_right = 2.0 if k >= high else math.erfc(-right)
        p = below_right - (0.0 if k <= low else math.erfc(-left))
    return max(p / 2, 1e-300)


@lru_cache(maxsize=1)
def shipped_model() -> Model:
    """The model of the shipped knowledge."""
    return build_model(load_knowledge())


def build_model(knowledge: Knowledge) -> Model:
    """Turns knowledge into arrays."""
    diseases = knowledge.diseases
    weights = np.array([d.weight for d in diseases])
    male = np.array([d.male for d in diseases])
    with np.errstate(divide="ignore"):
        sex_SD = np.log(np.stack([1 - male, male]))
    unit_UD = np.log(np.array([COURSES[d.course] for d in diseases]).T)
    age_params = [[(float(d.age[0]), float(d.age[1])) for d in diseases]]
    panels = {d.name: d.panel for d in knowledge.departments}
    orders = np.array(
        [
            [
                ORDER if lab.name in panels[d.department] else ORDER_ELSEWHERE
                for lab in knowledge.labs
            ]
            for d in diseases
        ]
    )
    lab_names = [lab.name for lab in knowledge.labs]
    return Model(
        knowledge=knowledge,
        prior_D=np.log(weights / weights.sum()),
        sex_SD=sex_SD,
        unit_UD=unit_UD,
        ages=Numbers([AGE], age_params),
        symptoms=_block(knowledge, list(knowledge.symptoms), "symptoms"),
        signs=_block(knowledge, list(knowledge.signs), "signs"),
        history=_block(knowledge, list(knowledge.history), "history"),
        orders=Block(lab_names, _by_sex(knowledge, lab_names, orders)),
        vitals=_numbers(knowledge, knowledge.vitals, "vitals"),
        labs=_numbers(knowledge, knowledge.labs, "labs"),
        imaging=_imaging(knowledge),
    )


def _block(knowledge: Knowledge, names: list[str], field: str) -> Block:
    p_DF = np.empty((len(knowledge.diseases), len(names)))
    for i, disease in enumerate(knowledge.diseases):
        colleagues = knowledge.of_department(disease.department)
        known = {name for d in colleagues for name in getattr(d, field)}
        own = getattr(disease, field)
        p_DF[i] = [own.get(n, BACKGROUND if n in known else ELSEWHERE) for n in names]
    return Block(names, _by_sex(knowledge, names, p_DF))


def _by_sex(knowledge: Knowledge, names: list[str], p_DF: np.ndarray) -> np.ndarray:
    """[sex, disease, finding]: findings of the other sex have probability 0."""
    masks = [[n not in forbidden for n in names] for forbidden in _forbidden(knowledge)]
    return np.stack([p_DF * np.array(mask) for mask in masks])


def _forbidden(knowledge: Knowledge) -> tuple[frozenset[str], frozenset[str]]:
    return knowledge.male_only, knowledge.female_only


def _numbers(knowledge: Knowledge, items: list[Item], field: str) -> Numbers:
    params = [
        [getattr(d, field).get(item.name, (item.mean, item.sd)) for d in knowledge.diseases]
        for item in items
    ]
    return Numbers(items, [[(float(m), float(s)) for m, s in row] for row in params])


def _imaging(knowledge: Knowledge) -> Choices:
    normal = {d.name: d.normal_imaging for d in knowledge.departments}
    names = sorted({n for d in knowledge.diseases for n in d.imaging})
    names += sorted({n for texts in normal.values() for n in texts})
    index = {name: i for i, name in enumerate(names)}
    p_SOD = np.zeros((2, len(names), len(knowledge.diseases)))
    for i, disease in enumerate(knowledge.diseases):
        texts = normal[disease.department]
        own = dict(disease.imaging)
        rest = 1 - sum(own.values())
        own |= {text: rest / len(texts) for text in texts}
        others = {n for d in knowledge.of_department(disease.department) for n in d.imaging}
        others |= set(texts)
        for sex, forbidden in enumerate(_forbidden(knowledge)):
            allowed = sorted(others - forbidden)
            total = sum(own.get(n, 0.0) for n in allowed)
            for n in allowed:
                p = (1 - INCIDENTAL) * own.get(n, 0.0) / total + INCIDENTAL / len(allowed)
                p_SOD[sex, index[n], i] = p
    with np.errstate(divide="ignore"):
        return Choices(names, np.log(p_SOD))
