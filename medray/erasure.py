"""Erasure: a patient's rows leave every artefact; what was made of them is named and made again.

In: a patient's number and a storage root. Out: shards and manifests without the patient; the
models and indices that descend from them, outdated until they are made again; a proof.

Rows are found by the patient's surrogate and by the records made from that patient. Task files
without patient or record numbers (dialogues, scored answers) cannot be searched by patient.
The patient stays on the list of the erased, as a surrogate, so that the next export of the
hospital does not bring the record back.
"""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from medray.common.errors import DataError
from medray.common.exports import EXPORTS
from medray.common.lineage import find_outdated
from medray.common.manifest import (
    Counts,
    list_files,
    read_manifest,
    remove,
    write_manifest,
)
from medray.common.storage import Storage
from medray.corpus.erased import Erased, read_erased, write_erased
from medray.corpus.prepare import CorpusConfig, pack_corpus
from medray.corpus.prepared import CACHE
from medray.instructions.screen.run import QUARANTINE
from medray.launch import join_ray, load_profile, set_environment
from medray.privacy.audit import erase_audit
from medray.privacy.surrogates import Surrogates, load_key
from medray.retrieval.index import drop_former, refill

logger = logging.getLogger(__name__)
RESULTS = ("quality", "evaluation")
"""Steps whose files quote records. One that descends from a changed artefact is deleted."""
STEPS = ("corpus", "instructions", "index")
"""Steps whose shards hold rows of records, in the order in which they are made."""
NAMED_BY = ("patient_id", "doc_id", "record_id", "id")
"""Columns that name the patient (by surrogate) or one of the patient's records; a task file's rows
may bear the number of the record they were written from."""


class Erasure(NamedTuple):
    """What `forget` did."""

    rows: dict[str, int]
    """`step/key/shards` → rows that were taken out."""
    deleted: list[str]
    """Results that quoted records: deleted."""
    outdated: list[str]
    """Models and indices that were made with the patient's text, `step/key`."""
    files_searched: int
    """Files of all artefacts, read through for the patient afterwards."""
    files_found: list[str]
    """Those of them that still name the patient: none, or the erasure has failed."""


def run(patient_id: str, profile: str, overrides: list[str]) -> Erasure:
    """Erases a patient from the storage root of a profile; starts or joins Ray, which packs.

    Raises:
        DataError: if nothing under the root knows the patient. ConfigError: wrong profile or key.
    """
    import ray

    set_environment()
    settings = load_profile(profile, overrides)
    storage = Storage(settings.storage)
    storage.check_writable()
    key_file = storage.local_root / "keys" / "surrogates.key"
    if not storage.list():
        raise DataError(f"no artefact under {settings.storage.root}; check storage.root")
    surrogate = Surrogates(load_key(settings.corpus.privacy, key_file)).patient_id(patient_id)
    audit_key = load_key(settings.corpus.audit, storage.local_root / "keys" / "audit.key")
    path = settings.decoder.path
    join_ray(settings.ray)
    try:
        return forget(surrogate, storage, Path(path).expanduser() if path else None, audit_key)
    finally:
        ray.shutdown()


def to_text(done: Erasure) -> str:
    """What was done, for a terminal and for the file of the request."""
    lines = [f"{n} rows taken out of {name}" for name, n in sorted(done.rows.items()) if n]
    lines += [f"deleted, it quoted records: {name}" for name in done.deleted]
    lines += [f"outdated until the next run of the pipeline: {name}" for name in done.outdated]
    lines.append(f"{done.files_searched} files searched afterwards, {len(done.files_found)} found")
    lines += [f"still names the patient: {name}" for name in done.files_found]
    return "".join(f"{line}\n" for line in lines)


