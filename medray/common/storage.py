"""The storage root: where every artefact lives, on a local path or an object store.

A step always works in a local directory. Publishing to a local root is one atomic rename;
publishing to `s3://`, `gs://`, `hdfs://` or `file://` uploads the files and writes the manifest
last, and a reader takes a directory without a manifest for absent. So nobody sees half of one.
"""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import pyarrow.fs as pafs
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from medray.common.config import HIDDEN, Config
from medray.common.errors import StorageError

MANIFEST = "manifest.json"
TRAIN = "train"
UNFINISHED = "unfinished"
"""Below a remote root: a file for each artefact that is being uploaded."""


_SECRET = re.compile(r"://[^/@]*:(?!\d+/)[^@]*@")
"""`://KEY:SECRET@`, also where the secret holds a slash; `://host:9000/` is none."""


def _without_secret(place: str) -> str:
    if _SECRET.search(place):
        raise PydanticCustomError(
            HIDDEN,
            "the URI holds a key or a password, which would be written to settings and logs; give "
            "it in the environment or in the credentials file of the object store",
        )
    return place


Place = Annotated[str, AfterValidator(_without_secret)]
"""A local path or a URI; one with a key or password in it is refused, without being shown."""


class StorageConfig(Config):
    """Where artefacts are kept."""

    root: Place
    """A local directory, or a URI that pyarrow understands: s3://, gs://, hdfs://, file://."""
    cache: str = ""
    """Local directory for work in progress and downloads of a remote root.
    Empty: the root itself when it is local, else medray-cache in the temporary directory."""


