"""Bots within a whole sidecar in this process, with far ends that keep what they are sent."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import gevent

from config.settings import load_settings
from sidecar.domain.errors import Unavailable
from sidecar.domain.maim import ACK
from sidecar.factory import Sidecar, create_app
from sidecar.fanout.roster import SOCKETIO_LINE, WEBSOCKET_LINE, Bot
from sidecar.services.maim import Bots
from sidecar.services.maim_connections import BotConnections
from sidecar.services.maim_queue import BotQueue
from sidecar.services.maim_sending import BotSending
from sidecar.wire.frames import TEXT
from sidecar.wire.maim import MaimKeyBody, read_value

_numbers = itertools.count(1)
Frame = dict[str, Any]


def message(key: str, platform: str = "qq", text: object = "hello") -> Frame:
    """A payload for whom this key or address stands for."""
    return {
        "message_info": {"platform": "here", "message_id": "m", "time": 1.5},
        "message_segment": {"type": "text", "data": text},
        "message_dim": {"api_key": key, "platform": platform},
    }


def frame(payload: object, type: str = "sys_std", msg_id: str | None = None, **meta: object) -> Frame:
    """As a client sends it; with a msg_id of its own."""
    return {
        "ver": 1,
        "msg_id": msg_id or f"msg_{next(_numbers)}",
        "type": type,
        "meta": {"sender_user": "me", **meta},
        "payload": payload,
    }


class Link:
    """The connection under a bot: takes what it is sent while it has `room`, and keeps it."""

    def __init__(self, line: str = WEBSOCKET_LINE) -> None:
        self._line = line
        self.frames: list[Frame] = []
        self.room = 1_000_000
        self.cut = False
        self.ended: list[str] = []
        self.drained = True

    def offer(self, data: bytes) -> bool:
        if len(self.frames) >= self.room:
            return False
        self.frames.append(self._read(data))
        return True

    def cut_off(self) -> None:
        self.cut = True

    def wait_drained(self) -> bool:
        gevent.sleep(0)
        return self.drained

    def end(self, reason: str) -> None:
        self.ended.append(reason)

    def _read(self, data: bytes) -> Frame:
        assert data[0] & 0xF == TEXT
        payload = data[{126: 4, 127: 10}.get(data[1], 2) :].decode()
        if self._line == WEBSOCKET_LINE:
            found: Frame = json.loads(payload)
            return found
        name, body = json.loads(payload.removeprefix("42"))
        assert name == "message"
        return dict(body)


class Peer:
    """A bot that is connected. `got` are the frames that are no acks, `acked` the msg_ids acknowledged to it."""

    def __init__(self, house: House, key: str, platform: str, uuid: str, line: str = WEBSOCKET_LINE):
        self._bots = house.bots
        self.link = Link(line)
        account = self._bots.admit(key, platform, "127.0.0.1")
        self.bot = Bot(uuid, key, account, platform, line, self.link, "127.0.0.1", "2026-01-01T00:00:00.000Z")
        waiting = self._bots.open(self.bot)
        self._bots.greet(self.bot, waiting)

    @property
    def got(self) -> list[Frame]:
        return [one for one in self.link.frames if one["type"] != ACK]

    @property
    def texts(self) -> list[Any]:
        return [one["payload"]["message_segment"]["data"] for one in self.got]

    @property
    def acked(self) -> list[object]:
        return [one["meta"]["acked_msg_id"] for one in self.link.frames if one["type"] == ACK]

    def say(self, said: Frame) -> None:
        self._bots.receive(self.bot, read_value(said), len(json.dumps(said)))

    def send(self, key: str, text: object = "hello", platform: str = "qq", **more: Any) -> str:
        """A message; its msg_id."""
        said = frame(message(key, platform, text), **more)
        self.say(said)
        return str(said["msg_id"])

    def acknowledge(self, *msg_ids: str) -> None:
        """What it was sent; all of it unless some are named."""
        for msg_id in msg_ids or [one["msg_id"] for one in self.got]:
            self.say({"type": ACK, "msg_id": f"ack-{msg_id}", "meta": {"acked_msg_id": msg_id}, "payload": {}})

    def close(self) -> None:
        self._bots.close(self.bot)


class House:
    """A sidecar; several may share a folder, as processes of one installation do."""

    def __init__(self, folder: Path, **settings: Any):
        settings = {"rate_limit": "off", "maim_connection_log": False} | settings
        self.sidecar: Sidecar = create_app(load_settings(instance_dir=folder, **settings))
        self.sidecar.start()
        self.bots: Bots = self.sidecar.gate._bots.house.bots  # type: ignore[attr-defined]
        self.sending = BotSending(
            self.sidecar.core.writer.submit, self.bots._connections, self.bots._delivery, self.bots._figures
        )
        self.delivery = self.bots._delivery
        self.connections: BotConnections = self.bots._connections
        self.queue: BotQueue = self.bots._queue
        self.keys = self.sidecar.core.bot_keys
        self.core = self.sidecar.core

    def key(self, user: str, tenant: str | None = None, **more: Any) -> str:
        return self.keys.create(MaimKeyBody(user=user, tenant=tenant, **more)).key

    def connect(self, key: str, platform: str = "qq", uuid: str | None = None, line: str = WEBSOCKET_LINE) -> Peer:
        return Peer(self, key, platform, uuid or f"single_{next(_numbers)}", line)

    def rows(self, statement: Any) -> list[Any]:
        return list(self.core.database.read(lambda connection: connection.execute(statement).all()))

    def settle(self) -> None:
        """What was committed has passed the tail, and what was spawned has run."""
        done = self.core.writer.submit(lambda transaction: transaction.append("control.test", {}, ()).seq)
        while self.core.tail.last < done:
            gevent.sleep(0.001)
        for _ in range(5):
            gevent.sleep(0.001)

    def close(self) -> None:
        self.sidecar.stop()
        self.sidecar.network.stop()


class Away:
    """A database that is away while `away`: for the `_submit` or the `_database` of a service."""

    def __init__(self, real: Any):
        self._real = real
        self.away = True
        self.tries = 0

    def __call__(self, command: Any) -> Any:
        self._check()
        return self._real(command)

    def read(self, query: Any) -> Any:
        self._check()
        return self._real.read(query)

    def _check(self) -> None:
        if self.away:
            self.tries += 1
            raise Unavailable("away")


__all__ = ["SOCKETIO_LINE", "Away", "House", "Link", "Peer", "frame", "message"]
