"""The surviving documents. In: .prepared.arrow, .dropped.parquet, .not_medical.parquet.
Out: documents/, quarantine/.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medray.common.errors import DataError
from medray.common.manifest import remove
from medray.common.rows import SHARD_ROWS
from medray.common.sources import Rejected, write_quarantine
from medray.corpus.documents import DOCUMENT_SCHEMA, PREPARED
from medray.corpus.duplicates.find import DROPPED
from medray.corpus.medical.filter import NOT_MEDICAL
from medray.corpus.stages import Outcome


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
        pq.write_table(pa.concat_tables(kept), directory / f"part-{part:05d}.parquet")
        part += 1
        kept.clear()

    with pa.memory_map(str(target / PREPARED)) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            keep = []
            rows = pa.Table.from_batches([batch]).drop_columns(["document"]).to_pylist()
            for number, row in enumerate(rows, first):
                reason = row["reason"] or reasons.get(number)
                if reason is not None:
                    place = Rejected(row["file"], row["line"], reason)
                    rejected.setdefault(row["source"], []).append(place)
                else:
                    num_chars += row["chars"]
                keep.append(reason is None)
            first += len(rows)
            num_documents += sum(keep)
            documents = batch.column("document").filter(pa.array(keep, pa.bool_()))
            if len(documents):
                kept.append(
                    pa.Table.from_batches([pa.RecordBatch.from_struct_array(documents)]).cast(
                        DOCUMENT_SCHEMA
                    )
                )
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
