"""A client of the maim_message protocol, in its WebSocket form (0.6.x): messages to and from the owners of API keys.

    from sidecar.client.maim import MaimClient, create_client_config, text_message

    config = create_client_config("ws://127.0.0.1:8091/project-dashboard/ws", key, platform="qq",
                                  on_message=lambda message, metadata: print(message.message_segment.data))
    with MaimClient(config) as client:
        client.send_message(text_message("Hello", receiver_key, "wechat"))

Needs the package websockets. Works by threads: every method may be called from any of them, and blocks for a
moment at most; in asyncio use `await asyncio.to_thread(client.send_message, message)`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any

from sidecar.client import maim_frames as frames
from sidecar.client.maim_callbacks import Callbacks
from sidecar.client.maim_choice import choose
from sidecar.client.maim_config import ClientConfig, Handler, create_client_config, create_ssl_client_config
from sidecar.client.maim_connection import Connection, Stats
from sidecar.client.maim_messages import (
    APIMessageBase,
    BaseMessageInfo,
    FormatInfo,
    GroupInfo,
    InfoBase,
    InvalidMessage,
    MessageDim,
    ReceiverInfo,
    Seg,
    SenderInfo,
    TemplateInfo,
    UserInfo,
    forward,
    text_message,
)

__all__ = [
    "APIMessageBase",
    "BaseMessageInfo",
    "ClientConfig",
    "FormatInfo",
    "GroupInfo",
    "InfoBase",
    "InvalidMessage",
    "MaimClient",
    "MessageDim",
    "ReceiverInfo",
    "Seg",
    "SenderInfo",
    "TemplateInfo",
    "UserInfo",
    "create_client_config",
    "create_ssl_client_config",
    "forward",
    "text_message",
]

CONNECT_SECONDS = 15.0
"""Longer than a handshake may take, so that there is something to tell."""
STOP_SECONDS = 10.0
COUNTED = (
    *("connect_attempts", "successful_connects", "failed_connects", "reconnect_attempts"),
    *("messages_received", "messages_sent", "bytes_received", "bytes_sent", "messages_acked", "messages_dropped"),
    *("custom_messages_processed", "duplicate_messages_ignored", "invalid_frames", "callback_errors"),
)

Info = dict[str, Any]


class MaimClient:
    """One connection, that of `config`, or several (`add_connection`, `connect_to`).

    Which of several a message goes through is said by `api_key` and `platform`: the one with both, else one with that
    key, else one on that platform. If neither is given, the message's own receiver is looked for in the same way (as
    the original's clients with many connections do), then the platform from which it comes, then the first is taken.
    """

    def __init__(self, config: ClientConfig | None = None):
        self._config = config
        self._log = (config.custom_logger if config else None) or logging.getLogger("sidecar.client.maim")
        self._connections: dict[str, Connection] = {}
        self._handlers: dict[str, Handler] = {}
        self._stats = Stats()
        self._callbacks: Callbacks | None = None
        self._lock = threading.RLock()
        self._last_error: str | None = None
        if config is not None:
            self._add(config)

    def __enter__(self) -> MaimClient:
        """Started, and connected if the server is there: `is_connected` says so."""
        self.start()
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- Running

    def start(self) -> bool:
        """Ready to connect. (`connect` does it too.)"""
        with self._lock:
            if self._callbacks is None:
                self._callbacks = Callbacks(self._log, lambda: self._stats.add("callback_errors"))
        return True

    def stop(self) -> bool:
        """Close every connection and let the callbacks of what has come run to their end. False if that took too long.
        What waits to be sent stays until the next `connect`."""
        with self._lock:
            connections, callbacks = list(self._connections.values()), self._callbacks
        ended = _stop(connections)
        with self._lock:
            self._callbacks = None
        return ended and (callbacks is None or callbacks.stop(STOP_SECONDS))

    def connect(self, connection_uuid: str | None = None) -> bool:
        """Connect all (or one), and wait for that for at most 15 s: True if they are. False too if the server refused
        one; it is tried again all the same, if the configuration says so. `last_error` says why."""
        self.start()
        with self._lock:
            chosen = self._chosen(connection_uuid)
        for connection in chosen:
            connection.start()
        deadline = time.monotonic() + CONNECT_SECONDS
        return bool(chosen) and all(connection.wait(deadline - time.monotonic()) for connection in chosen)

    def disconnect(self, connection_uuid: str | None = None) -> bool:
        """Close all (or one); they can be connected again. False if there is none, or it took too long."""
        with self._lock:
            chosen = self._chosen(connection_uuid)
        return bool(chosen) and _stop(chosen)

    # -- Connections

    def add_connection(self, url: str, api_key: str, platform: str = "default", **options: Any) -> str:
        """One more; its uuid. `options` are fields of ClientConfig; what is not given is as in the client's own
        configuration. It is connected by `connect`."""
        if self._config is None:
            return self._add(ClientConfig(url, api_key, platform, **options))
        own = {"url": url, "api_key": api_key, "platform": platform, "connection_uuid": None, "ssl_enabled": False}
        return self._add(replace(self._config, **{**own, **options}))

    def connect_to(self, url: str, api_key: str, platform: str = "default", **options: Any) -> bool:
        """Add a connection, unless there is one to there for this key and platform, and connect it."""
        with self._lock:
            wanted = (url, api_key, platform)
            there = [
                found.uuid
                for found in self._connections.values()
                if (found.config.url, found.config.api_key, found.config.platform) == wanted
            ]
            connection_uuid = there[0] if there else self.add_connection(url, api_key, platform, **options)
        return self.connect(connection_uuid)

    def remove_connection(self, connection_uuid: str) -> bool:
        """Close and forget it, with what it had to send. False if there is none of that uuid."""
        with self._lock:
            connection = self._connections.pop(connection_uuid, None)
        if connection is None:
            return False
        connection.stop(STOP_SECONDS)
        return True

    def get_connections(self) -> dict[str, Info]:
        """By uuid: `{"url","platform","connected","last_error","messages_pending"}`. No key is in it."""
        with self._lock:
            connections = list(self._connections.values())
        return {
            connection.uuid: {
                "url": connection.config.shown_url,
                "platform": connection.config.platform,
                "connected": connection.connected,
                "last_error": connection.last_error,
                "messages_pending": len(connection.outbox),
            }
            for connection in connections
        }

    def get_active_connections(self) -> dict[str, Info]:
        """Those of `get_connections` that are connected now."""
        return {name: info for name, info in self.get_connections().items() if info["connected"]}

    def is_connected(self, connection_uuid: str | None = None) -> bool:
        """That one, or any."""
        with self._lock:
            return any(connection.connected for connection in self._chosen(connection_uuid))

    @property
    def last_error(self) -> str | None:
        """What last went wrong, of a connection that is not well now or of a message."""
        with self._lock:
            told = [connection.last_error for connection in self._connections.values() if connection.last_error]
        return told[0] if told else self._last_error

    def get_stats(self) -> Info:
        """What happened since the client was made."""
        infos = self.get_connections().values()
        return {
            **{name: self._stats[name] for name in COUNTED},
            "connections_registered": len(infos),
            "connections_active": sum(info["connected"] for info in infos),
            "messages_pending": sum(info["messages_pending"] for info in infos),
            "last_error": self.last_error,
        }

    # -- Sending

    def send_message(
        self,
        message: APIMessageBase,
        *,
        api_key: str | None = None,
        platform: str | None = None,
        target_platform: str | None = None,
        queue: bool = False,
        ttl_seconds: float | None = None,
        wait_seconds: float | None = None,
    ) -> bool:
        """True if it was written; with `wait_seconds` only if the server has acknowledged it in that time. What could
        not be written, or was not acknowledged when the connection ended, is sent again, under the same msg_id, for
        five minutes. `queue` or `ttl_seconds`: the server shall keep it for a receiver who is away.
        `target_platform` is where it goes instead of that of the message. Raises ValueError for a message that can't
        be sent."""
        meta = frames.new_meta(target_platform, queue, ttl_seconds)
        return self._send(frames.STANDARD, message.to_dict(), api_key, platform, meta, wait_seconds)

    def send_custom_message(
        self,
        message_type: str,
        payload: Any,
        *,
        api_key: str | None = None,
        platform: str | None = None,
        target_platform: str | None = None,
        queue: bool = False,
        ttl_seconds: float | None = None,
        wait_seconds: float | None = None,
    ) -> bool:
        """The same with any JSON and a type of your own (`custom_` is put before it). It reaches somebody if the
        payload has a `message_dim`, or the server knows what to do with the type."""
        meta = frames.new_meta(target_platform, queue, ttl_seconds)
        return self._send(frames.custom_type(message_type), payload, api_key, platform, meta, wait_seconds)

    def forward(self, message: APIMessageBase, api_key: str, platform: str, **options: Any) -> bool:
        """Send a message on to somebody else, its sender and content kept. `options` as of `send_message`; there the
        `api_key` and `platform` of the connection are `through_key` and `through_platform`."""
        through = {"api_key": options.pop("through_key", None), "platform": options.pop("through_platform", None)}
        return self.send_message(forward(message, api_key, platform), **through, **options)

    def register_custom_handler(self, message_type: str, handler: Handler) -> None:
        """`handler(payload)` for that type of custom message, on every connection that has none of its own for it."""
        with self._lock:
            self._handlers[frames.custom_type(message_type)] = handler

    def unregister_custom_handler(self, message_type: str) -> None:
        with self._lock:
            self._handlers.pop(frames.custom_type(message_type), None)

    def _send(
        self,
        type: str,
        payload: Any,
        api_key: str | None,
        platform: str | None,
        meta: frames.Frame,
        wait_seconds: float | None,
    ) -> bool:
        with self._lock:
            connection = choose(list(self._connections.values()), api_key, platform, payload)
        if connection is None:
            self._last_error = "there is no connection of this API key or platform"
            return False
        self._last_error = None
        config = connection.config
        frame = frames.new_frame(type, payload, config.api_key, config.platform, meta)
        entry = connection.outbox.add(frame["msg_id"], frames.write(frame))
        if wait_seconds is not None:
            return connection.outbox.wait_acked(entry, wait_seconds)
        return connection.outbox.wait_written(entry)

    # -- What connections tell

    def _add(self, config: ClientConfig) -> str:
        connection = Connection(config, self._log, self._stats, self._opened, self._closed, self._came)
        with self._lock:
            if connection.uuid in self._connections:
                raise ValueError("There is a connection of this connection_uuid already.")
            self._connections[connection.uuid] = connection
        return connection.uuid

    def _chosen(self, connection_uuid: str | None) -> list[Connection]:
        if connection_uuid is None:
            return list(self._connections.values())
        return [found for found in [self._connections.get(connection_uuid)] if found is not None]

    def _opened(self, connection: Connection) -> None:
        callbacks, config = self._callbacks, connection.config
        if config.on_connect is not None and callbacks is not None:
            callbacks.put(config.on_connect, connection.uuid, config)

    def _closed(self, connection: Connection, error: str | None) -> None:
        callbacks, told = self._callbacks, connection.config.on_disconnect
        if told is not None and callbacks is not None:
            callbacks.put(told, connection.uuid, error)

    def _came(self, connection: Connection, frame: frames.Frame, size: int) -> None:
        callbacks, type = self._callbacks, frame.get("type")
        if callbacks is None:
            return
        if type == frames.STANDARD and connection.config.on_message is not None:
            callbacks.put(self._tell_message, connection, frame, size=size)
        elif isinstance(type, str) and type.startswith(frames.CUSTOM):
            with self._lock:
                handler = connection.config.custom_handlers.get(type) or self._handlers.get(type)
            if handler is None:
                self._log.debug("Nobody handles messages of the type %r.", type)
            else:
                self._stats.add("custom_messages_processed")
                callbacks.put(handler, frame.get("payload"), size=size)

    def _tell_message(self, connection: Connection, frame: frames.Frame) -> object:
        try:
            message = APIMessageBase.from_dict(frame.get("payload"))
        except InvalidMessage as error:
            self._stats.add("invalid_frames")
            self._log.warning("A message that came can't be read: %s", error)
            return None
        meta = frame.get("meta")
        where = {"msg_id": frame.get("msg_id"), "connection_uuid": connection.uuid}
        told = connection.config.on_message
        return None if told is None else told(message, (meta if isinstance(meta, dict) else {}) | where)


def _stop(connections: Iterable[Connection]) -> bool:
    """All at once: each may have to wait for its server."""
    results: list[bool] = []
    closers = [
        threading.Thread(target=lambda found=found: results.append(found.stop(STOP_SECONDS)), daemon=True)
        for found in connections
    ]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    return all(results)
