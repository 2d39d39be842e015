"""Milvus. In: a URI and vectors. Out: a client, and the nearest rows of a collection.

What calls Milvus stands here and in `versions`. A URI that ends in .db is Milvus Lite, http://...
a cluster. Tried with milvus-lite 3.2.2, pymilvus 3.0.2: 10 000 rows of 128, FLAT 5 ms a query,
exact. Trap of Lite met here: the file's lock outlives `client.close()`.
"""

import logging
import os
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from medray.common.config import Config
from medray.common.errors import DataError, ServiceError
from medray.common.records import Passage

TOKEN = "MEDRAY_MILVUS_TOKEN"
"""USER:PASSWORD or an API key; in the environment alone, for settings are written to artefacts."""


class CollectionConfig(Config):
    """How a collection is indexed and how many versions are kept."""

    index_type: Literal["FLAT", "HNSW"] = "FLAT"
    """FLAT is exact and serves to some 100 000 passages; HNSW beyond."""
    hnsw_m: int = 16
    """Source: [HNSW 4.1], within its range of 5 to 48."""
    hnsw_ef_construction: int = 200
    hnsw_ef: int = 128
    keep_versions: int = Field(default=2, ge=1)
    """Finished collections left in a cluster, so that indexes before the newest are open at once;
    an older one is filled anew from its index when that is opened."""


def connect(uri: str) -> MilvusClient:
    """Opens Milvus Lite or a cluster, a cluster with the token in MEDRAY_MILVUS_TOKEN if it is set.

    Raises:
        ServiceError: if nothing answers at the URI, or another process holds the Lite file.
    """
    # The client logs what it raises, a search's condition with it, which a user wrote.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    if is_lite(uri):
        # Lite's server runs in this process and logs a traceback for each call that it does not
        # have (AllocTimestamp, which the client does without); what fails reaches the client.
        logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
    try:
        token = "" if is_lite(uri) else os.environ.get(TOKEN, "")
        return MilvusClient(uri, token=token, timeout=20)
    except (MilvusException, RuntimeError) as error:
        hint = (
            "another process may hold it; give each process a copy (search.open_index)"
            if is_lite(uri)
            else "start the Milvus cluster or mend index.uri"
        )
        raise ServiceError(f"no Milvus at {uri}: {type(error).__name__}; {hint}") from None


def disconnect(client: MilvusClient, uri: str) -> None:
    """Closes the client and, for Lite, ends its server, which alone releases the file's lock."""
    client.close()
    if is_lite(uri):
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(uri)


def is_lite(uri: str) -> bool:
    """True if the URI is a Milvus Lite file."""
    return "://" not in uri


def check_there(client: MilvusClient, collection: str) -> None:
    """Raises ServiceError if Milvus does not answer or has no such collection."""
    if not is_there(client, collection):
        raise ServiceError(f"Milvus has no collection {collection} any more; open the index anew")


def passage_fields(client: MilvusClient, collection: str) -> list[str]:
    """Fields of a passage that a collection holds; one of an earlier version may lack some."""
    try:
        found: dict[str, Any] = client.describe_collection(collection)  # pyright: ignore[reportAssignmentType]
    except MilvusException as error:
        raise ServiceError(f"{collection} cannot be read: code {error.code}") from None
    held = {field["name"] for field in found["fields"]}
    return [name for name in Passage.model_fields if name in held]


def is_there(client: MilvusClient, collection: str) -> bool:
    """Whether Milvus has a collection; raises ServiceError if it does not answer."""
    try:
        return bool(client.has_collection(collection))
    except MilvusException as error:
        raise ServiceError(f"Milvus does not answer: {error.message}") from None


def search_vectors(
    client: MilvusClient,
    collection: str,
    queries_QD: np.ndarray,
    top_k: int,
    config: CollectionConfig,
    *,
    condition: str = "",
    fields: list[str] | None = None,
) -> list[list[dict[str, Any]]]:
    """Returns, for each query, at most `top_k` rows with `distance` = cosine, best first.

    Args:
        condition: a Milvus expression over passage fields, such as `department == "呼吸内科"`.
    Raises:
        DataError: if the condition is not a valid expression.
    """
    try:
        hits = client.search(
            collection,
            data=queries_QD.tolist(),
            limit=top_k,
            filter=condition,
            output_fields=fields or list(Passage.model_fields),
            search_params={"metric_type": "COSINE", "params": {"ef": max(config.hnsw_ef, top_k)}},
        )
    except MilvusException as error:
        if condition:
            # Its values are a user's words, and Milvus' message quotes them.
            raise DataError(
                f"Milvus refused a condition: code {error.code}; an earlier version's collection "
                "has not every field, build its index anew"
            ) from None
        raise ServiceError(f"search in {collection} failed: {error.message}") from None
    return [[{**hit["entity"], "distance": hit["distance"]} for hit in row] for row in hits]


def get_rows(
    client: MilvusClient, collection: str, ids: list[str], fields: list[str] | None = None
) -> list[dict[str, Any]]:
    """Passages by their ids, those that are there, in the order asked for.

    Args:
        fields: what to read of them; None is all but the vector.
    """
    if not ids:
        return []
    wanted = fields or list(Passage.model_fields)
    try:
        found = client.get(collection, ids=ids, output_fields=wanted)
    except MilvusException as error:
        raise ServiceError(f"reading from {collection} failed: {error.message}") from None
    by_id = {row["passage_id"]: dict(row) for row in found}
    return [by_id[name] for name in ids if name in by_id]


def vectors_of(batch: pa.RecordBatch | pa.Table) -> np.ndarray:
    """Returns vectors_ND of the fixed-size list column `vector`, float32."""
    column = batch["vector"]
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)
