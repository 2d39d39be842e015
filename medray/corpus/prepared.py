"""Prepared rows: a shard a work unit, finished once. In: rows. Out: .prepared/, a cache.

A shard is `NNNNNN-KEY.arrow` below the corpus in the making, with a `Note` beside it that says it
is whole: a run that was killed goes on after its last finished shard. Both files also have a name
in the cache below the storage root, where a later corpus finds them by their key; it holds what
unfinished corpora and the last finished one are made of. Rows are de-identified, but patients can
be told apart in them: who erases one deletes the cache.
"""

import contextlib
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from medray.common.manifest import sha256_file
from medray.common.records import Document
from medray.common.rows import arrow_schema

PREPARED, CACHE = ".prepared", "prepared"
BATCH_ROWS = 1_000
DOCUMENT_SCHEMA = arrow_schema(Document)
PREPARED_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("doc_id", pa.string()),
        ("digest", pa.binary()),
        ("chars", pa.int64()),
        ("terms", pa.string()),
        ("audit", pa.binary()),
        ("document", pa.struct(list(DOCUMENT_SCHEMA))),
    ]
)


class Note(BaseModel):
    """What a finished shard holds."""

    sha256: str = ""
    rows: dict[str, Counter[str]] = {}
    """The last operator that rows came to → its reason for rejecting them, or empty → rows."""
    phi: Counter[str] = Counter()
    overlaps: Counter[str] = Counter()
    tally: Counter[str] = Counter()

    def count(self, row: dict[str, Any]) -> None:
        """Counts a row with `stage`, `reason` and what else there is to count."""
        self.rows.setdefault(row["stage"], Counter())[row["reason"] or ""] += 1
        self.overlaps.update(row.get("overlaps") or [])
        self.tally.update(row.get("tally") or {})
        self.phi.update(row.get("phi") or {})


class Shards(NamedTuple):
    """Where shards lie."""

    own: Path
    """Those of the corpus in the making, by their place and key."""
    cache: Path
    """Those of all corpora, by their key."""

    def find(self, place: int, key: str) -> Note | None:
        """The note of a shard that is finished and whole, here or in the cache; else None."""
        own, cached = self._own(place, key), self.cache / key
        note = _read(own)
        if note is None:
            note = _read(cached)
            if note is not None and not _link(cached, own):
                return None
        return note

    def write(self, place: int, key: str, shard: pa.Buffer, note: Note) -> None:
        """Publishes a shard, the note last."""
        own = self._own(place, key)
        for suffix, content in ((".arrow", shard), (".json", note.model_dump_json().encode())):
            # Of a name of its own: the driver of another run may be at the same shard.
            descriptor, temporary = tempfile.mkstemp(dir=self.own, suffix=".tmp")
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, own.with_suffix(suffix))
        _link(own, self.cache / key)

    def settle(self, keys: list[str]) -> None:
        """Ends the making of the shards `keys`: what else lies here goes, such as files of killed
        workers; and from the cache, what no corpus in the making has a name for."""
        names = {self._own(place, key).name for place, key in enumerate(keys)}
        for path in self.own.iterdir():
            if path.suffix == ".tmp" or path.stem not in names:
                path.unlink(missing_ok=True)
        for path in self.cache.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_nlink == 1:
                    path.unlink()

    def _own(self, place: int, key: str) -> Path:
        return self.own / f"{place:06d}-{key}"


def shard_of(rows: Iterable[dict[str, Any]]) -> tuple[pa.Buffer, Note]:
    """The content of a shard, an Arrow stream, and its note."""
    sink, note, rows = pa.BufferOutputStream(), Note(), iter(rows)
    with pa.ipc.new_stream(sink, PREPARED_SCHEMA) as stream:
        while batch := list(islice(rows, BATCH_ROWS)):
            for row in batch:
                note.count(row)
            stream.write_table(pa.Table.from_pylist(batch, schema=PREPARED_SCHEMA))
    shard = sink.getvalue()
    note.sha256 = hashlib.sha256(shard).hexdigest()
    return shard, note


def prepared_batches(target: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of all prepared rows of a corpus in the making, in order."""
    for path in _paths(target):
        yield from _mapped(path).select(columns).to_batches()


def prepared_table(target: Path) -> pa.Table:
    """All prepared rows of a corpus in the making, mapped and not read."""
    return pa.concat_tables(map(_mapped, _paths(target)))


def _paths(target: Path) -> list[Path]:
    return sorted((target / PREPARED).glob("*.arrow"))


def _mapped(path: Path) -> pa.Table:
    # The mapping outlives the file object, as long as a buffer of it is in use.
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return stream.read_all()


def _read(shard: Path) -> Note | None:
    """The note of a shard if both its files are there and whole; what is damaged is deleted."""
    try:
        note = Note.model_validate_json(shard.with_suffix(".json").read_text(encoding="utf-8"))
        if sha256_file(shard.with_suffix(".arrow")) == note.sha256:
            return note
    except FileNotFoundError:
        return None
    except ValidationError:
        pass
    _delete(shard)
    return None


def _link(shard: Path, other: Path) -> bool:
    """Gives a shard another name, the note last. False if it has none: the shard was deleted
    meanwhile, or the file system knows one name only."""
    _delete(other)
    try:
        for suffix in (".arrow", ".json"):
            os.link(shard.with_suffix(suffix), other.with_suffix(suffix))
    except OSError:
        return False
    return True


def _delete(shard: Path) -> None:
    for suffix in (".json", ".arrow"):
        shard.with_suffix(suffix).unlink(missing_ok=True)
