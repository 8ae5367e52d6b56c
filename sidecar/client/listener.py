"""A Socket.IO listener for scripts: follows rooms over reconnects and misses nothing that the journal still has."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import engineio
import socketio

from sidecar.client.http import ApiError, SidecarClient

Room = tuple[str, str]


class _InOrder(engineio.Client):  # type: ignore[misc]
    """Handles messages one after the other, as they came: python-engineio gives each a thread of its own, so that
    they overtake one another. A handler may emit but not wait for an answer."""

    def _trigger_event(self, event: str, *args: Any, **options: Any) -> Any:
        return super()._trigger_event(event, *args, **options | {"run_async": False})


class _Listener(socketio.Client):  # type: ignore[misc]
    def _engineio_client_class(self) -> type[engineio.Client]:
        return _InOrder


def follow(
    client: SidecarClient, rooms: Sequence[Room], since: str | None, as_json: bool, say: Callable[[str], object]
) -> None:
    """Print events of the rooms (`("project", name)` or `("deployment", id)`) until interrupted. Each room is
    subscribed again after a reconnect with the offset of the last event seen in it. Raises ApiError if refused."""
    parts = urlsplit(client.url)
    namespace = f"{parts.path}/ws" if parts.path else "/"
    connection = _Listener(reconnection_delay_max=5, handle_sigint=False)
    last: dict[Room, str | None] = dict.fromkeys(rooms, since)
    refusal: list[str] = []
    ended = threading.Event()

    def end(message: object) -> None:
        refusal.append(str(message))
        ended.set()

    def subscribe(room: Room) -> None:
        kind, name = room
        options = (name,) if last[room] is None else (name, {"since": last[room]})
        connection.emit(
            f"subscribe_{kind}", options, namespace=namespace, callback=lambda answer: confirmed(room, answer)
        )

    def confirmed(room: Room, answer: dict[str, Any]) -> None:
        if not answer["ok"]:
            end(answer["message"])
            return
        if answer["truncated"]:
            say(f"# {room[0]} {room[1]}: some events are no longer in the journal")
        if last[room] is None:
            last[room] = answer["offset"]

    def event(body: dict[str, Any]) -> None:
        payload = body["payload"]
        for room in last:
            if payload.get("project" if room[0] == "project" else "deployment_id") == room[1]:
                last[room] = body["offset"]
        say(json.dumps(body, ensure_ascii=False) if as_json else line(body))

    def connected() -> None:
        for room in rooms:
            subscribe(room)

    connection.on("connect", connected, namespace=namespace)
    connection.on("event", event, namespace=namespace)
    connection.on(
        "connect_error", lambda data: end(_reason(data)) if isinstance(data, dict) else None, namespace=namespace
    )
    connection.on("token_expired", lambda data: end(_reason(data)), namespace=namespace)
    try:
        connection.connect(
            f"{parts.scheme}://{parts.netloc}",
            auth={"token": client.token} if client.token else None,
            namespaces=[namespace],
            socketio_path=f"{parts.path}/ws/" if parts.path else "socket.io",
            transports=["websocket"],
        )
    except socketio.exceptions.ConnectionError as error:
        raise ApiError("; ".join(refusal) or f"{client.url} can't be reached: {error}") from None
    try:
        while not ended.wait(timeout=1):
            continue
    finally:
        connection.disconnect()
    raise ApiError("; ".join(refusal))


def line(body: dict[str, Any]) -> str:
    """One event as a line for a terminal."""
    payload = body["payload"]
    where = f"{payload.get('project', '')}#{payload.get('deployment_id', '')}"
    return f"{body['seq']:>6} {body['timestamp'][11:19]} {where} {body['type']} {_told(body['type'], payload)}".rstrip()


def _told(type: str, payload: dict[str, Any]) -> str:
    if type == "log_entry":
        return f"[{payload.get('level', 'info')}] {payload.get('message', '')}"
    if type == "log_batch":
        lines = payload.get("logs", [])
        return "".join(f"\n       [{item.get('level', 'info')}] {item.get('message', '')}" for item in lines)
    if type == "metrics_update":
        return json.dumps(payload.get("metrics"), ensure_ascii=False)
    duration = f" in {payload['duration']} s" if payload.get("duration") else ""
    return f"{payload.get('step_name') or ''} {payload.get('status', '')}{duration}".strip()


def _reason(data: dict[str, Any]) -> str:
    return str(data.get("message", "refused"))
