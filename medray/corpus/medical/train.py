"""Trains the medical filter. In: texts known to be medical or general. Out: the filter, figures.

The same texts give the same filter, in whatever order they come: they are sorted by a hash.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.ngrams import canonical
from medray.common.split import unit_hash
from medray.corpus.medical.classifier import SCRIPTS, MedicalClassifier, feature_matrix, script
from medray.corpus.medical.figures import held_out_figures

logger = logging.getLogger(__name__)

MIN_UNITS = 50
"""A script with fewer patients or texts of one side is not learned. Source: not given; ten are held
out then, and every fold has some."""
FOLDS = 3


class FilterTraining(Config):
    """What the filter learns from."""

    medical: list[str] = Field(min_length=1)
    """Sources whose documents are medical, such as records and literature."""
    general: list[str] = Field(min_length=1)
    """Sources whose documents are not; they are marked `general`. They should hold what comes close
    to medicine: a filter that saw only the far away lets the near pass."""
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of patients and texts that the figures are measured on. Source: not given."""
    piece_chars: int = Field(default=2_000, ge=100)
    """Of a longer document one piece, at a place chosen by hash, is read, so that a book counts as
    much as a report. Source: not given."""
    max_chars: int = Field(default=5_000_000, ge=10_000)
    """Characters read of each side, an equal share of every source. Source: not given; 2 to 3
    minutes and 1 GB."""
    regularisation: float = Field(default=10.0, gt=0)
    """C, the inverse strength, of logistic regression. Source: measured; 1 to 100 differ little."""


class Example(NamedTuple):
    """One text that is known to be of one side."""

    text: str
    is_medical: bool
    source: str
    unit: str
    """Patient or document: what is held out as a whole."""


def train_classifier(
    examples: Sequence[Example], config: FilterTraining, threshold: float
) -> tuple[MedicalClassifier, dict[str, Any]]:
    """Fits on the training share; returns the filter and its figures on the held-out share.

    Raises:
        DataError: if there is no script with enough of both sides.
    """
    ordered = sorted(examples, key=lambda e: (unit_hash(f"medical/{e.unit}"), e))
    cells = [(script(canonical(e.text)), e.is_medical) for e in ordered]
    units_of = zip(cells, (e.unit for e in ordered), strict=True)
    sizes = Counter(cell for cell, _ in set(units_of))
    scripts = [s for s in SCRIPTS if min(sizes[s, True], sizes[s, False]) >= MIN_UNITS]
    if not scripts:
        raise DataError(
            f"medical_filter.train: at least {MIN_UNITS} patients or texts of each side are needed "
            f"in one script, found {_listed(sizes)}; name more sources"
        )
    for name in SCRIPTS:
        if name not in scripts and sizes[name, True] + sizes[name, False]:
            logger.warning(
                "medical filter: documents whose script is %s are not judged, for it needs %d of "
                "each side to learn from: %s", name, MIN_UNITS, _listed(sizes),
            )  # fmt: skip
    ordered = [e for e, (name, _) in zip(ordered, cells, strict=True) if name in scripts]
    cells = [cell for cell in cells if cell[0] in scripts]
    is_medical_N = np.array([e.is_medical for e in ordered], bool)
    held_N = np.array([unit_hash(f"held/{e.unit}") < config.held_out_fraction for e in ordered])
    units = [e.unit for e in ordered]
    matrix = feature_matrix(e.text for e in ordered)
    train = np.flatnonzero(~held_N)
    weights, bias = fit(matrix[train], [cells[i] for i in train], [units[i] for i in train], config)
    classifier = MedicalClassifier(weights, bias, scripts)
    held = np.flatnonzero(held_N)
    figures = held_out_figures(
        classifier.probabilities(ordered[i].text for i in held),
        is_medical_N[held],
        [ordered[i].source for i in held],
        threshold,
    )
    trained = Counter(ordered[i].source for i in train)
    return classifier, {"trained_on": dict(sorted(trained.items())), "held_out": figures}


def fit(
    matrix: csr_matrix,
    cells: Sequence[tuple[str, bool]],
    units: Sequence[str],
    config: FilterTraining,
) -> tuple[np.ndarray, float]:
    """Weights and bias of a logistic regression, calibrated on folds of whole units.

    Within each script both sides weigh the same, so that the script itself tells nothing. N-grams
    are scaled by inverse document frequency, so that terms count for more than manner: of sources
    that it never saw, the filter then knows more (English answers 0.86 in place of 0.78).
    Source of the calibration: Platt 1999, sigmoid over scores of models that did not see the text.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression

    folds_N = np.array([int(unit_hash(f"fold/{unit}") * FOLDS) for unit in units])
    splits = [(np.flatnonzero(folds_N != k), np.flatnonzero(folds_N == k)) for k in range(FOLDS)]
    sizes, by_script = Counter(cells), Counter(name for name, _ in cells)
    weights_N = np.array([by_script[cell[0]] / (2 * sizes[cell]) for cell in cells])
    frequency_V = matrix.getnnz(axis=0)
    scale_V = np.log((len(units) + 1) / (frequency_V + 1)).astype(np.float32)
    ensemble: Any = False  # one model of all texts; the stubs say str
    model: Any = CalibratedClassifierCV(
        LogisticRegression(C=config.regularisation, max_iter=1_000), cv=splits, ensemble=ensemble
    )
    scaled = csr_matrix(
        (matrix.data * scale_V[matrix.indices], matrix.indices, matrix.indptr), matrix.shape
    )
    model.fit(scaled, [is_medical for _, is_medical in cells], sample_weight=weights_N)
    (calibrated,) = model.calibrated_classifiers_
    linear, (sigmoid,) = calibrated.estimator, calibrated.calibrators
    # P = 1 / (1 + exp(a s + b)) of the score s = w x + c: one linear model again.
    bias = -(sigmoid.a_ * linear.intercept_[0] + sigmoid.b_)
    return -sigmoid.a_ * linear.coef_[0] * scale_V, float(bias)


def _listed(sizes: Counter[tuple[str, bool]]) -> str:
    return ", ".join(
        f"{number} {'medical' if is_medical else 'general'} ({name})"
        for (name, is_medical), number in sorted(sizes.items())
    )
