"""Finished stages of a job, so that a rerun goes on where a killed run stopped.

In: an open artefact. Out: stages.json in it, with the counts and metrics of every stage done.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from medray.common.manifest import Artefact, Counts

logger = logging.getLogger(__name__)

Outcome = tuple[dict[str, Counts], dict[str, Any]]
"""Counts by operator, and metrics."""


class Stages:
    """Runs stages once each. A stage publishes its files itself, by rename, before it returns."""

    def __init__(self, artefact: Artefact) -> None:
        self._artefact = artefact
        self._path = artefact.dir / "stages.json"
        self._done: dict[str, Any] = {}
        if self._path.exists():
            self._done = json.loads(self._path.read_text(encoding="utf-8"))

    def run(self, name: str, work: Callable[[], Outcome]) -> None:
        """Does the stage unless it is done, and enters its outcome in the artefact."""
        if name in self._done:
            logger.info("%s: done before, reused", name)
        else:
            counts, metrics = work()
            for operator, count in counts.items():
                count.check(operator)
                logger.info("%s: in %d, out %d, rejected %s", operator, *dict(count).values())
            self._done[name] = {
                "counts": {operator: count.model_dump() for operator, count in counts.items()},
                "metrics": metrics,
            }
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._done, indent=1), encoding="utf-8")
            temporary.replace(self._path)
        outcome = self._done[name]
        for operator, count in outcome["counts"].items():
            self._artefact.counts[operator] = Counts(**count)
        self._artefact.metrics.update(outcome["metrics"])
