"""The surviving documents. In: .prepared/, .dropped.parquet, .not_medical.parquet.
Out: documents/, quarantine/.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medray.common.errors import DataError
from medray.common.manifest import remove
from medray.common.rows import SHARD_ROWS
from medray.common.sources import Rejected, write_quarantine
from medray.corpus.duplicates.find import DROPPED
from medray.corpus.medical.filter import NOT_MEDICAL
from medray.corpus.prepared import DOCUMENT_SCHEMA, prepared_batches
from medray.corpus.stages import Outcome

GROUP_ROWS = 2_000
"""Documents of a row group: what a task reads at a time."""


def write_documents(target: Path) -> Outcome:
    """Writes both directories below `target`; documents/ appears when it is whole.

    Raises:
        DataError: if no document is left.
    """
    reasons: dict[int, str] = {}
    for path in (target / DROPPED, target / NOT_MEDICAL):
        if path.exists():
            reasons |= {row["row"]: row["reason"] for row in pq.read_table(path).to_pylist()}
    directory = target / ".documents"
    remove(directory)
    directory.mkdir()
    rejected: dict[str, list[Rejected]] = {}
    kept: list[pa.Table] = []
    part = first = num_documents = num_chars = 0

    def flush() -> None:
        nonlocal part
        path = directory / f"part-{part:05d}.parquet"
        pq.write_table(pa.concat_tables(kept), path, row_group_size=GROUP_ROWS)
        part += 1
        kept.clear()

    columns = ["source", "file", "line", "reason", "chars", "document"]
    for batch in prepared_batches(target, columns):
        read = batch.column("reason").to_pylist()
        faults = [reason or reasons.get(row) for row, reason in enumerate(read, first)]
        is_kept = np.array([fault is None for fault in faults], bool)
        gone = batch.select(["source", "file", "line"]).filter(pa.array(~is_kept)).to_pylist()
        for row, fault in zip(gone, filter(None, faults), strict=True):
            place = Rejected(row["file"], row["line"], fault)
            rejected.setdefault(row["source"], []).append(place)
        first += len(batch)
        documents = batch.column("document").filter(pa.array(is_kept))
        if len(documents):
            num_documents += len(documents)
            num_chars += sum(batch.column("chars").filter(pa.array(is_kept)).to_pylist())
            rows = pa.RecordBatch.from_struct_array(documents)
            kept.append(pa.Table.from_batches([rows]).cast(DOCUMENT_SCHEMA))
        if sum(len(table) for table in kept) >= SHARD_ROWS:
            flush()
    for name, places in rejected.items():
        write_quarantine(target / "quarantine" / f"{name}.jsonl", places)
    if num_documents == 0:
        raise DataError(f"no document is left of {first} lines; see {target / 'quarantine'}")
    if kept:
        flush()
    remove(target / "documents")
    directory.replace(target / "documents")
    return {}, {"documents": num_documents, "document_chars": num_chars}
