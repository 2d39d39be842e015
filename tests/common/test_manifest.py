"""Artefacts: stable keys, every row accounted for, files with their sums."""

import hashlib
import os
from pathlib import Path

import pytest

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.manifest import (
    Artefact,
    Counts,
    artefact_key,
    fingerprint_directory,
    read_manifest,
    sha256_file,
)
from medray.common.storage import Storage, StorageConfig


class StepConfig(Config):
    a: int = 1
    b: str = "x"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(StorageConfig(root=str(tmp_path / "root")))


def test_key_is_stable_over_versions() -> None:
    # Changing this value throws away every artefact that anybody has made.
    assert artefact_key("sft", StepConfig(), {"pretrain": "p", "corpus": "c"}, "f") == KEY
    assert artefact_key("sft", StepConfig(), {"corpus": "c", "pretrain": "p"}, "f") == KEY


CONTENT = (
    b'{"config": {"a": 1, "b": "x"}, "input": "f", '
    b'"parents": {"corpus": "c", "pretrain": "p"}, "step": "sft"}'
)
KEY = hashlib.sha256(CONTENT).hexdigest()[:12]


@pytest.mark.parametrize(
    ("step", "config", "parents", "fingerprint"),
    [
        ("ppo", StepConfig(), {"p": "1"}, ""),
        ("sft", StepConfig(a=2), {"p": "1"}, ""),
        ("sft", StepConfig(), {"p": "2"}, ""),
        ("sft", StepConfig(), {"q": "1"}, ""),
        ("sft", StepConfig(), {"p": "1"}, "f"),
    ],
)
def test_everything_shapes_the_key(step, config, parents, fingerprint) -> None:
    assert artefact_key(step, config, parents, fingerprint) != artefact_key(
        "sft", StepConfig(), {"p": "1"}, ""
    )


def test_publish_writes_what_was_made_from_what(storage: Storage) -> None:
    parent = Artefact(storage, "corpus", StepConfig(), key="c").publish()
    artefact = Artefact(
        storage, "sft", StepConfig(a=2), key="k", parents={"corpus": parent}, fingerprint="f"
    )
    (artefact.dir / "model").mkdir()
    (artefact.dir / "model" / "w").write_bytes(b"123")
    (artefact.dir / "train").mkdir()
    (artefact.dir / "train" / "checkpoint").write_bytes(b"scratch")
    artefact.counts["rows"] = counts = Counts(rows_in=5, rows_out=2)
    counts.reject("too_long")
    counts.reject("too_long")
    counts.reject("empty")
    artefact.metrics["loss"] = 0.5
    path = artefact.publish(drop=("train", "never_there"))
    manifest = read_manifest(path)
    assert (manifest.step, manifest.key, manifest.input) == ("sft", "k", "f")
    content = hashlib.sha256(f"{sha256_file(parent / 'config.yaml')} config.yaml\n".encode())
    assert manifest.parents == {"corpus": content.hexdigest()}
    assert manifest.counts["rows"].rejected == {"too_long": 2, "empty": 1}
    assert manifest.metrics == {"loss": 0.5}
    assert {file.path for file in manifest.files} == {"config.yaml", "model/w"}
    entry = next(file for file in manifest.files if file.path == "model/w")
    assert (entry.size_bytes, entry.sha256) == (3, hashlib.sha256(b"123").hexdigest())
    assert not (path / "train").exists()
    assert {"ray", "torch"} <= manifest.packages.keys()


def test_a_row_unaccounted_for_stops_the_publication(storage: Storage) -> None:
    artefact = Artefact(storage, "corpus", StepConfig(), key="c")
    artefact.counts["pack"] = Counts(rows_in=3, rows_out=1, rejected={"short": 1})
    with pytest.raises(DataError, match="corpus/pack: 3 rows in, but 1 out and 1 rejected"):
        artefact.publish()
    assert not storage.exists("corpus", "c")


def test_a_step_that_died_goes_on_in_its_directory(storage: Storage) -> None:
    (Artefact(storage, "corpus", StepConfig(), key="c").dir / "half").write_text("1")
    again = Artefact(storage, "corpus", StepConfig(), key="c")
    assert (again.dir / "half").read_text() == "1"


def test_fingerprint_follows_names_sizes_and_content(tmp_path: Path) -> None:
    def make(name: str, files: dict[str, bytes]) -> str:
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return fingerprint_directory(tmp_path / name)

    first = make("a", {"x.jsonl": b"one", "sub/y.jsonl": b"two"})
    assert make("b", {"sub/y.jsonl": b"two", "x.jsonl": b"one"}) == first
    os.utime(tmp_path / "a" / "x.jsonl", (0, 0))
    assert fingerprint_directory(tmp_path / "a") == first
    others = [
        make("c", {"x.jsonl": b"onE", "sub/y.jsonl": b"two"}),
        make("d", {"z.jsonl": b"one", "sub/y.jsonl": b"two"}),
        make("e", {"x.jsonl": b"one"}),
        # The end of a large file counts as well.
        make("f", {"x.jsonl": b"0" * 2**21}),
        make("g", {"x.jsonl": b"0" * (2**21 - 1) + b"1"}),
    ]
    assert len({first, *others}) == 6
