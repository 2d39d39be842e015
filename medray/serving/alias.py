"""The index alias: one file that names the version of the index which is searched.

`medray serve use-index KEY` writes it, `medray serve roll-back-index` turns it back. Every
retrieval replica looks at it before each search, so that a version moves while questions come in.
Without a file the version is that which was the newest when the application was built.
"""

import os
import tempfile
from pathlib import Path

from medray.common.config import Config
from medray.common.errors import ConfigError
from medray.common.manifest import read_manifest, stored_manifest
from medray.common.storage import Storage, StorageConfig
from medray.serving.artefacts import Location


class Named(Config):
    """What the file holds."""

    index: Location
    previous: Location | None = None
    """Where a roll-back leads."""


class IndexAlias:
    """The alias in one file; `first` is what it stands for while there is none."""

    def __init__(self, path: str, first: Location) -> None:
        self._path = Path(path).expanduser() if path else None
        self.first = first
        self._first = self._named = Named(index=first)
        self._stamp: tuple[int, int] | None = None

    def named(self) -> Named:
        """What the alias stands for now; the file is read when it has changed.

        Raises:
            ConfigError: if the file is damaged.
        """
        if self._path is None:
            return self._first
        try:
            found = os.stat(self._path)
            stamp = (found.st_ino, found.st_mtime_ns)
            if stamp != self._stamp:
                self._named = Named.model_validate_json(self._path.read_bytes())
                self._stamp = stamp
        except FileNotFoundError:
            return self._first
        except ValueError:
            raise ConfigError(
                f"{self._path} names no index; write it with: medray serve use-index KEY"
            ) from None
        return self._named

    def move(self, to: Location) -> bool:
        """Lets the alias stand for another version; False if it did already.

        Raises:
            ConfigError: if the version was made by another encoder than the one that is served:
                their vectors have nothing to do with each other. A directory without a manifest
                does not say which one made it, and is taken as it is.
        """
        now = self.named().index
        if to == now:
            return False
        encoders = [_encoder(index) for index in (to, now)]
        if None not in encoders and encoders[0] != encoders[1]:
            raise ConfigError(
                f"index {to.version} was made by another encoder than {now.version}; an encoder "
                "moves with its index when the application is deployed anew, not by the alias"
            )
        self._write(Named(index=to, previous=now))
        return True

    def roll_back(self) -> Location:
        """Lets the alias stand for the version before; a second time undoes it.

        Raises:
            ConfigError: if there is none.
        """
        named = self.named()
        if named.previous is None:
            raise ConfigError("the index was not moved here; there is no version to go back to")
        self._write(Named(index=named.previous, previous=named.index))
        return named.previous

    def _write(self, named: Named) -> None:
        """Whole or not at all: a replica may be reading."""
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(named.model_dump_json(indent=1))
        os.chmod(temporary, 0o644)  # replicas may run as somebody else
        os.replace(temporary, self._path)


def find_index(newest: Location, name: str = "") -> Location:
    """The version of a name: the key of an index beside the newest one, or what it begins with;
    where directories are served, a directory. No name: the newest.

    Raises:
        ConfigError: if there is none of the name, or several.
    """
    if not name:
        return newest
    if newest.path:
        return Location(path=str(Path(name).expanduser().resolve()))
    storage = Storage(StorageConfig(root=newest.root))
    keys = [key for step, key in storage.list() if step == newest.step]
    found = [key for key in keys if key == name] or [key for key in keys if key.startswith(name)]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} indexes under {newest.root} begin with {name!r}; "
            f"there are: {', '.join(keys)}"
        )
    return newest.model_copy(update={"key": found[0]})


def _encoder(index: Location) -> str | None:
    """The content of the encoder that an index was made with; None where a directory has no
    manifest that names it."""
    if index.path:
        try:
            return read_manifest(Path(index.path)).parents.get("encoder")
        except (FileNotFoundError, ValueError):
            return None
    manifest = stored_manifest(Storage(StorageConfig(root=index.root)), index.step, index.key)
    return manifest.parents.get("encoder", "")
