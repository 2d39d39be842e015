"""Exports of a hospital that lie in an object store: a local copy, brought up to date.

In: a URI. Out: a directory below the local root, readable by its owner only.
"""

import hashlib
import os
from pathlib import Path

import pyarrow.fs as pafs

from medray.common.errors import DataError

EXPORTS = "exports"
"""Below the local root: the copies."""


def fetch_export(uri: str, local_root: Path) -> Path:
    """A local copy of a hospital's export in an object store, readable by its owner only.

    What has not changed there, by size and time, is not copied again; what is gone goes here
    too.
    Raises:
        DataError: if there is no such directory, or it cannot be read.
    """
    # Hidden, so that no file of an export is taken for an artefact's manifest.
    target = local_root / EXPORTS / f".{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        filesystem, base = pafs.FileSystem.from_uri(uri)
        infos = filesystem.get_file_info(pafs.FileSelector(base, recursive=True))
        files = {i.path[len(base) :].lstrip("/"): i for i in infos if i.is_file}
        for name, info in files.items():
            if ".." in Path(name).parts:
                raise DataError(f"{uri} holds a file named {name}; rename it without ..")
            _bring(filesystem, info, target / name)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"the export {uri} cannot be read ({type(error).__name__}: {error}); check --data "
            "and the credentials of the object store"
        ) from None
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target).as_posix() not in files:
            path.unlink()
    return target


def _bring(filesystem: pafs.FileSystem, info: pafs.FileInfo, target: Path) -> None:
    """Copies a file unless `target` has its size and time."""
    if target.is_file() and info.mtime_ns is not None:
        here = target.stat()
        if (here.st_size, here.st_mtime_ns) == (info.size, info.mtime_ns):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    pafs.copy_files(info.path, str(partial), filesystem, pafs.LocalFileSystem())
    if info.mtime_ns is not None:
        os.utime(partial, ns=(info.mtime_ns, info.mtime_ns))
    os.replace(partial, target)
