"""Tokens of the hospital's identity provider (OpenID Connect), beside API keys.

In: a bearer token, a signed JWT (RFC 7519). Out: who holds it, by a pseudonym, in which role, and
how much it may ask. No token, name or address of a person stands in an error, log line or metric.
"""

import hashlib
import hmac
from typing import Any, Literal, get_args

import jwt
from pydantic import Field, field_validator, model_validator

from medray.common.config import Config
from medray.common.errors import ConfigError, DataError
from medray.serving.identity.jwks import ProviderKeys, is_safe, is_url
from medray.serving.identity.keys import Caller, Limits, Role
from medray.serving.schema.base import ApiError

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
MAX_CHARS = 16_384
"""Of a token; a provider that puts hundreds of groups into one comes to half of that."""
SPACED = ("scope", "scp")
"""Claims that hold several values in one text (RFC 8693, section 4.2)."""


class RoleRule(Config):
    """Whoever has this value has this role."""

    value: str = Field(default=..., min_length=1)
    role: Role


class OidcConfig(Config):
    """Whose tokens are accepted, and what they allow."""

    issuer: str
    """The provider's address, letter by letter as tokens have it in `iss`."""
    audience: str = Field(default=..., min_length=1)
    """The name of this service at the provider: what tokens for it have in `aud`."""
    jwks: str = ""
    """The provider's key set: an address, or a file where the network has no provider. Empty: the
    address that the issuer's `/.well-known/openid-configuration` names."""
    algorithms: list[Algorithm] = Field(default=["RS256", "ES256"], min_length=1)
    """What tokens may be signed with; others are refused, whatever a token says of itself."""
    roles_claim: str = "roles"
    """Where a token has its roles or groups: a claim, or a path such as `realm_access.roles`."""
    roles: list[RoleRule] = Field(default=..., min_length=1)
    """The provider's roles → ours. The first rule whose value a token has decides."""
    leeway_s: float = Field(default=60.0, ge=0, le=300)
    """How far the provider's clock may be from ours."""
    limits: dict[Role, Limits] = Field(default={})
    """Role → what each person may ask; a role that is not here has no limits."""

    @field_validator("algorithms", mode="before")
    @classmethod
    def _asymmetric(cls, value: Any) -> Any:
        names = value if isinstance(value, list) else []
        wrong = [n for n in names if str(n).lower() == "none" or str(n).upper().startswith("HS")]
        if wrong:
            raise ValueError(
                f"{wrong[0]} proves nothing here: a token must be signed with a key that the "
                f"provider alone has; allowed are {', '.join(get_args(Algorithm))}"
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> "OidcConfig":
        asked = self.jwks or self.issuer
        if not (is_safe(asked) or (self.jwks and not is_url(self.jwks))):
            raise ValueError(
                f"{asked} must begin with https://, or anybody on the network could put keys in"
            )
        return self


class Tokens:
    """Reads the tokens of one provider."""

    def __init__(self, config: OidcConfig, secret: bytes | None) -> None:
        """`secret` makes the pseudonyms, see `pseudonym`.

        Raises:
            ConfigError: if the key set is a file that holds none.
        """
        self._config, self._secret = config, secret
        try:
            self._keys = ProviderKeys(config.issuer, config.jwks)
        except (OSError, DataError) as error:
            told = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"oidc.jwks: {config.jwks}: {told}") from None

    async def caller(self, token: str) -> Caller:
        """Who holds a token.

        Raises:
            ApiError: 401 if it does not hold, 403 if it has no role of ours, 503 if the provider's
                keys are not known yet and cannot be read.
        """
        claims = await self._verify(token)
        role = self._role(claims)
        if role is None:
            raise ApiError(
                403, "your account has none of the roles that this service knows; ask those who "
                "run it for one", code="no_role",
            )  # fmt: skip
        who = pseudonym(self._config.issuer, claims["sub"], self._secret)
        return Caller(who, role, self._config.limits.get(role, Limits()))

    async def _verify(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_CHARS:
            raise refused(f"it is longer than {MAX_CHARS} characters")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise refused("it is not a signed JWT that can be read") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._config.algorithms:
            raise refused("its algorithm is not allowed here")
        if not isinstance(kid, str) or not kid:
            raise refused("it does not name the key that signed it")
        key = await self._keys.find(kid)
        if key is None:
            raise refused("it is signed with a key that the identity provider does not have")
        if algorithm not in key.algorithms:
            raise refused("its key is for another algorithm")
        try:
            # The signature comes first: of a token that nobody signed no more is told.
            claims = jwt.decode(
                token, key.key, algorithms=[algorithm], audience=self._config.audience,
                issuer=self._config.issuer, leeway=self._config.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise refused(_reason(error)) from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise refused("it is not a signed JWT that can be read") from None
        if not claims["sub"]:
            raise refused("it names nobody")
        return claims

    def _role(self, claims: dict[str, Any]) -> Role | None:
        values = _values(claims, self._config.roles_claim)
        return next((rule.role for rule in self._config.roles if rule.value in values), None)


def _values(claims: dict[str, Any], path: str) -> set[str]:
    found: Any = claims
    # Some providers name claims by addresses, which have dots of their own.
    for name in [path] if path in claims else path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, str):
        return set(found.split()) if path.rpartition(".")[2] in SPACED else {found}
    return {v for v in found if isinstance(v, str)} if isinstance(found, list) else set()


def pseudonym(issuer: str, subject: str, secret: bytes | None) -> str:
    """The name of a provider's subject here, the same at every replica and after every start.

    HMAC-SHA-256 under a key made of `secret`, so that nobody without it finds out whose it is by
    trying staff numbers. Without `secret` a plain SHA-256, with which one can.
    """
    told = f"{len(issuer)}:{issuer}{subject}".encode()
    if secret is None:
        return f"oidc-{hashlib.sha256(told).hexdigest()[:32]}"
    key = hmac.digest(secret, b"medray oidc pseudonym", "sha256")
    return f"oidc-{hmac.digest(key, told, 'sha256').hex()[:32]}"


def looks_like_token(secret: str) -> bool:
    """Whether a bearer is a JWT, not an API key, which has no dot."""
    return secret.count(".") == 2


def refused(why: str) -> ApiError:
    """The answer to a token that does not hold (RFC 6750, section 3.1)."""
    return ApiError(
        401, f"the token does not hold: {why}", code="invalid_token",
        challenge=f'Bearer realm="medray", error="invalid_token", error_description="{why}"',
    )  # fmt: skip


def _reason(error: jwt.PyJWTError) -> str:
    """Why a token does not hold, in words of our own: the library's may quote it."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"it lacks the claim {error.claim}"
    reasons = {
        jwt.ExpiredSignatureError: "it has expired",
        jwt.ImmatureSignatureError: "it is not valid yet",
        jwt.InvalidAudienceError: "it is for another audience",
        jwt.InvalidIssuerError: "it is of another issuer",
        jwt.InvalidSignatureError: "its signature is wrong",
    }
    return next((why for kind, why in reasons.items() if isinstance(error, kind)),
                "it is not a signed JWT that can be read")  # fmt: skip
