"""Captured traffic between real maim_message clients and servers (tests/vectors/maim_frames_*.jsonl), replayed.

Each captured connection is opened again with its own headers, the client's frames are sent in their order, and what the
server answers is compared with what the real one answered. Between two frames of the clients the order of the server's
is only kept as far as they are the same connection's set: the captured order is that of one moment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import httpx
import websocket

from tests.bots.peers import DEADLINE_SECONDS
from tests.bots.raw import Closed, next_packet
from tests.programs import ROOT

Event = dict[str, Any]
NOOP = "6"
"""Engine.IO's answer to a poll that an upgrade ends; the real server also writes it into the WebSocket."""
UNKNOWN_KEY = "no-such-key"
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_MSG_ID = re.compile(r"(msg|custom)_[0-9a-f]{12}_\d{10}")
_OF_THE_TRANSPORT = {"host", "upgrade", "connection", "accept-encoding"}


def captured(version: str) -> list[Event]:
    """All events, in order: conn, dir (c>s, s>c, -), kind (http, ws, tcp), data."""
    text = (ROOT / "tests" / "vectors" / f"maim_frames_{version}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@dataclass(frozen=True)
class Request:
    """A captured request: its target and the headers that the client chose."""

    target: str
    headers: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Request:
        first, *lines = text.split("\r\n")
        pairs = [line.split(": ", 1) for line in lines if line]
        headers = {name: value for name, value in pairs if not name.lower().startswith("sec-websocket-")}
        chosen = {name: value for name, value in headers.items() if name.lower() not in _OF_THE_TRANSPORT}
        return cls(first.split(" ")[1], chosen)

    @property
    def refused(self) -> bool:
        return UNKNOWN_KEY in (self.target.partition("api_key=")[2].split("&")[0], self.headers.get("x-apikey"))


class Connection:
    """One connection of the replay."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.socket: websocket.WebSocket | None = None
        self.sid = ""
        self.uuid: str | None = None
        self.refused = False
        self.answer: list[Any] = []

    def ask(self, request: Request) -> list[Any]:
        """Status and body of a request; an upgrade leaves the socket open and has no body."""
        self.uuid = request.headers.get("x-uuid")
        self.refused = request.refused
        if "transport=polling" in request.target:
            address = self.origin + request.target
            answer = httpx.get(address, headers=request.headers, timeout=DEADLINE_SECONDS)
            self.sid = json.loads(answer.text[1:])["sid"] if answer.status_code == 200 else ""
            return [answer.status_code, answer.text]
        target = re.sub(r"sid=[^&]+", f"sid={self.sid}", request.target)
        try:
            self.socket = websocket.create_connection(
                self.origin.replace("http", "ws", 1) + target,
                header=[f"{name}: {value}" for name, value in request.headers.items()],
                suppress_origin=True,
                timeout=DEADLINE_SECONDS,
            )
        except websocket.WebSocketBadStatusException as refusal:
            return [refusal.status_code, ""]
        return [101, ""]

    def receive(self) -> str:
        """The next frame; a close as `close <code> <reason>`, `nothing` if none comes in time."""
        assert self.socket is not None
        try:
            while (packet := next_packet(self.socket)) == NOOP:
                pass
            return packet
        except Closed as closed:
            return f"close {closed.code} {closed.reason}"
        except websocket.WebSocketException as error:
            return f"nothing: {error}"

    def close(self) -> None:
        if self.socket is not None:
            self.socket.shutdown()


class Differs(Exception):
    """An answer is not as captured."""


class Replay:
    """Of one captured file against a server at `origin`. `differences` are the first answers that differ, as
    (event number, captured, got); empty when the server is as the real one. `refusals` are all answers to each
    connection that had an unknown key: they are told, not compared."""

    def __init__(self, version: str, origin: str) -> None:
        self._events = captured(version)
        self._origin = origin
        self._connections: dict[int, Connection] = {}
        self._ids: dict[str, str] = {}
        self._payloads: list[Any] = []
        self.differences: list[tuple[int, list[Any], list[Any]]] = []
        self.refusals: dict[int, list[Any]] = {}
        self.compared = 0

    def run(self) -> None:
        try:
            for side, numbered in groupby(enumerate(self._events), lambda pair: pair[1]["dir"]):
                events = [(number, event) for number, event in numbered if not _transports_own(event)]
                if side == "c>s":
                    for _, event in events:
                        self._say(event)
                elif side == "s>c":
                    self._hear(events)
            self._hear_nothing_more()
        except Differs:
            pass
        finally:
            for connection in self._connections.values():
                connection.close()

    def _say(self, event: Event) -> None:
        connection = self._connections.setdefault(event["conn"], Connection(self._origin))
        if event["kind"] == "http":
            connection.answer = connection.ask(Request.parse(event["data"]))
        elif connection.socket is None:
            assert connection.refused
        elif event["op"] == "close":
            connection.socket.send_close(event["code"], event["reason"].encode())
        else:
            text = event["data"]
            for captured_id, ours in self._ids.items():
                text = text.replace(captured_id, ours)
            connection.socket.send(text)
            frame = content(text)
            if isinstance(frame, dict):
                self._payloads.append(frame.get("payload"))

    def _hear(self, events: list[tuple[int, Event]]) -> None:
        """One run of the server's: for each connection as many frames as were captured."""
        for conn in dict.fromkeys(event["conn"] for _, event in events):
            connection = self._connections[conn]
            theirs = [event for _, event in events if event["conn"] == conn]
            if connection.refused:
                self._hear_refusal(connection, theirs)
                continue
            ours = [self._next(connection, event) for event in theirs]
            self._compare(events[0][0], connection, [expected(event) for event in theirs], ours)
            if self.differences:
                raise Differs  # and so would all that follows

    def _next(self, connection: Connection, event: Event) -> Any:
        if event["kind"] == "http":
            return connection.answer
        return connection.receive()

    def _hear_refusal(self, connection: Connection, theirs: list[Event]) -> None:
        heard = self.refusals.setdefault(theirs[0]["conn"], [])
        if any(event["kind"] == "http" for event in theirs):
            heard.append(connection.answer[0])
        elif connection.socket is not None:
            heard.append(connection.receive())
            while heard[-1].startswith("40"):
                heard.append(connection.receive())

    def _compare(self, number: int, connection: Connection, theirs: list[Any], ours: list[Any]) -> None:
        pairs = [
            sorted(((normal(answer, connection.uuid, self._payloads), answer) for answer in answers), key=repr)
            for answers in (theirs, ours)
        ]
        self.compared += len(theirs)
        if [form for form, _ in pairs[0]] != [form for form, _ in pairs[1]]:
            self.differences.append((number, [form for form, _ in pairs[0]], [form for form, _ in pairs[1]]))
        for (_, captured_text), (_, our_text) in zip(*pairs, strict=True):
            one, other = content(captured_text), content(our_text)
            if isinstance(one, dict) and isinstance(other, dict) and "msg_id" in one and "msg_id" in other:
                self._ids[one["msg_id"]] = other["msg_id"]

    def _hear_nothing_more(self) -> None:
        """A frame that each open connection gets answered: what comes before that answer is too much."""
        for conn, connection in self._connections.items():
            if connection.socket is None or not connection.socket.connected or connection.refused:
                continue
            frame = json.dumps({"type": "sys_none", "msg_id": f"end-{conn}"})
            connection.socket.send(f'42["message",{frame}]' if connection.sid else frame)
            answer = connection.receive()
            found = content(answer)
            if not isinstance(found, dict) or found.get("meta", {}).get("acked_msg_id") != f"end-{conn}":
                self.differences.append((len(self._events), [], [answer]))


def _transports_own(event: Event) -> bool:
    return event["kind"] == "tcp" or event.get("data") == NOOP


def expected(event: Event) -> Any:
    if event["kind"] == "http":
        head, _, body = event["data"].partition("\r\n\r\n")
        return [int(head.split(" ")[1]), body]
    if event["op"] == "close":
        return f"close {event['code']} {event['reason']}"
    return event["data"]


def content(text: Any) -> Any:
    """The envelope in a frame of either line; None where there is none."""
    if not isinstance(text, str):
        return None
    text = text.removeprefix('42["message",').removesuffix("]") if text.startswith('42["message",') else text
    try:
        return json.loads(text) if text.startswith("{") else None
    except ValueError:
        return None


def normal(answer: Any, uuid: str | None, sent_payloads: list[Any]) -> Any:
    """The answer with a mark in the place of each value that is the server's own choice, if it has the right form."""
    if isinstance(answer, list):
        status, body = answer
        return [status, {**json.loads(body[1:]), "sid": "", "maxPayload": 0} if body.startswith("0{") else body]
    if answer.startswith('40{"sid":'):
        return '40{"sid":…}'
    frame = content(answer)
    if not isinstance(frame, dict):
        return answer
    return [answer.startswith('42["message",'), dict(_marked(frame, uuid, sent_payloads))]


def _marked(frame: Event, uuid: str | None, sent_payloads: list[Any]) -> Iterator[tuple[str, Any]]:
    meta, payload = dict(frame.get("meta", {})), frame.get("payload")
    meta["timestamp"] = type(meta.get("timestamp")).__name__
    if frame.get("type") == "sys_ack":
        if uuid is None and _UUID4.fullmatch(meta.get("uuid", "")):
            meta["uuid"] = "uuid4"
        payload = dict(payload or {})
        payload["server_timestamp"] = type(payload.get("server_timestamp")).__name__
        form: re.Pattern[str] = _UUID4
    else:
        form = _MSG_ID
    if isinstance(payload, dict) and payload not in sent_payloads and "message_info" in payload:
        info = payload["message_info"]
        marks = {name: type(info.get(name)).__name__ for name in ("message_id", "time")}
        payload = {**payload, "message_info": {**info, **marks}}
    found = form.fullmatch(str(frame.get("msg_id")))
    # groups() tells msg_ from custom_
    marked = {**frame, "meta": meta, "payload": payload, "msg_id": found.groups() if found else frame.get("msg_id")}
    yield from marked.items()
