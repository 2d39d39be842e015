"""What stands in an index's directory: Parquet with vectors, collection.json, the indexes of words
and of the encoder's weights of tokens, which are made from the Parquet, and which questions are
looked up.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medray.common.errors import DataError
from medray.common.manifest import remove
from medray.retrieval.embed import passage_text
from medray.retrieval.filters import complete
from medray.retrieval.lexical import LexicalConfig, LexicalIndex
from medray.retrieval.sparse import SparseIndex

INFO = "collection.json"
LEXICAL, SPARSE = "lexical", "sparse"
ROUTER = "router.npz"


def open_lexical(index_dir: Path) -> LexicalIndex:
    """The index of words; of an artefact that was built without one it is made in memory."""
    if (index_dir / LEXICAL).is_dir():
        return LexicalIndex.load(index_dir / LEXICAL)
    return build_lexical(index_dir / "passages", LexicalConfig())


def build_lexical(
    passages: Path, config: LexicalConfig, weights: dict[str, float] | None = None
) -> LexicalIndex:
    """From the Parquet of an index, in its order; `weights` by term."""
    table = pq.read_table(passages, columns=["title", "text"])
    rows = zip(table["title"].to_pylist(), table["text"].to_pylist(), strict=True)
    texts = (passage_text(title, text) for title, text in rows)
    return LexicalIndex.build(texts, config, weights)


def read_columns(passages: Path, *names: str) -> pa.Table:
    """Columns of an index's Parquet; those that an earlier version has not are empty."""
    known = pq.ParquetDataset(passages).schema.names
    return complete(pq.read_table(passages, columns=[name for name in names if name in known]))


def read_info(index_dir: Path) -> dict[str, Any]:
    """Reads collection.json of an index directory.

    Raises:
        DataError: if there is none.
    """
    path = index_dir / INFO
    if not path.is_file():
        raise DataError(f"{index_dir} has no {INFO}; build the index first (build_index)")
    return json.loads(path.read_text(encoding="utf-8"))


def write_info(index_dir: Path, info: dict[str, Any]) -> None:
    """Writes collection.json, whole or not at all: a replica may be reading."""
    temporary = index_dir / f".{INFO}"
    temporary.write_text(json.dumps(info, indent=1), encoding="utf-8")
    temporary.replace(index_dir / INFO)


def save_lexical(directory: Path, lexical: LexicalIndex) -> None:
    """Writes an index artefact's index of words, whole or not at all."""
    _replace(directory / LEXICAL, lexical.save)


def save_sparse(directory: Path) -> None:
    """Likewise that of the encoder's weights of tokens, from the Parquet; none where it gives
    none."""
    sparse = SparseIndex.build(directory / "passages")
    if sparse is not None:
        _replace(directory / SPARSE, sparse.save)


def _replace(target: Path, save: Callable[[Path], None]) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    remove(temporary)
    save(temporary)
    remove(target)
    os.replace(temporary, target)
