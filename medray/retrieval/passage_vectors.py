"""Vectors of passages, on a Ray Data actor pool. In: an encoder, passages in Parquet. Out: the same
with a column `vector`, and `token_weights` where the encoder weighs tokens.

A corpus changes a little from night to night: what an earlier index of the same encoder holds is
taken from there, and only what is new or was edited is embedded.
Shapes: N passages, D components.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from medray.common.config import Config
from medray.common.manifest import remove
from medray.retrieval.directory import read_info
from medray.retrieval.embed import Embedder, passage_text
from medray.retrieval.sparse import COLUMN, TYPE, weights_column

logger = logging.getLogger(__name__)
ACTOR_STARTS = 3
"""Actors in a row that may be lost while they load the encoder before the job gives up."""
MAX_TOKENS = "max_tokens"
"""Where an index says at which length its passages were cut."""


class EmbeddingConfig(Config):
    """Who embeds, and how much at a time."""

    num_actors: int = Field(default=2, ge=1)
    """Ray actors that embed."""
    batch_size: int = Field(default=64, ge=1)
    max_tokens: int = Field(default=256, ge=8)
    use_gpu: bool = False


class KnownVectors(NamedTuple):
    """Vectors by what was embedded."""

    digests_N: np.ndarray
    """Of the texts, 16 bytes each, ascending."""
    vectors_ND: np.ndarray
    """float32, in the same order."""
    weights_N: pa.Array | None = None
    """Of their tokens, in the same order; None where the encoder weighs none."""

    def find(self, texts: Sequence[str]) -> np.ndarray:
        """The row of each text, -1 where there is none. [N]"""
        if not len(self.digests_N):
            return np.full(len(texts), -1)
        asked_N = digests(texts)
        rows_N = np.searchsorted(self.digests_N, asked_N).clip(max=len(self.digests_N) - 1)
        return np.where(self.digests_N[rows_N] == asked_N, rows_N, -1)


def digests(texts: Sequence[str]) -> np.ndarray:
    """A BLAKE2 digest of each text. [N]"""
    joined = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(joined, "S16")


def texts_of(table: pa.Table) -> list[str]:
    """What is embedded of each passage."""
    rows = zip(table["title"].to_pylist(), table["text"].to_pylist(), strict=True)
    return [passage_text(title, text) for title, text in rows]


def known_vectors(index: Path, max_tokens: int, *, weighed: bool) -> KnownVectors | None:
    """The vectors of an index; None if it cut its passages at another length, or lacks the weights
    of tokens that its encoder gives.

    Memory: all vectors, and the texts of one batch.
    """
    stored = COLUMN in pq.ParquetDataset(index / "passages").schema.names
    if read_info(index).get(MAX_TOKENS) != max_tokens or stored != weighed:
        return None
    columns = ["title", "text", "vector", *[COLUMN] * weighed]
    found, vectors, weights = [], [], []
    for path in sorted((index / "passages").glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=columns):
            table = pa.Table.from_batches([batch])
            found.append(digests(texts_of(table)))
            flat = batch["vector"].flatten().to_numpy(zero_copy_only=False)
            vectors.append(flat.reshape(len(batch), -1).astype(np.float32))
            if weighed:
                weights.append(batch[COLUMN])
    digests_N = np.concatenate(found)
    order_N = np.argsort(digests_N, kind="stable")
    weights_N = pa.concat_arrays(weights).take(pa.array(order_N)) if weights else None
    return KnownVectors(digests_N[order_N], np.concatenate(vectors)[order_N], weights_N)


def count_known(known: KnownVectors, passages: Path) -> int:
    """How many passages of a directory are among them."""
    num = 0
    for path in sorted(passages.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=["title", "text"]):
            num += int((known.find(texts_of(pa.Table.from_batches([batch]))) >= 0).sum())
    return num


class EmbedPassages:
    """A Ray Data actor: adds what the encoder makes of passages to a table of them."""

    def __init__(
        self, encoder: str, batch_size: int, max_tokens: int, device: str, known: Any = None
    ) -> None:
        """`known`: an object reference of `KnownVectors`."""
        import ray

        self.known: KnownVectors | None = None if known is None else ray.get(known)
        self.embedder = Embedder(
            encoder, device=device, batch_size=batch_size, max_tokens=max_tokens
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        texts = texts_of(table)
        vectors_ND = np.empty((len(texts), self.embedder.dim), np.float32)
        new_N, kept = np.ones(len(texts), bool), pa.array([], TYPE)
        if self.known is not None:
            rows_N = self.known.find(texts)
            new_N = rows_N < 0
            vectors_ND[~new_N] = self.known.vectors_ND[rows_N[~new_N]]
            if self.known.weights_N is not None:
                kept = self.known.weights_N.take(pa.array(rows_N[~new_N]))
        made = self.embedder.encode([texts[i] for i in np.flatnonzero(new_N)])
        vectors_ND[new_N] = made.vectors_ND
        column = pa.FixedSizeListArray.from_arrays(vectors_ND.ravel(), self.embedder.dim)
        table = table.append_column("vector", column)
        if not self.embedder.weighs_tokens:
            return table
        # First what was kept, then what was made: each goes back to its row.
        places_N = np.argsort(np.concatenate([np.flatnonzero(~new_N), np.flatnonzero(new_N)]))
        both = pa.concat_arrays([kept, weights_column(made.weights_N)])
        return table.append_column(COLUMN, both.take(pa.array(places_N)))


def embed_passages(
    config: EmbeddingConfig,
    encoder: Path,
    passages: Path,
    target: Path,
    known: KnownVectors | None = None,
) -> int:
    """Embeds passages on Ray Data actors into Parquet shards, whole or not at all; those of `known`
    keep their vectors. Returns how many did."""
    import ray
    import ray.data

    temporary = target.with_name(f".{target.name}.tmp")
    remove(temporary)
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True  # the same files, whichever actor is faster
    context.use_datasource_v2 = False  # of Ray 2.60; it reads files in any order, even then
    context.max_consecutive_actor_init_deaths = ACTOR_STARTS  # Ray's own: one lost start ends all
    with ray.data.DataContext.current(context):
        paths = [str(path) for path in sorted(passages.glob("*.parquet"))]
        # A small corpus is one file: cut, so that every actor has a share.
        ray.data.read_parquet(
            paths, override_num_blocks=max(len(paths), config.num_actors)
        ).map_batches(
            EmbedPassages,  # pyright: ignore[reportArgumentType]
            fn_constructor_kwargs={
                "encoder": str(encoder),
                "batch_size": config.batch_size,
                "max_tokens": config.max_tokens,
                "device": "cuda" if config.use_gpu else "cpu",
                # Once in each node's memory, however many actors there are.
                "known": None if known is None else ray.put(known),
            },
            batch_format="pyarrow",
            batch_size=4 * config.batch_size,
            compute=ray.data.ActorPoolStrategy(size=config.num_actors),
            num_gpus=1 if config.use_gpu else None,
        ).write_parquet(str(temporary), min_rows_per_file=10_000)
    # Ray names shards with a random id in front and their number behind.
    for number, path in enumerate(sorted(temporary.glob("*.parquet"), key=lambda p: p.name[-30:])):
        path.rename(temporary / f"part-{number:05d}.parquet")
    os.replace(temporary, target)
    return 0 if known is None else count_known(known, target)
