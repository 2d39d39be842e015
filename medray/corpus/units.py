"""Work units: what one task reads. In: sources and their files. Out: `Unit`s, and a key of each.

The key is a hash of everything that shapes a unit's rows, the files' content before all. So what
was read under the same key need not be read again: by a run that was killed, or when an export has
come to which this unit does not belong.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import medray
from medray.common.config import Config
from medray.common.manifest import sha256_file
from medray.common.split import unit_hash
from medray.corpus.readers.document_files import is_document
from medray.corpus.readers.joins import Part
from medray.corpus.readers.reading import corpus_files
from medray.corpus.sources import CorpusSource
from medray.corpus.terms.vocabulary import Vocabulary

TASK_BYTES = 4 * 2**20
"""Bytes of a file, as it lies on disk, that one task works through: packed, about a minute's work,
which a kill may cost."""
JOIN_BYTES = 16 * 2**20
"""The same of the tables of a join, which each task reads and parses as a whole."""
MAX_PARTS = 32
"""Tasks that share one file or one join at most: each reads past the rows of the others, which
takes about a hundredth of the work on them."""
RUN_DOCUMENTS = 8
"""Files of one document each that one task reads, on average."""
CODE = ("common", "corpus", "privacy")
"""Packages of medray that take part in making rows."""
LIBRARIES = ("defusedxml", "pyahocorasick", "pyarrow", "pypdf")
"""Other packages that do."""


class Unit(NamedTuple):
    """A share of a source's files."""

    source: CorpusSource
    files: tuple[str, ...]
    """What is read, relative to the data directory; tables to be joined too."""
    part: Part
    """Which of the rows or patients in them."""


def work_units(sources: Iterable[CorpusSource], data: Path) -> list[Unit]:
    """The units of all sources, in an order that depends on their files alone.

    Joins are shared by patient, files of rows by row, documents in runs of files; a source with a
    limit, which counts over all files, is one unit.
    """
    units = []
    for source in sources:
        paths = corpus_files(source, data)
        if source.format != "files" or source.limit:
            tables = {path for glob in source.tables.values() for path in data.glob(glob)}
            groups = [[*paths, *sorted(tables)]]
        else:
            groups = [[path] for path in paths if not is_document(path)]
            groups += _runs([path for path in paths if is_document(path)], data)
        for group in groups:
            size = sum(path.stat().st_size for path in group)
            parts = 1 + size // (TASK_BYTES if source.format == "files" else JOIN_BYTES)
            parts = 1 if source.limit or is_document(group[0]) else min(parts, MAX_PARTS)
            files = tuple(path.relative_to(data).as_posix() for path in group)
            units += [Unit(source, files, Part(k, parts)) for k in range(parts)]
    return units


def unit_key(unit: Unit, settings_hash: str, data: Path) -> str:
    """The unit's key, 32 hexadecimal digits. Reads its files through.

    Args:
        settings_hash: `hash_of` all settings that are not the source's own.
    """
    parts = [
        settings_hash,
        hash_of(unit.source.model_dump(mode="json", exclude={"pretrain", "passages", "medical"})),
        hash_of([(name, sha256_file(data / name)) for name in unit.files]),
        hash_of(unit.part),
    ]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]


def code_hash() -> str:
    """A hash of the code, data tables and library versions that rows depend on: a rule that was
    mended must not meet what the old one has left."""
    root = Path(medray.__file__).parent
    files = [path for name in CODE for path in (root / name).rglob("*")]
    content = {
        path.relative_to(root).as_posix(): sha256_file(path)
        for path in sorted(files)
        if path.suffix in (".py", ".yaml")
    }
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    return hash_of([content, versions, platform.python_version()])


def hash_of(value: Any) -> str:
    """sha256 of settings: equal in every process, different for different values.

    Raises:
        TypeError: of a type it does not know.
    """
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    if isinstance(value, Vocabulary):
        return value.digest
    if isinstance(value, np.ndarray):
        return [str(value.dtype), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(map(_plain, value))
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"cannot hash a {type(value).__name__}: say here what of it shapes the rows")


def _runs(paths: list[Path], data: Path) -> Iterator[list[Path]]:
    """Cuts documents into runs. Where a run ends is a matter of its last name alone, so that a file
    that is added or taken away changes its own run and no other."""
    run: list[Path] = []
    for path in paths:
        run.append(path)
        if unit_hash(f"run/{path.relative_to(data).as_posix()}") < 1 / RUN_DOCUMENTS:
            yield run
            run = []
    if run:
        yield run
