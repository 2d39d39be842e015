"""Documents from sources, on Ray. In: the export. Out: .prepared/, audit/, quarantine/.

Reading, de-identification, normalisation of text, units and terms, the quality filter and
decontamination are one operator, so that raw text lives in one worker process and is never an item
of the object store or a file. The driver writes what workers return, since the corpus in the making
lies on its node.
Source: [EMR-LLM 1.2]; DESIGN.md 1.
"""

import json
import logging
import platform
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from tqdm import tqdm

from medray.common.errors import DataError
from medray.common.manifest import Counts, remove
from medray.common.records import RawRecord
from medray.common.sources import Rejected, SourceRow, check_rejected, write_quarantine
from medray.corpus.clean import CleanConfig, clean, digest, fault, normalised
from medray.corpus.decontaminate import EvaluationIndex, decontaminate
from medray.corpus.prepared import PREPARED, Note, Shards, prepared_batches, shard_of
from medray.corpus.readers.joins import UNJOINED
from medray.corpus.readers.reading import read_part
from medray.corpus.sources import CorpusSource, raw_row
from medray.corpus.stages import Outcome
from medray.corpus.tasks import in_tasks, max_tasks_of_cluster
from medray.corpus.terms.coverage import TermTotals
from medray.corpus.terms.normalise import Terms, TermsConfig, normalise_terms
from medray.corpus.units import Unit, code_hash, hash_of, unit_key, work_units
from medray.privacy.audit import AuditFiles, Sealer
from medray.privacy.deidentify import Label, count_phi, deidentify, published
from medray.privacy.surrogates import Surrogates

logger = logging.getLogger(__name__)

STAGES = ("filter", "decontaminate")
"""Operators after de-identification that may reject a row, in their order."""


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
    terms: Terms = Terms(TermsConfig())

    def hash(self) -> str:
        """Of all that shapes a row beside its file and its source."""
        values = self._asdict()
        return hash_of([code_hash(), {k: values[k] for k in values.keys() - {"data", "sources"}}])

    def __repr__(self) -> str:
        return "Settings()"  # Ray may print arguments; the keys must not be among them


def read_documents(
    settings: Settings, target: Path, cache: Path, *, max_rejected_fraction: float
) -> Outcome:
    """Writes all rows, rejected ones too, to `.prepared/` below `target`, a shard a work unit.

    Args:
        cache: where shards of earlier runs lie; those with the same key are taken over.
    Metrics: PHI replaced, by class, documents that overlap an evaluation set, by set, and terms
    and units met; duplicates included.
    Raises:
        DataError: if a source cannot be read, a node does not see the export, or too many lines of
            a source are bad.
    """
    import ray

    units = work_units(settings.sources, settings.data)
    shards = Shards(target / PREPARED, cache)
    for directory in shards:
        directory.mkdir(parents=True, exist_ok=True)
    known, max_tasks = settings.hash(), max_tasks_of_cluster()
    places = range(len(units))
    keys = dict(in_tasks(_key, ((n, units[n], known, settings.data) for n in places), max_tasks))
    found = {place: shards.find(place, keys[place]) for place in places}
    done = {place: note for place, note in found.items() if note is not None}
    logger.info("read: %d work units, %d of them as read before", len(units), len(done))
    shared = ray.put(settings)
    calls = ((place, units[place], shared) for place in places if place not in done)
    results = in_tasks(_read_unit, calls, max_tasks)
    for place, shard, note in tqdm(results, "read", len(units), initial=len(done), unit=" units"):
        shards.write(place, keys[place], shard, note)
        done[place] = note
    shards.settle([keys[place] for place in places])
    notes = [(unit.source.name, done[place]) for place, unit in enumerate(units)]
    terms = TermTotals(settings.terms.vocabulary)
    rejected = _write_audit(target, terms)
    counts = _count([source.name for source in settings.sources], notes)
    for source in settings.sources:
        path = target / "quarantine" / f"{source.name}.jsonl"
        if source.name in rejected:
            write_quarantine(path, rejected[source.name])
        check_rejected(source.name, counts[f"read/{source.name}"], max_rejected_fraction, path)
    phi: Counter[str] = Counter()
    overlaps: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    for name, note in notes:
        phi += note.phi
        overlaps += note.overlaps
        tally += Counter({f"{name}/{what}": times for what, times in note.tally.items()})
    return counts, {
        "phi": dict(phi),
        "overlaps": dict(overlaps),
        "reading": dict(sorted(tally.items())),
        **terms.metrics(),
    }


def prepare_unit(unit: Unit, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yields the rows of a work unit, good or rejected: columns of PREPARED_SCHEMA, and what
    `Note.count` counts.

    Raises:
        DataError: if the unit cannot be read.
    """
    surrogates, sealer = Surrogates(settings.key), Sealer(settings.audit_key)
    for line in read_part(unit.source, settings.data, unit.files, unit.part):
        row = _prepare(line, unit.source, settings, surrogates, sealer)
        yield {"source": unit.source.name, **row}


def _key(place: int, unit: Unit, known: str, data: Path) -> tuple[int, str]:
    """Worker: the key of the unit at `place`."""
    try:
        return place, unit_key(unit, known, data)
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename} is not there on node {platform.node()}: an export, or its copy from "
            "an object store, must be readable under the same path on every node"
        ) from None


def _read_unit(place: int, unit: Unit, settings: Settings) -> tuple[int, pa.Buffer, Note]:
    """Worker: the shard of the unit at `place`."""
    return place, *shard_of(prepare_unit(unit, settings))


def _write_audit(target: Path, terms: TermTotals) -> dict[str, list[Rejected]]:
    """Writes audit/ of all prepared rows and adds up their terms; returns the rejected ones by
    source."""
    rejected: dict[str, list[Rejected]] = {}
    remove(target / "audit")
    with AuditFiles(target / "audit") as audit:
        columns = ["source", "file", "line", "reason", "chars", "terms", "audit"]
        for batch in prepared_batches(target, columns):
            for row in batch.filter(batch.column("reason").is_valid()).to_pylist():
                place = Rejected(row["file"], row["line"], row["reason"])
                rejected.setdefault(row["source"], []).append(place)
            good = batch.filter(batch.column("reason").is_null())
            for row in good.select(["source", "chars", "terms"]).to_pylist():
                terms.add(row["source"], row["chars"], json.loads(row["terms"]))
            sealed = batch.filter(batch.column("audit").is_valid())
            for row in sealed.select(["source", "audit"]).to_pylist():
                audit.add(row["source"], row["audit"])
    return rejected


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
    document, labels, found = normalise_terms(clean(document), labels, settings.terms)
    is_erased = document.patient_id in settings.erased
    reason = "erased" if is_erased else fault(document, settings.clean)
    read = {**place, "stage": "filter", "reason": reason, "tally": tally}
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
        "phi": count_phi(labels),
        "overlaps": overlaps,
        "terms": json.dumps(found),
        "audit": sealer.seal(document.doc_id, labels) if labels else None,
        "document": document.model_dump(),
    }


def _count(sources: list[str], notes: list[tuple[str, Note]]) -> dict[str, Counts]:
    """Counts of reading, by source, and of the operators after it. In: each unit's source and
    note."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for source, note in notes:
        for stage, reasons in note.rows.items():
            seen.update({(source, stage, reason): rows for reason, rows in reasons.items()})
    counts = {f"read/{source}": Counts() for source in sources}
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
        if joined := counts.get(f"join/{source}"):
            joined.rows_out = counts[f"read/{source}"].rows_in
            joined.rows_in += joined.rows_out
    return {**counts, **after}
