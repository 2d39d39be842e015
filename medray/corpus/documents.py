"""Documents from sources, with Ray Data. In: the export. Out: .prepared.arrow, quarantine/.

Reading, de-identification, normalisation, the quality filter and decontamination are one operator,
so that raw text lives in one worker process and is never an item of the object store or a file.
Source: [EMR-LLM 1.2]; DESIGN.md 1.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
from tqdm import tqdm

from medray.common.errors import DataError
from medray.common.manifest import Counts, remove
from medray.common.records import Document, RawRecord
from medray.common.rows import arrow_schema
from medray.common.sources import Rejected, SourceRow, check_rejected, write_quarantine
from medray.corpus.clean import CleanConfig, clean, digest, fault, normalised
from medray.corpus.decontaminate import EvaluationIndex, decontaminate
from medray.corpus.readers.document_files import is_document
from medray.corpus.readers.joins import UNJOINED, Part
from medray.corpus.readers.reading import corpus_files, read_part
from medray.corpus.sources import CorpusSource, raw_row
from medray.corpus.stages import Outcome
from medray.privacy.audit import AuditFiles, Sealer
from medray.privacy.deidentify import Label, count_phi, deidentify, published
from medray.privacy.surrogates import Surrogates

PREPARED = ".prepared.arrow"
TASK_BYTES = 16 * 2**20
"""Bytes of a file, as it lies on disk, that one task works through."""
MAX_PARTS = 32
"""Tasks that share one file or one join at most: each reads past the rows of the others, which
takes about a hundredth of the work on them."""
BATCH_ROWS = 1_000
STAGES = ("filter", "decontaminate")
"""Operators after de-identification that may reject a row, in their order."""

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
        ("overlaps", pa.list_(pa.string())),
        ("tally", pa.string()),
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
    evaluation: EvaluationIndex | None = None
    erased: frozenset[str] = frozenset()
    """Patients, as surrogates, whose records are refused."""

    def __repr__(self) -> str:
        return "Settings()"  # Ray may print arguments; the keys must not be among them


def work_units(sources: list[CorpusSource], data: Path) -> list[dict[str, Any]]:
    """One row a task: which share of which file, or of all documents or patients of a source."""
    units = []
    for index, source in enumerate(sources):
        paths = corpus_files(source, data)
        whole = [path for path in paths if is_document(path)]
        groups = {path.relative_to(data).as_posix(): [path] for path in paths if path not in whole}
        if source.format != "files":
            tables = [path for glob in source.tables.values() for path in data.glob(glob)]
            groups = {"": paths + tables}
        elif whole:
            groups[""] = whole
        if source.limit:  # it counts over all files, so one task reads them
            groups = {"": []}
        for name, group in groups.items():
            parts = min(MAX_PARTS, 1 + sum(path.stat().st_size for path in group) // TASK_BYTES)
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


def read_documents(settings: Settings, target: Path, *, max_rejected_fraction: float) -> Outcome:
    """Writes all rows, rejected ones too, to `.prepared.arrow` below `target`.

    Metrics: PHI replaced, by class, and documents that overlap an evaluation set, by set;
    duplicates included.
    Raises:
        DataError: if a source cannot be read or too many of its lines are bad.
    """
    import ray.data

    units = work_units(settings.sources, settings.data)
    prepared = ray.data.from_items(units, override_num_blocks=len(units)).map_batches(
        partial(prepare_unit, settings=settings),  # pyright: ignore[reportArgumentType]
        batch_size=1,
        batch_format="pyarrow",
    )
    prepared.context.execution_options.preserve_order = True
    seen: Counter[tuple[str, str, str]] = Counter()
    phi: Counter[str] = Counter()
    overlaps: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    rejected: dict[str, list[Rejected]] = {source.name: [] for source in settings.sources}
    scratch = target / f"{PREPARED}.tmp"
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
                overlaps.update(row["overlaps"] or [])
                for what, times in json.loads(row["tally"] or "{}").items():
                    tally[f"{row['source']}/{what}"] += times
                if row["reason"] is None:
                    phi.update(json.loads(row["phi"]))
                    audit.add(row["source"], row["audit"])
                else:
                    place = Rejected(row["file"], row["line"], row["reason"])
                    rejected[row["source"]].append(place)
        progress.close()
    counts = _count(settings.sources, seen)
    for name, places in rejected.items():
        path = target / "quarantine" / f"{name}.jsonl"
        if places:
            write_quarantine(path, places)
        check_rejected(name, counts[f"read/{name}"], max_rejected_fraction, path)
    scratch.replace(target / PREPARED)
    return counts, {
        "phi": dict(phi),
        "overlaps": dict(overlaps),
        "reading": dict(sorted(tally.items())),
    }


def _lines(unit: dict[str, Any], source: CorpusSource, settings: Settings) -> Iterator[dict]:
    """The unit's rows, prepared."""
    surrogates, sealer = Surrogates(settings.key), Sealer(settings.audit_key)
    part = Part(unit["part"], unit["parts"])
    for line in read_part(source, settings.data, unit["file"], part):
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
        stage = "join" if raw.reason in UNJOINED else "read"
        return {**place, "stage": stage, "reason": raw.reason}
    assert isinstance(line, SourceRow)
    dev_fraction = settings.dev_fraction if source.dev_fraction is None else source.dev_fraction
    labels: list[Label] = []
    tally = dict(line.tally or {})
    if isinstance(raw, RawRecord):
        # Normalised before, so that no invisible character hides an identifier, and the offsets of
        # the audit labels hold in the cleaned document.
        document, labels = deidentify(normalised(raw), source.name, surrogates, dev_fraction)
        if raw.visit_date.strip() and not document.date:
            tally["unreadable_visit_dates"] = 1
    else:
        document = published(raw, source.name, dev_fraction)
        document = document.model_copy(update={"general": source.general})
    document = clean(document)
    is_erased = document.patient_id in settings.erased
    reason = "erased" if is_erased else fault(document, settings.clean)
    read = {**place, "stage": "filter", "reason": reason, "tally": json.dumps(tally)}
    if reason:
        return read
    overlaps: list[str] = []
    if settings.evaluation is not None:
        rest, overlaps = decontaminate(document, settings.evaluation)
        if rest is None or (overlaps and fault(rest, settings.clean)):
            return {**read, "stage": STAGES[-1], "reason": "contaminated", "overlaps": overlaps}
        document = rest
    return {
        **read,
        "stage": STAGES[-1],
        "doc_id": document.doc_id,
        "digest": digest(document),
        "chars": sum(len(section.text) for section in document.sections),
        "phi": json.dumps(count_phi(labels)),
        "overlaps": overlaps,
        "audit": sealer.seal(document.doc_id, labels) if labels else None,
        "document": document.model_dump(),
    }


def _count(sources: list[CorpusSource], seen: Counter[tuple[str, str, str]]) -> dict[str, Counts]:
    """Counts of reading, by source, and of the operators after it."""
    counts = {f"read/{source.name}": Counts() for source in sources}
    after = {stage: Counts() for stage in ("deidentify", *STAGES)}
    for (source, last, reason), rows in sorted(seen.items()):
        if last == "join":
            joined = counts.setdefault(f"join/{source}", Counts())
            joined.rows_in += rows
            joined.reject(reason, rows)
            continue
        passed = [counts[f"read/{source}"]]
        if last != "read":
            passed += [after[stage] for stage in list(after)[: 2 + STAGES.index(last)]]
        for operator in passed:
            operator.rows_in += rows
            operator.rows_out += rows
        if reason:
            passed[-1].rows_out -= rows
            passed[-1].reject(reason, rows)
    for source in sources:
        if joined := counts.get(f"join/{source.name}"):
            joined.rows_out = counts[f"read/{source.name}"].rows_in
            joined.rows_in += joined.rows_out
    return {**counts, **after}
