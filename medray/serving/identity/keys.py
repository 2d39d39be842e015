"""API keys: who may call, in which role, and how much.

In: a file of keys, made by `medray keys`. Out: the key of a request. The file holds hashes only: a
key is 256 random bits, which no one guesses from its SHA-256. It is read again when it changes, so
that a key that was revoked is refused from the next request on.
"""

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from medray.common.config import explain
from medray.common.errors import ConfigError

Role = Literal["patient", "clinician", "quality", "admin"]
PREFIX = "medray"


class Limits(BaseModel):
    """How much one caller may ask."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_day: int | None = Field(default=None, ge=1)
    """Of prompts and answers together."""


class Caller(NamedTuple):
    """Who asks."""

    id: str
    """Of the key, or the pseudonym of a token's subject."""
    role: Role
    limits: Limits = Limits()


class ApiKey(Limits):
    """One key, without its secret."""

    id: str
    name: str
    """Who holds it, for those who read the audit log."""
    role: Role
    sha256: str
    created: str
    revoked: str = ""
    """When; empty while it holds."""


class Made(NamedTuple):
    """A new key with its secret, which is shown once and kept nowhere."""

    key: ApiKey
    secret: str


KEYS = TypeAdapter(list[ApiKey])


class KeyFile:
    """The keys of one file."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser()
        self._read: tuple[tuple[int, int], dict[str, ApiKey]] | None = None

    def keys(self) -> dict[str, ApiKey]:
        """All keys by id, revoked ones too.

        Raises:
            ConfigError: if the file is missing or damaged.
        """
        try:
            state = self.path.stat()
            stamp = (state.st_mtime_ns, state.st_size)
            if self._read is None or self._read[0] != stamp:
                found = KEYS.validate_json(self.path.read_bytes())
                self._read = (stamp, {key.id: key for key in found})
        except FileNotFoundError:
            raise ConfigError(
                f"no key file at {self.path}; make the first key: "
                f"medray keys --file {self.path} new NAME --role admin"
            ) from None
        except ValidationError as error:
            raise ConfigError(explain(error, str(self.path))) from None
        return self._read[1]

    def find(self, secret: str) -> ApiKey | None:
        """The key that `secret` opens; None if there is none or it was revoked."""
        prefix, _, rest = secret.partition("-")
        key = self.keys().get(rest.partition("-")[0]) if prefix == PREFIX else None
        if key is None or not hmac.compare_digest(_hash(secret), key.sha256):
            return None
        return None if key.revoked else key

    def add(self, name: str, role: Role, **limits: Any) -> Made:
        """Makes a key; the first makes the file.

        Raises:
            ConfigError: if a limit is not positive.
        """
        keys = dict(self.keys()) if self.path.exists() else {}
        identifier = secrets.token_hex(4)
        while identifier in keys:
            identifier = secrets.token_hex(4)
        secret = f"{PREFIX}-{identifier}-{secrets.token_urlsafe(32)}"
        try:
            key = ApiKey(
                id=identifier, name=name, role=role, sha256=_hash(secret), created=_now(), **limits
            )
        except ValidationError as error:
            raise ConfigError(explain(error, "the new key")) from None
        self._write([*keys.values(), key])
        return Made(key, secret)

    def revoke(self, identifier: str) -> ApiKey:
        """Takes a key back; it stays in the file, for those who read the audit log.

        Raises:
            ConfigError: if there is no such key.
        """
        keys = self.keys()
        if identifier not in keys:
            raise ConfigError(f"{self.path} has no key {identifier}; `medray keys list` shows all")
        key = keys[identifier]
        revoked = key if key.revoked else key.model_copy(update={"revoked": _now()})
        self._write([revoked if k.id == identifier else k for k in keys.values()])
        return revoked

    def _write(self, keys: list[ApiKey]) -> None:
        """Whole or not at all, and readable by its owner alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps([key.model_dump() for key in keys], ensure_ascii=False, indent=1)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".keys")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
