"""Bots' connections (maim_message) on one path, `/ws`: plain WebSockets of the 0.6 line, and Socket.IO of the 0.7 line,
whose every message is the argument of the event `message`. A key in the handshake makes a connection a bot's."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import flask
import gevent
from flask_socketio import SocketIO

from sidecar.domain.errors import Invalid, NotAllowed
from sidecar.domain.maim import Account
from sidecar.domain.times import utc_text
from sidecar.fanout.engine import drop, engine_socket, offer_frame
from sidecar.fanout.roster import SOCKETIO_LINE, WEBSOCKET_LINE, Bot, Link
from sidecar.fanout.tail import Tail
from sidecar.fanout.websocket import ABNORMAL, NORMAL, Connection, Network
from sidecar.observability.metrics import Metrics
from sidecar.services.maim import Bots
from sidecar.sockets.credentials import BOT_KEY, BOT_PLATFORM, BOT_UUID
from sidecar.sockets.errors import REFUSALS
from sidecar.sockets.text import TextSocket
from sidecar.wire.maim import Frame, clean_platform, clean_uuid, read_text, read_value

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

KIND = "maim"
"""What both lines go by in metrics of errors, and the plain one in all."""
ACCOUNT = "sidecar.bot_account"
"""Environ key: whose the key is, between the handshake's check and its answer."""
REVOKED = 4401
NAMESPACE = "/"


class BotHouse:
    """What the two lines have in common."""

    def __init__(self, bots: Bots, metrics: Metrics, tail: Tail, clock: Callable[[], float] = time.time):
        self.bots = bots
        self._metrics = metrics
        self._tail = tail
        self._clock = clock

    def admit(self, environ: Mapping[str, Any]) -> Account:
        """Whose the handshake's key is. Raises SidecarError for one that may not come in."""
        platform = clean_platform(environ[BOT_PLATFORM])
        return self.bots.admit(environ.get(BOT_KEY) or "", platform, environ.get("REMOTE_ADDR", ""))

    def bot(self, environ: Mapping[str, Any], account: Account, line: str, link: Link) -> Bot:
        return Bot(
            clean_uuid(environ.get(BOT_UUID) or "") or str(uuid.uuid4()),
            environ[BOT_KEY],
            account,
            clean_platform(environ[BOT_PLATFORM]),
            line,
            link,
            environ.get("REMOTE_ADDR", ""),
            utc_text(self._clock()),
        )

    def take(self, bot: Bot, size: int, read: Callable[[], Frame | None]) -> None:
        """Deal with a frame; one that comes faster than the key may send waits, and those behind it."""
        try:
            said = read()
        except Invalid as error:
            self._metrics.socket_error(KIND, REFUSALS[type(error)].code)
            said = None
        self._tail.refresh()
        pause = self.bots.pace(bot, said)
        if pause:
            gevent.sleep(pause)
        self.bots.receive(bot, said, size)


class PlainBots:
    """The endpoint (sockets/gate.py) of the 0.6 line."""

    protocols: ClassVar[tuple[str, ...]] = ()

    def __init__(self, network: Network, house: BotHouse):
        self.house = house
        self.sockets: set[BotSocket] = set()
        self._network = network

    def admit(self, environ: WSGIEnvironment, name: str) -> None:
        environ[ACCOUNT] = self.house.admit(environ)

    def open(self, environ: WSGIEnvironment, name: str, connection: Connection) -> None:
        socket = BotSocket(self, connection)
        socket.bot = self.house.bot(environ, environ[ACCOUNT], WEBSOCKET_LINE, socket)
        waiting = self.house.bots.open(socket.bot)
        self.sockets.add(socket)
        self._network.wheel.add(socket.ping_seconds, socket)
        connection.open(socket)
        if connection.outbox.closed:  # it went while it was being taken in
            socket.ended(ABNORMAL)
        else:
            self.house.bots.greet(socket.bot, waiting)


