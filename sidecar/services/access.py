"""One answer to "who asks?" for both edges, HTTP and sockets."""

from __future__ import annotations

from sidecar.domain.access import Identity, may, stranger
from sidecar.domain.errors import NotAllowed, Unauthenticated
from sidecar.domain.networks import Network, within
from sidecar.services.connections import Connections

LOGIN_COOKIE = "sidecar_login"


class Access:
    """`open` and `anonymous_read` are the settings; `webhook_networks` empty means that any address may post where
    the webhook is open."""

    def __init__(
        self, connections: Connections, open: str, anonymous_read: bool, webhook_networks: tuple[Network, ...]
    ):
        self._connections = connections
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

    def stranger(self, address: str) -> Identity:
        return stranger(self._open, self._anonymous_read, not self._networks or within(address, self._networks))


def require(identity: Identity, scope: str) -> None:
    """Raises Unauthenticated for a stranger, NotAllowed for somebody known without the scope."""
    if may(identity, scope):
        return
    if not identity.authenticated:
        raise Unauthenticated("This needs a token: send it as `Authorization: Token <token>`.")
    raise NotAllowed(f"The token lacks the scope {scope}.")
