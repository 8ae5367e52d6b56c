"""A sidecar, or a platform, that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "sct_stand_in-of-the-test"
Answer = tuple[int, Any]


@dataclass
class StandIn:
    """`answers` are given in turn, the last again and again: to what, the method and path say. What nobody has said
    gets 404. `tokens` are the Authorization headers that came, `queries` what was behind a question mark."""

    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def says(self, what: str, *answers: Answer) -> None:
        with self._lock:
            self.answers[what] = list(answers)

    def bodies(self, what: str) -> list[Any]:
        with self._lock:
            return [body for asked, body in self.asked if asked == what]

    def answer(self, what: str, query: str, body: Any, token: str | None) -> Answer:
        with self._lock:
            self.queries.append(query)
            self.asked.append((what, body))
            self.tokens.append(token)
            left = self.answers.get(what, [(404, {"code": "not_found", "detail": "No such thing."})])
            return left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def stand_in() -> Iterator[StandIn]:
    made = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            what = f"{self.command} {address.path}"
            status, body = made.answer(
                what, address.query, json.loads(raw) if raw else None, self.headers.get("Authorization")
            )
            if isinstance(body, threading.Event):  # it hangs until the test is over
                body.wait(60)
                body = {}
            text = json.dumps(body).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            """Not to the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # who asked does not always wait for the answer
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
