"""The corpus job under kill -9 at ten random moments ends with the bytes of an undisturbed run."""

import os
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from medray.common.manifest import list_files, read_manifest
from medray.common.storage import MANIFEST
from medray.corpus.prepared import CACHE, PREPARED
from medray.privacy.audit import KEY_ENV as AUDIT_KEY_ENV
from medray.privacy.surrogates import KeyConfig
from medray.sample.hospital import SampleConfig, num_shards, write_knowledge, write_shard

KILLS, SEED = 10, 20
MAX_PATHS = 40
"""A kill comes when at most so many files and directories are new; a whole run makes about 90."""


def paths_of(root: Path) -> set[str]:
    """Every file and directory of the corpus in the making."""
    walk = os.walk(root / "corpus")  # which passes over what vanishes meanwhile
    return {os.path.join(parent, name) for parent, inner, files in walk for name in inner + files}


def finished_shards(root: Path) -> dict[str, int]:
    """Shards of prepared rows: name → inode. None once the documents are written: then they go."""
    partials = [
        path for path in root.glob("corpus/.*.partial") if not (path / "documents").exists()
    ]
    notes = [note for path in partials for note in (path / PREPARED).glob("*.json")]
    return {note.name: note.stat().st_ino for note in notes}


def wait_for_paths(process: subprocess.Popen, root: Path, count: int) -> bool:
    """True once so many paths are new; False if the job ends before."""
    old, seen = paths_of(root), set()
    while len(seen) < count:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
        seen |= paths_of(root) - old
    return True


def published(root: Path) -> Path:
    return next(root.glob(f"corpus/*/{MANIFEST}")).parent


@pytest.mark.slow
def test_ten_kills_leave_no_trace(start, kill, finish, tmp_path: Path, monkeypatch) -> None:
    for name, key in ((KeyConfig().key_env, "k" * 32), (AUDIT_KEY_ENV, "a" * 32)):
        (tmp_path / name).write_text(key)
        monkeypatch.setenv(name, str(tmp_path / name))
    data, sample = tmp_path / "data", SampleConfig(num_records=300, shard_records=20)
    for shard in range(num_shards(sample)):
        write_shard(sample, data, shard)
    write_knowledge(sample, data)
    settings = ["--data", str(data), "min_free_disk_gb=0.1", "corpus.block_tokens=128"]
    straight, root = tmp_path / "straight", tmp_path / "killed"
    finish(start("prepare_corpus", *settings, f"storage.root={straight}"))
    whole = read_manifest(published(straight))

    def check(output: str, before: dict[str, int]) -> None:
        """A run that ended is the undisturbed one, and read nothing a second time."""
        for units, found in re.findall(r"read: (\d+) work units, (\d+) of them", output):
            assert int(units) == 20 and int(found) >= len(before)
        made = read_manifest(published(root))
        # The audit labels are among the files: AES-SIV draws no random number.
        assert "audit/emr.sealed" in [file.path for file in made.files]
        assert made.files == list_files(published(root)) == whole.files
        assert (made.key, made.counts, made.metrics) == (whole.key, whole.counts, whole.metrics)

    chance, kills, before = random.Random(SEED), 0, {}
    among_shards = 0
    while kills < KILLS:
        process = start("prepare_corpus", *settings, f"storage.root={root}")
        if not wait_for_paths(process, root, chance.randint(1, MAX_PATHS)):
            check(finish(process), before)
            before = {}
            for name in ("corpus", CACHE):  # from the beginning, for the kills that are left
                shutil.rmtree(root / name)
            continue
        kill(process)
        kills += 1
        after = finished_shards(root)
        assert not after or before.items() <= after.items()  # none was lost or made again
        among_shards += 0 < len(after) < 20
        before = after
    assert among_shards, "no kill came while the export was read"
    check(finish(start("prepare_corpus", *settings, f"storage.root={root}")), before)
