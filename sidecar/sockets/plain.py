"""Free rooms over plain WebSockets (`/ws/rooms/<room>/`): the same rooms as on Socket.IO, in bare JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import structlog

from sidecar.domain import rooms
from sidecar.domain.access import Identity, may_watch_room
from sidecar.domain.errors import Invalid, NotAllowed, SidecarError, Unparsable
from sidecar.domain.events import Offset, parse_offset
from sidecar.domain.times import utc_text
from sidecar.fanout.catchup import CatchUp, Past
from sidecar.fanout.codecs import BareCodec
from sidecar.fanout.hub import Hub, Subscriber
from sidecar.fanout.tail import Tail
from sidecar.fanout.websocket import UNSUPPORTED, Connection, Network
from sidecar.services.access import Access
from sidecar.services.limits import RateLimit
from sidecar.services.messages import Messages
from sidecar.sockets.credentials import OFFERED_TOKEN, identify
from sidecar.sockets.errors import REFUSALS
from sidecar.sockets.watch import Watch
from sidecar.wire.bodies import parse_message
from sidecar.wire.messages import ChatBody, read
from sidecar.wire.origins import Origins

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = structlog.get_logger("sidecar.plain")

PING_SECONDS = 25.0
"""After so long without a sign of life one is asked for; without one for as long again the peer is gone."""
TOKEN_ENDED = 4401
SENT_AWAY = 4403
WELCOME = "Welcome to the WebSocket connection!"


class PlainRooms:
    """The endpoint (sockets/gate.py). `limit` bounds what each caller may say."""

    def __init__(
        self,
        network: Network,
        access: Access,
        origins: Origins,
        hub: Hub,
        tail: Tail,
        catchup: CatchUp,
        watch: Watch,
        messages: Messages,
        limit: RateLimit | None,
        clock: Callable[[], float] = time.time,
    ):
        self.network = network
        self.hub = hub
        self.watch = watch
        self._access = access
        self._origins = origins
        self._tail = tail
        self._catchup = catchup
        self._messages = messages
        self._limit = limit
        self._clock = clock
        self._codecs = {offsets: BareCodec(offsets) for offsets in (False, True)}
        self.sockets: set[PlainSocket] = set()

    def admit(self, environ: WSGIEnvironment, name: str) -> None:
        room = rooms.clean_name(name, "the room")
        _past(environ)
        identity = identify(self._access, self._origins, environ, environ.get(OFFERED_TOKEN), "rooms:read")
        if not may_watch_room(identity, rooms.free(room)):
            raise NotAllowed("The token does not give the right to this room.")

    def open(self, environ: WSGIEnvironment, name: str, connection: Connection) -> None:
        past = _past(environ)
        room = rooms.clean_name(name, "the room")

        def who() -> Identity:
            return identify(self._access, self._origins, environ, environ.get(OFFERED_TOKEN), "rooms:read")

        identity = self.watch.unrevoked(who)  # from here on it does not yield
        last = self._tail.last
        codec = self._codecs[past is not None]
        subscriber = Subscriber(connection.outbox, codec, last, user=identity.user)
        socket = PlainSocket(self, connection, subscriber, identity, room, environ.get("REMOTE_ADDR", ""))
        self.sockets.add(socket)
        self.watch.add(socket)
        self.network.wheel.add(PING_SECONDS, socket)
        socket.say(
            type="connection_status",
            status="connected",
            room=room,
            message=WELCOME,
            seq=last,
            epoch=self._tail.epoch,
            offset=self._tail.offset.text,
        )
        if past is None:
            self.hub.join(subscriber, rooms.free(room), last)
            connection.open(socket)
        else:
            connection.open(socket)
            answer = self._catchup.subscribe(self.hub, subscriber, rooms.free(room), Past(past))
            if answer.truncated:
                socket.say(type="truncated", room=room, seq=answer.seq, offset=answer.offset, epoch=answer.epoch)

    def chat(self, socket: PlainSocket, body: ChatBody) -> None:
        """Raises SidecarError."""
        if self._limit is not None:
            who = socket.identity.token_id
            self._limit.take(f"token:{who}" if who else f"address:{socket.address}")
        self._messages.chat(socket.identity, socket.room, body)

    def now(self) -> str:
        return utc_text(self._clock())

    def forget(self, socket: PlainSocket) -> None:
        self.sockets.discard(socket)
        self.watch.remove(socket)
        self.hub.drop(socket.subscriber)


class PlainSocket:
    """One connection in one room: the peer of its WebSocket."""

    kind = "rooms"
    __slots__ = ("_awaiting", "_house", "address", "connection", "identity", "room", "subscriber")

    def __init__(
        self,
        house: PlainRooms,
        connection: Connection,
        subscriber: Subscriber,
        identity: Identity,
        room: str,
        address: str,
    ):
        self._house = house
        self._awaiting = False
        self.connection = connection
        self.subscriber = subscriber
        self.identity = identity
        self.room = room
        self.address = address

    @property
    def who(self) -> str:
        return self.identity.name

    def say(self, **fields: object) -> None:
        """A frame that is no event: its fields and when it was sent."""
        fields["timestamp"] = self._house.now()
        self.connection.send(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))

    def intercept(self, message: str | bytes) -> bool:
        if isinstance(message, bytes):
            self.connection.close(UNSUPPORTED, "text only")
            return True
        return False

    def handle(self, message: str | bytes) -> None:
        try:
            body = parse_message(str(message))
            if not isinstance(body, dict):
                raise Invalid("The message must be a JSON object.")
            self._obey(body)
        except Unparsable:
            self._count(REFUSALS[Unparsable].code)
            self.say(type="error", error="Invalid JSON format")
        except SidecarError as error:
            fields = [{"path": field.path, "message": field.message} for field in error.fields]
            code = REFUSALS[type(error)].code
            self._count(code)
            self.say(type="error", error=error.detail, code=code, errors=fields)
        except Exception as error:
            log.error("plain.handler_failed", exc_info=error)
            self._count("error")
            self.say(type="error", error="The request failed; the fault has been logged.", code="error")

    def ended(self, code: int) -> None:
        self._house.forget(self)

    def due(self) -> float | None:
        """The clock."""
        if self not in self._house.sockets:
            return None
        if self.connection.heard:
            self.connection.heard = self._awaiting = False
        elif self._awaiting:
            self.connection.abort("heartbeat")
            return None
        else:
            self._awaiting = True
            self.connection.ping()
        return PING_SECONDS

    def token_expiring(self, expires_at: float) -> None:
        self.say(type="token_expiring", expires_at=utc_text(expires_at))

    def end(self, event: str, code: str, message: str) -> None:
        self._house.hub.drop(self.subscriber)
        self.say(type=event, code=code, message=message)
        self.connection.close(TOKEN_ENDED if event == "token_expired" else SENT_AWAY, code)

    def _count(self, code: str) -> None:
        self._house.network.metrics.socket_error(self.kind, code)

    def _obey(self, body: dict[str, Any]) -> None:
        kind = body.get("message_type", "chat")
        if kind == "chat":
            self._house.chat(self, read(ChatBody, body))
        elif kind == "ping":
            self.say(type="pong", original_message=body)
        else:
            self.say(type="echo", original_message=body)


def _past(environ: WSGIEnvironment) -> Offset | None:
    """The `since` of the handshake. Raises Invalid."""
    given = parse_qs(environ.get("QUERY_STRING", "")).get("since")
    if not given:
        return None
    offset = parse_offset(given[0])
    if offset is None:
        raise Invalid("since must be an offset or a seq.")
    return offset
