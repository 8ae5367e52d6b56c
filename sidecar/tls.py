"""TLS by the sidecar itself: its certificate, which can be read again at any time, and the handshake with each client.

What comes after the handshake is carried by fanout/splice.py; nothing behind it knows of TLS.
"""

from __future__ import annotations

import errno
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.fanout.splice import Splices
from sidecar.fanout.websocket import Network
from sidecar.observability.logs import RateLimited

log = structlog.get_logger("sidecar.tls")

HANDSHAKE_SECONDS = 10
ANSWERED_BYTES = 64 * 1024
CERT, KEY, CLIENT_CA = "SIDECAR_TLS_CERT", "SIDECAR_TLS_KEY", "SIDECAR_TLS_CLIENT_CA"

NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 42\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: begin with https://\n"
)
REASONS = {
    "HTTP_REQUEST": "plain_http",
    "WRONG_VERSION_NUMBER": "not_tls",
    "UNSUPPORTED_PROTOCOL": "version",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "client_certificate",
    "CERTIFICATE_VERIFY_FAILED": "client_certificate",
}
"""What OpenSSL says, and the word that the metrics have for it."""


class BadCertificate(Exception):
    """The files can't be used. The text names the setting and says why, never what a file holds."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """In PEM. With `client_ca` only clients that show a certificate of it are let in."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class Certificates:
    """What new connections are shaken hands with: always something whole that was good when it was read. Raises
    BadCertificate."""

    def __init__(self, files: TlsFiles):
        self._files = files
        self.context, self.expires_at = _load(files)

    def reload(self) -> None:
        """Read the files again. Raises BadCertificate, and what was there stays."""
        self.context, self.expires_at = _load(self._files)


class Door:
    """Shakes hands, and joins who passes to a plain socket."""

    def __init__(self, certificates: Certificates, network: Network):
        self._certificates = certificates
        self._metrics = network.metrics
        self._complaints = RateLimited(log)
        self.splices = Splices(network.loop, network.wheel)
        self._metrics.tls_expiry.set(certificates.expires_at)

    def reload(self) -> None:
        """Read the certificate again for those who come; those who are here keep theirs. What can't be used is logged,
        and changes nothing."""
        try:
            self._certificates.reload()
        except BadCertificate as error:
            log.error("tls.reload_failed", problem=str(error))
            return
        self._metrics.tls_expiry.set(self._certificates.expires_at)
        log.info("tls.reloaded", days_left=round((self._certificates.expires_at - time.time()) / 86_400, 1))

    def admit(self, sock: Any, address: Any) -> Any:
        """The plain socket of this client, once hands are shaken; None if they can't be, and it is gone. Blocks, for
        ten seconds at most. The socket that is given is not the caller's any more."""
        try:
            tls = self._certificates.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:  # it is gone already
            self._count("ended", address)
            return None
        try:
            with gevent.Timeout(HANDSHAKE_SECONDS):
                tls.do_handshake()
            return self.splices.join(tls)
        except gevent.Timeout:
            self._count("timeout", address)
        except OSError as error:
            reason = _reason(error)
            self._count(reason, address)
            if reason == "plain_http":
                _answer(tls)
        except BaseException:
            tls.close()
            raise
        tls.close()
        return None

    def _count(self, reason: str, address: Any) -> None:
        """A line for it, too; but who connects and leaves is most likely a load balancer that looks whether we live."""
        self._metrics.tls_handshakes_failed.labels(reason).inc()
        if reason != "ended":
            self._complaints.warning("tls.handshake_failed", reason=reason, address=address[0].removeprefix("::ffff:"))


def _load(files: TlsFiles) -> tuple[Any, float]:
    """A context for these files, and when the certificate ends, in unix seconds. Raises BadCertificate."""
    certificate = _certificates(CERT, files.certificate)[0]
    _read(KEY, files.key)
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_ask_nobody)
    except ssl.SSLError as error:
        raise BadCertificate(_told(error)) from None
    except OSError as error:
        raise BadCertificate(f"{KEY}: can't be read ({error.strerror}).") from None
    if files.client_ca is not None:
        authorities = _certificates(CLIENT_CA, files.client_ca)
        context.load_verify_locations(cadata=b"".join(item.public_bytes(Encoding.DER) for item in authorities))
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate authority will do
    return context, certificate.not_valid_after_utc.timestamp()


def _certificates(setting: str, path: Path) -> list[x509.Certificate]:
    """Those of this file, one or more."""
    try:
        return x509.load_pem_x509_certificates(_read(setting, path))
    except ValueError:
        raise BadCertificate(f"{setting}: holds no certificate in PEM.") from None


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"{setting}: can't be read ({error.strerror}).") from None


def _ask_nobody() -> str:
    """OpenSSL would ask for a passphrase at the terminal."""
    raise BadCertificate(f"{KEY}: is encrypted; write it without a passphrase (`openssl pkey -in KEY -out NEW`).")


def _told(error: ssl.SSLError) -> str:
    """What OpenSSL has against the pair; the certificate by itself can be read."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{KEY}: is not the key of the certificate in {CERT}."
    if error.reason is not None and error.reason.endswith(("TOO_SMALL", "TOO_WEAK")):
        return f"{CERT}: OpenSSL refuses it ({error.reason})."
    return f"{KEY}: holds no private key in PEM that OpenSSL takes."


def _reason(error: OSError) -> str:
    """The word that the metrics have for a handshake's failure."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "other"
    said = getattr(error, "reason", None)
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError) or said is None:
        return "ended"
    if "_ALERT_" in said:
        return "refused_by_client"
    return REASONS.get(said, "other")


def _answer(tls: Any) -> None:
    """To a client that began with HTTP in plain, so that a person sees what is wrong."""
    sock = gevent.socket.socket(fileno=tls.detach())
    sock.settimeout(0)
    try:
        sock.send(NOT_TLS)
        sock.recv(ANSWERED_BYTES)  # closed with something unread, the kernel would take the answer back
    except OSError:
        pass  # it is gone
    finally:
        sock.close()
