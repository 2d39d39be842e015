"""The audit log: every edit, cut and removal is found; texts open with their key alone."""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medray.common.errors import ConfigError, DataError
from medray.serving.audit_log import HEADS, AuditLog, key_from_environment, read_entries, verify

KEY = bytes(range(32))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two writers with 250 and 3 entries, both ended."""
    for count in (250, 3):
        log = AuditLog(tmp_path, KEY)
        for k in range(count):
            log.append("asked", {"question": f"患者{k}咳嗽"}, request=f"r{k}", caller="a")
        log.close()
    return tmp_path


def chains(directory: Path) -> list[Path]:
    """The longer first."""
    found = [path for path in directory.glob("*.jsonl") if path.name != HEADS]
    return sorted(found, key=lambda path: path.stat().st_size, reverse=True)


def test_a_sound_log(directory: Path) -> None:
    found = verify(directory)
    assert (found.num_entries, found.num_writers, found.faults) == (253, 2, [])
    # Anchors: at the beginning, at 100 and 200, at the end; at the beginning and at the end.
    heads = [json.loads(line) for line in (directory / HEADS).read_text().splitlines()]
    assert [anchor["count"] for anchor in heads] == [0, 100, 200, 250, 0, 3]


def test_texts_open_with_the_key_alone(directory: Path) -> None:
    for path in directory.iterdir():
        assert "咳嗽" not in path.read_text(encoding="utf-8")
        assert "患者" not in json.dumps(path.read_text(encoding="utf-8"))
    [first, second] = read_entries(directory, "r2", KEY)
    assert json.loads(first)["texts"] == json.loads(second)["texts"] == {"question": "患者2咳嗽"}
    assert len(list(read_entries(directory))) == 253
    with pytest.raises(DataError, match="another key"):
        list(read_entries(directory, "r2", secrets.token_bytes(32)))


def test_without_a_key_no_text_is_kept(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append("asked", {"question": "咳嗽"}, request="r")
    log.close()
    [entry] = map(json.loads, read_entries(tmp_path))
    assert "texts" not in entry and entry["request"] == "r"
    assert verify(tmp_path).faults == []


def edited(line: int) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        lines = chains(directory)[0].read_bytes().splitlines(keepends=True)
        lines[line] = lines[line].replace(b'"caller":"a"', b'"caller":"b"')
        chains(directory)[0].write_bytes(b"".join(lines))

    return change


def without(line: int, of: Callable[[Path], Path]) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        lines = of(directory).read_bytes().splitlines(keepends=True)
        del lines[line]
        of(directory).write_bytes(b"".join(lines))

    return change


def swapped(directory: Path) -> None:
    lines = chains(directory)[0].read_bytes().splitlines(keepends=True)
    lines[10], lines[11] = lines[11], lines[10]
    chains(directory)[0].write_bytes(b"".join(lines))


def removed(directory: Path) -> None:
    chains(directory)[1].unlink()


def replaced(directory: Path) -> None:
    """A whole new history in an old file's place."""
    log = AuditLog(directory / "elsewhere")
    for k in range(3):
        log.append("asked", caller="b", request=f"r{k}")
    log.close()
    (made,) = chains(directory / "elsewhere")
    chains(directory)[1].write_bytes(made.read_bytes())


def added(directory: Path) -> None:
    chains(directory)[1].with_name("20200101T000000-0.jsonl").write_bytes(
        chains(directory)[1].read_bytes()
    )


LONG, HEAD_FILE = (lambda d: chains(d)[0]), (lambda d: d / HEADS)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edited(0), ":2: the chain is broken"),
        (edited(120), ":122: the chain is broken"),
        (edited(249), "is not what was anchored"),
        (without(0, LONG), ":1: the chain is broken"),
        (without(130, LONG), ":131: the chain is broken"),
        (without(249, LONG), "has lost lines; it had 250"),
        (without(2, HEAD_FILE), f"{HEADS}:3: the chain is broken"),
        (swapped, ":11: the chain is broken"),
        (removed, "is missing"),
        (replaced, "is not what was anchored"),
        (added, "was never anchored"),
    ],
)
def test_what_was_changed_is_found(
    directory: Path, change: Callable[[Path], None], told: str
) -> None:
    change(directory)
    assert any(told in fault for fault in verify(directory).faults), verify(directory).faults


def test_any_changed_byte_is_found(directory: Path) -> None:
    path = chains(directory)[1]
    sound = path.read_bytes()
    for place in range(0, len(sound) - 1, 7):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        assert verify(directory).faults, place
    path.write_bytes(sound)
    assert not verify(directory).faults


def test_a_writer_that_was_killed_leaves_a_sound_log(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from medray.serving.audit_log import AuditLog\n"
        "log = AuditLog(sys.argv[1])\n"
        "for k in range(130): log.append('asked', number_asked=k)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -9
    found = verify(tmp_path)
    assert (found.num_entries, found.faults) == (130, [])


def test_a_log_that_grows_is_sound_at_any_moment(tmp_path: Path) -> None:
    """Checked while two other processes write, one of them beginning chains."""
    program = (
        "import sys\n"
        "from medray.serving.audit_log import AuditLog\n"
        "for k in range(int(sys.argv[2])):\n"
        "    log = AuditLog(sys.argv[1])\n"
        "    for k in range(int(sys.argv[3])): log.append('asked', k=k)\n"
        "    log.close()\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), *counts])
        for counts in (("1", "3000"), ("300", "3"))
    ]
    num_checks = 0
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / HEADS).exists():
            assert verify(tmp_path).faults == []
            num_checks += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert num_checks > 3
    assert verify(tmp_path).num_entries == 3900


def test_a_full_disk_refuses_and_breaks_nothing(tmp_path: Path) -> None:
    """The limit on a file's size stands for a full disk: the kernel writes what fits."""
    program = (
        "import resource, signal, sys\n"
        "from medray.serving.audit_log import AuditLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = AuditLog(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
        "refused = 0\n"
        "for k in range(20):\n"
        "    try: log.append('asked', k=k)\n"
        "    except OSError: refused += 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "log.append('asked', k='last')\n"
        "log.close()\n"
        "print(refused)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    refused = int(made.stdout)
    assert 0 < refused < 20
    found = verify(tmp_path)
    assert (found.num_entries, found.faults) == (21 - refused, [])


def test_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDRAY_AUDIT_KEY", raising=False)
    assert key_from_environment() is None
    monkeypatch.setenv("MEDRAY_AUDIT_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    assert key_from_environment() == KEY
    for wrong in ("x", "AAEC", "not base64!"):
        monkeypatch.setenv("MEDRAY_AUDIT_KEY", wrong)
        with pytest.raises(ConfigError, match="openssl rand -base64 32") as caught:
            key_from_environment()
        assert wrong not in str(caught.value).replace("MEDRAY_AUDIT_KEY", "")


def test_no_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no audit log"):
        verify(tmp_path)
