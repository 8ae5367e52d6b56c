"""One answer to "who asks?" for both edges, HTTP and sockets."""

from __future__ import annotations

from sidecar.domain.access import Identity, may, stranger, within_both
from sidecar.domain.errors import NotAllowed, SignatureMismatch, Unauthenticated
from sidecar.domain.networks import Network, within
from sidecar.services.connections import Connections
from sidecar.services.limits import RateLimit
from sidecar.services.webhook_secrets import WebhookSecrets
from sidecar.wire.signatures import read_signature

LOGIN_COOKIE = "sidecar_login"
HASHED_BYTES = 65_536
"""As much hashed for a signature that fits no secret counts as one request more of its address."""


class Access:
    """`open` and `anonymous_read` are the settings; `webhook_networks` empty means that any address may post where
    the webhook is open; `limit` counts what wrong signatures cost."""

    def __init__(
        self,
        connections: Connections,
        secrets: WebhookSecrets,
        open: str,
        anonymous_read: bool,
        webhook_networks: tuple[Network, ...],
        limit: RateLimit | None,
    ):
        self._connections = connections
        self._secrets = secrets
        self._limit = limit
        self._open = open
        self._anonymous_read = anonymous_read
        self._networks = webhook_networks

    def by_credential(self, text: str, in_url: bool = False) -> Identity:
        """Raises Unauthenticated, or TokenExpired: a wrong credential never falls back to being a stranger."""
        return self._connections.identify(text, in_url)

    def by_cookie(self, value: str, address: str) -> Identity:
        """The holder of a login cookie; a cookie that no longer holds makes a stranger, as none would."""
        try:
            return self._connections.cookie_identity(value)
        except Unauthenticated:
            return self.stranger(address)

    def signed(self, identity: Identity, header: str, body: bytes, address: str) -> Identity:
        """Who posts a body with this signature: whose secret it was made with; who holds a token besides is `identity`,
        and may what both may. Raises SignatureMismatch: a wrong signature never falls back to anything."""
        digest = read_signature(header)
        try:
            signer = self._secrets.signer(body, digest)
        except SignatureMismatch:
            if self._limit is not None:
                self._limit.charge(f"address:{address}", len(body) * self._secrets.count() / HASHED_BYTES)
            raise
        return within_both(identity, signer) if identity.authenticated else signer

    def stranger(self, address: str) -> Identity:
        return stranger(self._open, self._anonymous_read, not self._networks or within(address, self._networks))


def require(identity: Identity, scope: str) -> None:
    """Raises Unauthenticated for a stranger, NotAllowed for somebody known without the scope."""
    if may(identity, scope):
        return
    if not identity.authenticated:
        raise Unauthenticated("This needs a token: send it as `Authorization: Token <token>`.")
    raise NotAllowed(f"The token lacks the scope {scope}.")
