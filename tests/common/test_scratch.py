"""Scratch directories: the killed leave none behind for long, the living keep theirs."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from medray.common.scratch import scratch_directory

OWNER = """
import sys
from medray.common.scratch import scratch_directory
with scratch_directory() as directory:
    (directory / "checkpoint").write_bytes(b"weights")
    print(directory, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """A temporary directory of its own, for child processes too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield
    monkeypatch.undo()
    tempfile.tempdir = None


@pytest.fixture
def owner():
    """A process with a directory, and that directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_a_killed_process_s_directory_goes_when_the_next_is_made(owner, tmp_path):
    process, left = owner
    process.kill()
    process.wait()
    assert (left / "checkpoint").exists()
    with scratch_directory() as own:
        assert not left.exists() and own.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_its_own(owner, tmp_path):
    process, kept = owner
    with scratch_directory() as own:
        assert own != kept
    assert (kept / "checkpoint").read_bytes() == b"weights"
    process.communicate()  # its input ends, and it with it
    assert list(tmp_path.iterdir()) == []


def test_after_an_error_it_stays_until_the_process_ends(tmp_path):
    with pytest.raises(RuntimeError), scratch_directory() as left:
        raise RuntimeError
    with scratch_directory():
        assert left.is_dir()  # an upload of this process may read from it


def test_a_directory_that_cannot_be_locked_is_left_alone(tmp_path):
    strange = tmp_path / "medray-scratch-of-somebody"
    (strange / "lock").mkdir(parents=True)
    with scratch_directory():
        assert strange.is_dir()


def test_what_something_else_removes_meanwhile_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    remove, calls = shutil.rmtree, []

    def raced(path: Path) -> None:
        calls.append(path)
        if len(calls) == 1:
            (path / "a").unlink()
            raise FileNotFoundError(2, "No such file or directory", "wal")
        remove(path)

    with scratch_directory() as directory:
        for name in "ab":
            (directory / name).touch()
        monkeypatch.setattr(shutil, "rmtree", raced)
    assert calls == [directory, directory]
    assert not directory.exists()
