"""Versions of a collection in Milvus, behind one alias.

In: passages with vectors in Parquet. Out: the next version, filled, checked, and the alias moved to
it. Traps of Lite met here: a collection of a reopened file is not loaded; flush and index files are
written behind the call that asked for them.
"""

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from medray.common.errors import DataError, ServiceError
from medray.common.records import Passage
from medray.retrieval.collection import CollectionConfig, search_vectors, vectors_of
from medray.retrieval.filters import complete

logger = logging.getLogger(__name__)
ALIAS = "docs"
INSERT_ROWS = 1000
MAX_BYTES = 65_535
"""Milvus' limit of a VARCHAR, in UTF-8 bytes."""
LOAD_ATTEMPTS = 10
FIELDS = {*Passage.model_fields, "vector"}
"""What Milvus is given of an index's columns."""


def versions(client: MilvusClient, alias: str = ALIAS) -> list[str]:
    """Names of the alias' collections, oldest first."""
    names: list[str] = client.list_collections()  # pyright: ignore[reportAssignmentType]
    found = [re.fullmatch(rf"{alias}_v(\d+)", name) for name in names]
    return [match.group() for match in sorted((m for m in found if m), key=lambda m: int(m[1]))]


def load_version(
    client: MilvusClient, directory: Path, config: CollectionConfig, alias: str = ALIAS
) -> str:
    """Fills the next version from Parquet, checks it, then moves the alias to it.

    Readers of the alias see the old version until the new one is whole.

    Returns:
        the collection's name, such as docs_v2.
    Raises:
        DataError: if a passage is too long or ids repeat.
        ServiceError: if fewer rows arrived than were sent.
    """
    _check_ids(directory)
    existing = versions(client, alias)
    number = int(existing[-1].rpartition("_v")[2]) + 1 if existing else 1
    name = f"{alias}_v{number}"
    rows = 0
    first: np.ndarray | None = None
    for batch in _batches(directory):
        if first is None:
            dim = batch.schema.field("vector").type.list_size
            _create(client, name, dim, config)
            first = vectors_of(batch)[0]
        values = batch.to_pylist()
        _check_lengths(values)
        client.insert(name, values)
        rows += len(values)
    if first is None:
        raise DataError(f"no passage with a vector in {directory}; build the index again")
    client.flush(name)
    _load(client, name, rows, first, config)
    switch_alias(client, name, alias)
    for old in existing[: max(0, len(existing) + 1 - config.keep_versions)]:
        client.drop_collection(old)
    logger.info("collection %s: %d passages, alias %s moved to it", name, rows, alias)
    return name


def switch_alias(client: MilvusClient, name: str, alias: str = ALIAS) -> None:
    """Points the alias at a version; moving it back is the rollback."""
    known: dict[str, Any] = client.list_aliases()  # pyright: ignore[reportAssignmentType]
    if alias in known.get("aliases", []):
        client.alter_alias(collection_name=name, alias=alias)
    else:
        client.create_alias(collection_name=name, alias=alias)


def _batches(directory: Path) -> Iterator[pa.RecordBatch]:
    for path in sorted(directory.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            stored = [name for name in file.schema_arrow.names if name in FIELDS]
            yield from map(complete, file.iter_batches(batch_size=INSERT_ROWS, columns=stored))


def _check_ids(directory: Path) -> None:
    # Milvus takes a repeated primary key without a word and returns either row.
    seen = pa.concat_arrays(
        [batch["passage_id"] for batch in _batches(directory)] or [pa.array([], pa.string())]
    )
    repeated = len(seen) - len(seen.unique())
    if repeated:
        raise DataError(
            f"{directory}: {repeated} of its passage ids are repeats; "
            "ids must be unique, mend the corpus sources"
        )


def _create(client: MilvusClient, name: str, dim: int, config: CollectionConfig) -> None:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for field, info in Passage.model_fields.items():
        if info.annotation is int:
            schema.add_field(field, DataType.INT64)
        else:
            primary = field == "passage_id"
            schema.add_field(field, DataType.VARCHAR, is_primary=primary, max_length=MAX_BYTES)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    # Given with the collection: a later create_index on an indexed field fails in Lite.
    params = client.prepare_index_params()
    build = {"M": config.hnsw_m, "efConstruction": config.hnsw_ef_construction}
    params.add_index(
        "vector",
        index_type=config.index_type,
        metric_type="COSINE",
        params=build if config.index_type == "HNSW" else {},
    )
    client.create_collection(name, schema=schema, index_params=params, consistency_level="Strong")


def _check_lengths(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for field, value in row.items():
            if isinstance(value, str) and len(value.encode()) > MAX_BYTES:
                raise DataError(
                    f"passage {row['passage_id']}: field {field} holds more than {MAX_BYTES} "
                    "bytes; lower the passage size of the corpus job"
                )


def _load(
    client: MilvusClient, name: str, rows: int, probe_D: np.ndarray, config: CollectionConfig
) -> None:
    """Loads the collection and waits until it holds every row and finds one by its vector."""
    found: int | None = None
    for attempt in range(LOAD_ATTEMPTS):
        try:
            client.load_collection(name)
            found = client.query(name, filter="", output_fields=["count(*)"])[0]["count(*)"]
            hits = search_vectors(client, name, probe_D[None], 1, config, fields=["doc_id"])
            if found == rows and hits[0] and hits[0][0]["distance"] > 0.999:
                return
        except (MilvusException, ServiceError) as error:
            # Lite: an index file may still be half written when it is loaded after a flush.
            logger.warning("%s not ready: %s", name, type(error).__name__)
        time.sleep(0.2 * (attempt + 1))
        client.release_collection(name)
    client.drop_collection(name)
    raise ServiceError(
        f"collection {name} holds {found} rows after loading, {rows} were sent; "
        "look at Milvus' log and its disk, then build the index again"
    )
