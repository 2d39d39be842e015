"""Switches: one file that stops the model's answers everywhere, one that stops a canary's.

`medray serve stop-model` makes the file, `medray serve start-model` removes it. Every gateway
replica looks before each answer and before each piece of text that it sends on, so that answers
that are under way end too. `medray serve stop-model NAME` writes the name of a model that is kept
warm into it, and that one answers from the next request on.
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

    @property
    def instead(self) -> str:
        """The model that answers while another is stopped; empty where none does."""
        try:
            return Path(self._path).read_text(encoding="utf-8") if self.is_off else ""
        except (OSError, UnicodeDecodeError):  # what cannot be read stops all
            return ""

    def check(self, model: str = "") -> None:
        """Raises ApiError while the model is stopped, unless it is the one that answers instead."""
        if self.is_off and (not model or model != self.instead):
            raise ApiError(
                503, "the model was stopped by those who run this service",
                code="model_stopped", retry_after_s=60,
            )  # fmt: skip

    def stop(self, instead: str = "") -> bool:
        """Makes the file; False if it was there and said the same."""
        if self.is_off and self.instead == instead:
            return False
        path = Path(self._path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(instead, encoding="utf-8")
        os.chmod(temporary, 0o644)  # replicas may run as somebody else
        os.replace(temporary, path)  # a reader sees a whole name or none
        return True

    def start(self) -> bool:
        """Removes the file; False if it was not there."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return False
        return True
