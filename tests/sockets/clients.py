"""Clients of the socket tests: the official one in node, python-socketio's, bare Engine.IO over HTTP, and plain
WebSockets."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx
import jwt
import pytest
import requests
import socketio
import websocket

from tests.contract.spoken import heard
from tests.programs import DEADLINE_SECONDS, JsClient, Line, Nginx, wait_until
from tests.servers import RunningSidecar

Result = TypeVar("Result")

NAMESPACES = ("/", "/project-dashboard/ws")
_numbers = itertools.count(1)


def in_time(make: Callable[..., str], attempt: Callable[[str], Result], *args: Any, **claims: Any) -> Result:
    """What `attempt` returns for a token that soon ends. If the token has ended before it was done (a busy machine),
    it is tried again with one that lives longer."""
    seconds = 2
    while True:
        began = time.time()
        token = make(*args, ttl_seconds=seconds, **claims)
        try:
            return attempt(token)
        except (Exception, pytest.fail.Exception):  # the latter is none of the former
            if seconds > 16 or time.time() < began + seconds:
                raise
            seconds *= 2


def end_of(token: str) -> float:
    """When this connection token ends, taken at its word; unix seconds."""
    end: float = jwt.decode(token, options={"verify_signature": False})["exp"]
    return end


def compare(way: str, *what: Any) -> None:
    """With the document of the sockets."""
    known = heard()
    if known is not None:
        getattr(known, way)(*what)


class Page:
    """One socket of the official client: a page's view. `events` are the envelopes that it received."""

    def __init__(
        self,
        js: JsClient,
        server: RunningSidecar,
        namespace: str = "/",
        path: str = "/socket.io",
        token: str | None = None,
        **options: Any,
    ):
        self._js = js
        self.name = f"socket-{next(_numbers)}"
        self._seen = self._read = len(js.lines)
        self._lines: list[Line] = []
        self._events: list[dict[str, Any]] = []
        if token is not None:
            options["auth"] = {"token": token}
        options.setdefault("transports", ["websocket"])
        js.connect(server.url + namespace, self.name, path=path, **options)

    def next(self, what: str, where: Callable[[Line], bool] = lambda line: True) -> Line:
        """The next line of this kind of this socket, of those not passed over yet, that `where` accepts."""
        found: list[Line] = []

        def look() -> bool:
            while not found and self._seen < len(self._js.lines):
                line = self._js.lines[self._seen]
                self._seen += 1
                if line["socket"] == self.name and line["what"] == what and where(line):
                    found.append(line)
            return bool(found)

        wait_until(look, f"{what} of {self.name}", self.lines)
        return found[0]

    def connected(self) -> Page:
        self.next("connect")
        return self

    def refused(self) -> tuple[str, Any]:
        """(message, data) of the CONNECT_ERROR that it gets."""
        line = self.next("connect_error")
        return line["message"], line["data"]

    def call(self, event: str, *args: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._js.call(event, *args, socket=self.name)
        compare("answered", event, [answer])
        return answer

    def emit(self, event: str, *args: Any) -> None:
        self._js.send("emit", socket=self.name, event=event, args=args)

    def disconnect(self) -> None:
        self._js.send("disconnect", socket=self.name)

    def drop(self) -> None:
        """Cut its transport, as a network that goes away does."""
        self._js.send("drop", socket=self.name)

    def reconnect(self) -> None:
        """After `disconnect`: connect the same socket again."""
        self._js.send("reconnect", socket=self.name)

    def use_token(self, token: str) -> None:
        """From its next CONNECT on."""
        self._js.send("auth", socket=self.name, auth={"token": token})

    def told(self, event: str) -> dict[str, Any]:
        """The first argument of the next event of this name."""
        body: dict[str, Any] = self.next("event", lambda line: line["event"] == event)["args"][0]
        return body

    def lines(self) -> list[Line]:
        """All that happened to this socket."""
        while self._read < len(self._js.lines):
            line = self._js.lines[self._read]
            self._read += 1
            if line["socket"] == self.name:
                self._lines.append(line)
                if line["what"] == "event":
                    compare("told", line["event"], line["args"])
                if line["what"] == "event" and line["event"] == "event":
                    self._events.append(line["args"][0])
        return self._lines

    @property
    def events(self) -> list[dict[str, Any]]:
        self.lines()
        return self._events

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]

    def wait_for(self, count: int) -> list[int]:
        """The seqs received, once they are `count` (and no more)."""
        wait_until(lambda: len(self.seqs) >= count, f"{count} events, not {len(self.seqs)}")
        self.call("heartbeat")  # what was sent before its answer has come
        return self.seqs

    def quiet(self) -> list[int]:
        """The seqs received, after an answer to something asked now: all that was sent before has come."""
        self.call("heartbeat")
        return self.seqs


