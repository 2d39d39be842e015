"""Artefacts: what a step made, from what, with what, and where every row went.

An artefact is a directory `<root>/<step>/<key>`. The key is a hash of the step's configuration,
its parents' keys and the fingerprint of its outside input, so that the same work has the same
key: a finished step is found again and skipped, a changed one gets a directory of its own.
"""

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from medray import __version__
from medray.common.config import Config
from medray.common.errors import DataError, StorageError
from medray.common.storage import MANIFEST, Storage

PACKAGES = ("ray", "torch", "deepspeed", "transformers", "peft", "FlagEmbedding", "pyarrow",
            "pymilvus", "milvus-lite")  # fmt: skip


class Counts(BaseModel):
    """Rows through a step: `rows_in` = `rows_out` + the sum of `rejected`."""

    rows_in: int = 0
    rows_out: int = 0
    rejected: dict[str, int] = Field(default_factory=dict)

    def reject(self, reason: str, rows: int = 1) -> None:
        """Counts rows that go no further, by reason."""
        self.rejected[reason] = self.rejected.get(reason, 0) + rows

    def check(self, what: str) -> None:
        """Raises DataError if a row is unaccounted for."""
        gone = sum(self.rejected.values())
        if self.rows_in != self.rows_out + gone:
            raise DataError(
                f"{what}: {self.rows_in} rows in, but {self.rows_out} out and {gone} rejected; "
                "some rows are unaccounted for"
            )


class FileEntry(BaseModel):
    """One file of an artefact."""

    path: str
    size_bytes: int
    sha256: str


class Manifest(BaseModel):
    """What stands in manifest.json."""

    step: str
    key: str
    created: str
    duration_s: float
    medray: str
    git_commit: str
    packages: dict[str, str]
    parents: dict[str, str]
    """Parent step → `content` of the parent's manifest when this was made."""
    input: str
    """Fingerprint of the outside input (a `--data` directory or a model directory), or empty."""
    counts: dict[str, Counts]
    """Operator → rows through it."""
    metrics: dict[str, Any]
    """Headline figures of the step, such as loss before and after."""
    files: list[FileEntry]

    @property
    def content(self) -> str:
        """sha256 over all files: the same files, made again, give the same."""
        lines = (f"{entry.sha256} {entry.path}\n" for entry in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """Reads an artefact's manifest."""
    return Manifest.model_validate_json((directory / MANIFEST).read_text(encoding="utf-8"))


def stored_manifest(storage: Storage, step: str, key: str) -> Manifest:
    """Reads the manifest of a published artefact alone: its files may be large, and elsewhere.

    Raises:
        StorageError: if there is no such artefact.
    """
    text = storage.read_text(f"{step}/{key}/{MANIFEST}")
    if text is None:
        raise StorageError(f"{storage.location(step, key)} is not there; run the {step} job first")
    return Manifest.model_validate_json(text)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes manifest.json, whole or not at all."""
    temporary = directory / f".{MANIFEST}"
    temporary.write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    temporary.replace(directory / MANIFEST)


def list_files(directory: Path) -> list[FileEntry]:
    """Every file of an artefact but its manifest, with its sha256."""
    return [
        FileEntry(
            path=path.relative_to(directory).as_posix(),
            size_bytes=path.stat().st_size,
            sha256=sha256_file(path),
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, f".{MANIFEST}")  # left by a killed run
    ]


def artefact_key(step: str, config: Config, parents: Mapping[str, str], fingerprint: str) -> str:
    """The 12-digit key of a step's artefact. `parents` maps parent step → its key."""
    content = {
        "step": step,
        "config": config.model_dump(mode="json"),
        "parents": dict(sorted(parents.items())),
        "input": fingerprint,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def fingerprint_directory(directory: Path) -> str:
    """A hash of names, sizes and the first and last MiB of every file under `directory`.

    Whole files are not read, so that the fingerprint of a 100 GB export takes seconds.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(directory).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(2**20))
            file.seek(max(0, size - 2**20))
            digest.update(file.read(2**20))
    return digest.hexdigest()


class Artefact:
    """A step's directory while it is being made.

    The partial directory is kept when the process dies, so that the next run of the same step
    resumes in it; `publish` writes the manifest and makes it visible at once.
    """

    def __init__(
        self,
        storage: Storage,
        step: str,
        config: Config,
        *,
        parents: Mapping[str, Path] | None = None,
        key: str,
        fingerprint: str = "",
    ) -> None:
        self.storage, self.step, self.config, self.key = storage, step, config, key
        self.parents = dict(parents or {})
        self.fingerprint = fingerprint
        self.counts: dict[str, Counts] = {}
        self.metrics: dict[str, Any] = {}
        self._started = time.monotonic()
        self.dir = storage.partial(step, key)
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")

    def publish(self, *, drop: tuple[str, ...] = ()) -> Path:
        """Checks the counts, writes the manifest and publishes the directory.

        Args:
            drop: names inside the directory that are scratch and do not belong to the artefact.
        Returns:
            the local directory of the published artefact.
        """
        for operator, counts in self.counts.items():
            counts.check(f"{self.step}/{operator}")
        for name in drop:
            remove(self.dir / name)
        manifest = Manifest(
            step=self.step,
            key=self.key,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            duration_s=round(time.monotonic() - self._started, 1),
            medray=__version__,
            git_commit=git_commit(),
            packages=package_versions(),
            parents={name: read_manifest(path).content for name, path in self.parents.items()},
            input=self.fingerprint,
            counts=self.counts,
            metrics=self.metrics,
            files=list_files(self.dir),
        )
        write_manifest(self.dir, manifest)
        return self.storage.publish(self.step, self.key)


def remove(path: Path) -> None:
    """Deletes a file or a directory if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_commit() -> str:
    """The commit of the checkout that medray runs from, `+` where it differs; empty if none."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if dirty else "")


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that results depend on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
