"""Documents from sources, with Ray Data. In: the export. Out: documents/, quarantine/, counts.

Reading, de-identification, normalisation and the quality filter are one operator, so that raw
text lives in one worker process and is never an item of the object store or a file. The driver
removes duplicates and writes. Source: [EMR-LLM 1.2]; DESIGN.md 1.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from medray.common.errors import DataError
from medray.common.manifest import Counts, remove
from medray.common.records import Document, RawRecord
from medray.common.rows import SHARD_ROWS, arrow_schema
from medray.common.sources import (
    Rejected,
    SourceRow,
    check_rejected,
    read_file,
    read_source,
    source_files,
    write_quarantine,
)
from medray.corpus.clean import (
    CleanConfig,
    Deduplicator,
    DocumentKey,
    clean,
    digest,
    fault,
    normalised,
)
from medray.corpus.sources import CorpusSource, raw_row
from medray.privacy.audit import AuditFiles, Sealer
from medray.privacy.deidentify import Label, count_phi, deidentify, published
from medray.privacy.surrogates import Surrogates

logger = logging.getLogger(__name__)

TASK_BYTES = 16 * 2**20
"""Bytes of a file, as it lies on disk, that one task works through."""
BATCH_ROWS = 1_000
STRIDE = 64

DOCUMENT_SCHEMA = arrow_schema(Document)
PREPARED_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("doc_id", pa.string()),
        ("digest", pa.binary()),
        ("chars", pa.int64()),
        ("phi", pa.string()),
        ("audit", pa.binary()),
        ("document", pa.struct(list(DOCUMENT_SCHEMA))),
    ]
)


class Settings(NamedTuple):
    """What a worker needs."""

    data: Path
    sources: list[CorpusSource]
    dev_fraction: float
    clean: CleanConfig
    key: bytes
    audit_key: bytes

    def __repr__(self) -> str:
        return "Settings()"  # Ray may print arguments; the keys must not be among them


class Written(NamedTuple):
    """What came of the sources."""

    counts: dict[str, Counts]
    phi: dict[str, int]
    """PHI replaced, by class, duplicates included."""
    num_chars: int


def work_units(sources: list[CorpusSource], data: Path) -> list[dict[str, Any]]:
    """One row a task: which lines of which file. A big file is shared by several tasks."""
    units = []
    for index, source in enumerate(sources):
        paths = source_files(source, data)
        # A limit counts over all files, so they are read as one.
        groups = [paths] if source.limit else [[path] for path in paths]
        for group in groups:
            name = "" if source.limit else group[0].relative_to(data).as_posix()
            parts = 1 + sum(path.stat().st_size for path in group) // TASK_BYTES
            units += [
                {"source": index, "file": name, "part": part, "parts": parts}
                for part in range(parts)
            ]
    return units


def prepare_unit(unit: pa.Table, settings: Settings) -> Iterator[pa.Table]:
    """Turns the lines of a work unit into rows of PREPARED_SCHEMA, good or rejected.

    An error of the input becomes a row of stage `error`: raised here, Ray would wrap it.
    """
    (values,) = unit.to_pylist()
    source = settings.sources[values["source"]]
    try:
        lines = _lines(values, source, settings)
        while rows := list(islice(lines, BATCH_ROWS)):
            yield pa.Table.from_pylist(rows, schema=PREPARED_SCHEMA)
    except DataError as error:
        row = {"source": source.name, "stage": "error", "reason": str(error)}
        yield pa.Table.from_pylist([row], schema=PREPARED_SCHEMA)


def write_documents(
    settings: Settings, target: Path, *, dedup: bool, max_rejected_fraction: float
) -> Written:
    """Writes `documents/` and `quarantine/` below `target`; documents/ appears when it is whole.

    Raises:
        DataError: if a source cannot be read, too many of its lines are bad, or nothing is left.
    """
    import ray.data

    units = work_units(settings.sources, settings.data)
    prepared = ray.data.from_items(units, override_num_blocks=len(units)).map_batches(
        partial(prepare_unit, settings=settings),  # pyright: ignore[reportArgumentType]
        batch_size=1,
        batch_format="pyarrow",
    )
    prepared.context.execution_options.preserve_order = True
    scratch = target / ".prepared.arrow"
    deduplicator = Deduplicator()
    seen: Counter[tuple[str, str, str]] = Counter()
    phi: Counter[str] = Counter()
    remove(target / "audit")
    with (
        pa.OSFile(str(scratch), "wb") as file,
        pa.ipc.new_stream(file, PREPARED_SCHEMA) as sink,
        AuditFiles(target / "audit") as audit,
    ):
        progress = tqdm(desc="documents", unit=" rows")
        for batch in prepared.iter_batches(batch_size=None, batch_format="pyarrow"):
            table = cast(pa.Table, batch).cast(PREPARED_SCHEMA)
            sink.write_table(table)
            progress.update(len(table))
            for row in table.drop_columns(["document"]).to_pylist():
                if row["stage"] == "error":
                    raise DataError(row["reason"])
                seen[row["source"], row["stage"], row["reason"] or ""] += 1
                if row["reason"] is None:
                    phi.update(json.loads(row["phi"]))
                    audit.add(row["source"], row["audit"])
                    deduplicator.see(_key(row))
        progress.close()
    counts = _count(settings.sources, seen)
    rejected, duplicates, num_chars = _write(scratch, target, deduplicator if dedup else None)
    for source in settings.sources:
        path = target / "quarantine" / f"{source.name}.jsonl"
        if source.name in rejected:
            write_quarantine(path, rejected[source.name])
        check_rejected(source.name, counts[f"read/{source.name}"], max_rejected_fraction, path)
    counts["dedup"] = Counts(rows_in=counts["filter"].rows_out, rejected=dict(duplicates))
    counts["dedup"].rows_out = counts["dedup"].rows_in - sum(duplicates.values())
    if counts["dedup"].rows_out == 0:
        raise DataError(
            f"no document is left of {sum(seen.values())} lines; see {target / 'quarantine'}"
        )
    remove(target / "documents")
    (target / ".documents").replace(target / "documents")
    scratch.unlink()
    for operator, count in counts.items():
        logger.info("%s: in %d, out %d, rejected %s", operator, *count.model_dump().values())
    return Written(counts, dict(phi), num_chars)


def _lines(unit: dict[str, Any], source: CorpusSource, settings: Settings) -> Iterator[dict]:
    """The unit's share of its lines, prepared: runs of STRIDE lines go to the parts in turn."""
    if unit["file"]:
        lines = read_file(source, settings.data / unit["file"], settings.data)
    else:
        lines = read_source(source, settings.data)
    surrogates, sealer = Surrogates(settings.key), Sealer(settings.audit_key)
    for number, line in enumerate(lines):
        if number // STRIDE % unit["parts"] == unit["part"]:
            yield {"source": source.name, **_prepare(line, source, settings, surrogates, sealer)}


