"""Versions of a collection in Milvus, behind one alias.

In: passages with vectors in Parquet. Out: the next version, filled, checked, and the alias moved to
it. Until it is whole it has a name that is no version's, by which the next build knows what a
killed one left behind; so builds on one cluster go one after another. Traps of Lite met here: a
collection of a reopened file is not loaded; flush and index files are written behind the call that
asked for them.
"""

import logging
import re
import time
import uuid
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
from medray.retrieval.collection import CollectionConfig, is_there, search_vectors, vectors_of
from medray.retrieval.filters import complete

logger = logging.getLogger(__name__)
ALIAS = "docs"
UNFINISHED = "unfinished"
INSERT_ROWS = 1000
MAX_BYTES = 65_535
"""Milvus' limit of a VARCHAR, in UTF-8 bytes."""
LOAD_ATTEMPTS = 10
FIELDS = {*Passage.model_fields, "vector"}
"""What Milvus is given of an index's columns."""


def versions(client: MilvusClient, alias: str = ALIAS) -> list[str]:
    """Names of the alias' finished collections, oldest first."""
    found = [re.fullmatch(rf"{alias}_v(\d+)", name) for name in _collections(client)]
    return [match.group() for match in sorted((m for m in found if m), key=lambda m: int(m[1]))]


def load_version(
    client: MilvusClient, directory: Path, config: CollectionConfig, alias: str = ALIAS
) -> str:
    """Fills the next version from Parquet, checks it, then moves the alias to it and drops all but
    the newest `keep_versions`.

    Readers of the alias see the old version until the new one is whole.

    Returns:
        the collection's name, such as docs_v2.
    Raises:
        DataError: if a passage is too long or ids repeat.
        ServiceError: if fewer rows arrived than were sent.
    """
    drop_unfinished(client)
    name = finish(client, fill(client, directory, config), alias)
    switch_alias(client, name, alias)
    drop_older(client, config.keep_versions, alias)
    return name


def fill(client: MilvusClient, directory: Path, config: CollectionConfig, name: str = "") -> str:
    """Fills a collection and checks it; one that cannot be filled is dropped.

    Args:
        name: empty for one that is no version until `finish` makes it one.
    Returns:
        the collection's name, for the time being.
    Raises:
        DataError, ServiceError: as `load_version`.
    """
    _check_ids(directory)
    name = name or f"{ALIAS}_{UNFINISHED}_{uuid.uuid4().hex[:12]}"
    try:
        rows = _fill(client, directory, config, name)
    except Exception:
        client.drop_collection(name)
        raise
    logger.info("collection %s: %d passages", name, rows)
    return name


def finish(client: MilvusClient, filled: str, alias: str = ALIAS) -> str:
    """Makes what `fill` has filled the next version; returns its name, such as docs_v2."""
    existing = versions(client, alias)
    number = int(existing[-1].rpartition("_v")[2]) + 1 if existing else 1
    name = f"{alias}_v{number}"
    _rename(client, filled, name)
    return name


def restore(client: MilvusClient, name: str, directory: Path, config: CollectionConfig) -> None:
    """Fills a version that is gone anew, under its name; the alias stays where it is.

    Raises:
        DataError, ServiceError: as `load_version`.
    """
    filled = fill(client, directory, config)
    try:
        _rename(client, filled, name)
    except MilvusException as error:
        client.drop_collection(filled)
        if not is_there(client, name):  # else another replica has been faster
            raise ServiceError(f"{name} cannot be filled anew: code {error.code}") from None


def drop_unfinished(client: MilvusClient) -> None:
    """Drops what builds that died have left half filled."""
    for name in _collections(client):
        if name.startswith(f"{ALIAS}_{UNFINISHED}_"):
            logger.warning("collection %s was left unfinished; it is dropped", name)
            client.drop_collection(name)


def drop_older(client: MilvusClient, keep: int, alias: str = ALIAS) -> None:
    """Drops all versions but the newest; an index that one of them belongs to fills it anew when
    it is opened (`search.open_index`)."""
    for name in versions(client, alias)[:-keep]:
        logger.info("collection %s is dropped, %d newer ones being there", name, keep)
        client.drop_collection(name)


def alias_target(client: MilvusClient, alias: str = ALIAS) -> str:
    """The version that the alias points at; empty if there is no alias."""
    known: dict[str, Any] = client.list_aliases()  # pyright: ignore[reportAssignmentType]
    there = alias in known.get("aliases", [])
    return client.describe_alias(alias)["collection_name"] if there else ""


def switch_alias(client: MilvusClient, name: str, alias: str = ALIAS) -> None:
    """Points the alias at a version; moving it back is the rollback."""
    if alias_target(client, alias):
        client.alter_alias(collection_name=name, alias=alias)
    else:
        client.create_alias(collection_name=name, alias=alias)


def _collections(client: MilvusClient) -> list[str]:
    return client.list_collections()  # pyright: ignore[reportReturnType]


def _fill(client: MilvusClient, directory: Path, config: CollectionConfig, name: str) -> int:
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
    return rows


def _rename(client: MilvusClient, filled: str, name: str) -> None:
    client.rename_collection(filled, name)
    client.load_collection(name)  # Lite releases what it renames


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
    raise ServiceError(
        f"collection {name} holds {found} rows after loading, {rows} were sent; "
        "look at Milvus' log and its disk, then build the index again"
    )
