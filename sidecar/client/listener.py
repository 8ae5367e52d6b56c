"""A Socket.IO listener for scripts: follows rooms over reconnects and misses nothing that the journal still has."""

from __future__ import annotations

import json
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import engineio
import socketio

from sidecar.client.http import ApiError, SidecarClient

Room = tuple[str, str]

QUEUE_EVENTS = 10_000
"""So many wait for the program at most; then nothing more is read."""
SEEN_EVENTS = 10_000


class _EngineInOrder(engineio.Client):  # type: ignore[misc]
    """Handles messages one after the other, as they came: python-engineio gives each a thread of its own, so that
    they overtake one another. A handler may emit but not wait for an answer. And it ends at once: python-engineio's
    writing thread forgets that it shall end where it is told so together with the last packet, and waits for more
    until a ping is overdue, half a minute; so it is told again."""

    def _trigger_event(self, event: str, *args: Any, **options: Any) -> Any:
        if event == "disconnect":
            self.queue.put(None)
        return super()._trigger_event(event, *args, **options | {"run_async": False})


class InOrder(socketio.Client):  # type: ignore[misc]
    """A client whose handlers run one after the other; it ends when it is told."""

    def _engineio_client_class(self) -> type[engineio.Client]:
        return _EngineInOrder


class Listener:
    """Follows rooms over reconnects: `("project", name)`, `("deployment", id)` or `("room", name)`. Each is subscribed
    again with the offset of the last event seen in it. `client` says where the sidecar is and who asks.

        with Listener(SidecarClient()) as listener:
            listener.subscribe("room", "general")
            for event in listener.events():
                print(event["type"], event["payload"])
    """

    def __init__(self, client: SidecarClient, on_truncated: Callable[[Room], object] = lambda room: None):
        self._client = client
        self._on_truncated = on_truncated
        parts = urlsplit(client.url)
        self._address = f"{parts.scheme}://{parts.netloc}"
        self._namespace = f"{parts.path}/ws" if parts.path else "/"
        self._path = f"{parts.path}/ws/" if parts.path else "socket.io"
        self._connection = InOrder(reconnection_delay_max=5, handle_sigint=False)
        self._last: dict[Room, str | None] = {}
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE_EVENTS)
        self._refusal: list[str] = []
        self._code: str | None = None
        self._closed = False
        self._ending = threading.Lock()
        self._waiting: set[Room] = set()
        self._subscribed = threading.Event()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def subscribe(self, kind: str, name: str, since: str | None = None) -> None:
        """Follow a room, from after `since` on (an offset or seq; None: from now on)."""
        self._last[kind, name] = since
        self._waiting.add((kind, name))
        self._subscribed.clear()
        if self._connection.connected:
            self._ask((kind, name))

    def wait_subscribed(self, timeout_seconds: float) -> bool:
        """Wait until every room is followed, while another thread iterates `events`. False if it took too long, or was
        refused (which `events` raises)."""
        return self._subscribed.wait(timeout_seconds) and not self._refusal

    def events(self) -> Iterator[dict[str, Any]]:
        """Each event as it comes, once and in order, until `close`. Raises ApiError if it is refused."""
        self._open()
        try:
            while not self._refusal and not self._closed:
                try:
                    event = self._queue.get(timeout=1)
                except queue.Empty:
                    continue
                if event is None:
                    break
                yield event
        finally:
            self._disconnect()
        if self._refusal:
            raise ApiError("; ".join(self._refusal), code=self._code)

    def close(self) -> None:
        self._closed = True
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        self._disconnect()

    def _disconnect(self) -> None:
        """(One thread after the other: of two at once the second would empty the queue of what tells python-engineio's
        writing thread to end, for which the first waits.)"""
        with self._ending, suppress(AttributeError):  # python-engineio's, of a connection that is just being refused
            self._connection.disconnect()

    def _open(self) -> None:
        on = partial(self._connection.on, namespace=self._namespace)
        on("connect", self._ask_all)
        on("event", self._take)
        on("connect_error", lambda data: self._end(data) if isinstance(data, dict) else None)
        on("token_expired", self._end)
        on("disconnected", self._end)
        try:
            self._connection.connect(
                self._address,
                auth={"token": self._client.token} if self._client.token else None,
                namespaces=[self._namespace],
                socketio_path=self._path,
                transports=["websocket"],
            )
        except socketio.exceptions.ConnectionError as error:
            told = "; ".join(self._refusal) or f"{self._client.url} can't be reached: {error}"
            raise ApiError(told, code=self._code) from None

    def _ask_all(self) -> None:
        for room in self._last:
            self._ask(room)

    def _ask(self, room: Room) -> None:
        kind, name = room
        since = self._last[room]
        options = (name,) if since is None else (name, {"since": since})
        self._connection.emit(
            f"subscribe_{kind}", options, namespace=self._namespace, callback=lambda answer: self._heard(room, answer)
        )

    def _heard(self, room: Room, answer: dict[str, Any]) -> None:
        if not answer["ok"]:
            self._end(answer)
            return
        if answer["truncated"]:
            self._on_truncated(room)
        if self._last[room] is None:
            self._last[room] = answer["offset"]
        self._waiting.discard(room)
        if not self._waiting:
            self._subscribed.set()

    def _take(self, event: dict[str, Any]) -> None:
        """(An event of a free room does not say of which: with several of them all are asked for again from where they
        began, and what was seen is left out.)"""
        seq = event.get("seq")
        if seq is not None:
            if seq in self._seen:
                return
            self._seen[seq] = None
            if len(self._seen) > SEEN_EVENTS:
                self._seen.popitem(last=False)
            for room in self._last:
                if _is_of(event, room, len(self._last) == 1):
                    self._last[room] = event["offset"]
        while not self._closed:
            with suppress(queue.Full):
                self._queue.put(event, timeout=1)
                return

    def _end(self, refusal: dict[str, Any]) -> None:
        self._refusal.append(str(refusal.get("message", "refused")))
        self._code = refusal.get("code") or (refusal.get("data") or {}).get("code")
        self._subscribed.set()
        with suppress(queue.Full):
            self._queue.put_nowait(None)


