"""Duplicates, exact and near. In: .prepared/. Out: .dropped.parquet: row numbers and reasons.

Who stays of several near-duplicates is decided by what they are, never by order: a held-out text
before training text, which it must not be among; a text in force before a superseded one; a source
named earlier in the configuration; then the least digest.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medray.common.manifest import Counts
from medray.common.records import Document
from medray.corpus.clean import render
from medray.corpus.duplicates.near import Documents, NearDuplicateConfig, find_clusters
from medray.corpus.prepared import prepared_table
from medray.corpus.stages import Outcome

DROPPED, WORK = ".dropped.parquet", ".near_duplicates"
DROPPED_SCHEMA = pa.schema([("row", pa.int64()), ("reason", pa.string())])


def find_duplicates(
    target: Path,
    sources: list[str],
    near: NearDuplicateConfig | None,
    *,
    exact: bool = True,
    max_tasks: int | None = None,
) -> Outcome:
    """Decides which prepared rows are left out as duplicates.

    Args:
        target: directory of the artefact.
        sources: names of the sources, the preferred ones first.
        near: None leaves near-duplicates in. exact: False leaves equal texts and ids in.
        max_tasks: as for `find_clusters`.
    """
    table = prepared_table(target)
    dropped = exact_duplicates(table) if exact else {}
    total = table.num_rows - table.column("reason").drop_null().length()
    counts = {"dedup": _counts(total, dropped)}
    if near is not None:
        copies = _near(table, dropped, sources, near, target / WORK, max_tasks)
        counts["near_duplicates"] = _counts(counts["dedup"].rows_out, copies)
        dropped |= copies
    rows = sorted(dropped)
    temporary = target / f"{DROPPED}.tmp"
    columns = [pa.array(rows, pa.int64()), pa.array([dropped[row] for row in rows], pa.string())]
    pq.write_table(pa.table(columns, schema=DROPPED_SCHEMA), temporary)
    temporary.replace(target / DROPPED)
    return counts, {}


def texts_of(column: pa.ChunkedArray) -> list[str]:
    """The training texts of a column of documents."""
    return [render(Document.model_validate(values)) for values in column.to_pylist()]


def survivors(labels_N: np.ndarray, ranks: list[tuple], kept_N: np.ndarray) -> np.ndarray:
    """True for the one of each cluster that has the least rank, and for all in `kept_N`.

    A cluster with a kept member has no other survivor.
    """
    best: dict[int, tuple] = {}
    has_kept = set(labels_N[kept_N].tolist())
    for label, rank in zip(labels_N.tolist(), ranks, strict=True):
        best[label] = min(rank, best.get(label, rank))
    return np.array(
        [
            bool(kept) or (label not in has_kept and rank == best[label])
            for label, rank, kept in zip(labels_N.tolist(), ranks, kept_N, strict=True)
        ],
        bool,
    )


def exact_duplicates(table: pa.Table) -> dict[int, str]:
    """Row number → reason, of the prepared rows that repeat a text or an id.

    Decided by values, never by order: of equal texts the one with the least (source, doc_id)
    stays; then of equal ids, which retrieval could not tell apart, the one with the least digest.
    """
    keys = table.select(["digest", "source", "doc_id", "reason"])
    keys = keys.append_column("row", pa.array(np.arange(len(table))))
    keys = keys.filter(keys.column("reason").is_null())
    dropped: dict[int, str] = {}
    for name, reason in (("digest", "duplicate_text"), ("doc_id", "duplicate_id")):
        others = [other for other in ("digest", "source", "doc_id", "row") if other != name]
        keys = keys.sort_by([(column, "ascending") for column in (name, *others)])
        values = keys.column(name).combine_chunks().dictionary_encode().indices.to_numpy()
        is_first = pa.array(np.diff(values, prepend=-1) != 0)
        kept = keys.filter(is_first)
        rest = np.setdiff1d(keys.column("row").to_numpy(), kept.column("row").to_numpy())
        dropped |= dict.fromkeys(rest.tolist(), reason)
        keys = kept
    return dropped


def _near(
    table: pa.Table,
    dropped: dict[int, str],
    sources: list[str],
    config: NearDuplicateConfig,
    work: Path,
    max_tasks: int | None,
) -> dict[int, str]:
    """Row number → reason, for near-duplicates among the rows that are left."""
    rows_N = np.setdiff1d(
        np.flatnonzero(table.column("reason").is_null().to_numpy()), list(dropped)
    )
    documents = Documents(table.column("document"), texts_of, rows_N)
    labels_N = find_clusters(documents, config, work, max_tasks)
    _, inverse_N, sizes = np.unique(labels_N, return_inverse=True, return_counts=True)
    several_N = sizes[inverse_N] > 1
    rows = rows_N[several_N]
    members = _ranked(table, rows, sources)
    kept_N = np.array([source in config.keep for source, _ in members], bool)
    stays_N = survivors(labels_N[several_N], [rank for _, rank in members], kept_N)
    return dict.fromkeys(rows[~stays_N].tolist(), "near_duplicate")


def _ranked(table: pa.Table, rows: np.ndarray, sources: list[str]) -> list[tuple[str, tuple]]:
    """Source and rank of rows; the least rank survives."""
    order = {name: place for place, name in enumerate(sources)}
    columns = table.flatten().select(
        ["source", "doc_id", "digest", "document.split", "document.superseded_by"]
    )
    return [
        (
            values["source"],
            (
                values["document.split"] != "dev",
                bool(values["document.superseded_by"]),
                order[values["source"]],
                values["digest"],
                values["doc_id"],
            ),
        )
        for values in columns.take(pa.array(rows)).to_pylist()
    ]


def _counts(rows_in: int, dropped: dict[int, str]) -> Counts:
    return Counts(
        rows_in=rows_in,
        rows_out=rows_in - len(dropped),
        rejected=dict(sorted(Counter(dropped.values()).items())),
    )
