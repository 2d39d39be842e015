"""What ends a stage for good, and what is tried again.

Ray Train starts a stage's workers again from the newest checkpoint, whatever they died of. Of what
the user has to mend they would die each time, so that ends the stage at once. This file imports
little, for Ray's controller reads it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.train import UserCallback

from medray.common.errors import MedrayError, ServiceError, StorageError


class OutOfMemoryError(MedrayError):
    """Want of memory, with what to change."""


class EndAtMistakes(UserCallback):
    """Lets Ray Train retry what may pass: a worker's death, a storage or a service that cannot be
    reached, want of memory once (a run of days may have splintered its memory), but not twice at
    the same place. Any other error of ours is raised in the controller, which retries none."""

    def __init__(self) -> None:
        self._met: set[str] = set()

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Ray Train calls this with what workers raised.

        Raises:
            MedrayError: one of theirs, if another attempt would meet it again.
        """
        for error in map(cause_of, worker_exceptions.values()):
            if not isinstance(error, MedrayError) or isinstance(error, StorageError | ServiceError):
                continue
            if isinstance(error, OutOfMemoryError) and str(error) not in self._met:
                self._met.add(str(error))
                continue
            raise error


def cause_of(failure: Exception) -> Exception:
    """What a worker raised, without Ray Train's wrapping."""
    return getattr(failure, "_base_exc", failure)


@contextmanager
def explaining_memory(stage: str, moment: str, remedy: str) -> Iterator[None]:
    """Turns want of memory into an error that says what to change.

    Args:
        moment: when it was, such as "in step 3".
        remedy: what to change.
    Raises:
        OutOfMemoryError: in place of torch's and Python's own.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_want_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"{stage} ran out of memory {moment}: {remedy}; `medray doctor --profile` tells what a "
            "stage needs"
        ) from error


def is_want_of_memory(error: Exception) -> bool:
    """torch says it in words: `CUDA out of memory`, on CPUs `can't allocate memory`."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("DefaultCPUAllocator: can't allocate memory" in text or "out of memory" in text)
    )