def _is_of(event: dict[str, Any], room: Room, alone: bool) -> bool:
    kind, name = room
    if kind == "room":
        return alone
    said: object = event["payload"].get("project" if kind == "project" else "deployment_id")
    return said == name


def follow(
    client: SidecarClient, rooms: Sequence[Room], since: str | None, as_json: bool, say: Callable[[str], object]
) -> None:
    """Print events of the rooms until interrupted. Raises ApiError if refused."""

    def truncated(room: Room) -> None:
        say(f"# {room[0]} {room[1]}: some events are no longer in the journal")

    with Listener(client, truncated) as listener:
        for kind, name in rooms:
            listener.subscribe(kind, name, since)
        for event in listener.events():
            say(json.dumps(event, ensure_ascii=False) if as_json else line(event))


def line(body: dict[str, Any]) -> str:
    """One event as a line for a terminal."""
    payload = body["payload"]
    where = f"{payload['project']}#{payload.get('deployment_id', '')}" if "project" in payload else "-"
    seq = body.get("seq", "~")
    return f"{seq:>6} {body['timestamp'][11:19]} {where} {body['type']} {_told(body['type'], payload)}".rstrip()


def _told(type: str, payload: dict[str, Any]) -> str:
    if type in ("api_message", "chat_message"):
        said = payload.get("content") or payload.get("message") or json.dumps(payload, ensure_ascii=False)
        return f"{payload.get('username') or payload.get('sender')}: {said}"
    if type == "log_entry":
        return f"[{payload.get('level', 'info')}] {payload.get('message', '')}"
    if type == "log_batch":
        lines = payload.get("logs", [])
        return "".join(f"\n       [{item.get('level', 'info')}] {item.get('message', '')}" for item in lines)
    if type == "metrics_update":
        return json.dumps(payload.get("metrics"), ensure_ascii=False)
    duration = f" in {payload['duration']} s" if payload.get("duration") else ""
    return f"{payload.get('step_name') or ''} {payload.get('status', '')}{duration}".strip()
