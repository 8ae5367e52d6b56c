"""Authorities and certificates for tests of TLS, made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOSTS = ("localhost", "127.0.0.1", "127.0.0.2")
_SIGNING = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path
    serial: int
    ends: float
    """Unix seconds."""

    def settings(self) -> dict[str, str]:
        return {"SIDECAR_TLS_CERT": str(self.certificate), "SIDECAR_TLS_KEY": str(self.key)}


class Authority:
    """Signs certificates that end in a month. `file` holds its own, in PEM."""

    def __init__(self, folder: Path, name: str = "test authority"):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._certificate = (
            _builder(self._name, self._name, self._key, 30)
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(_SIGNING, True)
            .add_extension(self._identifier, False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"ca-{next(_numbers)}.pem"
        self.file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def server(self, days: float = 30, passphrase: bytes | None = None) -> Pair:
        """For this machine's names."""
        names = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in HOSTS]
        return self._issue("localhost", days, passphrase, ExtendedKeyUsageOID.SERVER_AUTH, names)

    def client(self, name: str) -> Pair:
        return self._issue(name, 30, None, ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def trusting(self, shown: Pair | None = None) -> ssl.SSLContext:
        """A client's context that trusts this authority alone, as strictly as newer Pythons do, and shows this
        certificate."""
        context = ssl.create_default_context(cafile=str(self.file))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return context

    def _issue(
        self,
        name: str,
        days: float,
        passphrase: bytes | None,
        purpose: x509.ObjectIdentifier,
        names: list[x509.GeneralName],
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_named(name), self._name, key, days)
            .add_extension(x509.ExtendedKeyUsage([purpose]), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        made = builder.sign(self._key, hashes.SHA256())
        number = next(_numbers)
        pair = Pair(
            self._folder / f"{name}-{number}.pem",
            self._folder / f"{name}-{number}-key.pem",
            made.serial_number,
            made.not_valid_after_utc.timestamp(),
        )
        pair.certificate.write_bytes(made.public_bytes(Encoding.PEM))
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return pair


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
    )
