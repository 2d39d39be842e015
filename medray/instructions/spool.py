"""Sorts and groups rows that do not fit in memory, by spreading them over files on disk.

In: (key, value) pairs in any order. Out: the same pairs sorted by (key, value), so that the order
of the input cannot show in an artefact. Memory: one bucket.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

NUM_BUCKETS = 64
"""1 000 000 rows of 2 kB make buckets of 32 MB."""


def hash_key(*parts: str) -> str:
    """A hexadecimal hash of `parts`: a place in an order that depends on nothing else."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Spool:
    """A directory of bucket files; removed when the `with` block ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[int, TextIO] = {}

    def __enter__(self) -> Self:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def add(self, key: str, value: Any) -> None:
        """Adds one pair. `key` comes from `hash_key`; `value` is anything JSON can hold."""
        bucket = int(key[:8], 16) * NUM_BUCKETS >> 32
        if bucket not in self._files:
            path = self.directory / f"{bucket:03d}.jsonl"
            self._files[bucket] = path.open("a", encoding="utf-8")
        line = json.dumps(value, ensure_ascii=False, sort_keys=True)
        self._files[bucket].write(f"{key}\t{line}\n")

    def groups(self) -> Iterator[tuple[str, list[Any]]]:
        """Yields (key, values), keys ascending, the values of a key sorted by their JSON."""
        self._close()
        for path in sorted(self.directory.glob("*.jsonl")):
            with path.open(encoding="utf-8") as file:
                lines = sorted(line.rstrip("\n") for line in file)
            for key, same in groupby(lines, key=lambda line: line.partition("\t")[0]):
                yield key, [json.loads(line.partition("\t")[2]) for line in same]

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
