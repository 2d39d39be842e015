"""Which passages a search may return. In: what a user picks. Out: the same condition for both
halves of the search, a Milvus expression and a mask over the index's columns.
"""

import json
import operator
from functools import reduce
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import Field

from medray.common.config import Config
from medray.common.records import Kind

pc: Any = pyarrow.compute  # its functions are made when it is imported
AFTER = "~"
"""Sorts after every digit and hyphen, so that `until` 2024 takes in the whole year."""
DAY = r"^\d{4}(-\d{2}(-\d{2})?)?$"
COLUMNS = ("department", "kind", "source", "date", "patient_id", "superseded_by")
ADDED = ("patient_id", "superseded_by")
"""Columns that indexes of earlier versions lack."""


def complete(table: Any) -> Any:
    """A table or batch of passages, with the columns that indexes of earlier versions lack."""
    for name in ADDED:
        if name not in table.schema.names:
            table = table.append_column(name, pa.array([""] * len(table), pa.string()))
    return table


Choice = Annotated[str, Field(pattern=r"^[^\x00-\x1f]*$")]
"""Milvus reads no escaped control character."""


class PassageFilter(Config):
    """Conditions that must all hold; an empty one holds for every passage."""

    departments: list[Choice] = Field(default=[], max_length=64)
    kinds: list[Kind] = Field(default=[])
    sources: list[Choice] = Field(default=[], max_length=64)
    since: str = Field(default="", pattern=DAY + "|^$")
    """A year, month or day, such as 2024-03; passages without a date are left out."""
    until: str = Field(default="", pattern=DAY + "|^$")
    """The last year, month or day that is taken in."""
    not_patient: Choice = Field(default="", max_length=256)
    """A patient of whom nothing is shown, by the surrogate that passages carry."""
    superseded: bool | None = None
    """False: of texts in force only; true: of those only that a later one replaces."""

    @property
    def is_empty(self) -> bool:
        """Whether every passage may be returned."""
        return self == PassageFilter()

    def expression(self) -> str:
        """As Milvus reads it; empty if there is no condition."""
        parts = [
            f"{column} in {json.dumps(values, ensure_ascii=False)}"
            for column, values in self._choices()
            if values
        ]
        if self.since:
            parts.append(f'date >= "{self.since}"')
        if self.until:
            parts.append(f'date != "" and date <= "{self.until}{AFTER}"')
        if self.not_patient:
            parts.append(f"patient_id != {json.dumps(self.not_patient, ensure_ascii=False)}")
        if self.superseded is not None:
            parts.append(f'superseded_by {"!=" if self.superseded else "=="} ""')
        return " and ".join(parts)

    def mask(self, table: pa.Table) -> np.ndarray:
        """mask_N of a table with COLUMNS, true where every condition holds."""
        parts: list[Any] = [
            pc.is_in(table[column], pa.array(values, pa.string()))
            for column, values in self._choices()
            if values
        ]
        if self.since:
            parts.append(pc.greater_equal(table["date"], self.since))
        if self.until:
            parts.append(pc.less_equal(table["date"], self.until + AFTER))
            parts.append(pc.not_equal(table["date"], ""))
        if self.not_patient:
            parts.append(pc.not_equal(table["patient_id"], self.not_patient))
        if self.superseded is not None:
            compare = pc.not_equal if self.superseded else pc.equal
            parts.append(compare(table["superseded_by"], ""))
        masks = [part.to_numpy(zero_copy_only=False) for part in map(_whole, parts)]
        return reduce(operator.and_, masks, np.ones(len(table), dtype=bool))

    def _choices(self) -> list[tuple[str, list[str]]]:
        return [
            ("department", self.departments),
            ("kind", list(self.kinds)),
            ("source", self.sources),
        ]


def _whole(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
