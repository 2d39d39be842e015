"""Search. In: a query vector. Out: passages with their cosine, best first."""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from medray.common.errors import ConfigError, DataError
from medray.common.records import Passage
from medray.common.scratch import scratch_directory
from medray.retrieval.collection import (
    ALIAS,
    CollectionConfig,
    connect,
    disconnect,
    is_lite,
    load_version,
    search_vectors,
)

INFO = "collection.json"


class Hit(NamedTuple):
    """A passage found."""

    passage: Passage
    score: float
    """Cosine of query and passage, -1 to 1."""


class Searcher:
    """Dense search over one index.

    Milvus Lite locks its file to one process, so an index directory is never opened in place:
    each process fills a private copy from the directory's Parquet and drops it at `close`.
    A cluster is shared through its URI.
    """

    def __init__(self, index_dir: Path | None = None, uri: str | None = None) -> None:
        """Opens an index artefact, or a collection on a Milvus cluster.

        Args:
            index_dir: what `build_index` wrote. If it was built into a cluster, that is searched.
            uri: a Milvus cluster; the alias `docs` is searched.
        Raises:
            DataError: if the directory is not an index. ServiceError: no Milvus at the URI.
        """
        if (index_dir is None) == (uri is None):
            raise ConfigError("give the search either an index directory or a Milvus URI")
        self._scratch = ExitStack()
        filled_from: Path | None = None
        self.config, self.collection = CollectionConfig(), ALIAS
        directory: Path | None = None
        if index_dir is not None:
            info = read_info(index_dir)
            self.config = CollectionConfig.model_validate(info["config"])
            uri = info["uri"] or None
            directory = index_dir / "passages"
        if uri is None or is_lite(uri):
            if directory is None:
                raise ConfigError(
                    f"{uri} is a Milvus Lite file, locked to one process; "
                    "give the index directory instead"
                )
            uri = str(self._scratch.enter_context(scratch_directory()) / "milvus.db")
            filled_from = directory
        self.uri = uri
        self._client = connect(uri)
        if filled_from is not None:
            try:
                self.collection = load_version(self._client, filled_from, self.config)
            except BaseException:
                self.close()
                raise

    @classmethod
    def from_parquet(cls, index_dir: Path) -> Self:
        """Opens an index directory."""
        return cls(index_dir=index_dir)

    def search(self, vector: np.ndarray, top_k: int = 5, condition: str = "") -> list[Hit]:
        """Returns at most `top_k` passages, best first.

        Args:
            vector: vector_D of length 1, from `Embedder.embed_queries`.
            condition: a Milvus expression over passage fields, such as `kind == "guideline"`.
        """
        return self.search_many(np.asarray(vector)[None], top_k, condition)[0]

    def search_many(
        self, vectors_QD: np.ndarray, top_k: int = 5, condition: str = ""
    ) -> list[list[Hit]]:
        """Returns the hits of several queries in one call."""
        rows = search_vectors(
            self._client, self.collection, vectors_QD, top_k, self.config, condition=condition
        )
        return [
            [Hit(Passage(**row), score) for row in hits for score in [row.pop("distance")]]
            for hits in rows
        ]

    def close(self) -> None:
        """Releases the connection, the lock and the private copy."""
        disconnect(self._client, self.uri)
        self._scratch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_info(index_dir: Path) -> dict:
    """Reads collection.json of an index directory.

    Raises:
        DataError: if there is none.
    """
    path = index_dir / INFO
    if not path.is_file():
        raise DataError(f"{index_dir} has no {INFO}; build the index first (build_index)")
    return json.loads(path.read_text(encoding="utf-8"))
