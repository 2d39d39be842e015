"""Switches: one file that stops the model's answers everywhere, one that stops a canary's.

`medray serve stop-model` makes the file, `medray serve start-model` removes it. Every gateway
replica looks before each answer and before each piece of text that it sends on, so that answers
that are under way end too.
"""

import os
from pathlib import Path

from medray.serving.schema.base import ApiError


class Switch:
    """The switch at one path; no path, no switch."""

    def __init__(self, path: str) -> None:
        self._path = os.path.expanduser(path)

    @property
    def is_off(self) -> bool:
        """Whether the file is there."""
        return bool(self._path) and os.path.exists(self._path)

    def check(self) -> None:
        """Raises ApiError while the model is stopped."""
        if self.is_off:
            raise ApiError(
                503, "the model was stopped by those who run this service",
                code="model_stopped", retry_after_s=60,
            )  # fmt: skip

    def stop(self) -> bool:
        """Makes the file; False if it was there."""
        path = Path(self._path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def start(self) -> bool:
        """Removes the file; False if it was not there."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return False
        return True
