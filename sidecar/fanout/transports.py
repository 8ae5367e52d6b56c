"""An Engine.IO session (protocol 4) over its two transports: long polling, and a WebSocket of the network.

python-engineio decides which session a request belongs to and calls what is here; nothing here needs a greenlet while
a client is silent. Nothing leaves between an upgrade's probe and its end but NOOP.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from typing import Any

from engineio.exceptions import EngineIOError

from sidecar.fanout.trace import Ending
from sidecar.fanout.websocket import ABNORMAL, NORMAL, TRY_LATER, Connection, Network
from sidecar.wire.frames import BINARY, TEXT, frame

WEBSOCKET = "sidecar.websocket"
"""Environ key: the connection of a request that has been answered 101."""

SUBPROTOCOL = "sidecar.subprotocol"
"""Environ key: the subprotocol that a handshake is to be answered with."""

OPEN_PACKET, CLOSE_PACKET, PING_PACKET, PONG_PACKET, MESSAGE_PACKET, UPGRADE_PACKET, NOOP_PACKET = "0123456"
PROBE = PING_PACKET + "probe"
PROBE_ANSWER = PONG_PACKET + "probe"
CLOSE_FRAME = frame(TEXT, CLOSE_PACKET.encode())
PING_FRAME = frame(TEXT, PING_PACKET.encode())
POLL_BYTES = 1024 * 1024
"""What one answer to a poll holds, if it is more than one packet."""
POLL_PACKETS = 1_000
PYTHON_POLL_PACKETS = 16
"""python-engineio's client refuses an answer with more."""
POST_PACKETS = 128
SEPARATOR = "\x1e"
UPGRADE_SECONDS = 10
KIND, POLLING = "socketio", "polling"
"""What its two transports go by in metrics and logs."""


class BadPayload(EngineIOError):  # type: ignore[misc]
    """What the client posted is no Engine.IO payload; the session ends."""


def engine_frame(packet: str | bytes) -> bytes:
    """The WebSocket frame of a Socket.IO packet's text, or of a binary attachment."""
    if isinstance(packet, str):
        return frame(TEXT, (MESSAGE_PACKET + packet).encode())
    return frame(BINARY, packet)


def engine_frames(packet: Any) -> list[bytes]:
    """The frames of a python-socketio packet: one, and one for each attachment."""
    encoded = packet.encode()
    return [engine_frame(part) for part in (encoded if isinstance(encoded, list) else [encoded])]


def polled_packets(payload: bytes) -> list[str | bytes]:
    """The packets of a POST (Engine.IO 4, section "HTTP long-polling"); attachments are base64 behind a `b`. Raises
    ValueError."""
    parts = payload.decode().split(SEPARATOR)
    if len(parts) > POST_PACKETS or not all(parts):
        raise ValueError("too many packets, or an empty one")
    return [base64.b64decode(part[1:], validate=True) if part[0] == "b" else part for part in parts]


class PolledPacket:
    """A frame as an answer to a poll holds it; what python-engineio's Payload asks of a packet."""

    __slots__ = ("_text",)

    def __init__(self, text: str):
        self._text = text

    @classmethod
    def of(cls, websocket_frame: bytes) -> PolledPacket:
        start = {126: 4, 127: 10}.get(websocket_frame[1], 2)
        payload = websocket_frame[start:]
        if websocket_frame[0] & 0x0F == BINARY:
            return cls("b" + base64.b64encode(payload).decode())
        return cls(payload.decode())

    def encode(self, b64: bool = True) -> str:
        return self._text


NOOP = PolledPacket(NOOP_PACKET)