def forget(surrogate: str, storage: Storage, tokenizer: Path | None, audit_key: bytes) -> Erasure:
    """Erases one patient. A run that was killed is finished by the next one.

    Args:
        surrogate: the patient's number in the corpus, `Surrogates.patient_id`.
        tokenizer: the directory of the tokenizer of a corpus that trained none.
        audit_key: opens the audit labels of the corpora.
    Raises:
        DataError: if no artefact and no list of the erased knows the patient.
    """
    artefacts = storage.list()
    erased = read_erased(storage)
    known = erased.pop(surrogate, None)
    records = set(known.pending if known else ())
    for step, key in artefacts:
        if step in ("corpus", "instructions"):
            directory = storage.fetch(step, key)
            _check_version(directory)
            records |= set(_records_of(directory, surrogate))
    if not records and known is None:
        raise DataError(
            "no artefact under the storage root knows this patient: compare the number with the "
            "export's, and the key file with the one that the corpus was made with"
        )
    # First of all: from here on, a killed run knows what it still has to do.
    note = Erased(time.strftime("%Y-%m-%d"), tuple(sorted(records)))
    write_erased(storage, {**erased, surrogate: note})
    rows: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for step, key in (name for step in STEPS for name in artefacts if name[0] == step):
        rows |= _clear(storage, step, key, surrogate, records, tokenizer, audit_key, renamed)
    # Half-made artefacts hold copies in forms of their own; the cache has names for the same files,
    # and an export is copied here again when it is next read.
    root = storage.local_root
    for copies in (root / CACHE, root / EXPORTS, *root.glob("*/.*.partial")):
        remove(copies)
    storage.remove_checkpoints()
    for step, key in storage.remove_unfinished():
        logger.warning(
            "the upload of %s/%s had broken off; it is deleted, to be made again", step, key
        )
    deleted = [name for name in find_outdated(storage) if name[0] in RESULTS]
    for name in deleted:
        storage.remove(*name)
    searched, found = search(storage, {surrogate, *records})
    if not found:
        write_erased(storage, {**erased, surrogate: note._replace(pending=())})
    outdated = ["/".join(name) for name in find_outdated(storage)]
    return Erasure(rows, ["/".join(name) for name in deleted], outdated, searched, found)


def search(storage: Storage, values: set[str]) -> tuple[int, list[str]]:
    """Reads every file of every artefact but the sample hospital, which stands for the export;
    returns how many, and those that hold one of `values`: as a cell of a Parquet shard, or
    anywhere in another file."""
    needles = [value.encode() for value in values]
    count, found = 0, []
    for step, key in storage.list():
        directory = storage.fetch(step, key)
        files = [] if step == "sample" else sorted(p for p in directory.rglob("*") if p.is_file())
        for path in files:
            count += 1
            is_shard = path.suffix == ".parquet"
            if _names_one(path, values) if is_shard else _holds(path, needles):
                found.append(f"{step}/{key}/{path.relative_to(directory).as_posix()}")
    return count, found


def _check_version(directory: Path) -> None:
    """Raises DataError if the instructions do not say which record they were made from."""
    for path in (directory / "sft").glob("*.parquet"):
        if "doc_id" not in pq.read_schema(path).names:
            raise DataError(
                f"{directory} was made by an earlier version, without the records its rows came "
                "from; remove it, run build_instructions again, then forget the patient"
            )


def _records_of(directory: Path, surrogate: str) -> Iterator[str]:
    """Ids of the patient's records in an artefact."""
    for path in directory.rglob("*.parquet"):
        schema = pq.read_schema(path)
        if "patient_id" in schema.names and "doc_id" in schema.names:
            table = pq.read_table(
                path, columns=["doc_id"], filters=[("patient_id", "=", surrogate)]
            )
            yield from table["doc_id"].to_pylist()


