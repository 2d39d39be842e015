"""Where a deployment finds what it serves: a directory, or an artefact of a finished pipeline.

A replica may start on another node than the one that built the application, so it is handed a
`Location` and fetches it itself, from a shared path or an object store.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

import pyarrow.fs as pafs

from medray.common.config import Config
from medray.common.errors import ConfigError, StorageError
from medray.common.lineage import find_outdated
from medray.common.storage import MANIFEST, Storage, StorageConfig
from medray.retrieval.directory import INFO

logger = logging.getLogger(__name__)
PIPELINE = "pipeline.json"


class Location(Config):
    """A local directory (`path`), or a part of an artefact under a storage root."""

    path: str = ""
    root: str = ""
    step: str = ""
    key: str = ""
    part: str = ""
    """Directory inside the artefact; empty is the artefact itself."""

    def fetch(self) -> Path:
        """The directory on this machine, downloaded if the root is remote.

        Raises:
            StorageError: if it is not there.
        """
        if not self.path:
            return Storage(StorageConfig(root=self.root)).fetch(self.step, self.key) / self.part
        if not Path(self.path).is_dir():
            raise StorageError(f"no directory at {self.path}; check the path")
        return Path(self.path)

    def stamp(self) -> str:
        """What changes when the files that were served are rewritten under the same name, as by an
        erasure: collection.json, which is written last of an index's; in an object store the
        manifest.

        Raises:
            OSError, StorageError: if it is not there.
        """
        place = Path(self.path)
        if not self.path:
            storage = Storage(StorageConfig(root=self.root))
            if storage.is_remote:
                manifest = storage.read_text(f"{self.step}/{self.key}/{MANIFEST}")
                if manifest is None:  # as while it is uploaded anew
                    raise StorageError(f"{self.step}/{self.key} is not there")
                return manifest
            place = storage.path(self.step, self.key)
        files = (place / name for name in (INFO, MANIFEST))
        found = next((file for file in files if file.is_file()), place).stat()
        return f"{found.st_ino} {found.st_mtime_ns}"

    @property
    def version(self) -> str:
        """A name for what is served: the artefact's key, or the directory's name."""
        return self.key or Path(self.path).name


def directory(path: str) -> Location:
    """The location of a directory given by a user, relative to the working directory."""
    return Location(path=str(Path(path).expanduser().resolve()))


def newest(root: str, steps: tuple[str, ...], part: str = "") -> Location:
    """The artefact of the first of `steps` that the pipeline under `root` has finished.

    Raises:
        ConfigError: if no pipeline has finished there, or none of the steps.
    """
    if "://" not in root:
        root = str(Path(root).expanduser().resolve())
    finished = _read_pipeline(root)
    for step in steps:
        if step in finished:
            return Location(root=root, step=step, key=finished[step], part=part)
    raise ConfigError(
        f"{root}/{PIPELINE} has no finished step {' or '.join(steps)}; "
        "run the pipeline to its end with: medray run pipeline"
    )


def warn_of_erasures(locations: Iterable[Location]) -> None:
    """Logs which artefacts are made of rows that were erased since, until they are made again."""
    keyed = [location for location in locations if location.key]
    outdated = {
        (root, name)
        for root in {location.root for location in keyed}
        for name in find_outdated(Storage(StorageConfig(root=root)))
    }
    for location in keyed:
        if (location.root, (location.step, location.key)) in outdated:
            logger.warning(
                "%s/%s is served although rows that it was made of have been erased; make it "
                "again: medray run pipeline", location.step, location.key,
            )  # fmt: skip


def _read_pipeline(root: str) -> dict[str, str]:
    """Finished step → its key."""
    try:
        if "://" in root:
            filesystem, path = pafs.FileSystem.from_uri(f"{root.rstrip('/')}/{PIPELINE}")
            with filesystem.open_input_stream(path) as file:
                text = file.read().decode()
        else:
            text = (Path(root) / PIPELINE).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"no {PIPELINE} under {root}; run the pipeline first (medray run pipeline), set "
            "storage_root to where it ran, or set model_dir, encoder_dir and index_dir"
        ) from None
    try:
        steps = json.loads(text)["steps"]
        return {step: entry["key"] for step, entry in steps.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f'{root}/{PIPELINE} is damaged: expected {{"steps": {{"ppo": {{"key": …}}}}}}; '
            "run the pipeline again, finished steps are skipped"
        ) from None
