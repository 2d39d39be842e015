"""Sorts and groups rows that do not fit in memory, by spreading them over files on disk.

In: (key, value) pairs in any order. Out: the same pairs sorted by (key, value), so that the order
of the input cannot show in an artefact. Memory: one bucket. The files have no name, so nobody else
can open them and a process that is killed leaves none behind: raw records may pass through.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

NUM_BUCKETS = 64
"""1 000 000 rows of 2 kB make buckets of 32 MB."""


def hash_key(*parts: str) -> str:
    """A hexadecimal hash of `parts`: a place in an order that depends on nothing else."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Spool:
    """Bucket files on the disk of `directory`, gone when the `with` block ends."""

    def __init__(self, directory: Path | None = None) -> None:
        """`directory`: where there is room for all rows; None: the temporary directory."""
        self.directory = directory
        self._files: dict[int, IO[str]] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, key: str, value: Any) -> None:
        """Adds one pair. `key` comes from `hash_key`; `value` is anything JSON can hold."""
        bucket = int(key[:8], 16) * NUM_BUCKETS >> 32
        if bucket not in self._files:
            self._files[bucket] = self._open.enter_context(
                tempfile.TemporaryFile(  # noqa: SIM115
                    "w+", encoding="utf-8", newline="\n", dir=self.directory
                )
            )
        line = json.dumps(value, ensure_ascii=False, sort_keys=True)
        self._files[bucket].write(f"{key}\t{line}\n")

    def groups(self) -> Iterator[tuple[str, list[Any]]]:
        """Yields (key, values), keys ascending, the values of a key sorted by their JSON."""
        for bucket in sorted(self._files):
            file = self._files[bucket]
            file.seek(0)
            lines = sorted(line.rstrip("\n") for line in file)
            for key, same in groupby(lines, key=lambda line: line.partition("\t")[0]):
                yield key, [json.loads(line.partition("\t")[2]) for line in same]