def _clear(
    storage: Storage,
    step: str,
    key: str,
    surrogate: str,
    records: set[str],
    tokenizer: Path | None,
    audit_key: bytes,
    renamed: dict[str, str],
) -> dict[str, int]:
    """Takes the patient out of one artefact's shards; returns the rows taken out by shards.

    Args:
        renamed: `content` before → after, of the artefacts cleared so far; extended.
    """
    directory = storage.fetch(step, key)
    manifest = read_manifest(directory)
    gone: dict[str, Counts] = {}
    for path in sorted(directory.rglob("*.parquet")):
        if path.parent.name != "blocks":  # packed tokens name nobody; they are packed anew below
            counts = _without(path, [surrogate, *sorted(records)])
            if counts is not None:
                name = path.parent.relative_to(directory).as_posix()
                total = gone.setdefault(name, Counts(rejected={"erased": 0}))
                total.rows_in += counts.rows_in
                total.rows_out += counts.rows_out
                total.rejected["erased"] += counts.rejected["erased"]
    for path in (directory / "quarantine").glob(QUARANTINE):
        _erase_lines(path, [name.encode() for name in records])
    # A killed run may have cleared the shards, and not what is made of them.
    if (
        not any(c.rejected["erased"] for c in gone.values())
        and list_files(directory) == manifest.files
    ):
        if step == "index":
            drop_former(directory)
        return {}
    if step == "corpus":
        for path in (directory / "audit").glob("*.sealed"):
            erase_audit(path, audit_key, records)
        values = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        pack_corpus(CorpusConfig.model_validate(values["corpus"]), directory, tokenizer)
    elif step == "index":
        refill(directory)
    cleared = manifest.model_copy(
        update={
            "counts": manifest.counts | {f"forget/{name}": c for name, c in gone.items()},
            "parents": {
                p: renamed.get(content, content) for p, content in manifest.parents.items()
            },
            "files": list_files(directory),
        }
    )
    write_manifest(directory, cleared)
    storage.update(step, key)
    if step == "index":
        drop_former(directory)  # until now replicas found the index as it was before
    renamed[manifest.content] = cleared.content
    return {f"{step}/{key}/{name}": c.rejected["erased"] for name, c in gone.items()}


def _without(path: Path, names: list[str]) -> Counts | None:
    """Rewrites a shard without the rows that name the patient; None if it names no patients."""
    columns = [name for name in pq.read_schema(path).names if name in NAMED_BY]
    if not columns:
        return None
    table = pq.read_table(path)
    kept = table
    for column in columns:
        kept = kept.filter(~ds.field(column).isin(names))
    if len(kept) < len(table):
        temporary = path.with_suffix(".tmp")
        pq.write_table(kept, temporary)
        temporary.replace(path)
    return Counts(
        rows_in=len(table), rows_out=len(kept), rejected={"erased": len(table) - len(kept)}
    )


def _erase_lines(path: Path, needles: list[bytes]) -> None:
    """Rewrites a file of ids without the lines that hold one of `needles`."""
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not any(needle in line for needle in needles)]
    if len(kept) < len(lines):
        temporary = path.with_suffix(".tmp")
        temporary.touch(mode=0o600)
        temporary.write_bytes(b"".join(kept))
        temporary.replace(path)


def _names_one(path: Path, values: set[str]) -> bool:
    """True if a cell of the shard, in a nested column too, is one of `values`."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            columns = list(batch.columns)
            while columns:
                column = columns.pop()
                if pa.types.is_string(column.type):
                    if not values.isdisjoint(column.unique().to_pylist()):
                        return True
                elif pa.types.is_struct(column.type):
                    columns += column.flatten()
                elif pa.types.is_map(column.type):
                    columns += [column.keys, column.items]
                elif pa.types.is_nested(column.type):
                    columns.append(column.flatten())
    return False


def _holds(path: Path, needles: list[bytes]) -> bool:
    """True if a file holds one of `needles`, read in overlapping pieces."""
    overlap = max(map(len, needles)) - 1
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(2**22):
            window = tail + piece
            if any(needle in window for needle in needles):
                return True
            tail = window[-overlap:]
    return False
