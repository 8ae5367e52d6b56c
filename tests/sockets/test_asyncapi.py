"""The document of the sockets: valid, whole, and right under the prefix and behind TLS. (That it is true is shown by
test_spoken.py.)"""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import sidecar as package
from config.settings import load_settings
from sidecar.domain.events import Control
from sidecar.factory import create_app
from sidecar.sockets.contract import sockets_document
from sidecar.sockets.handlers import Handlers
from sidecar.sockets.permissions import OBEYED
from sidecar.sockets.plain import PlainSocket
from sidecar.sockets.sessions import Sessions
from sidecar.store.journal import Transaction
from sidecar.wire.spoken import Command, EventType, Frame, Said
from sidecar.wire.told import PERMISSIONS_MESSAGES
from tests.contract.spoken import declared
from tests.programs import NODE, require

PREFIX = "/project-dashboard"
ADDRESS = f"{PREFIX}/api/asyncapi.json"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def document(sidecar) -> Json:
    answer = sidecar.get(ADDRESS, token="")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A sidecar put together and not started, to ask what it handles."""
    made = create_app(load_settings(instance_dir=tmp_path_factory.mktemp("parts")))
    yield made
    made.core.database.close()


def test_the_official_parser_takes_it_and_no_wrong_one(document):
    """But for its advice to write a later version of AsyncAPI."""
    node = require("node")
    if not (NODE / "node_modules" / "@asyncapi" / "parser").exists():
        pytest.skip("@asyncapi/parser is not installed (npm ci --prefix tests/node)")
    wrong = {**document, "operations": {"x": {"action": "send", "channel": {"$ref": "#/channels/nowhere"}}}}
    given = "".join(f"{json.dumps(one)}\n" for one in (document, wrong))
    done = subprocess.run([node, str(NODE / "asyncapi.mjs")], input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    problems, of_wrong = (json.loads(line) for line in done.stdout.splitlines())
    assert [problem for problem in problems if problem["code"] != "asyncapi-latest-version"] == []
    assert [problem for problem in of_wrong if problem["severity"] == 0] != []


def emitted(document: Json) -> set[str]:
    """The names of Socket.IO events that clients may emit."""
    messages = document["components"]["messages"]
    found = {name for message in messages.values() for name in message.get("x-socketio", {}).values()}
    channel = document["channels"]["bots_socketio"]
    return found | {messages[key]["name"] for key in channel["messages"]}


def test_every_event_that_is_handled_is_in_it(parts, document):
    names = {name for handlers in parts.socketio.server.handlers.values() for name in handlers}
    assert names - {"connect", "disconnect"} == emitted(document)
    assert sorted(parts.socketio.server.handlers) == sorted(
        document["channels"]["socketio"]["parameters"]["namespace"]["enum"]
    )


def test_every_plain_websocket_is_in_it(parts, document):
    addresses = {channel["address"].rpartition("/{")[0] for channel in document["channels"].values()}
    assert {f"/ws/{word}" for word in parts.gate._endpoints} <= addresses
    assert "/ws" in {channel["address"] for channel in document["channels"].values()}
    assert tuple(OBEYED) == PERMISSIONS_MESSAGES


def test_all_that_is_declared_is_in_it(document):
    """A frame or type of event that somebody declares and sends, and forgets to put on its channel."""
    messages = document["components"]["messages"].values()
    named = {message["name"] for message in messages}
    named |= {message.get("title", "").removesuffix(" (volatile)") for message in messages}
    found = {value.name if isinstance(value, Command) else str(value) for value in declared()}
    assert {"step_started", "heartbeat:ack", "connection_confirmed", "permission_check", "sys_ack", "chat"} <= found
    assert found - named == set()


SENDING = {"append": 3, "emit": 2, "say": 1, "emit_with_offset": 5}
"""Methods that send, and with how many arguments."""


def test_nothing_is_sent_by_a_name_that_is_not_declared():
    """(mypy sees what is no literal.)"""
    literal = []
    calls = 0
    for file in sorted(Path(package.__path__[0]).rglob("*.py")):
        if "client" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in SENDING and len(node.args) + len(node.keywords) >= SENDING[name]:
                calls += 1
                literal += [
                    f"{file.name}:{node.lineno}"
                    for argument in node.args[:5]
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                ]
    assert calls > 40
    assert literal == []


def test_what_sends_takes_only_what_is_declared():
    """So that mypy, which `make test` runs first, refuses all else."""
    assert get_type_hints(Transaction.append)["type"] == EventType | Control
    assert get_type_hints(Sessions.emit)["name"] is Frame
    assert get_type_hints(Sessions.end)["event"] is Frame
    assert get_type_hints(PlainSocket.say)["type"] is Frame
    assert get_type_hints(Handlers.on)["command"] is Command


class TestServed:
    def test_to_anybody_and_304_to_who_has_it(self, sidecar):
        first = sidecar.get(ADDRESS, token="")
        assert first.headers["Content-Type"] == "application/json"
        assert first.headers["Cache-Control"] == "no-cache"
        again = sidecar.get(ADDRESS, token="", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert sidecar.get(ADDRESS, token="", headers={"If-None-Match": '"x"'}).status_code == 200

    def test_it_says_by_which_address_the_sockets_are_reached(self, sidecar):
        host = sidecar.url.removeprefix("http://")
        inside = sidecar.get(ADDRESS, token="").json()["servers"]
        assert {(one["host"], one["protocol"]) for one in inside.values()} == {(host, "ws")}
        assert inside["plain"]["pathname"] == PREFIX
        assert inside["socketio"]["pathname"] == f"{PREFIX}/ws/"
        bare = sidecar.get("/api/asyncapi.json", token="")
        assert bare.json()["servers"]["plain"]["pathname"] == "/"
        assert bare.json()["servers"]["socketio"]["pathname"] == "/socket.io/"
        assert bare.headers["ETag"] != sidecar.get(ADDRESS, token="").headers["ETag"]

    def test_behind_tls_it_says_wss(self, sidecar):
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "dash.example.com"}
        answer = sidecar.get(ADDRESS, token="", headers=headers)
        servers = answer.json()["servers"].values()
        assert {(one["host"], one["protocol"]) for one in servers} == {("dash.example.com", "wss")}
        tag = answer.headers["ETag"]
        assert sidecar.get(ADDRESS, token="", headers={"If-None-Match": tag}).status_code == 200, "another's is not its"

    @pytest.mark.parametrize("host", ['"><script>', "a b", "x" * 3_000, '","servers":{}', "[::1", "a:b:c"])
    def test_a_host_that_is_none_is_refused(self, sidecar, host: str):
        answer = sidecar.get(ADDRESS, token="", headers={"X-Forwarded-Host": host})
        assert answer.status_code == 400
        assert host not in answer.text


def test_two_forms_of_one_name_are_refused():
    """One would silently stand for both in the document."""

    class Subscribed(Said):
        other: int

    command = Command("x", "", Subscribed)
    other = Command("y", "", type("Subscribed", (Said,), {}))
    with pytest.raises(ValueError, match="Subscribed"):
        sockets_document("1", ["/"], [command, other], {})
