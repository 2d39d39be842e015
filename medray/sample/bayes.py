"""The exact posterior over diseases, and with it the best diagnosis accuracy that can be reached.

In: what a text shows (`Evidence`). Out: posterior. Findings that the text omits (a section is
missing, a field is empty) are summed out, which for independent findings means leaving them out.
The mean of the largest posterior over many texts is the accuracy of the best possible reader.
Source: issue 2, "the best reachable diagnosis accuracy ... computed from the generator".
"""

from dataclasses import dataclass, field

import numpy as np

from medray.sample.model import Model


@dataclass
class Evidence:
    """What can be seen; None = not shown."""

    sex: int | None = None
    age: int | None = None
    unit: int | None = None
    symptoms: list[int] | None = None
    signs: list[int] | None = None
    history: list[int] | None = None
    vitals: dict[int, int] = field(default_factory=dict)
    labs: dict[int, int] | None = None
    imaging: int | None = None


def posterior_D(model: Model, evidence: Evidence) -> np.ndarray:
    """P(disease | evidence), over diseases; sums to 1."""
    shared_D = model.prior_D.copy()
    if evidence.age is not None:
        shared_D += model.ages.log_p_D(0, evidence.age)
    if evidence.unit is not None:
        shared_D += model.unit_UD[evidence.unit]
    for item, k in evidence.vitals.items():
        shared_D += model.vitals.log_p_D(item, k)
    for item, k in (evidence.labs or {}).items():
        shared_D += model.labs.log_p_D(item, k)
    sexes = (0, 1) if evidence.sex is None else (evidence.sex,)
    joint_SD = np.stack([shared_D + given_sex_D(model, evidence, sex) for sex in sexes])
    weights_SD = np.exp(joint_SD - joint_SD.max())
    weights_D = weights_SD.sum(axis=0)
    return weights_D / weights_D.sum()


def given_sex_D(model: Model, evidence: Evidence, sex: int) -> np.ndarray:
    """log P(sex and all findings that depend on it | disease)."""
    total_D = model.sex_SD[sex].copy()
    if evidence.symptoms is not None:
        total_D += model.symptoms.log_p_D(sex, evidence.symptoms)
    if evidence.signs is not None:
        total_D += model.signs.log_p_D(sex, evidence.signs)
    if evidence.history is not None:
        total_D += model.history.log_p_D(sex, evidence.history)
    if evidence.labs is not None:
        total_D += model.orders.log_p_D(sex, list(evidence.labs))
    if evidence.imaging is not None:
        total_D += model.imaging.log_p_SOD[sex, evidence.imaging]
    return total_D
