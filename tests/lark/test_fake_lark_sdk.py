"""examples/fake_lark.py is the platform that the real lark-oapi SDK expects: its calls, its handler of callbacks and
its long connection work against it."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from examples.fake_lark import FakeLark, callback_request
from tests.lark.stage import (
    APP_ID,
    APP_SECRET,
    CARD,
    DONE,
    ENCRYPT_KEY,
    VERIFICATION_TOKEN,
    console,
    granted_code,
    sdk,
    sdk_listening,
)
from tests.programs import wait_until


@pytest.fixture
def lark() -> Iterator[FakeLark]:
    with FakeLark(console()) as lark:
        yield lark


class Recorder(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted and answers `{}`."""

    kept: ClassVar[list[tuple[dict[str, str], str]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.kept.append((dict(self.headers), base64.b64encode(body).decode()))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def receiver() -> Iterator[tuple[str, list[tuple[dict[str, str], str]]]]:
    """A callback address, and what came to it."""
    handler = type("KeepingRecorder", (Recorder,), {"kept": []})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/callback/lark", handler.kept
        server.shutdown()
        thread.join()


def sent_card(lark: FakeLark) -> str:
    token, _ = lark.platform.app_token({"app_id": APP_ID, "app_secret": APP_SECRET})
    body = {"receive_id": "ou_ada", "msg_type": "interactive", "content": json.dumps(CARD)}
    return lark.platform.send(token, "open_id", body).message_id


@pytest.fixture(scope="module")
def out() -> dict[str, Any]:
    """What the SDK met, in one run: the calls, and callbacks with a key and without one."""
    with FakeLark(console()) as lark, receiver() as (address, kept):
        lark.console.callback_url = address
        message_id = sent_card(lark)
        assert lark.click(message_id, "ou_ada", button=1) == {"toast": None}
        lark.console.encrypt_key = ""
        lark.click(message_id, "ou_ada", button=1)
        (headers, body), plain = kept
        asked = {"type": "url_verification", "token": VERIFICATION_TOKEN, "challenge": "c1"}
        _, raw = callback_request(asked, ENCRYPT_KEY, signed=False)
        verification = ({}, base64.b64encode(raw).decode())
        forged = ({**headers, "X-Lark-Request-Nonce": "1"}, body)
        with_key = {
            "encrypt_key": ENCRYPT_KEY,
            "verification_token": VERIFICATION_TOKEN,
            "requests": [verification, kept[0], forged],
        }
        without = {"encrypt_key": "", "verification_token": VERIFICATION_TOKEN, "requests": [plain]}
        code = granted_code(lark, code_challenge=None, code_challenge_method=None, scope="contact:user.email:readonly")
        app = {"app_id": APP_ID, "app_secret": APP_SECRET, "code": code, "card": CARD, "changed": DONE}
        told: dict[str, Any] = sdk("once", url=lark.url, **app, dispatch=[with_key, without])
        return told | {"kept": kept, "message_id": message_id, "messages": list(lark.platform.messages.values())}


def test_the_sdks_calls(out: dict[str, Any]):
    calls = out["calls"]
    assert {name: answer["code"] for name, answer in calls.items()} == {
        "token": 0,
        "used_code": 20007,
        "refreshed": 0,
        "used_refresh": 20026,
        "user_info": 0,
        "foreign": 99991668,
        "written": 0,
        "rows": 0,
        "sent": 0,
        "sent_again": 0,
        "nobody": 230001,
        "updated": 0,
    }
    told = calls["user_info"]["data"]
    assert (told["open_id"], told["name"], told["email"]) == ("ou_ada", "李爱达 Ada Li", "ada@example.com")
    assert "mobile" not in told, "the user has not granted that"
    assert [row["title"] for row in json.loads(calls["rows"]["data"]["items"])] == ["一"]
    assert calls["sent_again"]["data"]["message_id"] == calls["sent"]["data"]["message_id"]
    assert [(one.versions, one.changes) for one in out["messages"][1:]] == [([CARD, DONE], ["patch"])]


def test_the_sdks_handler_takes_what_is_signed_and_encrypted(out: dict[str, Any]):
    assert b"session" not in base64.b64decode(out["kept"][0][1]), "it is encrypted"
    answers, seen = out["dispatched"][0]
    assert answers == [
        [200, {"challenge": "c1"}],
        [200, {"toast": {"type": "info", "content": "已取消授权"}}],
        [500, {"msg": "signature verification failed"}],
    ]
    assert seen == [["ou_ada", {"session_id": "s1", "action": "reject"}, out["message_id"]]]


def test_without_a_key_callbacks_are_plain_and_hold_the_token(out: dict[str, Any]):
    headers, body = out["kept"][1]
    assert "X-Lark-Signature" not in headers
    assert json.loads(base64.b64decode(body))["header"]["token"] == VERIFICATION_TOKEN
    answers, seen = out["dispatched"][1]
    assert (answers[0][0], len(seen)) == (200, 1)


def test_the_sdks_long_connection(lark: FakeLark, tmp_path: Path):
    lark.console.delivery = "websocket"
    message_id = sent_card(lark)
    with sdk_listening(tmp_path / "log", url=lark.url, app_id=APP_ID, app_secret=APP_SECRET) as lines:
        wait_until(lambda: len(lark.connections) == 1 and lark.connections.pings == 1, "it is connected")
        shown = lark.click(message_id, "ou_ada", button=1)
        assert shown == {"toast": {"type": "info", "content": "已取消授权"}}
        assert json.loads(lines.readline()) == ["ou_ada", {"session_id": "s1", "action": "reject"}, message_id]
        lark.console.part_bytes = 100
        assert lark.click(message_id, "ou_ada", button=0) == shown, "an event in several frames"
        lines.readline()
        refused = lark.click(message_id, "ou_ada", value={"action": "raise"})
        assert refused["error"]["code"] == 200671, "the handler failed"
        lines.readline()
        lark.connections.drop()
        wait_until(lambda: lark.connections.opened == 2, "it is connected again")
        wait_until(lambda: len(lark.connections) == 1, "one connection")
        assert lark.click(message_id, "ou_ada", button=1) == shown
    wait_until(lambda: len(lark.connections) == 0, "it has ended")
    assert lark.click(message_id, "ou_ada", button=1)["error"]["code"] == 200342


def test_the_sdk_is_refused_its_long_connection_with_a_wrong_secret(out: dict[str, Any]):
    assert out["refused"] == 514
