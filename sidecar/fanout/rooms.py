"""Who is connected to which namespace and in which room of `socketio.emit`, for python-socketio.

Its own manager looks through every room when a client leaves, keeps an index for each client's own room, and encodes
a packet again for each receiver. (The rooms of the journal are the hub's; these are for everything else.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

from socketio import Manager
from socketio import packet as socketio_packet

from sidecar.fanout.transports import EngineSocket, engine_frames


class Stage(IntEnum):
    CONNECTING = 0
    CONNECTED = 1
    DISCONNECTING = 2


class Client:
    """One namespace of one connection. `recovers`: the client takes the last argument of each event, if it is a
    text, for an offset; so that of `emit` must be something else."""

    __slots__ = ("early", "eio_sid", "pid", "recovers", "rooms", "sid", "stage")

    def __init__(self, sid: str, eio_sid: str):
        self.sid = sid
        self.eio_sid = eio_sid
        self.stage = Stage.CONNECTING
        self.recovers = False
        self.pid: str | None = None
        """What its CONNECT will be answered, for it to come back with."""
        self.early: list[bytes] | None = None
        """What was emitted to it before its CONNECT was answered; it follows the answer."""
        self.rooms: set[str] | None = None
        """Beside its own, which is named as its sid."""


class _Namespace:
    __slots__ = ("by_engine", "by_sid", "rooms")

    def __init__(self) -> None:
        self.by_sid: dict[str, Client] = {}
        self.by_engine: dict[str, Client] = {}
        self.rooms: dict[str, dict[str, Client]] = {}


class RoomManager(Manager):  # type: ignore[misc]
    """A `client_manager` of python-socketio with an index both ways: leaving costs the rooms that one is in, and an
    emit encodes once. `sockets` are the engine's, by Engine.IO sid. Contracts as in socketio.base_manager."""

    def __init__(self) -> None:
        super().__init__()
        self._namespaces: dict[str, _Namespace] = {}

    def get_namespaces(self) -> list[str]:
        return list(self._namespaces)

    def get_participants(self, namespace: str, room: str | list[str] | None) -> Iterator[tuple[str, str]]:
        for client in self._clients(namespace, room):
            yield client.sid, client.eio_sid

    def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        held = self._namespaces.setdefault(namespace, _Namespace())
        if eio_sid in held.by_engine:
            return None
        sid: str = self.server.eio.generate_id()
        held.by_sid[sid] = held.by_engine[eio_sid] = Client(sid, eio_sid)
        return sid

    def connect(self, sid: str, namespace: str) -> str:
        """The CONNECT has been answered."""
        client = self._client(sid, namespace)
        if client is not None:
            client.stage = Stage.CONNECTED
            early, client.early, client.pid = client.early, None, None
            self._send(client, early or ())
        return sid

    def answer(self, sid: str, namespace: str) -> dict[str, str]:
        """The body of the CONNECT packet that answers this client, which is connecting."""
        client = self._client(sid, namespace)
        return {"sid": sid} if client is None or client.pid is None else {"sid": sid, "pid": client.pid}

    def adopt(self, sid: str, namespace: str, pid: str, lasting_sid: str) -> None:
        """While it is connecting: the client can come back with this pid, and goes by the sid that it had before.
        Raises ValueError if the connection that had it is still there."""
        client, held = self._client(sid, namespace), self._namespaces[namespace]
        if client is None or client.stage != Stage.CONNECTING or (lasting_sid != sid and lasting_sid in held.by_sid):
            raise ValueError("not connecting, or the sid is in use")
        client.recovers, client.pid = True, pid
        del held.by_sid[sid]
        client.sid = lasting_sid
        held.by_sid[lasting_sid] = client

    def is_pre_connected(self, sid: str, namespace: str) -> bool:
        client = self._client(sid, namespace)
        return client is not None and client.stage == Stage.CONNECTING

    def is_connected(self, sid: str | None, namespace: str) -> bool:
        client = self._client(sid, namespace)
        return client is not None and client.stage == Stage.CONNECTED

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        held = self._namespaces.get(namespace)
        client = None if held is None else held.by_engine.get(eio_sid)
        return None if client is None else client.sid

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        client = self._client(sid, namespace)
        return None if client is None else client.eio_sid

    def pre_disconnect(self, sid: str, namespace: str) -> str | None:
        client = self._client(sid, namespace)
        if client is None:
            return None
        client.stage = Stage.DISCONNECTING
        return client.eio_sid

    def disconnect(self, sid: str, namespace: str, **_options: Any) -> None:
        client = self._client(sid, namespace)
        if client is None:
            return
        held = self._namespaces[namespace]
        for room in list(client.rooms or ()):
            self._leave(held, client, room)
        del held.by_sid[sid]
        del held.by_engine[client.eio_sid]
        if not held.by_sid:
            del self._namespaces[namespace]
        self.callbacks.pop(sid, None)

    def is_sid_room(self, namespace: str, room: str) -> bool:
        return self._client(room, namespace) is not None

    def enter_room(self, sid: str, namespace: str, room: str, eio_sid: str | None = None) -> None:
        client = self._client(sid, namespace)
        if client is None:
            raise ValueError("sid is not connected to requested namespace")
        if room == sid:
            return
        held = self._namespaces[namespace]
        if room in held.by_sid:
            raise ValueError("cannot enter a sid room")
        held.rooms.setdefault(room, {})[sid] = client
        if client.rooms is None:
            client.rooms = set()
        client.rooms.add(room)

    def leave_room(self, sid: str, namespace: str, room: str) -> None:
        client = self._client(sid, namespace)
        if client is not None and client.rooms and room in client.rooms:
            self._leave(self._namespaces[namespace], client, room)

    def close_room(self, room: str, namespace: str) -> None:
        held = self._namespaces.get(namespace)
        if held is None:
            return
        if room in held.by_sid:
            raise ValueError("cannot close a sid room")
        for client in list(held.rooms.get(room, {}).values()):
            self._leave(held, client, room)

    def get_rooms(self, sid: str, namespace: str) -> list[str]:
        client = self._client(sid, namespace)
        return [] if client is None else [sid, *(client.rooms or ())]

    def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: str | list[str] | None = None,
        skip_sid: str | list[str] | None = None,
        callback: Any = None,
        to: str | list[str] | None = None,
        offset: str | None = None,
        **_options: Any,
    ) -> None:
        """To a sid, a room, several, or (None) the whole namespace; each client once. The frames are made once for
        all, unless a callback gives each a number of its own. Who recovers is told the `offset` behind the
        arguments; without one, a null behind a last text."""
        skipped = skip_sid if isinstance(skip_sid, list) else [skip_sid]
        clients = [client for client in self._clients(namespace, to or room) if client.sid not in skipped]
        arguments = list(data) if isinstance(data, tuple) else [] if data is None else [data]
        padding = [offset] if offset is not None or (arguments and isinstance(arguments[-1], str)) else []
        made: dict[bool, list[bytes]] = {}
        for client in clients:
            padded = client.recovers and bool(padding)
            if callback is not None or padded not in made:
                number = None if callback is None else self._generate_ack_id(client.sid, callback)
                body = [event, *arguments, *padding] if padded else [event, *arguments]
                made[padded] = engine_frames(
                    self.server.packet_class(socketio_packet.EVENT, namespace=namespace, data=body, id=number)
                )
            self._send(client, made[padded])

    def offer(self, sid: str, namespace: str, frame: bytes) -> bool:
        """As engine.offer_frame."""
        client = self._client(sid, namespace)
        if client is None or client.stage == Stage.DISCONNECTING:
            return False
        session: EngineSocket | None = self.server.eio.sockets.get(client.eio_sid)
        if session is None:
            return False
        if client.stage == Stage.CONNECTING:
            early = client.early or []
            if early and sum(map(len, early)) + len(frame) > session.outbox.limit_bytes:
                return False
            client.early = early
            early.append(frame)
            return True
        return session.outbox.offer(frame)

    def _send(self, client: Client, frames: Sequence[bytes]) -> None:
        """In one piece. Before its CONNECT is answered it would not know what to do with them: they wait."""
        if client.stage == Stage.CONNECTING:
            client.early = [*(client.early or ()), *frames]
            return
        session: EngineSocket | None = self.server.eio.sockets.get(client.eio_sid)
        if session is not None:
            session.put(frames)

    def _client(self, sid: str | None, namespace: str) -> Client | None:
        held = self._namespaces.get(namespace)
        return None if held is None or sid is None else held.by_sid.get(sid)

    def _clients(self, namespace: str, room: str | list[str] | None) -> list[Client]:
        held = self._namespaces.get(namespace)
        if held is None:
            return []
        if room is None:
            return list(held.by_sid.values())
        if isinstance(room, str):
            own = held.by_sid.get(room)
            return [own] if own is not None else list(held.rooms.get(room, {}).values())
        found = {client.sid: client for name in room for client in self._clients(namespace, name)}
        return list(found.values())

    @staticmethod
    def _leave(held: _Namespace, client: Client, room: str) -> None:
        members = held.rooms[room]
        del members[client.sid]
        if not members:
            del held.rooms[room]
        if client.rooms:
            client.rooms.discard(room)
