import os
import stat

import pytest

from medray.common.errors import DataError
from medray.privacy.audit import Audited, AuditFiles, Sealer, read_audit
from medray.privacy.deidentify import Label

KEY, OTHER = b"0123456789abcdef", b"fedcba9876543210"
LABELS = [
    Label(0, "text", 3, 7, "NAME", "王建国"),
    Label(1, "heading", 0, 8, "PHONE", "13800138000"),
]


def write(directory, source="ward"):
    sealer = Sealer(KEY)
    with AuditFiles(directory) as files:
        files.add(source, sealer.seal("r1", LABELS))
        files.add(source, None)  # a document without PHI
        files.add(source, sealer.seal("r2", LABELS[:1]))
    return directory / f"{source}.sealed"


def test_the_auditor_reads_what_was_replaced(tmp_path):
    path = write(tmp_path / "audit")
    assert list(read_audit(path, KEY)) == [Audited("r1", LABELS), Audited("r2", LABELS[:1])]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["ward.sealed"]


def test_nothing_is_readable_without_the_key(tmp_path):
    path = write(tmp_path)
    content = path.read_bytes()
    for secret in ("王建国", "13800138000", "r1", "NAME", "text"):
        assert secret.encode() not in content
    with pytest.raises(DataError, match="line 1: not readable with this key") as caught:
        list(read_audit(path, OTHER))
    assert "王建国" not in str(caught.value)


def test_a_changed_line_is_noticed(tmp_path):
    path = write(tmp_path)
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + second[:-8] + b"AAAAAAA=" + b"\n")
    with pytest.raises(DataError, match="line 2"):
        list(read_audit(path, KEY))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_audit(tmp_path / "absent.sealed", KEY))


def test_the_same_run_writes_the_same_bytes(tmp_path):
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


def test_no_half_file_appears(tmp_path):
    with pytest.raises(KeyError), AuditFiles(tmp_path) as files:
        files.add("ward", Sealer(KEY).seal("r1", LABELS))
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_labels_hide_their_text_in_messages():
    assert "王建国" not in repr(LABELS) and "王建国" not in repr(Audited("r1", LABELS))
