"""A progress bar that a worker can move and the driver's terminal shows."""

import sys
from typing import Any

from ray.experimental import tqdm_ray


def progress_bar(name: str, total: int, done: int, *, enabled: bool) -> Any:
    """A bar on the driver's terminal; `enabled` is False on all workers but the first."""
    if not enabled:
        return _NoBar()
    bar = tqdm_ray.tqdm(desc=name, total=total, unit="step")
    bar.update(done)
    return bar


class _NoBar:
    def update(self, steps: int) -> None: ...

    def close(self) -> None:
        sys.stderr.flush()
