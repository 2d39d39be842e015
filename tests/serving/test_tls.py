"""Certificate and key: what is told before a server starts; and whom our own client believes."""

import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from ray.serve.schema import HTTPOptionsSchema

from medray.common.errors import ConfigError
from medray.serving import up
from medray.serving.tls import Tls, ends_soon

CONFIG = Path(__file__).parents[2] / "serve_configs" / "laptop.yaml"


def made(files: tuple[Path, Path], **more: Any) -> Tls:
    return Tls(certificate=str(files[0]), key=str(files[1]), **more)


def test_a_certificate_that_holds_is_taken(certify, tmp_path: Path) -> None:
    tls = made(certify(tmp_path))
    assert ends_soon(tls.check()) == ""
    assert tls.options()["ssl_certfile"] == str(tmp_path / "certificate.pem")
    end = (soon := made(certify(tmp_path / "soon", last_day=13)).check()).not_valid_after_utc
    assert ends_soon(soon) == f"the certificate ends on {end:%Y-%m-%d}"


def test_files_that_cannot_be_served_with(certify, tmp_path: Path) -> None:
    certificate, key = certify(tmp_path / "a")
    _, other = certify(tmp_path / "b")
    cases = [
        (certificate, tmp_path / "none", "cannot read .*none"),
        (tmp_path, key, "cannot read"),
        (key, key, r"key\.pem holds no certificate in PEM"),
        (certificate, certificate, r"certificate\.pem holds no private key in PEM"),
        (certificate, other, "is not the key of the certificate"),
        (*certify(tmp_path / "old", -30, -1), "has expired on"),
        (*certify(tmp_path / "new", 1, 30), "clock"),
    ]
    for first, second, told in cases:
        with pytest.raises(ConfigError, match=told):
            made((first, second)).check()


def test_a_key_under_a_password(certify, tmp_path: Path) -> None:
    files = certify(tmp_path)
    key = serialization.load_pem_private_key(files[1].read_bytes(), None)
    with pytest.raises(ConfigError, match="has no password"):
        made(files, password="open").check()
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open"),
        )
    )
    made(files, password="open").check()
    with pytest.raises(ConfigError, match="ssl_keyfile_password"):
        made(files).check()
    with pytest.raises(ConfigError, match="that this password opens"):
        made(files, password="shut").check()


def test_the_command_line_goes_before_the_config(certify, tmp_path: Path) -> None:
    files = certify(tmp_path)
    options = HTTPOptionsSchema(ssl_keyfile="k.pem", ssl_certfile="c.pem")
    tls = Tls.of(options, None, None)
    assert tls is not None and tls.certificate == str(Path("c.pem").resolve())
    assert Tls.of(options, *files) == made(files)
    assert Tls.of(HTTPOptionsSchema(), None, None) is None
    for wrong, given in (
        (HTTPOptionsSchema(ssl_keyfile="k.pem"), (None, None)), (options, (files[0], None)),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="belong together"):
            Tls.of(wrong, *given)
    with pytest.raises(ConfigError, match="asks no client for a certificate"):
        Tls.of(HTTPOptionsSchema(ssl_ca_certs="ca.pem"), None, None)


def test_nothing_starts_with_a_wrong_certificate(certify, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    certificate, key = certify(tmp_path, -30, -1)
    with pytest.raises(ConfigError, match="has expired on"):
        up.start(CONFIG, certificate=certificate, key=key, port=port)


def test_our_own_client_believes_this_certificate_alone(certify, tmp_path: Path) -> None:
    ours, other = made(certify(tmp_path / "a")), made(certify(tmp_path / "b"))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(ours.certificate, ours.key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            for _ in range(2):
                raw, _ = server.accept()
                with raw:
                    try:
                        served.wrap_socket(raw, server_side=True).unwrap()
                    except (ssl.SSLError, OSError):
                        continue  # the client did not believe it

        thread = threading.Thread(target=greet)
        thread.start()
        address = server.getsockname()
        with (
            socket.create_connection(address) as raw,
            ours.context().wrap_socket(raw, server_hostname="another.host") as secure,
        ):
            assert secure.version() in ("TLSv1.2", "TLSv1.3")
        with (
            socket.create_connection(address) as raw,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            other.context().wrap_socket(raw, server_hostname="another.host")
        thread.join()
