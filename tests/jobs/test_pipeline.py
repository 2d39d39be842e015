"""The whole pipeline as users run it: made once, reused afterwards, everything accounted for."""

import json
from pathlib import Path

import pytest

from medray.common.manifest import read_manifest
from medray.job import PIPELINE, Job
from medray.launch import load_profile


@pytest.mark.cluster
def test_dry_run_names_every_step_and_makes_nothing(start, finish, tmp_path: Path) -> None:
    process = start("run_pipeline", "--dry-run", f"storage.root={tmp_path / 'root'}")
    lines = finish(process, 60).splitlines()
    made = [line.split(":")[0] for line in lines if "would be made" in line]
    assert made == list(PIPELINE)
    assert list((tmp_path / "root").rglob("*")) == []


@pytest.mark.slow
def test_every_step_is_made_once(start, finish, tiny: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    arguments = [f"storage.root={root}", *tiny]
    output = finish(start("run_pipeline", *arguments))
    assert all(f"{step}: done in" in output for step in PIPELINE), output[-4000:]
    first = json.loads((root / "pipeline.json").read_text(encoding="utf-8"))["steps"]
    assert list(first) == list(PIPELINE)
    assert not any(step["reused"] for step in first.values())
    parents = Job(load_profile("laptop", arguments)).parents

    for step, made in first.items():
        path = Path(made["path"])
        manifest = read_manifest(path)
        assert (manifest.step, manifest.key) == (step, made["key"])
        for counts in manifest.counts.values():
            counts.check(step)
        assert manifest.parents == {
            parent: read_manifest(Path(first[parent]["path"])).content for parent in parents(step)
        }
        on_disk = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
        assert {file.path for file in manifest.files} <= on_disk
        assert not any(name.startswith("train/") for name in on_disk)
        for file in manifest.files:
            assert (path / file.path).stat().st_size == file.size_bytes
        # Nothing half made is left beside it.
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    output = finish(start("run_pipeline", *arguments))
    assert all(f"{step}: reused, nothing has changed" in output for step in PIPELINE), output[
        -4000:
    ]
    assert "started" not in output
    second = json.loads((root / "pipeline.json").read_text(encoding="utf-8"))["steps"]
    assert all(step["reused"] for step in second.values())
    assert {s: step["key"] for s, step in second.items()} == {
        s: step["key"] for s, step in first.items()
    }
