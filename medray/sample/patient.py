"""Draws a patient: the latent findings, before anything is written.

In: `Model`, a seeded stream. Out: `Patient`. Log-probabilities are not counted here but by the
writer, for what it writes (see sampler.py).
"""

import math
import random
from typing import NamedTuple

from medray.sample.knowledge import Disease, Item
from medray.sample.model import SEXES, UNIT_RANGE, UNITS, Block, Model


class Patient(NamedTuple):
    """Findings as indices into the model's tables."""

    disease: int
    sex: int
    age: int
    unit: int
    number: int
    """Duration = number unit."""
    symptoms: list[int]
    signs: list[int]
    history: list[int]
    vitals: list[int]
    """Steps of every vital sign."""
    labs: dict[int, int]
    """Laboratory item → step."""
    imaging: int

    @property
    def sex_text(self) -> str:
        return SEXES[self.sex]

    @property
    def duration(self) -> str:
        return f"{self.number}{UNITS[self.unit]}"

    def info(self, model: Model) -> Disease:
        """Knowledge of the patient's disease."""
        return model.knowledge.diseases[self.disease]


def draw_patient(model: Model, rng: random.Random, disease: int | None = None) -> Patient:
    """Draws disease (unless given), sex and every finding."""
    if disease is None:
        disease = _pick(rng, model.prior_D.tolist())
    male = math.exp(model.sex_SD[1, disease])
    sex = int(rng.random() < male)
    unit = _pick(rng, model.unit_UD[:, disease].tolist())
    low, high = UNIT_RANGE[UNITS[unit]]
    labs = _present(model.orders, sex, disease, rng)
    return Patient(
        disease=disease,
        sex=sex,
        age=_step(model.ages.items[0], model.ages.params[0][disease], rng),
        unit=unit,
        number=low + int(rng.random() * (high - low + 1)),
        symptoms=_present(model.symptoms, sex, disease, rng),
        signs=_present(model.signs, sex, disease, rng),
        history=_present(model.history, sex, disease, rng),
        vitals=[
            _step(item, params[disease], rng)
            for item, params in zip(model.vitals.items, model.vitals.params, strict=True)
        ],
        labs={i: _step(model.labs.items[i], model.labs.params[i][disease], rng) for i in labs},
        imaging=_pick(rng, model.imaging.log_p_SOD[sex, :, disease].tolist()),
    )


def _pick(rng: random.Random, log_p: list[float]) -> int:
    left = rng.random()
    last = 0
    for i, value in enumerate(log_p):
        if value > -700:
            last = i
            left -= math.exp(value)
            if left < 0:
                return i
    return last  # rounding left a sliver over


def _present(block: Block, sex: int, disease: int, rng: random.Random) -> list[int]:
    draw = rng.random
    return [i for i, p in block.draws[sex][disease] if draw() < p]


def _step(item: Item, params: tuple[float, float], rng: random.Random) -> int:
    scale = 10**item.decimals
    k = round(rng.gauss(*params) * scale)
    return min(max(k, round(item.low * scale)), round(item.high * scale))
