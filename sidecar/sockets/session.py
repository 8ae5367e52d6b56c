"""One namespace of one connection: who it is and which rooms are its own."""

from __future__ import annotations

from typing import Protocol

from sidecar.domain import rooms
from sidecar.domain.access import Identity
from sidecar.fanout.hub import Subscriber
from sidecar.fanout.recovery import Kept
from sidecar.wire.spoken import Frame


class Keeper(Protocol):
    """Who owns the sessions (sockets/sessions.py)."""

    def warn(self, session: Session, expires_at: float) -> None: ...
    def end(self, session: Session, event: Frame, code: str, message: str) -> None: ...


class Session:
    """`identity` changes when the client renews its token. `kept` is what is stored for its coming back, None for a
    client that can't; `stale`: what is stored is not what it holds; `over`: it shall not come back."""

    __slots__ = ("engine_sid", "identity", "keeper", "kept", "namespace", "over", "sid", "stale", "subscriber")

    def __init__(
        self,
        keeper: Keeper,
        sid: str,
        engine_sid: str,
        namespace: str,
        identity: Identity,
        subscriber: Subscriber,
        kept: Kept | None = None,
    ):
        self.keeper = keeper
        self.sid = sid
        self.engine_sid = engine_sid
        self.namespace = namespace
        self.identity = identity
        self.subscriber = subscriber
        self.kept = kept
        self.stale = False
        self.over = False

    def token_expiring(self, expires_at: float) -> None:
        self.keeper.warn(self, expires_at)

    def end(self, event: Frame, code: str, message: str) -> None:
        self.keeper.end(self, event, code, message)


def own_rooms(identity: Identity) -> list[str]:
    """The rooms that a connection is in without asking: its user's, and everyone's who is signed in or is not."""
    found = []
    if identity.user is not None:
        found += [rooms.user(identity.user), rooms.permissions(identity.user)]
    if identity.authenticated:
        found += [rooms.EVERYONE, rooms.PERMISSIONS]
    else:
        found.append(rooms.ANONYMOUS)
    return found


def holder_of(identity: Identity) -> str:
    """Who may take a session up again: the user, whatever token they hold then; without one the token's bearer."""
    if identity.user is not None:
        return f"user {identity.user}"
    return "stranger" if identity.token_id is None else f"token {identity.token_id}"
