"""A small maim_message server for tests of the client: it does what each test says, and remembers what it saw."""

from __future__ import annotations

import contextlib
import http
import json
import logging
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

WAIT_SECONDS = 60.0

Frame = dict[str, Any]


def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


def envelope(payload: object, type: str = "sys_std", msg_id: str | None = None) -> Frame:
    return {
        "ver": 1,
        "msg_id": msg_id or f"msg_{uuid.uuid4().hex[:12]}_1795227114",
        "type": type,
        "meta": {"sender_user": "server", "target_user": "bob", "platform": "qq", "timestamp": 1.5},
        "payload": payload,
    }


class MaimServer:
    """`refuse` is the status with which handshakes are answered; with `silent` nothing is acknowledged; with `hang_up`
    a connection ends when that many frames came. All may be changed at any time."""

    def __init__(self, port: int) -> None:
        self.refuse: int | None = None
        self.retry_after: str | None = None
        self.silent = False
        self.hang_up: int | None = None
        self._stopped = False
        self.requests: list[Request] = []
        self.frames: list[Frame] = []
        self.connections: list[ServerConnection] = []
        quiet = logging.getLogger("tests.maim_server")
        quiet.disabled = True  # it shows headers, in which a test looks for what the client shows
        self._server: Server = serve(
            *(self._handle, "127.0.0.1", port),
            process_request=self._asked, compression=None, max_size=2**20, logger=quiet,
        )  # fmt: skip
        self.port: int = self._server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/ws"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def push(self, frame: Frame | str) -> None:
        """To every connection; waits for the first."""
        until(lambda: self.connections, "a connection")
        for connection in list(self.connections):
            connection.send(frame if isinstance(frame, str) else json.dumps(frame))

    def cut(self, code: int = 1012) -> None:
        """End every connection."""
        for connection in list(self.connections):
            connection.close(code)

    def of_type(self, type: str) -> list[Frame]:
        return [frame for frame in self.frames if frame.get("type") == type]

    def texts(self) -> list[str]:
        """What was said in the messages that came."""
        return [frame["payload"]["message_segment"]["data"] for frame in self.of_type("sys_std")]

    def acked(self) -> list[object]:
        return [frame["meta"]["acked_msg_id"] for frame in self.of_type("sys_ack")]

    def stop(self) -> None:
        self._stopped = True
        self.cut(1001)
        self._server.shutdown()
        self._thread.join()

    def _asked(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if self.refuse is None:
            return None
        response = connection.respond(http.HTTPStatus(self.refuse), "no\n")
        if self.retry_after is not None:
            response.headers["Retry-After"] = self.retry_after
        return response

    def _handle(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        if self._stopped:
            connection.close(1001)
        came = 0
        with contextlib.suppress(ConnectionClosed):
            for text in connection:
                frame = json.loads(text)
                self.frames.append(frame)
                came += 1
                if self.hang_up is not None and came >= self.hang_up:
                    connection.close(1011)
                elif not self.silent and frame.get("type") != "sys_ack":
                    ack = {"type": "sys_ack", "meta": {"acked_msg_id": frame["msg_id"]}, "payload": {}}
                    connection.send(json.dumps(ack))
        self.connections.remove(connection)


@contextlib.contextmanager
def maim_server(port: int = 0) -> Iterator[MaimServer]:
    server = MaimServer(port)
    try:
        yield server
    finally:
        server.stop()


class FrozenProxy:
    """Passes connections on to a port of this machine; while it is `frozen`, nothing of them, and no new ones."""

    def __init__(self, port: int):
        self.frozen = False
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            if self.frozen:
                time.sleep(0.01)
                continue
            with contextlib.suppress(TimeoutError):
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                thread = threading.Thread(target=self._pass, args=(near, far))
                thread.start()
                self._threads.append(thread)

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with near, far, contextlib.suppress(OSError):
            while not self._closing.is_set():
                if self.frozen:
                    time.sleep(0.01)
                    continue
                for ready in select.select([near, far], [], [], 0.05)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    other[ready].sendall(data)
