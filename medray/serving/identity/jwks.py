"""The keys that an identity provider signs tokens with (RFC 7517), fetched when they are needed.

In: the provider's address, or a file. Out: the key that a token names. A name that is not known
has the keys fetched again, once a minute at most, whatever is sent here; known keys are looked at
again every hour, so that one that the provider took back holds no longer than that. While the
provider is down the keys that are known go on.
"""

import asyncio
import http.client
import json
import logging
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jwt

from medray.common.errors import DataError
from medray.serving.schema.base import ApiError

logger = logging.getLogger(__name__)
RETRY_S, REFRESH_S = 60.0, 3600.0
TIMEOUT_S, ALL_S = 5.0, 15.0
"""Of one read, and of all."""
MAX_BYTES = 1 << 20
MIN_RSA_BITS = 2048
"""Source: RFC 7518, section 3.3."""
DISCOVERY = "/.well-known/openid-configuration"
CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
RSA = {f"{family}{size}" for family in ("RS", "PS") for size in (256, 384, 512)}


class SigningKey(NamedTuple):
    """A public key, and the algorithms that it may be used with."""

    key: Any
    algorithms: frozenset[str]


class ProviderKeys:
    """The keys of one provider. Not to be shared between event loops."""

    def __init__(
        self, issuer: str, source: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`source` is the address or the file of the key set; empty: the provider's discovery
        document names it. A file is read now.

        Raises:
            DataError: if the file holds no key that may sign.
            OSError: if it cannot be read.
        """
        self._issuer, self._source, self._clock = issuer, source, clock
        self._keys: dict[str, SigningKey] = {}
        self._fetched = self._tried = -math.inf
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None
        if source and not is_url(source):
            self._take(self._load())

    async def find(self, kid: str) -> SigningKey | None:
        """The key of that name; None if the provider has none.

        Raises:
            ApiError: 503 if the provider could not be asked.
        """
        if kid in self._keys:
            if self._clock() - self._fetched >= REFRESH_S:
                self._fetch()  # nobody waits for it
            return self._keys[kid]
        if (fetching := self._fetch()) is not None:
            await asyncio.shield(fetching)  # others wait for it too
        if kid not in self._keys and self._failed:
            raise ApiError(
                503, "the keys of the identity provider could not be read; try again later",
                code="identity_provider_unavailable", retry_after_s=int(RETRY_S),
            )  # fmt: skip
        return self._keys.get(kid)

    def _fetch(self) -> asyncio.Task[None] | None:
        """The fetch that is under way; a new one if the last is old enough."""
        if self._fetching is None and self._clock() - self._tried >= RETRY_S:
            self._tried = self._clock()
            self._fetching = asyncio.create_task(self._refresh())
        return self._fetching

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(ALL_S):
                self._take(await asyncio.to_thread(self._load))
        except (OSError, http.client.HTTPException, DataError) as error:
            self._failed = True
            told = error if isinstance(error, DataError) else type(error).__name__
            logger.warning("keys of the identity provider could not be read: %s", told)
        finally:
            self._fetching = None

    def _take(self, document: bytes) -> None:
        self._keys = read_keys(document)
        self._fetched, self._failed = self._clock(), False
        logger.info("%d keys of the identity provider", len(self._keys))

    def _load(self) -> bytes:
        """The key set as it is. Blocks."""
        source = self._source or discover(self._issuer)
        return fetch(source) if is_url(source) else Path(source).expanduser().read_bytes()


def read_keys(document: bytes) -> dict[str, SigningKey]:
    """Key id → key, of those in a key set that sign and are public; others are left out.

    Raises:
        DataError: if there are none.
    """
    try:
        entries = json.loads(document)["keys"]
        found = [entry for entry in entries if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError('the key set is not JSON as in RFC 7517: {"keys": [...]}') from None
    keys = {}
    for entry in found:
        kid = entry.get("kid")
        if isinstance(kid, str) and kid and (key := _signing_key(entry)) is not None:
            keys[kid] = key
    if not keys:
        raise DataError(
            f"none of the {len(found)} keys can be used; each needs kid, is public, and is RSA of "
            f"at least {MIN_RSA_BITS} bits, EC or Ed25519"
        )
    return keys


def _signing_key(entry: dict[str, Any]) -> SigningKey | None:
    kind, curve = entry.get("kty"), entry.get("crv")
    if kind == "RSA":
        fits = RSA
    elif kind in ("EC", "OKP") and isinstance(curve, str) and curve in CURVES:
        fits = {CURVES[curve]}
    else:
        return None
    if entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    named = entry.get("alg")
    algorithms = frozenset(fits if named is None else fits & {named})
    if not algorithms:
        return None
    try:
        key = jwt.PyJWK(entry, min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return None if kind == "RSA" and key.key_size < MIN_RSA_BITS else SigningKey(key, algorithms)


def discover(issuer: str) -> str:
    """The address of a provider's key set, by OpenID Connect Discovery 1.0. Blocks.

    Raises:
        DataError: if the document is another's, or none.
    """
    try:
        told = json.loads(fetch(issuer.rstrip("/") + DISCOVERY))
        named, address = told["issuer"], told["jwks_uri"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{DISCOVERY} does not hold issuer and jwks_uri") from None
    if named != issuer:
        raise DataError(f"{DISCOVERY} is of another issuer; set oidc.issuer as it stands there")
    if not isinstance(address, str) or not is_safe(address):
        raise DataError(f"jwks_uri in {DISCOVERY} does not begin with https://")
    return address


def fetch(url: str) -> bytes:
    """A document of the provider; no redirection is followed. Blocks.

    Raises:
        OSError: if it cannot be had.
        DataError: if it is too long.
    """
    with _OPENER.open(url, timeout=TIMEOUT_S) as response:
        document = response.read(MAX_BYTES + 1)
    if len(document) > MAX_BYTES:
        raise DataError(f"the identity provider's answer is longer than {MAX_BYTES} bytes")
    return document


def is_url(source: str) -> bool:
    """Whether a key set is an address, not a file."""
    return source.startswith(("https://", "http://"))


def is_safe(url: str) -> bool:
    """Whether nobody between can put keys of his own in: https, or this machine."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and local))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the redirection is raised as an error."""


_OPENER = urllib.request.build_opener(_NoRedirect)
