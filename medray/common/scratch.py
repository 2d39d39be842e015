"""Directories for what a process writes on its way to the storage.

A process that is killed cannot remove its own, and a checkpoint of a large model in it fills a
machine's disk. So whoever owns one holds a lock in it, which the system lets go with the process;
the next process on the machine that asks for one removes those that nobody holds.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)
PREFIX, LOCK = "medray-scratch-", "lock"


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """An empty directory, removed at the end, or, after an error, by the next process that asks:
    something in the background (an upload) may read from it until this one ends."""
    remove_abandoned()
    made = Path(tempfile.mkdtemp(prefix="medray-new-"))
    held = _lock(made)
    # Named when it is locked: until then another process would take it for abandoned.
    directory = made.rename(made.with_name(made.name.replace("medray-new-", PREFIX)))
    yield directory
    while directory.exists():
        # Milvus Lite, which ends in the background, removes files of its own meanwhile.
        with suppress(FileNotFoundError):
            shutil.rmtree(directory)
    os.close(held)


def remove_abandoned() -> None:
    """Removes the scratch directories of processes that are no more."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            held = _lock(directory)
        except OSError:
            continue  # its owner lives, or is another user, or someone else is removing it
        shutil.rmtree(directory, ignore_errors=True)
        os.close(held)
        if directory.exists():
            logger.warning("%s, which a killed process had left, cannot be removed", directory)
        else:
            logger.info("removed %s, which a killed process had left", directory)


def _lock(directory: Path) -> int:
    """Takes the lock in `directory`. Raises OSError if another process has it."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
