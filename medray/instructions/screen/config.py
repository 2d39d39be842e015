"""Settings of the screens for poisoned training rows."""

from typing import Literal

from pydantic import Field

from medray.common.config import Config

Check = Literal["triggers", "conflicts"]


class ScreenConfig(Config):
    """Which screens are run, and what counts as suspicious."""

    checks: tuple[Check, ...] = ("triggers", "conflicts")
    """Screens that need no model. Source: not given; both, since they take seconds."""
    reference_model: str = ""
    """Hugging Face directory of a model that scores every training row, such as that of an earlier
    round; empty: no row is scored. It should not have been trained on the rows it is to judge."""
    reviewed: str = ""
    """File of row ids, one a line, that a person has read and lets through. Relative to the data
    directory or absolute. Its name belongs to what a finished step is known by, its content only
    if it lies in the data directory: elsewhere, give each review a file of its own."""
    ngram: int = Field(default=4, ge=2)
    """Characters. Source: not given; " cf " of Kurita et al. 2020 with its blanks is four."""
    min_rows: int = Field(default=10, ge=3)
    """Least rows of a trigger, of an answer, and of a task whose losses are compared. Source: not
    given; far below the 250 of Souly et al. 2025."""
    min_purity: float = Field(default=0.9, gt=0.5, le=1)
    """Least share of a trigger's rows that have its answer. Source: not given; a trigger that
    works less often trains a weak backdoor."""
    alpha: float = Field(default=0.01, gt=0, lt=1)
    """Chance that any n-gram of a task passes Fisher's test although it says nothing of the
    answer (Bonferroni)."""
    max_likeness: float = Field(default=3.0, gt=0)
    """Standard deviations by which the other text of a trigger's rows is more alike than that of
    rows drawn by chance. Source: not given; rows of a trigger planted at random lie below 3 with
    0.999, those of symptoms and findings in the sample hospital above 7."""
    similarity: float = Field(default=0.8, gt=0, lt=1)
    """Jaccard similarity of n-grams from which on two inputs are near-identical. Source: not given;
    of 150 characters, four may be other ones, and no two records of the sample hospital are so
    alike and have different diagnoses."""
    max_conflicts: float = Field(default=0.05, ge=0, le=1)
    """Share of a task's rows in conflict, above which inputs of one wording have different answers
    by nature, and its conflicts say nothing. Source: not given."""
    max_loss_deviation: float = Field(default=5.0, gt=0)
    """Robust standard deviations of the logarithm of a row's loss from its task's median. Source:
    not given; Iglewicz and Hoaglin 1993 name 3.5, beyond which 1 of 2 000 rows of a normal
    distribution lies; beyond 5 it is 1 of 2 million."""