class BotSocket(TextSocket):
    """One connection: the peer of its WebSocket, and the link under its bot."""

    kind: ClassVar[str] = KIND
    ping_seconds: ClassVar[float] = 20.0
    __slots__ = ("_endpoint", "bot")

    def __init__(self, endpoint: PlainBots, connection: Connection):
        super().__init__(connection)
        self._endpoint = endpoint
        self.bot: Bot

    @property
    def who(self) -> str:
        return f"{self.bot.place.tenant}/{self.bot.place.user}"

    @property
    def alive(self) -> bool:
        return self in self._endpoint.sockets

    def handle(self, message: str | bytes) -> None:
        text = str(message)
        self._endpoint.house.take(self.bot, size_of(text), lambda: read_text(text))

    def ended(self, code: int) -> None:
        self._endpoint.sockets.discard(self)
        self._endpoint.house.bots.close(self.bot)

    def offer(self, frame: bytes) -> bool:
        return self.connection.outbox.offer(frame)

    def cut_off(self) -> None:
        self.connection.cut_off()

    def wait_drained(self) -> bool:
        return self.connection.outbox.wait_drained()

    def end(self, reason: str) -> None:
        self.connection.close(REVOKED if reason == "revoked" else NORMAL, reason)


class EngineBots:
    """The 0.7 line: connections of Socket.IO whose handshake has a key. They have the namespace `/` alone."""

    def __init__(self, socketio: SocketIO, house: BotHouse):
        self._socketio = socketio
        self._house = house
        self._bots: dict[str, Bot] = {}
        socketio.on_event("message", self._message, namespace=NAMESPACE)

    def connect(self, sid: str, namespace: str, environ: Mapping[str, Any]) -> None:
        """As sockets.sessions.Bots."""
        if namespace != NAMESPACE:
            raise NotAllowed("A bot's connection has the namespace / alone.")
        account = self._house.admit(environ)
        bot = self._house.bot(environ, account, SOCKETIO_LINE, EngineLink(self._socketio, sid))
        waiting = self._house.bots.open(bot)
        if engine_socket(self._socketio, sid, NAMESPACE) is None:
            self._house.bots.close(bot)
            raise NotAllowed("This connection has ended.")
        self._bots[sid] = bot
        gevent.spawn(self._house.bots.greet, bot, waiting).name = "maim-greeting"

    def disconnect(self, sid: str) -> None:
        bot = self._bots.pop(sid, None)
        if bot is not None:
            self._house.bots.close(bot)

    def _message(self, said: object = None, *_rest: object) -> None:
        bot = self._bots.get(flask.request.sid)  # type: ignore[attr-defined]
        if bot is not None:
            text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, separators=(",", ":"))
            self._house.take(bot, size_of(text), lambda: read_value(said))


def size_of(text: str) -> int:
    """In UTF-8; without lone surrogates it has as many bytes."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


class EngineLink:
    """The link under a bot that speaks Socket.IO."""

    __slots__ = ("_sid", "_socketio")

    def __init__(self, socketio: SocketIO, sid: str):
        self._socketio = socketio
        self._sid = sid

    def offer(self, frame: bytes) -> bool:
        return offer_frame(self._socketio, self._sid, NAMESPACE, frame)

    def cut_off(self) -> None:
        socket = engine_socket(self._socketio, self._sid, NAMESPACE)
        if socket is not None:
            socket.cut_off()

    def wait_drained(self) -> bool:
        socket = engine_socket(self._socketio, self._sid, NAMESPACE)
        return socket is not None and socket.outbox.wait_drained()

    def end(self, reason: str) -> None:
        """Without a Socket.IO packet: its client tries again, and is told why it may not come in, if it may not."""
        socket = engine_socket(self._socketio, self._sid, NAMESPACE)
        if socket is not None:
            gevent.spawn(drop, self._socketio.server, socket.sid)
