"""A figure: one number of a report, with how many items it rests on and its interval.

A figure that lacks its input has no value and says why; it is never guessed.
Source: EVALUATION.md 1.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from medray.evaluation.bootstrap import mean_interval
from medray.quality.intervals import wilson


class Figure(BaseModel):
    """One number. `subject` is a model, a baseline or a bound; `group` a part of the items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str
    metric: str
    value: float | None
    n: int = 0
    low: float | None = None
    high: float | None = None
    group: str = ""
    unit: str = ""
    reason: str = ""
    """Why there is no value."""

    @property
    def key(self) -> str:
        """Its name in a manifest's metrics."""
        return "/".join(part for part in (self.subject, self.metric, self.group) if part)


def share(
    subject: str, metric: str, successes: int, n: int, *, group: str = "", reason: str = "no items"
) -> Figure:
    """A proportion with Wilson's 95 % interval; n/a with `reason` if n is 0."""
    interval = wilson(successes, n)
    if interval is None:
        return Figure(subject=subject, metric=metric, value=None, group=group, reason=reason)
    return Figure(
        subject=subject,
        metric=metric,
        value=successes / n,
        n=n,
        low=interval[0],
        high=interval[1],
        group=group,
    )


def mean(
    subject: str, metric: str, values: Sequence[float], *, unit: str = "", group: str = ""
) -> Figure:
    """A mean with its 95 % bootstrap interval; n/a without values."""
    if not values:
        return Figure(
            subject=subject, metric=metric, value=None, group=group, unit=unit, reason="no items"
        )
    low, high = mean_interval(values)
    return Figure(
        subject=subject,
        metric=metric,
        value=sum(values) / len(values),
        n=len(values),
        low=low,
        high=high,
        group=group,
        unit=unit,
    )


def plain(subject: str, metric: str, value: float | None, n: int = 0, **more: Any) -> Figure:
    """A number without an interval."""
    return Figure(subject=subject, metric=metric, value=value, n=n, **more)


def missing(subject: str, metric: str, reason: str) -> Figure:
    """A figure that cannot be computed here."""
    return Figure(subject=subject, metric=metric, value=None, reason=reason)


def as_metrics(figures: Iterable[Figure]) -> dict[str, float | None]:
    """Figure key → value, for a manifest."""
    return {figure.key: figure.value for figure in figures}
