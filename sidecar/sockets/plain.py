"""What all plain WebSockets have in common: who comes in, the heartbeat, the end with the token, JSON in and out."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs

import structlog

from sidecar.domain.access import Identity
from sidecar.domain.errors import Invalid
from sidecar.domain.events import Offset, parse_offset
from sidecar.domain.times import utc_text
from sidecar.fanout.catchup import Beginning, CatchUp, Past
from sidecar.fanout.hub import Hub, Subscriber
from sidecar.fanout.tail import Tail
from sidecar.fanout.websocket import Connection, Network
from sidecar.services.access import Access
from sidecar.services.limits import RateLimit, bucket_of
from sidecar.sockets.credentials import OFFERED_TOKEN, identify
from sidecar.sockets.text import TextSocket
from sidecar.sockets.watch import Watch
from sidecar.wire.bodies import parse_message
from sidecar.wire.origins import Origins
from sidecar.wire.spoken import EventType, Frame, Message
from sidecar.wire.told import PLAIN_ENDS, PLAIN_TOKEN_EXPIRING, TOKEN_EXPIRED

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = structlog.get_logger("sidecar.plain")

TOKEN_ENDED = 4401
SENT_AWAY = 4403


class PlainEndpoint(ABC):
    """The endpoint (sockets/gate.py) of one kind of plain WebSockets. `limit` bounds what each caller may ask for.
    What its sockets are told are `frames`, and the `pushed` events; what they may say are `messages`, each named in the
    field `word`. `place` is what the address ends with."""

    protocols: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str]
    place: ClassVar[str]
    word: ClassVar[str]
    frames: ClassVar[tuple[Frame, ...]]
    pushed: ClassVar[tuple[EventType, ...]] = ()
    messages: ClassVar[tuple[Message, ...]]

    def __init__(
        self,
        network: Network,
        access: Access,
        origins: Origins,
        hub: Hub,
        tail: Tail,
        catchup: CatchUp,
        watch: Watch,
        limit: RateLimit | None,
        clock: Callable[[], float] = time.time,
    ):
        self.network = network
        self.hub = hub
        self.tail = tail
        self.catchup = catchup
        self.watch = watch
        self.clock = clock
        self._access = access
        self._origins = origins
        self._limit = limit
        self.sockets: set[PlainSocket] = set()

    @abstractmethod
    def admit(self, environ: WSGIEnvironment, name: str) -> None:
        """As the gate's Endpoint."""

    @abstractmethod
    def open(self, environ: WSGIEnvironment, name: str, connection: Connection) -> None:
        """As the gate's Endpoint."""

    def who(self, environ: WSGIEnvironment, stranger_scope: str | None) -> Identity:
        """Raises Unauthenticated, or TokenExpired."""
        return identify(self._access, self._origins, environ, environ.get(OFFERED_TOKEN), stranger_scope)

    def take_in(self, socket: PlainSocket) -> None:
        self.sockets.add(socket)
        self.watch.add(socket)
        self.network.wheel.add(socket.ping_seconds, socket)

    def forget(self, socket: PlainSocket) -> None:
        self.sockets.discard(socket)
        self.watch.remove(socket)
        self.hub.drop(socket.subscriber)

    def beginning(self, environ: WSGIEnvironment) -> Beginning | None:
        """Where a socket begins whose handshake names a place; None without one. Raises Invalid, Unavailable."""
        since = past(environ)
        return None if since is None else self.catchup.beginning(Past(since))

    def enter(self, socket: PlainSocket, rooms: Iterable[str], beginning: Beginning | None) -> None:
        """Put it into these rooms, from its subscriber's position on; what it missed comes first. Never yields."""
        if beginning is not None:
            self.catchup.resume(self.hub, socket.subscriber, rooms)
            return
        for room in rooms:
            self.hub.join(socket.subscriber, room, socket.subscriber.position)

    def limited(self, socket: PlainSocket) -> None:
        """It asks for something that costs. Raises RateLimited."""
        if self._limit is not None:
            self._limit.take(bucket_of(socket.identity, f"address:{socket.address}"))


class PlainSocket(TextSocket):
    """One connection: the peer of its WebSocket. `kind` is what it goes by in metrics and logs."""

    kind: ClassVar[str] = "plain"
    __slots__ = ("_endpoint", "address", "identity", "subscriber")

    def __init__(
        self,
        endpoint: PlainEndpoint,
        connection: Connection,
        subscriber: Subscriber,
        identity: Identity,
        address: str,
    ):
        super().__init__(connection)
        self._endpoint = endpoint
        self.subscriber = subscriber
        self.identity = identity
        self.address = address

    @property
    def who(self) -> str:
        return self.identity.name

    def count(self, code: str) -> None:
        """It was answered this error."""
        self._endpoint.network.metrics.socket_error(self.kind, code)

    @abstractmethod
    def obey(self, body: dict[str, Any]) -> None:
        """Do what a message asks for. Raises SidecarError."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Answer a message that could not be dealt with."""

    def say(self, type: Frame, **fields: object) -> None:
        """A frame that is no event; it says when it was sent."""
        fields.setdefault("timestamp", utc_text(self._endpoint.clock()))
        self.connection.send(json.dumps({"type": type, **fields}, ensure_ascii=False, separators=(",", ":")))

    def handle(self, message: str | bytes) -> None:
        self._endpoint.tail.refresh()
        if self.subscriber.closed:
            return
        try:
            body = parse_message(str(message))
            if not isinstance(body, dict):
                raise Invalid("The message must be a JSON object.")
            self.obey(body)
        except Exception as error:
            self.failed(error)

    def ended(self, code: int) -> None:
        self._endpoint.forget(self)

    @property
    def alive(self) -> bool:
        return self in self._endpoint.sockets

    def token_expiring(self, expires_at: float) -> None:
        self.say(PLAIN_TOKEN_EXPIRING, expires_at=utc_text(expires_at))

    def end(self, event: Frame, code: str, message: str) -> None:
        self._endpoint.hub.drop(self.subscriber)
        self.say(PLAIN_ENDS[event], code=code, message=message)
        self.connection.close(TOKEN_ENDED if event == TOKEN_EXPIRED else SENT_AWAY, code)


def past(environ: WSGIEnvironment) -> Offset | None:
    """The `since` of the handshake. Raises Invalid."""
    given = parse_qs(environ.get("QUERY_STRING", "")).get("since")
    if not given:
        return None
    offset = parse_offset(given[0])
    if offset is None:
        raise Invalid("since must be an offset or a seq.")
    return offset