class PythonPage:
    """python-socketio's client in one namespace."""

    def __init__(self, server: RunningSidecar, namespace: str = "/", path: str = "socket.io", **options: Any):
        self.namespace = namespace
        self.events: list[dict[str, Any]] = []
        self._http = requests.Session()
        self.client = socketio.Client(reconnection=False, handle_sigint=False, http_session=self._http)
        self.client.on("event", self.events.append, namespace=namespace)
        options.setdefault("transports", ["websocket"])
        self.client.connect(server.url, socketio_path=path, namespaces=[namespace], wait_timeout=60, **options)

    def __enter__(self) -> PythonPage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.client.disconnect()
        self.client.wait()
        self._http.close()

    def call(self, event: str, *args: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.call(event, args, namespace=self.namespace, timeout=DEADLINE_SECONDS)
        return answer

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]


class Plain:
    """One plain WebSocket to a server, or to a proxy before it; `next()` is its next frame, parsed."""

    def __init__(self, server: RunningSidecar | Nginx, path: str, token: str | None = None, **options: Any):
        header = list(options.pop("header", ()))
        if token is None and isinstance(server, RunningSidecar):
            token = server.token
        if token:
            header.append(f"Authorization: Token {token}")
        if server.url.startswith("https:") and isinstance(server, RunningSidecar):
            options.setdefault("sslopt", {"context": server.tls})
        address = "ws" + server.url.removeprefix("http") + path
        words = path.partition("?")[0].removeprefix("/project-dashboard").split("/")
        self._channel = words[2] if len(words) > 2 and words[2] else "bots"
        # websocket-client's own look at each byte is slow, and decoding fails of the same
        options = {"timeout": 15, "suppress_origin": True, "skip_utf8_validation": True, **options}
        self.made = websocket.create_connection(address, header=header, **options)
        self._socket = self.made.sock

    def next(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(self.made.recv())
        compare("plain", self._channel, frame)
        return frame

    def say(self, **fields: Any) -> dict[str, Any]:
        """Send it; the next frame."""
        self.send(**fields)
        return self.next()

    def send(self, **fields: Any) -> None:
        self.made.send(json.dumps(fields))

    def closed(self) -> int:
        """Read until the Close frame; its code."""
        while True:
            opcode, data = self.made.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big")

    def reset(self) -> None:
        """End without a word, as a process that is killed does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        """websocket-client leaves its socket open where the server has closed it in some ways."""
        with contextlib.suppress(OSError):
            self.made.close()
        self._socket.close()


class Polling:
    """Engine.IO over bare HTTP requests: what is written is what the server gets."""

    def __init__(self, server: RunningSidecar, path: str = "/socket.io/", **options: Any):
        self._http = httpx.Client(
            base_url=server.url,
            timeout=30,
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=server.tls,
            **options,
        )
        self._path = path
        opened = self._http.get(path, params={"EIO": "4", "transport": "polling"})
        assert opened.status_code == 200, opened.text
        self.handshake = _json(opened.text[1:])
        self._params = {"EIO": "4", "transport": "polling", "sid": self.handshake["sid"]}

    def post(self, *packets: str, **options: Any) -> httpx.Response:
        return self._http.post(self._path, params=self._params, content="\x1e".join(packets), **options)

    def get(self) -> httpx.Response:
        return self._http.get(self._path, params=self._params)

    def packets(self) -> list[str]:
        answer = self.get()
        assert answer.status_code == 200, answer.text
        return answer.text.split("\x1e")

    def connect(self, token: str, namespace: str = "") -> list[str]:
        """Send CONNECT; the packets that answer it."""
        self.post(f'40{namespace}{{"token":"{token}"}}')
        return self.packets()

    def ended(self) -> bool:
        """Has the server closed this session?"""
        return self.post("3").status_code == 400

    def close(self) -> None:
        self._http.close()


def _json(text: str) -> Any:
    return json.loads(text)


class RawWebSockets:
    """Bare WebSockets to Engine.IO, their OPEN packet read; all closed at the end."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def __call__(
        self, server: RunningSidecar, path: str = "/socket.io/", query: str = "", header: Sequence[str] = ()
    ) -> websocket.WebSocket:
        address = f"ws://127.0.0.1:{server.port}{path}?EIO=4&transport=websocket{query}"
        made = websocket.create_connection(address, timeout=15, header=list(header), skip_utf8_validation=True)
        self._sockets.append(made.sock)
        assert str(made.recv()).startswith('0{"sid"')
        return made

    def joined(self, server: RunningSidecar) -> websocket.WebSocket:
        """One that has joined the root namespace as the admin."""
        made = self(server)
        made.send("40" + json.dumps({"token": server.token}))
        assert str(made.recv()).startswith("40{")
        assert str(made.recv()).startswith('42["session",{')
        return made

    def close(self) -> None:
        """websocket-client leaves its socket open where the server has closed it in some ways."""
        for one in self._sockets:
            one.close()


