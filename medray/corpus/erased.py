"""The list of erased patients: whom no export brings back.

In and out: erased.json in the storage root, surrogate → `Erased`. Without the surrogate key it
tells nothing about who they are.
"""

import json
from typing import NamedTuple

from medray.common.storage import Storage

LIST = "erased.json"


class Erased(NamedTuple):
    """One erased patient."""

    date: str
    pending: tuple[str, ...] = ()
    """Records that are still to be taken out: the erasure was cut off."""


def read_erased(storage: Storage) -> dict[str, Erased]:
    """The list in a storage root; empty if there is none."""
    values = json.loads(storage.read_text(LIST) or "{}")
    return {name: Erased(note["date"], tuple(note["pending"])) for name, note in values.items()}


def write_erased(storage: Storage, erased: dict[str, Erased]) -> None:
    """Writes the list, whole or not at all."""
    values = {surrogate: note._asdict() for surrogate, note in sorted(erased.items())}
    storage.write_text(LIST, json.dumps(values, indent=1))
