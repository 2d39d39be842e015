"""The audit log: who asked what, and which model and passages answered. Append-only and chained.

In: entries of a gateway replica. Out: `DIR/WRITER.jsonl`, one line an entry. Each line holds the
SHA-256 of the line before it, so that an edited or deleted line breaks the chain from there on.
`DIR/heads.jsonl` is a chain over the chains: every so often the heads of all of them, so that a
file that was cut short or removed is missed. Whoever may write all files can still make a new
history from some line on; the last head that `medray audit verify` prints, kept elsewhere, rules
that out.

Texts are encrypted with a key from the environment, or left out where there is none. Their nonce is
random and the entry's other fields are authenticated with them.
"""

import base64
import errno
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medray.common.errors import ConfigError, DataError

KEY_VARIABLE = "MEDRAY_AUDIT_KEY"
HEADS = "heads.jsonl"
START = "0" * 64
ANCHOR_EVERY = 100
"""Entries between two anchors of a writer; there is one at its start and its end too."""


class Verified(NamedTuple):
    """What a log holds. `faults`: what is wrong, by file and line; empty for a sound log."""

    num_entries: int
    num_writers: int
    head: str
    faults: list[str]


class AuditLog:
    """One writer's chain. Not to be shared between processes."""

    def __init__(self, directory: Path | str, key: bytes | None = None) -> None:
        """Begins a chain; `key` (32 bytes) encrypts texts."""
        self._directory = Path(directory).expanduser()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.writer = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(6)}"
        self._cipher = AESGCM(key) if key else None
        self._count, self._head = 0, START
        path = self._directory / f"{self.writer}.jsonl"
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o600)
        self._anchor()

    @property
    def keeps_texts(self) -> bool:
        """Whether there is a key to encrypt them."""
        return self._cipher is not None

    def append(self, event: str, texts: dict[str, str] | None = None, **fields: Any) -> None:
        """Writes one entry.

        Args:
            texts: what may hold a patient's words; encrypted, or left out without a key.
            fields: what may be read by whoever reads the log: ids, versions, counts.
        Raises:
            OSError: if it cannot be written: what cannot be logged must not be answered.
        """
        entry: dict[str, Any] = {
            "writer": self.writer,
            "number": self._count,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            **fields,
            "previous": self._head,
        }
        if texts and self._cipher:
            nonce = secrets.token_bytes(12)
            plain = json.dumps(texts, ensure_ascii=False).encode()
            sealed = nonce + self._cipher.encrypt(nonce, plain, _canonical(entry))
            entry["texts"] = base64.b64encode(sealed).decode()
        line = _canonical(entry)
        _write(self._file, line)
        self._count, self._head = self._count + 1, hashlib.sha256(line).hexdigest()
        if self._count % ANCHOR_EVERY == 0:
            self._anchor()

    def close(self) -> None:
        """Anchors the chain's end."""
        if self._file >= 0:
            self._anchor()
            os.close(self._file)
            self._file = -1

    def _anchor(self) -> None:
        """Adds this chain's head to the chain of heads, which all writers share."""
        os.fsync(self._file)
        handle = os.open(self._directory / HEADS, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with open(handle, "rb", closefd=False) as file:
                lines = file.read().splitlines()
            anchor = {
                "writer": self.writer,
                "count": self._count,
                "head": self._head,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "previous": hashlib.sha256(lines[-1]).hexdigest() if lines else START,
            }
            _write(handle, _canonical(anchor))
            os.fsync(handle)
        finally:
            os.close(handle)


def key_from_environment() -> bytes | None:
    """The key that encrypts texts; None if there is none.

    Raises:
        ConfigError: if it is not 32 bytes in base64.
    """
    text = os.environ.get(KEY_VARIABLE, "")
    if not text:
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError(
            f"{KEY_VARIABLE} must be 32 bytes in base64; make one with: openssl rand -base64 32"
        )
    return key


def verify(directory: Path) -> Verified:
    """Checks every chain and every anchor.

    Raises:
        DataError: if there is no log.
    """
    if not (directory / HEADS).exists():
        raise DataError(f"no audit log at {directory}: {HEADS} is missing")
    faults: list[str] = []
    # Before the chains, which may grow meanwhile: an anchor is never ahead of what is read later.
    anchored = _lines(directory / HEADS)
    chains: dict[str, list[str]] = {}
    for path in sorted(directory.glob("*.jsonl")):
        if path.name != HEADS:
            chains[path.stem] = _check_chain(path, faults)
    anchors = _check_chain(directory / HEADS, faults)
    for number, line in enumerate(anchored, 1):
        try:
            anchor = json.loads(line)
            writer, count, head = anchor["writer"], anchor["count"], anchor["head"]
        except (ValueError, KeyError, TypeError):
            continue  # told by its chain
        if writer not in chains:
            faults.append(f"{HEADS}:{number}: {writer}.jsonl is missing")
        elif len(chains[writer]) <= count:
            faults.append(f"{HEADS}:{number}: {writer}.jsonl has lost lines; it had {count}")
        elif chains[writer][count] != head:
            faults.append(f"{HEADS}:{number}: {writer}.jsonl is not what was anchored")
    known = {_writer(line) for line in _lines(directory / HEADS)}
    # A writer anchors its chain before its first entry.
    faults += [
        f"{name}.jsonl was never anchored"
        for name, hashes in chains.items()
        if len(hashes) > 1 and name not in known
    ]
    num_entries = sum(len(hashes) - 1 for hashes in chains.values())
    return Verified(num_entries, len(chains), anchors[-1], faults)


def read_entries(directory: Path, request: str = "", key: bytes | None = None) -> Iterator[str]:
    """Entries in the order of time, as JSON; with `key`, their texts are readable.

    Raises:
        DataError: if the key is another's, or an entry was edited.
    """
    entries = [
        json.loads(line)
        for path in directory.glob("*.jsonl")
        if path.name != HEADS
        for line in _lines(path)
    ]
    for entry in sorted(entries, key=lambda entry: (entry["time"], entry["number"])):
        if request and entry.get("request") != request:
            continue
        if key is not None and "texts" in entry:
            entry["texts"] = _open_texts(entry, key)
        yield json.dumps(entry, ensure_ascii=False)


def _open_texts(entry: dict[str, Any], key: bytes) -> dict[str, str]:
    rest = {name: value for name, value in entry.items() if name != "texts"}
    sealed = base64.b64decode(entry["texts"])
    try:
        plain = AESGCM(key).decrypt(sealed[:12], sealed[12:], _canonical(rest))
    except InvalidTag:
        raise DataError(
            f"entry {entry['number']} of {entry['writer']} cannot be read: another key, or edited"
        ) from None
    return json.loads(plain)


def _check_chain(path: Path, faults: list[str]) -> list[str]:
    """Hashes after 0, 1, … lines, up to the first line that does not follow."""
    hashes = [START]
    for number, line in enumerate(_lines(path), 1):
        try:
            follows = json.loads(line)["previous"] == hashes[-1]
        except (ValueError, KeyError, TypeError):
            follows = False
        if not follows:
            faults.append(f"{path.name}:{number}: the chain is broken here")
            break
        hashes.append(hashlib.sha256(line).hexdigest())
    return hashes


def _writer(line: bytes) -> str:
    try:
        return json.loads(line)["writer"]
    except (ValueError, KeyError, TypeError):
        return ""


def _lines(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            # Half a line is one that is being written, and its writer has the lock until it is
            # whole; or a line that was cut, which stays half.
            fcntl.flock(file, fcntl.LOCK_SH)
            data += file.read()
    return data.splitlines()


def _write(handle: int, line: bytes) -> None:
    """A whole line or none: a part of one would break the chain."""
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        data, size = line + b"\n", os.fstat(handle).st_size
        if os.write(handle, data) != len(data):
            os.ftruncate(handle, size)
            raise OSError(errno.ENOSPC, "no room for the audit log")
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _canonical(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
