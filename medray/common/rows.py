"""Rows on disk: row models in Parquet shards, written streaming and read streaming."""

import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from medray.common.errors import DataError
from medray.common.records import Row

RowType = TypeVar("RowType", bound=Row)
SHARD_ROWS = 10_000


def arrow_schema(row_type: type[Row]) -> pa.Schema:
    """The Arrow schema of a row model, so that an empty or all-null column keeps its type."""
    return pa.schema(
        [
            pa.field(name, _arrow_type(field.annotation))
            for name, field in row_type.model_fields.items()
        ]
    )


def write_rows(
    directory: Path, row_type: type[RowType], rows: Iterable[RowType], shard_rows: int = SHARD_ROWS
) -> int:
    """Writes `rows` to `directory/part-NNNNN.parquet`; returns how many. Memory: one shard.

    An empty input still writes one shard, so that the directory has its schema.
    """
    directory.mkdir(parents=True, exist_ok=True)
    schema = arrow_schema(row_type)
    shard: list[dict[str, Any]] = []
    count = part = 0

    def flush() -> None:
        nonlocal part
        path = directory / f"part-{part:05d}.parquet"
        temporary = path.with_suffix(".tmp")
        pq.write_table(pa.Table.from_pylist(shard, schema=schema), temporary)
        temporary.replace(path)
        part += 1
        shard.clear()

    for row in rows:
        shard.append(row.model_dump())
        count += 1
        if len(shard) == shard_rows:
            flush()
    if shard or part == 0:
        flush()
    return count


def read_rows(directory: Path, row_type: type[RowType]) -> Iterator[RowType]:
    """Yields the rows of all shards in order; strict, so a foreign file is an error.

    Raises:
        DataError: if the directory holds no shard, or a row does not fit the model.
    """
    for batch in read_batches(directory):
        for values in batch.to_pylist():
            if "options" in values and isinstance(values["options"], list):
                values["options"] = dict(values["options"])
            yield row_type.model_validate(values)


def read_batches(directory: Path) -> Iterator[pa.RecordBatch]:
    """Yields Arrow batches of all shards in order."""
    paths = sorted(directory.glob("*.parquet"))
    if not paths:
        raise DataError(f"no Parquet shards in {directory}; run the job that writes them again")
    for path in paths:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=1024)


def count_rows(directory: Path) -> int:
    """How many rows the shards hold, from their footers."""
    return sum(pq.read_metadata(path).num_rows for path in directory.glob("*.parquet"))


def _arrow_type(annotation: Any) -> pa.DataType:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal or annotation is str:
        return pa.string()
    if origin in (typing.Union, types.UnionType):
        return _arrow_type(next(a for a in arguments if a is not type(None)))
    if origin is list:
        return pa.list_(_arrow_type(arguments[0]))
    if origin is dict:
        return pa.map_(_arrow_type(arguments[0]), _arrow_type(arguments[1]))
    if isinstance(annotation, type) and issubclass(annotation, Row):
        return pa.struct(list(arrow_schema(annotation)))
    return {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[annotation]
