"""What TLS needs to be told before a server starts: that certificate and key are there, belong
together and hold today. In: two files. Out: a certificate, or what is wrong with them.
"""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from ray.serve.schema import HTTPOptionsSchema

from medray.common.config import Config
from medray.common.errors import ConfigError

SOON = timedelta(days=14)


class Tls(Config):
    """The files that Serve's proxies read; on a cluster, on each of its nodes."""

    certificate: str
    """PEM: the server's certificate, then those between it and the hospital's root."""
    key: str
    password: str | None = None

    @classmethod
    def of(
        cls, options: HTTPOptionsSchema, certificate: Path | None, key: Path | None
    ) -> "Tls | None":
        """Of the command line, else of a serve config's `http_options`; None: no TLS.

        Raises:
            ConfigError: if one file is named without the other, or clients are to have
                certificates too.
        """
        if options.ssl_ca_certs:
            raise ConfigError(
                "http_options.ssl_ca_certs: Serve asks no client for a certificate even so; take "
                "it out, and let a reverse proxy ask"
            )
        if (certificate is None) != (key is None):
            raise ConfigError("--certificate and --key belong together; give both or none")
        if certificate is not None:
            found = cls(certificate=str(certificate), key=str(key))
        elif options.ssl_certfile and options.ssl_keyfile:
            found = cls(
                certificate=options.ssl_certfile, key=options.ssl_keyfile,
                password=options.ssl_keyfile_password,
            )  # fmt: skip
        elif options.ssl_certfile or options.ssl_keyfile:
            raise ConfigError("http_options: ssl_certfile and ssl_keyfile belong together")
        else:
            return None
        paths = {name: _absolute(getattr(found, name)) for name in ("certificate", "key")}
        return found.model_copy(update=paths)  # the proxies were started elsewhere

    def options(self) -> dict[str, Any]:
        """For `serve.start`."""
        return {
            "ssl_certfile": self.certificate,
            "ssl_keyfile": self.key,
            "ssl_keyfile_password": self.password,
        }

    def check(self, now: datetime | None = None) -> x509.Certificate:
        """The server's certificate.

        Raises:
            ConfigError: if a file is missing or none, they do not belong together, or the
                certificate does not hold now.
        """
        given, secret = _read(self.certificate), _read(self.key)
        try:
            certificate = x509.load_pem_x509_certificates(given)[0]
        except ValueError:
            raise ConfigError(f"{self.certificate} holds no certificate in PEM") from None
        try:
            password = self.password.encode() if self.password else None
            key = serialization.load_pem_private_key(secret, password)
        except TypeError:
            fault = "is encrypted; set http_options.ssl_keyfile_password, or give it unencrypted"
            raise ConfigError(
                f"{self.key} {fault if password is None else 'has no password; take it out'}"
            ) from None
        except ValueError:
            raise ConfigError(
                f"{self.key} holds no private key in PEM"
                + (" that this password opens" if self.password else "")
            ) from None
        if key.public_key() != certificate.public_key():
            raise ConfigError(f"{self.key} is not the key of the certificate {self.certificate}")
        now = now or datetime.now(UTC)
        if now >= certificate.not_valid_after_utc:
            raise ConfigError(
                f"{self.certificate} has expired on {certificate.not_valid_after_utc:%F}; renew it"
            )
        if now < certificate.not_valid_before_utc:
            raise ConfigError(
                f"{self.certificate} holds from {certificate.not_valid_before_utc:%F} only; is "
                "this machine's clock right?"
            )
        try:  # what this version of OpenSSL thinks of them, such as of a key that is too short
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key, self.password)
        except ssl.SSLError as error:
            raise ConfigError(
                f"{self.certificate} cannot be served with: {error.reason or error}"
            ) from None
        return certificate

    def context(self) -> ssl.SSLContext:
        """A client's context that takes this certificate, whoever signed it and whatever host it
        is for, and no other: to ask one's own server whether it answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        leaf = x509.load_pem_x509_certificates(_read(self.certificate))[0]
        context.load_verify_locations(cadata=leaf.public_bytes(serialization.Encoding.PEM).decode())
        return context


def ends_soon(certificate: x509.Certificate) -> str:
    """A line to say so; empty if it does not."""
    end = certificate.not_valid_after_utc
    return f"the certificate ends on {end:%F}" if end - datetime.now(UTC) < SOON else ""


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror})") from None
