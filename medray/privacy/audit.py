"""Audit labels: what de-identification replaced, readable with a key of its own only.

In: the labels of each document. Out: one encrypted side file a source, a line a document; each
line is sealed with AES-SIV (RFC 5297), so nothing of it, the document's id included, can be read or
changed without the key, a line stays whole when others are taken out, and a run that is repeated
writes the same bytes: AES-SIV needs no random number, and no two lines are of one document. The key
lies outside the corpus, beside the surrogate key and apart from it: an auditor who may see what
was replaced need not be able to make surrogates. Source: EVALUATION.md 4.
"""

import base64
import hashlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from medray.common.errors import DataError
from medray.privacy.deidentify import Label

KEY_ENV = "MEDRAY_AUDIT_KEY_FILE"
SUFFIX = ".sealed"
CONTEXT = b"medray audit labels 1\0"


class Audited(NamedTuple):
    """The labels of one document, decrypted."""

    doc_id: str
    labels: list[Label]

    def __repr__(self) -> str:
        return f"Audited({self.doc_id}, {len(self.labels)} labels)"


class Sealer:
    """Encrypts labels under one key; a worker holds one."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(hashlib.sha512(CONTEXT + key).digest())

    def seal(self, doc_id: str, labels: list[Label]) -> bytes:
        """The token of a document; ASCII without a line end."""
        plain = json.dumps([doc_id, labels], ensure_ascii=False).encode()
        return base64.b64encode(self._cipher.encrypt(plain, [CONTEXT]))

    def open(self, token: bytes) -> Audited:
        """Raises ValueError or InvalidTag if the key is another one or the token was changed."""
        sealed = base64.b64decode(token, validate=True)
        doc_id, labels = json.loads(self._cipher.decrypt(sealed, [CONTEXT]))
        return Audited(doc_id, [Label(*label) for label in labels])


class AuditFiles:
    """Writes `directory`/SOURCE.sealed, a line a token; all appear when the block ends well."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Path, BinaryIO] = {}

    def __enter__(self) -> Self:
        return self

    def add(self, source: str, token: bytes | None) -> None:
        """Appends the token of one document; None, of a document without PHI, adds nothing."""
        if token is None:
            return
        path = self._directory / f"{source}{SUFFIX}"
        if path not in self._files:
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(_partial(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._files[path] = os.fdopen(descriptor, "wb")
        self._files[path].write(token + b"\n")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for path, file in self._files.items():
            if kind is None:
                file.flush()
                os.fsync(file.fileno())
            file.close()
            if kind is None:
                _partial(path).replace(path)
            else:
                _partial(path).unlink()


def read_audit(path: Path, key: bytes) -> Iterator[Audited]:
    """Yields the labels of each document of an audit file, in the file's order.

    Raises:
        DataError: if the file is missing, the key is not the one it was written with, or a line
            was changed.
    """
    sealer = Sealer(key)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield sealer.open(line.strip())
                except (InvalidTag, ValueError):
                    raise DataError(
                        f"{path}, line {number}: not readable with this key; name the key of the "
                        f"run that wrote it in {KEY_ENV}, or the line was changed"
                    ) from None
    except OSError as error:
        raise DataError(f"audit file {path} cannot be read ({error.strerror})") from None


def erase_audit(path: Path, key: bytes, doc_ids: Collection[str]) -> int:
    """Takes the labels of some documents out of an audit file; returns of how many.

    Raises:
        DataError: as `read_audit`; the file is left as it was.
    """
    audited = list(read_audit(path, key))
    kept = [labels for labels in audited if labels.doc_id not in doc_ids]
    if len(kept) < len(audited):
        sealer = Sealer(key)
        with AuditFiles(path.parent) as files:
            for doc_id, labels in kept:
                files.add(path.name.removesuffix(SUFFIX), sealer.seal(doc_id, labels))
        if not kept:
            path.unlink()
    return len(audited) - len(kept)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")