class Storage:
    """Finds, works on and publishes artefact directories `<root>/<step>/<key>`."""

    def __init__(self, config: StorageConfig) -> None:
        self.config = config
        self.is_remote = "://" in config.root
        if self.is_remote:
            default = Path(tempfile.gettempdir()) / "medray-cache"
            self.local_root = Path(config.cache or default).expanduser().resolve()
        else:
            self.local_root = Path(config.root).expanduser().resolve()
            # Ray's workers have working directories of their own: hand them an absolute root.
            self.config = config.model_copy(update={"root": str(self.local_root)})

    def check_writable(self) -> None:
        """Raises StorageError unless the root exists or can be made, and takes a file."""
        try:
            self.local_root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.local_root):
                pass
            if self.is_remote:
                filesystem, path = pafs.FileSystem.from_uri(self.config.root)
                filesystem.create_dir(path, recursive=True)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"storage root {self.config.root} is not writable: {error}; "
                "set storage.root to a directory or bucket you may write to"
            ) from None

    def partial(self, step: str, key: str) -> Path:
        """The local directory in which a step works until it is published; kept over a kill."""
        return self.local_root / step / f".{key}.partial"

    def path(self, step: str, key: str) -> Path:
        """The local directory of a published artefact (for a remote root, of its download)."""
        return self.local_root / step / key

    def location(self, step: str, key: str) -> str:
        """Where users find the artefact: a local path or a URI."""
        if self.is_remote:
            return f"{self.config.root.rstrip('/')}/{step}/{key}"
        return str(self.path(step, key))

    def exists(self, step: str, key: str) -> bool:
        """True once the artefact is published."""
        if not self.is_remote:
            return (self.path(step, key) / MANIFEST).is_file()
        filesystem, path = pafs.FileSystem.from_uri(self.location(step, key))
        return filesystem.get_file_info(f"{path}/{MANIFEST}").type == pafs.FileType.File

    def fetch(self, step: str, key: str) -> Path:
        """Returns the local directory of a published artefact. A remote one is downloaded once, and
        again after its files were changed, as by an erasure."""
        target = self.path(step, key)
        manifest = self.read_text(f"{step}/{key}/{MANIFEST}")
        if manifest is None:
            raise StorageError(f"{self.location(step, key)} is not there; run the {step} job first")
        if (target / MANIFEST).is_file():
            if (target / MANIFEST).read_text(encoding="utf-8") == manifest:
                return target
            stale = target.with_name(f".{key}.stale-{os.getpid()}")
            # Another worker on this machine may have seen it first.
            with contextlib.suppress(FileNotFoundError):
                os.replace(target, stale)
                shutil.rmtree(stale)
        filesystem, path = pafs.FileSystem.from_uri(self.location(step, key))
        download = target.with_name(f".{key}.download-{os.getpid()}")
        # What broke off before may hold what was erased since.
        shutil.rmtree(download, ignore_errors=True)
        download.mkdir(parents=True)
        try:
            pafs.copy_files(path, str(download), filesystem, pafs.LocalFileSystem())
        except BaseException:
            shutil.rmtree(download, ignore_errors=True)
            raise
        brought = download / MANIFEST
        if not brought.is_file() or brought.read_text(encoding="utf-8") != manifest:
            shutil.rmtree(download)
            raise StorageError(f"{self.location(step, key)} was changed while it was read; again")
        try:
            os.replace(download, target)
        except OSError:
            # Another worker on this machine fetched it meanwhile; its copy is as good.
            if not (target / MANIFEST).is_file():
                raise
            shutil.rmtree(download)
        return target

    def publish(self, step: str, key: str) -> Path:
        """Turns the partial directory, which must hold a manifest, into the artefact."""
        partial, target = self.partial(step, key), self.path(step, key)
        if not (partial / MANIFEST).is_file():
            raise StorageError(f"{partial} has no {MANIFEST}; it cannot be published")
        if self.is_remote:
            self._upload(partial, step, key)
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
        return target

    def remove_unfinished(self) -> list[tuple[str, str]]:
        """Deletes what uploads to a remote root that broke off have left: no reader sees it, and it
        may hold what is to be erased. Returns (step, key) of each."""
        if not self.is_remote:
            return []
        removed = []
        filesystem, root = pafs.FileSystem.from_uri(f"{self.config.root.rstrip('/')}/{UNFINISHED}")
        for info in filesystem.get_file_info(
            pafs.FileSelector(root, recursive=True, allow_not_found=True)
        ):
            if info.is_file:
                step, key = info.path.split("/")[-2:]
                if not self.exists(step, key):
                    _delete(self.location(step, key))
                    removed.append((step, key))
                filesystem.delete_file(info.path)
        return removed

    def list(self) -> list[tuple[str, str]]:
        """(step, key) of every published artefact under the root, sorted."""
        if not self.is_remote:
            found = self.local_root.glob(f"*/[!.]*/{MANIFEST}")
            return sorted((path.parts[-3], path.parts[-2]) for path in found)
        filesystem, root = pafs.FileSystem.from_uri(self.config.root)
        everything = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
        parts = [info.path.split("/") for info in everything if info.base_name == MANIFEST]
        return sorted((names[-3], names[-2]) for names in parts)

    def update(self, step: str, key: str) -> None:
        """Uploads an artefact whose local files were changed, without those that are gone. Until
        the end, and where it breaks off, it is not there for any reader."""
        if self.is_remote:
            self._mark(step, key)
            filesystem, path = pafs.FileSystem.from_uri(self.location(step, key))
            with contextlib.suppress(FileNotFoundError):
                filesystem.delete_file(f"{path}/{MANIFEST}")
            filesystem.delete_dir_contents(path)
            self._upload(self.path(step, key), step, key)

    def _mark(self, step: str, key: str) -> str:
        """Notes that an upload has begun; returns the note's path."""
        filesystem, root = pafs.FileSystem.from_uri(self.config.root)
        filesystem.create_dir(f"{root}/{UNFINISHED}/{step}", recursive=True)
        note = f"{root}/{UNFINISHED}/{step}/{key}"
        with filesystem.open_output_stream(note):
            return note

    def _upload(self, directory: Path, step: str, key: str) -> None:
        """The manifest last: without it nothing is there, for any reader."""
        note = self._mark(step, key)
        filesystem, path = pafs.FileSystem.from_uri(self.location(step, key))
        filesystem.create_dir(path, recursive=True)
        for entry in sorted(directory.iterdir(), key=lambda entry: entry.name == MANIFEST):
            if entry.is_dir():
                filesystem.create_dir(f"{path}/{entry.name}")
            pafs.copy_files(str(entry), f"{path}/{entry.name}", pafs.LocalFileSystem(), filesystem)
        filesystem.delete_file(note)

    def remove(self, step: str, key: str) -> None:
        """Deletes an artefact and what is left of its making, if they are there."""
        for path in (self.path(step, key), self.partial(step, key)):
            shutil.rmtree(path, ignore_errors=True)
        if self.is_remote:
            for location in (self.location(step, key), self.checkpoints(step, key)):
                _delete(location)

    def checkpoints(self, step: str, key: str) -> str:
        """Where a training stage keeps checkpoints: in the artefact in the making; of a remote
        storage, which every worker writes to, below `train/`."""
        if self.is_remote:
            return f"{self.config.root.rstrip('/')}/{TRAIN}/{step}-{key}"
        return str(self.partial(step, key) / TRAIN)

    def remove_checkpoints(self) -> None:
        """Deletes the checkpoints of a remote storage, of finished and of unfinished stages."""
        if self.is_remote:
            _delete(f"{self.config.root.rstrip('/')}/{TRAIN}")

    def read_text(self, name: str) -> str | None:
        """Reads what `write_text` wrote; None if it is not there."""
        if not self.is_remote:
            path = self.local_root / name
            return path.read_text(encoding="utf-8") if path.exists() else None
        filesystem, root = pafs.FileSystem.from_uri(self.config.root)
        if filesystem.get_file_info(f"{root}/{name}").type != pafs.FileType.File:
            return None
        with filesystem.open_input_stream(f"{root}/{name}") as stream:
            return stream.read().decode()

    def write_text(self, name: str, text: str) -> None:
        """Writes a small file under the root, whole or not at all, and uploads it if remote."""
        path = self.local_root / name
        temporary = path.with_name(f".{name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        if self.is_remote:
            filesystem, root = pafs.FileSystem.from_uri(self.config.root)
            with filesystem.open_output_stream(f"{root}/{name}") as stream:
                stream.write(text.encode())


def _delete(location: str) -> None:
    """Deletes a directory of an object store, if it is there."""
    filesystem, path = pafs.FileSystem.from_uri(location)
    filesystem.delete_dir_contents(path, missing_dir_ok=True)
    if filesystem.get_file_info(path).type == pafs.FileType.Directory:
        filesystem.delete_dir(path)
