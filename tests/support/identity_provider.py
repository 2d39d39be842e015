"""An identity provider on this machine, over real HTTP."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Provider:
    """An identity provider of this machine: what it publishes, and the tokens that it signs."""

    def __init__(self) -> None:
        self.signers: dict[str, tuple[Any, str]] = {}
        """Key id → private key and algorithm."""
        self.asked: list[str] = []
        self.published: dict[str, Any] = {}
        """What takes the place of a document, by its path: an int is a status."""
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.issuer = ""

    def rotate(self, kid: str, algorithm: str = "RS256") -> None:
        """Another key."""
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        fresh = (
            ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256"
            else rsa.generate_private_key(65537, 2048)
        )  # fmt: skip
        self.signers[kid] = (fresh, algorithm)

    def key_set(self) -> dict[str, Any]:
        """The public keys."""
        from jwt.algorithms import ECAlgorithm, RSAAlgorithm

        entries = []
        for kid, (private, algorithm) in self.signers.items():
            kind = ECAlgorithm if algorithm == "ES256" else RSAAlgorithm
            public = kind.to_jwk(private.public_key(), as_dict=True)
            entries.append({**public, "kid": kid, "alg": algorithm, "use": "sig"})
        return {"keys": entries}

    def documents(self) -> dict[str, Any]:
        """Path → what stands there."""
        found = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        standard = {"/.well-known/openid-configuration": found, "/keys": self.key_set()}
        return {**standard, **self.published}

    def token(self, kid: str = "k1", **claims: Any) -> str:
        """A token that holds, but for `claims`; None leaves one out."""
        import jwt

        now = int(time.time())
        whole = {
            "iss": self.issuer, "aud": "medray", "sub": "staff-4711", "iat": now, "exp": now + 600,
            "realm_access": {"roles": ["offline_access", "physicians"]},
            "email": "zhang.wei@hospital.example", "name": "张伟", **claims,
        }  # fmt: skip
        private, algorithm = self.signers[kid]
        told = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(told, private, algorithm=algorithm, headers={"kid": kid})

    def settings(self, **changes: Any) -> dict[str, Any]:
        """`gateway.oidc` for it."""
        roles = [
            {"value": "it-admins", "role": "admin"}, {"value": "physicians", "role": "clinician"},
            {"value": "portal", "role": "patient"},
        ]  # fmt: skip
        return {
            "issuer": self.issuer, "audience": "medray", "roles_claim": "realm_access.roles",
            "roles": roles, "limits": {"patient": {"requests_per_minute": 2}}, **changes,
        }  # fmt: skip


@contextmanager
def providing() -> Iterator[Provider]:
    """An identity provider, until the end of the context."""
    provider = Provider()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked.append(self.path)
            provider.may_answer.wait(20)
            document = provider.documents().get(self.path, 404)
            body = b"" if isinstance(document, int) else json.dumps(document).encode()
            self.send_response(document if isinstance(document, int) else 200)
            self.send_header("Location", "/keys")  # heeded where the status is 302
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.issuer = f"http://127.0.0.1:{server.server_port}"
        provider.rotate("k1")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield provider
        provider.may_answer.set()
        server.shutdown()