class EngineSocket:
    """One session. `server` is python-engineio's; the names that it uses are those of engineio.socket.Socket.
    It is the peer of its WebSocket and the owner of its outbox."""

    kind = KIND
    who = None
    """Each of its namespaces says so (sockets/sessions.py)."""

    __slots__ = (
        "_awaiting_pong",
        "_connection",
        "_few_packets",
        "_heard_at",
        "_mark",
        "_network",
        "_polls",
        "_posted",
        "_server",
        "_session",
        "closed",
        "closing",
        "connected",
        "outbox",
        "sid",
        "upgraded",
        "upgrading",
    )

    def __init__(self, server: Any, network: Network, sid: str, user_agent: str):
        self._server = server
        self._network = network
        self.sid = sid
        self.outbox = network.new_outbox(self)
        self.connected = self.upgrading = self.upgraded = self.closing = self.closed = False
        self._few_packets = user_agent.lower().startswith("python")
        self._connection: Connection | None = None
        self._session: dict[str, Any] | None = None
        self._mark: str | None = None
        """Of the last poll."""
        self._posted: tuple[str | None, int] | None = None
        """Mark and hash of the last POST."""
        self._polls = 0
        self._awaiting_pong = False
        self._heard_at = time.monotonic()
        network.wheel.add(server.ping_interval, self)

    @property
    def number(self) -> int | None:
        """Of its socket in the debug log, None where that is not written."""
        trace = self._network.trace
        return None if trace is None else trace.number(self._connection or self)

    def polls(self) -> None:
        """Its client has been taken in, by polling."""
        self.connected = True
        self._network.opened(self, POLLING)

    @property
    def session(self) -> dict[str, Any]:
        if self._session is None:
            self._session = {}
        return self._session

    @session.setter
    def session(self, value: dict[str, Any]) -> None:
        self._session = value

    def send(self, packet: Any) -> None:
        """Queue a packet of python-engineio."""
        encoded = packet.encode()
        self.put([frame(TEXT, encoded.encode()) if isinstance(encoded, str) else frame(BINARY, encoded)])

    def put(self, frames: Iterable[bytes]) -> None:
        """Queue frames that belong together and may not be left out."""
        for item in frames:
            self.outbox.put(item)

    def schedule_ping(self) -> None:
        """The clock does it, since the beginning."""

    def check_ping_timeout(self) -> bool:
        return not self.closed

    def due(self) -> float | None:
        """The clock: ping after an interval of silence; without an answer in time the client is gone."""
        if self.closed:
            return None
        if self._connection is not None and self._connection.paused:  # its answer may wait to be read
            self._awaiting_pong, self._heard_at = False, time.monotonic()
        if self._awaiting_pong:
            self._end_later(self._server.reason.PING_TIMEOUT, "heartbeat")
            return None
        left: float = self._heard_at + self._server.ping_interval - time.monotonic()
        if left > 0:
            return left
        self._awaiting_pong = True
        self.outbox.put(PING_FRAME)
        return float(self._server.ping_timeout)

    def handle_get_request(self, environ: dict[str, Any], _start_response: Any) -> list[PolledPacket]:
        """A poll, held until there is something; or a WebSocket, taken over. Raises EngineIOError.

        A browser whose connection ends before an answer begins asks once more by itself, and tells nobody: the poll
        is known by its mark, and gets what the first one got."""
        connection: Connection | None = environ.get(WEBSOCKET)
        if connection is not None:
            self._take(connection)
            return []
        mark = _mark(environ)
        again = mark is not None and mark == self._mark
        if again and self.outbox.given:
            return [PolledPacket.of(item) for item in self.outbox.given]
        if self.upgrading:
            return [NOOP]
        if self.outbox.waiting:
            if not again:  # two polls at once: one of them would answer for nothing
                self.close(wait=False)
                raise BadPayload
            self.outbox.wake()
        self._mark = mark
        return self.poll()

    def poll(self) -> list[PolledPacket]:
        """What waits, or will come while this one is held; what the last one got has arrived. NOOP when the client has
        upgraded meanwhile, or has asked again."""
        self._polls += 1
        number = self._polls
        self.outbox.arrived()
        timely = self.outbox.wait(self._server.ping_interval + self._server.ping_timeout)
        if self.upgrading or self.upgraded or number != self._polls:
            return [NOOP]
        if not timely:
            self.close(wait=False, reason=self._server.reason.TRANSPORT_ERROR)
            raise BadPayload
        frames = self.outbox.take(POLL_BYTES, PYTHON_POLL_PACKETS if self._few_packets else POLL_PACKETS)
        if self.closed:
            self.outbox.close()
        return [PolledPacket.of(item) for item in frames]

    def handle_post_request(self, environ: dict[str, Any]) -> None:
        """The packets of a client that polls, handled in this request's greenlet; once, if it posts them again as it
        may poll again. Raises BadPayload."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > self._server.max_http_buffer_size:
            raise BadPayload
        payload = environ["wsgi.input"].read(length)
        posted = (_mark(environ), hash(payload))
        if posted == self._posted and posted[0] is not None:
            return
        self._posted = posted
        try:
            packets = polled_packets(payload)
        except ValueError as error:
            raise self._bad_payload() from error
        for packet in packets:
            if self.closed:
                return
            if self._network.trace is not None:
                self._network.trace.polled(self, POLLING, packet)
            if not (self.intercept(packet) or self._receive(packet)):
                raise self._bad_payload()

    def intercept(self, message: str | bytes) -> bool:
        """The heartbeat's answer needs no handler."""
        if isinstance(message, str) and message.startswith(PONG_PACKET):
            self._awaiting_pong = False
            self._heard_at = time.monotonic()
            return True
        return False

    def handle(self, message: str | bytes) -> None:
        """One packet that came by the WebSocket."""
        if not self.closed and not self._receive(message):
            self.close(wait=False, reason=self._server.reason.TRANSPORT_ERROR, failure="bad_packet")

    def ended(self, code: int) -> None:
        """The WebSocket is gone."""
        self.close(wait=False, abort=True, reason=self._server.reason.TRANSPORT_CLOSE)

    def cut_off(self) -> None:
        """It can't take what it must, or has to come back; from anywhere, without a switch."""
        if self._connection is not None:
            self._connection.close(TRY_LATER, "come back")
        self._end_later(self._server.reason.TRANSPORT_ERROR, "cut_off")

    def close(self, wait: bool = True, abort: bool = False, reason: str | None = None, failure: str = "") -> None:
        """End the session; its disconnect handlers run here. `abort`: without a CLOSE packet. `failure` is one of
        metrics.FAILURES, empty for an end in order."""
        if self.closing:
            return
        self.closing = True
        self._server._trigger_event(
            "disconnect", self.sid, reason or self._server.reason.SERVER_DISCONNECT, run_async=False
        )
        if not abort:
            self.outbox.put(CLOSE_FRAME)
        self.closed = True
        if self._connection is not None:
            self._connection.close(NORMAL, failure=failure)
            return
        if self.connected:
            code = {"heartbeat": ABNORMAL, "cut_off": TRY_LATER}.get(failure, NORMAL)
            by = "peer" if reason == self._server.reason.TRANSPORT_CLOSE else "us"
            self._network.closed(self, POLLING, Ending(code, "", by, failure, code))
        if self.outbox.waiting:
            self.outbox.wake()
        else:
            self.outbox.close()

    def upgrade(self, connection: Connection) -> None:
        """The probe is over: what waits goes out by the WebSocket."""
        self.upgraded, self.upgrading = True, False
        self.outbox.arrived()
        self._network.upgraded(self, POLLING)
        self._connection = connection
        connection.switch(self, self.outbox)

    def probed(self) -> None:
        """The client tries a WebSocket: a held poll ends, so that it can."""
        self.outbox.wake()

    def probe_ended(self) -> None:
        self.upgrading = False

    def _receive(self, message: str | bytes) -> bool:
        """Act on a packet. False if it is none that a client may send."""
        kind = message[:1]
        if isinstance(message, bytes) or kind == MESSAGE_PACKET:
            data = message if isinstance(message, bytes) else message[1:]
            self._server._trigger_event("message", self.sid, data, run_async=False)
            return not self.closed
        if kind == CLOSE_PACKET:
            self.close(wait=False, abort=True, reason=self._server.reason.TRANSPORT_CLOSE)
            return True
        return kind == NOOP_PACKET

    def _take(self, connection: Connection) -> None:
        if not self.connected:
            self.connected = self.upgraded = True
            self._connection = connection
            connection.switch(self, self.outbox)
            connection.open(self)
        elif self.upgraded or self.upgrading:
            connection.close()
        else:
            self.upgrading = True
            probe = Probe(self, connection)
            self._network.wheel.add(UPGRADE_SECONDS, probe)
            connection.open(probe)

    def _end_later(self, reason: str, failure: str) -> None:
        self._network.later(lambda: self.close(wait=False, abort=True, reason=reason, failure=failure))

    def _bad_payload(self) -> BadPayload:
        self.close(wait=False, failure="bad_packet")
        return BadPayload()


def _mark(environ: dict[str, Any]) -> str | None:
    """What a client's `t` names this request by. A whole number does not: it may be a clock's, and stay the same for
    a second."""
    for field in environ.get("QUERY_STRING", "").split("&"):
        if field.startswith("t="):
            return None if field == "t=" or field[2:].isdigit() else field
    return None


class Probe:
    """A WebSocket on which a polling client tries whether it can upgrade."""

    kind = KIND
    who = None

    __slots__ = ("_connection", "_done", "_probed", "_session")

    def __init__(self, session: EngineSocket, connection: Connection):
        self._session = session
        self._connection = connection
        self._probed = self._done = False

    def intercept(self, message: str | bytes) -> bool:
        if not self._probed and message == PROBE:
            self._probed = True
            self._connection.send(PROBE_ANSWER)
            self._session.probed()
        elif self._probed and message == UPGRADE_PACKET and not self._session.closed:
            self._done = True
            self._session.upgrade(self._connection)
        else:
            self._connection.close()
        return True

    def handle(self, message: str | bytes) -> None:
        """Nothing is left to be handled."""

    def ended(self, code: int) -> None:
        if not self._done:
            self._session.probe_ended()

    def due(self) -> None:
        if not self._done:
            self._connection.close()
