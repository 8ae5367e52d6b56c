"""Free rooms over plain WebSockets (`/ws/rooms/<room>/`): the same rooms as on Socket.IO, in bare JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog

from sidecar.domain import rooms
from sidecar.domain.access import Identity, may_watch_room
from sidecar.domain.errors import NotAllowed, SidecarError, Unparsable
from sidecar.fanout.codecs import BareCodec
from sidecar.fanout.hub import Subscriber
from sidecar.fanout.websocket import Connection
from sidecar.services.messages import Messages
from sidecar.sockets.errors import REFUSALS
from sidecar.sockets.plain import PlainEndpoint, PlainSocket, past
from sidecar.wire.checks import read
from sidecar.wire.messages import ChatBody
from sidecar.wire.told import (
    CONNECTION_STATUS,
    ECHO,
    PING,
    PONG,
    ROOM_ERROR,
    ROOM_FRAMES,
    ROOM_MESSAGES,
    ROOM_TRUNCATED,
    SAY,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = structlog.get_logger("sidecar.plain")

WELCOME = "Welcome to the WebSocket connection!"
SCOPE = "rooms:read"


class PlainRooms(PlainEndpoint):
    """Free rooms: the same as on Socket.IO, in bare JSON. `chat` takes what is said."""

    kind = "rooms"
    place = "room"
    word = "message_type"
    frames = ROOM_FRAMES
    messages = ROOM_MESSAGES

    def __init__(self, chat: Messages, *common: Any):
        super().__init__(*common)
        self.chat = chat
        self._codecs = {offsets: BareCodec(offsets) for offsets in (False, True)}

    def admit(self, environ: WSGIEnvironment, name: str) -> None:
        room = rooms.clean_name(name, "the room")
        past(environ)
        if not may_watch_room(self.who(environ, SCOPE), rooms.free(room)):
            raise NotAllowed("The token does not give the right to this room.")

    def open(self, environ: WSGIEnvironment, name: str, connection: Connection) -> None:
        beginning = self.beginning(environ)
        room = rooms.clean_name(name, "the room")
        identity = self.watch.unrevoked(lambda: self.who(environ, SCOPE))  # from here on it does not yield
        offset = self.tail.offset if beginning is None else beginning.offset
        codec = self._codecs[beginning is not None]
        subscriber = Subscriber(connection.outbox, codec, offset.seq, user=identity.user)
        socket = RoomSocket(self, connection, subscriber, identity, environ.get("REMOTE_ADDR", ""), room)
        self.take_in(socket)
        place = {"seq": offset.seq, "epoch": self.tail.epoch, "offset": offset.text}
        socket.say(CONNECTION_STATUS, status="connected", room=room, message=WELCOME, **place)
        if beginning is not None and beginning.truncated:
            socket.say(ROOM_TRUNCATED, room=room, **place)
        connection.open(socket)
        self.enter(socket, [rooms.free(room)], beginning)


class RoomSocket(PlainSocket):
    """One connection in one room."""

    kind = "rooms"
    __slots__ = ("_house", "room")

    def __init__(
        self,
        house: PlainRooms,
        connection: Connection,
        subscriber: Subscriber,
        identity: Identity,
        address: str,
        room: str,
    ):
        super().__init__(house, connection, subscriber, identity, address)
        self._house = house
        self.room = room

    def obey(self, body: dict[str, Any]) -> None:
        kind = body.get("message_type", SAY)
        if kind == SAY:
            said = read(ChatBody, body)
            self._house.limited(self)
            self._house.chat.chat(self.identity, self.room, said)
        elif kind == PING:
            self.say(PONG, original_message=body)
        else:
            self.say(ECHO, original_message=body)

    def failed(self, error: Exception) -> None:
        code = REFUSALS[type(error)].code if isinstance(error, SidecarError) else "error"
        self.count(code)
        if isinstance(error, Unparsable):
            self.say(ROOM_ERROR, error="Invalid JSON format")
        elif isinstance(error, SidecarError):
            fields = [asdict(field) for field in error.fields]
            self.say(ROOM_ERROR, error=error.detail, code=code, errors=fields)
        else:
            log.error("plain.handler_failed", exc_info=error)
            self.say(ROOM_ERROR, error="The request failed; the fault has been logged.", code="error")
