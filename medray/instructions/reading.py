"""Raw task rows with their bookkeeping. In: the configured sources. Out: validated rows; counts,
quarantine and masked identifiers per source.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from medray.common.manifest import Counts
from medray.common.sources import (
    Rejected,
    SourceRow,
    check_rejected,
    to_row,
    write_quarantine,
)
from medray.common.split import Split, split_of
from medray.instructions.raw import ROW_TYPES, RawRow, TaskKind, TaskSource
from medray.instructions.shapes import read_task

logger = logging.getLogger(__name__)
RawType = TypeVar("RawType", bound=RawRow)


class TaskReader:
    """Reads the sources of one kind after another.

    A source that several outputs need is read again for each; its counts are those of one pass.
    """

    def __init__(
        self,
        sources: Sequence[TaskSource],
        data: Path,
        quarantine: Path,
        *,
        dev_fraction: float,
        max_rejected_fraction: float,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        self.sources, self.data, self.quarantine = sources, data, quarantine
        self.dev_fraction, self.max_rejected_fraction = dev_fraction, max_rejected_fraction
        self.counts: dict[str, Counts] = {}
        """`read/<source>` → rows through the last pass."""

    def rows(self, row_type: type[RawType], *kinds: TaskKind) -> Iterator[RawType]:
        """Yields the rows of all sources of `kinds`, which must be read as `row_type`.

        Raises:
            DataError: if a source cannot be read or too many of its rows do not fit.
        """
        for source in self.sources:
            if source.kind in kinds:
                yield from self.rows_of(source, row_type)

    def rows_of(self, source: TaskSource, row_type: type[RawType]) -> Iterator[RawType]:
        """Yields the rows of one source, as `rows`."""
        assert issubclass(ROW_TYPES[source.kind], row_type)
        return self._read(source, ROW_TYPES[source.kind])  # pyright: ignore

    def split(self, given: Split | None, key: str) -> Split:
        """The row's own split, else one by the hash of `key`."""
        return given or split_of(key, self.dev_fraction)

    def _read(self, source: TaskSource, row_type: type[RawType]) -> Iterator[RawType]:
        counts, rejected = Counts(), list[Rejected]()
        for line in read_task(source, self.data, self.seed):
            counts.rows_in += 1
            row = to_row(line, row_type) if isinstance(line, SourceRow) else line
            if isinstance(row, Rejected):
                counts.reject(row.reason)
                rejected.append(row)
            else:
                counts.rows_out += 1
                yield row
        self.counts[f"read/{source.name}"] = counts
        path = self.quarantine / f"{source.name}.jsonl"
        if rejected:
            write_quarantine(path, rejected)
        check_rejected(source.name, counts, self.max_rejected_fraction, path)
        logger.info("%s: %d rows in, %d out", source.name, counts.rows_in, counts.rows_out)