def _prepare(
    line: SourceRow | Rejected,
    source: CorpusSource,
    settings: Settings,
    surrogates: Surrogates,
    sealer: Sealer,
) -> dict[str, Any]:
    """One line through raw row → de-identified → normalised → filtered."""
    place = {"file": line.file, "line": line.line}
    raw = line if isinstance(line, Rejected) else raw_row(line, source.kind)
    if isinstance(raw, Rejected):
        return {**place, "stage": "read", "reason": raw.reason}
    dev_fraction = settings.dev_fraction if source.dev_fraction is None else source.dev_fraction
    labels: list[Label] = []
    if isinstance(raw, RawRecord):
        # Normalised before, so that no invisible character hides an identifier, and the offsets of
        # the audit labels hold in the cleaned document.
        document, labels = deidentify(normalised(raw), source.name, surrogates, dev_fraction)
    else:
        document = published(raw, source.name, dev_fraction)
    document = clean(document)
    reason = fault(document, settings.clean)
    if reason:
        return {**place, "stage": "filter", "reason": reason}
    return {
        **place,
        "stage": "filter",
        "doc_id": document.doc_id,
        "digest": digest(document),
        "chars": sum(len(section.text) for section in document.sections),
        "phi": json.dumps(count_phi(labels)),
        "audit": sealer.seal(document.doc_id, labels) if labels else None,
        "document": document.model_dump(),
    }


def _key(row: dict[str, Any]) -> DocumentKey:
    return DocumentKey(row["source"], row["doc_id"], row["digest"])


def _count(sources: list[CorpusSource], seen: Counter[tuple[str, str, str]]) -> dict[str, Counts]:
    """Counts of reading, by source, and of the two operators after it."""
    counts = {f"read/{source.name}": Counts() for source in sources}
    filtered = Counts()
    for (source, stage, reason), rows in sorted(seen.items()):
        read = counts[f"read/{source}"]
        read.rows_in += rows
        if stage == "read":
            read.reject(reason, rows)
            continue
        read.rows_out += rows
        filtered.rows_in += rows
        if reason:
            filtered.reject(reason, rows)
        else:
            filtered.rows_out += rows
    kept = filtered.rows_in
    return {**counts, "deidentify": Counts(rows_in=kept, rows_out=kept), "filter": filtered}


def _write(
    scratch: Path, target: Path, deduplicator: Deduplicator | None
) -> tuple[dict[str, list[Rejected]], Counter[str], int]:
    """Writes the surviving documents; returns rejected lines, duplicates and characters kept."""
    directory = target / ".documents"
    remove(directory)
    directory.mkdir()
    rejected: dict[str, list[Rejected]] = {}
    duplicates: Counter[str] = Counter()
    kept: list[pa.Table] = []
    part = num_chars = 0

    def flush() -> None:
        nonlocal part
        pq.write_table(pa.concat_tables(kept), directory / f"part-{part:05d}.parquet")
        part += 1
        kept.clear()

    with pa.OSFile(str(scratch), "rb") as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            keep = []
            for row in pa.Table.from_batches([batch]).drop_columns(["document"]).to_pylist():
                reason = row["reason"]
                if reason is None and deduplicator is not None:
                    reason = deduplicator.fault(_key(row))
                    duplicates.update([reason] if reason else [])
                if reason is not None:
                    line = Rejected(row["file"], row["line"], reason)
                    rejected.setdefault(row["source"], []).append(line)
                else:
                    num_chars += row["chars"]
                keep.append(reason is None)
            documents = batch.column("document").filter(pa.array(keep))
            if len(documents):
                kept.append(
                    pa.Table.from_batches([pa.RecordBatch.from_struct_array(documents)]).cast(
                        DOCUMENT_SCHEMA
                    )
                )
            if sum(len(table) for table in kept) >= SHARD_ROWS:
                flush()
    if kept or part == 0:
        kept = kept or [DOCUMENT_SCHEMA.empty_table()]
        flush()
    return rejected, duplicates, num_chars
