"""Tokens of an identity provider: real keys, real HTTP; what holds, what does not, and why."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from pathlib import Path
from typing import Any, ClassVar

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from medray.common.errors import ConfigError, DataError
from medray.serving.gateway_config import GatewayConfig
from medray.serving.identity.jwks import ProviderKeys, read_keys
from medray.serving.identity.keys import KeyFile
from medray.serving.identity.oidc import OidcConfig, Tokens, pseudonym
from medray.serving.observe.metrics import Metrics
from medray.serving.schema.base import ApiError
from medray.serving.service import Service

SECRET = bytes(range(32))
UNREADABLE = "it is not a signed JWT that can be read"
DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def idp(providing):
    with providing() as provider:
        provider.rotate("k2", "ES256")
        yield provider


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def reader(idp: Any, **changes: Any) -> Tokens:
    return Tokens(OidcConfig.parse(idp.settings(**changes), "test"), SECRET)


def read(tokens: Tokens, token: str) -> Any:
    return asyncio.run(tokens.caller(token))


def refusal(tokens: Tokens, token: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(tokens, token)
    return caught.value


def forged(header: dict[str, Any], claims: dict[str, Any], key: bytes | None = None) -> str:
    """A token by hand: unsigned, or signed with HMAC as nothing here may be."""
    parts = [_base64(json.dumps(part).encode()) for part in (header, claims)]
    body = ".".join(parts)
    return f"{body}.{_base64(hmac.digest(key, body.encode(), 'sha256') if key else b'')}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


@pytest.mark.parametrize("kid", ["k1", "k2"])
def test_a_token_names_its_holder_by_a_pseudonym(idp, kid: str) -> None:
    caller = read(reader(idp), idp.token(kid))
    assert caller.role == "clinician"
    key = hmac.digest(SECRET, b"medray oidc pseudonym", "sha256")
    told = f"{len(idp.issuer)}:{idp.issuer}staff-4711".encode()
    assert caller.id == "oidc-" + hmac.new(key, told, hashlib.sha256).hexdigest()[:32]
    assert caller.limits.requests_per_minute is None
    assert idp.asked == [DISCOVERY, "/keys"]


def test_pseudonyms_differ_by_subject_issuer_and_secret() -> None:
    names = {
        pseudonym(issuer, subject, secret)
        for issuer in ("https://a", "https://ab") for subject in ("c", "bc")
        for secret in (None, SECRET, bytes(32))
    }  # fmt: skip
    assert len(names) == 12  # 2 · 2 · 3; `https://a`+`bc` is not `https://ab`+`c`


@pytest.mark.parametrize(
    ("claims", "why"),
    [({"exp": time.time() - 3600}, "it has expired"),
     ({"exp": None}, "it lacks the claim exp"),
     ({"sub": None}, "it lacks the claim sub"),
     ({"sub": ""}, "it names nobody"),
     ({"aud": None}, "it lacks the claim aud"),
     ({"nbf": time.time() + 3600}, "it is not valid yet"),
     ({"iat": time.time() + 3600}, "it is not valid yet"),
     ({"aud": "another"}, "it is for another audience"),
     ({"aud": ["another"]}, "it is for another audience"),
     ({"iss": "https://evil.example"}, "it is of another issuer"),
     ({"iss": None}, "it lacks the claim iss"),
     ({"exp": float("inf")}, UNREADABLE),
     ({"exp": "soon"}, UNREADABLE)],
)  # fmt: skip
def test_claims_that_do_not_hold(idp, claims: dict[str, Any], why: str) -> None:
    error = refusal(reader(idp), idp.token(**claims))
    assert (error.status, error.code) == (401, "invalid_token")
    assert error.message == f"the token does not hold: {why}"
    assert error.challenge is not None and f'error_description="{why}"' in error.challenge


def test_leeway_is_for_clocks_that_differ(idp) -> None:
    late = idp.token(exp=time.time() - 30)
    assert read(reader(idp), late).role == "clinician"  # 60 s by default
    assert "expired" in refusal(reader(idp, leeway_s=0), late).message


def test_signatures_that_do_not_hold(idp) -> None:
    tokens, good = reader(idp), idp.token()
    claims = claims_of(good)
    public = idp.signers["k1"][0].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    other = rsa.generate_private_key(65537, 2048)
    head, _, signature = good.split(".")
    admin = {**claims, "realm_access": {"roles": ["it-admins"]}}
    cases = {
        "its signature is wrong": [
            jwt.encode(claims, other, "RS256", {"kid": "k1"}),
            f"{head}.{_base64(json.dumps(admin).encode())}.{signature}",
        ],
        "its algorithm is not allowed here": [
            # The public key, which everybody has, taken for a shared secret.
            forged({"alg": "HS256", "kid": "k1"}, claims, public),
            forged({"alg": "none", "kid": "k1"}, claims),
            forged({"alg": "None", "kid": "k1"}, claims),
            forged({"kid": "k1"}, claims),
            forged({"alg": ["RS256"], "kid": "k1"}, claims),
            jwt.encode(claims, other, "PS256", {"kid": "k1"}),
        ],
        "its key is for another algorithm": [forged({"alg": "ES256", "kid": "k1"}, claims)],
        "it does not name the key that signed it": [
            jwt.encode(claims, other, "RS256"),
            forged({"alg": "RS256", "kid": ""}, claims),
        ],
        "it is signed with a key that the identity provider does not have": [
            jwt.encode(claims, other, "RS256", {"kid": "evil"}),
            # Keys come from the provider, not from where the token says.
            jwt.encode(claims, other, "RS256", {"kid": "evil", "jku": f"{idp.issuer}/evil"}),
        ],
        UNREADABLE: [
            forged({"alg": "RS256", "kid": "k1", "crit": ["x"]}, claims),
            "a.b.c", "..", f"{_base64(b'[' * 9000)}.e30.e30", f"{_base64(b'7')}.e30.e30",
            good.replace(".", ".!"), "\u00e9.é.é",
        ],
        "it is longer than 16384 characters": [idp.token(groups=["g" * 100] * 200)],
    }  # fmt: skip
    for why, bad in cases.items():
        for token in bad:
            error = refusal(tokens, token)
            assert (error.status, error.message) == (401, f"the token does not hold: {why}"), token
    assert read(tokens, good).role == "clinician"
    assert "/evil" not in idp.asked


@pytest.mark.parametrize(
    ("path", "claims", "role"),
    [("realm_access.roles", {"realm_access": {"roles": ["physicians", "it-admins"]}}, "admin"),
     ("realm_access.roles", {"realm_access": {"roles": "physicians"}}, "clinician"),
     ("realm_access.roles", {"realm_access": ["physicians"]}, None),
     ("realm_access.roles", {"realm_access": {"roles": [["physicians"], 7, None]}}, None),
     ("realm_access.roles", {"realm_access": None}, None),
     ("groups", {"groups": ["Physicians"]}, None),
     ("groups", {"groups": "former physicians"}, None),
     ("scope", {"scope": "openid portal"}, "patient"),
     ("https://hospital.example/roles", {"https://hospital.example/roles": ["portal"]}, "patient")],
)  # fmt: skip
def test_roles_by_the_first_rule_that_fits(idp, path: str, claims: Any, role: str | None) -> None:
    tokens = reader(idp, roles_claim=path)
    if role is not None:
        assert read(tokens, idp.token(**claims)).role == role
        return
    error = refusal(tokens, idp.token(**claims))
    assert (error.status, error.code) == (403, "no_role")


def test_keys_rotate_and_a_flood_asks_once_a_minute(idp) -> None:
    clock = Clock()
    keys = ProviderKeys(idp.issuer, f"{idp.issuer}/keys", clock)

    async def run() -> None:
        assert await keys.find("k1") is not None
        idp.rotate("k3")
        del idp.signers["k1"]
        unknown = await asyncio.gather(*(keys.find(f"x{k}") for k in range(50)))
        assert unknown == [None] * 50 and await keys.find("k3") is None
        assert len(idp.asked) == 1  # the first answer is younger than a minute
        clock.now += 60
        idp.may_answer.clear()
        waiting = [asyncio.create_task(keys.find(kid)) for kid in ("k3", *map(str, range(50)))]
        while len(idp.asked) < 2:
            await asyncio.sleep(0.01)  # the loop is free while the provider takes its time
        assert await asyncio.wait_for(keys.find("k1"), 1) is not None  # nor do known keys wait
        idp.may_answer.set()
        first, *rest = await asyncio.gather(*waiting)
        assert first is not None and rest == [None] * 50
        assert await keys.find("k1") is None  # the provider took it back
        assert len(idp.asked) == 2

    asyncio.run(run())


def test_known_keys_hold_while_the_provider_is_down(idp, caplog) -> None:
    clock = Clock()
    keys = ProviderKeys(idp.issuer, clock=clock)
    idp.published["/keys"] = 500

    async def settled() -> None:
        while keys._fetching is not None:
            await asyncio.sleep(0.01)

    async def run() -> None:
        with pytest.raises(ApiError, match="could not be read") as caught:
            await keys.find("k1")
        assert (caught.value.status, caught.value.retry_after_s) == (503, 60)
        clock.now += 60
        del idp.published["/keys"]
        assert await keys.find("k1") is not None
        idp.published["/keys"] = 500
        for _ in range(3):  # an hour has passed: asked again, not waited for
            clock.now += 3600
            asked = len(idp.asked)
            assert await keys.find("k1") is not None
            await settled()
            assert len(idp.asked) == asked + 2  # discovery too
        clock.now += 60
        with pytest.raises(ApiError, match="could not be read"):
            await keys.find("k9")
        idp.published["/keys"] = {"keys": []}
        clock.now += 60
        assert await keys.find("k1") is not None
        await settled()
        assert await keys.find("k1") is not None  # an empty set takes nothing away

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "HTTPError" in caplog.text and "none of the 0 keys" in caplog.text


@pytest.mark.parametrize(
    ("published", "told"),
    [({DISCOVERY: {"issuer": "https://other", "jwks_uri": "https://other/keys"}}, "another issuer"),
     ({DISCOVERY: {"jwks_uri": "https://other/keys"}}, "issuer and jwks_uri"),
     ({DISCOVERY: ["x"]}, "issuer and jwks_uri"),
     ({"/keys": "x" * (1 << 20)}, "longer than 1048576 bytes"),
     ({"/keys": {"keys": 7}}, "RFC 7517"),
     ({"/keys": 302}, "HTTPError")],
)  # fmt: skip
def test_documents_that_are_none(idp, caplog, published: dict[str, Any], told: str) -> None:
    idp.published = published
    with caplog.at_level(logging.WARNING):
        assert refusal(reader(idp), idp.token()).status == 503
    assert told in caplog.text


def test_a_discovered_address_must_be_safe(idp, caplog) -> None:
    found = {"issuer": idp.issuer, "jwks_uri": "http://hospital.example/keys"}
    idp.published = {DISCOVERY: found}
    with caplog.at_level(logging.WARNING):
        assert refusal(reader(idp), idp.token()).status == 503
    assert "https://" in caplog.text


def test_a_key_set_of_a_file_needs_no_network(idp, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(idp.key_set()))
    tokens = reader(idp, jwks=str(path))
    assert read(tokens, idp.token()).role == "clinician"
    assert idp.asked == []
    for content, told in (("{}", "RFC 7517"), ('{"keys": [{"kty": "oct"}]}', "none of the 1 keys")):
        path.write_text(content)
        with pytest.raises(ConfigError, match=told):
            reader(idp, jwks=str(path))
    with pytest.raises(ConfigError, match="No such file"):
        reader(idp, jwks=str(tmp_path / "none.json"))


def test_keys_that_must_not_verify_are_left_out(idp) -> None:
    from jwt.algorithms import RSAAlgorithm

    good = idp.key_set()["keys"][0]
    weak = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
    private = RSAAlgorithm.to_jwk(idp.signers["k1"][0], as_dict=True)
    bad = [
        {**weak, "kid": "weak"}, {**private, "kid": "private"},
        {**good, "kid": "enc", "use": "enc"},
        {**good, "kid": "alg", "alg": "HS256"}, {"kty": "oct", "k": "AAAA", "kid": "shared"},
        {**good, "kid": 7}, {"kty": "RSA", "kid": "half"}, {"kty": "EC", "crv": [], "kid": "curve"},
    ]  # fmt: skip
    assert list(read_keys(json.dumps({"keys": [*bad, good]}).encode())) == ["k1"]
    with pytest.raises(DataError, match="none of the 8 keys"):
        read_keys(json.dumps({"keys": bad}).encode())


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"algorithms": ["RS256", "HS256"]}, "HS256 proves nothing"),
     ({"algorithms": ["none"]}, "none proves nothing"),
     ({"algorithms": ["RS1"]}, "algorithms.0"),
     ({"algorithms": []}, "algorithms"),
     ({"issuer": "http://sso.hospital.example"}, "must begin with https://"),
     ({"issuer": "sso.hospital.example"}, "must begin with https://"),
     ({"jwks": "http://sso.hospital.example/keys"}, "must begin with https://"),
     ({"roles": []}, "roles"),
     ({"roles": [{"value": "x", "role": "nurse"}]}, "role"),
     ({"audience": ""}, "audience"),
     ({"limits": {"patient": {"requests_per_minute": 0}}}, "requests_per_minute")],
)  # fmt: skip
def test_settings_that_would_let_anybody_in(changes: dict[str, Any], told: str) -> None:
    good = {"issuer": "https://sso.hospital.example", "audience": "medray",
            "roles": [{"value": "physicians", "role": "clinician"}]}  # fmt: skip
    OidcConfig.parse(good, "test")
    with pytest.raises(ConfigError, match=told):
        OidcConfig.parse({**good, **changes}, "test")


class Nothing:
    """No deployment is asked here."""

    others: ClassVar[dict[str, Any]] = {}
    reranks = False


def test_over_http_a_refusal_says_how_to_come_in(idp, tmp_path: Path, listening, caplog) -> None:
    key = KeyFile(tmp_path / "keys.json").add("ward", "clinician").secret
    settings = {"oidc": idp.settings(), "keys_file": str(tmp_path / "keys.json")}
    service = Service(GatewayConfig.parse(settings, "test"), Nothing(), Metrics())  # type: ignore[arg-type]
    good, late = idp.token(), idp.token(exp=time.time() - 3600)
    stranger = idp.token(realm_access={"roles": ["cleaners"]})
    with caplog.at_level(logging.DEBUG), listening(service) as client:

        def ask(secret: str) -> Any:
            return client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"})

        assert [ask(secret).status_code for secret in (key, good)] == [200, 200]
        answer = ask(late)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == (
            'Bearer realm="medray", error="invalid_token", error_description="it has expired"'
        )
        assert answer.json()["error"]["code"] == "invalid_token"
        assert client.get("/v1/models").headers["WWW-Authenticate"] == 'Bearer realm="medray"'
        assert ask("medray-00000000-x").status_code == 401
        assert ask("a.b." + "c" * 40_000).status_code == 401
        assert ask(stranger).status_code == 403
        for secret in (late, stranger):
            told = ask(secret).text
            assert secret not in told and "zhang" not in told and "staff" not in told
    for secret in (good, late, stranger, "zhang.wei", "张伟", "staff-4711"):
        assert secret not in caplog.text