def closed_by_server(made: websocket.WebSocket) -> bool:
    """Reads until the server closes the connection; False if it goes on for the socket's time-out."""
    try:
        while made.recv() not in ("", b""):
            pass
    except websocket.WebSocketTimeoutException:
        return False
    except (websocket.WebSocketException, OSError):
        pass
    return True


def connections(server: RunningSidecar) -> int:
    """How many sockets it holds, by its own metrics."""
    return int(server.metric("sidecar_socket_connections"))


def post_step(server: RunningSidecar, project: str, deployment: str, name: str = "build", **more: Any) -> int:
    """Post one step; its seq."""
    body = {"type": "step_started", "project": project, "deployment_id": deployment, "step_name": name, **more}
    answer = server.post("/api/webhooks/deployment", body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["event_id"])


def post_line(server: RunningSidecar, project: str, deployment: str, message: str = "x") -> int:
    """Post one log line; its seq."""
    body = {"type": "log_entry", "project": project, "deployment_id": deployment, "message": message}
    answer = server.post("/api/webhooks/deployment", body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["event_id"])


class Posting:
    """Posts log lines from a thread until left; `seqs` are those answered, by deployment."""

    def __init__(self, server: RunningSidecar, project: str, deployments: list[str]):
        self._stop = threading.Event()
        self.seqs: dict[str, list[int]] = {deployment: [] for deployment in deployments}
        self._threads = [
            threading.Thread(target=self._post, args=(server, project, deployment)) for deployment in deployments
        ]

    @property
    def all(self) -> list[int]:
        return sorted(seq for seqs in self.seqs.values() for seq in seqs)

    def _post(self, server: RunningSidecar, project: str, deployment: str) -> None:
        headers = {"Authorization": f"Token {server.token}"}
        with httpx.Client(base_url=server.url, headers=headers, verify=server.tls) as http:
            body = {"type": "log_entry", "project": project, "deployment_id": deployment, "message": "line"}
            while not self._stop.is_set():
                answer = http.post("/api/webhooks/deployment", json=body)
                assert answer.status_code == 200, answer.text
                self.seqs[deployment].append(int(answer.json()["event_id"]))

    def __enter__(self) -> Posting:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def login_cookie(server: RunningSidecar) -> str:
    """The value of the login cookie of somebody who used a fresh login link."""
    code = re.search(r"code=([\w-]+)", server.cli("login").stdout)
    assert code
    answer = server.post("/login", token="", data={"code": code[1]})
    assert answer.status_code == 303, answer.text
    return answer.cookies["sidecar_login"]
