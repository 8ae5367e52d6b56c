"""What the figures and the debug log tell of real sockets: how each opened, what kinds of frames passed, how it ended;
and neither a token nor a word of what was said."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import websocket

from tests.conftest import Start
from tests.programs import wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import Plain, Polling
from tests.sockets.test_plain import handshake

FAMILIES = re.compile(r"^(sidecar_(?:sockets?|handshakes)_\w+_total)\{(.*)\} (\S+)$", re.MULTILINE)
SAID = "what-was-said-stays-here"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    """One whose debug log is read, and whose figures nobody else moves."""
    with RunningSidecar(
        tmp_path_factory.mktemp("sidecar"),
        {
            "SIDECAR_RATE_LIMIT": "off",
            "SIDECAR_LOG_LEVEL": "debug",
            "SIDECAR_LOG_FORMAT": "json",
            "SIDECAR_MAX_CONNECTIONS": "321",
        },
    ) as made:
        yield made


def figures(server: RunningSidecar) -> Counter[str]:
    """Such as `sockets_closed rooms 1000`."""
    found: Counter[str] = Counter()
    for name, labels, value in FAMILIES.findall(server.get("/metrics", token="").text):
        values = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        short = name.removeprefix("sidecar_").removesuffix("_total")
        found[" ".join([short, *(values[key] for key in ("kind", "code", "reason") if key in values)])] = int(
            float(value)
        )
    return found


def total(found: Counter[str], family: str) -> int:
    return sum(count for name, count in found.items() if name.startswith(f"{family} "))


@pytest.fixture
def moves(server: RunningSidecar) -> Callable[..., None]:
    """`moves("sockets_opened rooms", …)`: waits until these, and no others, have moved since the test began, by one
    each time that they are named. Begins when the sockets of the test before have ended."""
    before: Counter[str] = Counter()

    def quiet() -> bool:
        before.clear()
        before.update(figures(server))
        return total(before, "sockets_opened") == total(before, "sockets_closed")

    wait_until(quiet, "no socket is open", lambda: before)

    def expect(*expected: str) -> None:
        wait_until(
            lambda: figures(server) - before == Counter(expected),
            f"{sorted(expected)} moved",
            lambda: figures(server) - before,
        )

    return expect


@pytest.fixture
def room(server: RunningSidecar, name: str) -> Iterator[Callable[..., Plain]]:
    """`room()` opens a plain WebSocket past its greeting."""
    opened: list[Plain] = []

    def connect(token: str | None = None, query: str = "") -> Plain:
        opened.append(Plain(server, f"/ws/rooms/{quote(name)}/{query}", token))
        assert opened[-1].next()["type"] == "connection_status"
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def cut(sock: socket.socket) -> None:
    """End without a word, as a process that is killed does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def log_lines(server: RunningSidecar) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.output().splitlines() if line.startswith('{"')]


def life(server: RunningSidecar, path: str) -> list[dict[str, Any]]:
    """The lines of the last socket that opened at this path, once it has closed."""
    found: list[dict[str, Any]] = []

    def closed() -> bool:
        lines = log_lines(server)
        opened = [line for line in lines if line["event"] == "websocket.opened" and line["path"] == path]
        if opened:
            found[:] = [line for line in lines if line.get("socket") == opened[-1]["socket"]]
        return bool(found) and found[-1]["event"] == "websocket.closed"

    wait_until(closed, f"a socket at {path} opened and closed", server.output)
    return found


def told(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """(received or sent, frame, and what else is told) of each frame."""
    keys = ("packet", "name", "type", "code")
    return [
        (line["event"].removeprefix("websocket."), line["frame"], *(line[key] for key in keys if key in line))
        for line in lines
        if line["event"] in ("websocket.received", "websocket.sent")
    ]


class TestFigures:
    @pytest.mark.parametrize(("code", "label"), [(1000, "1000"), (1001, "1001"), (4999, "other")])
    def test_a_socket_that_its_client_closes(self, moves, room, code: int, label: str):
        one = room()
        one.made.close(status=code)
        moves("sockets_opened rooms", f"sockets_closed rooms {label}")

    def test_one_that_is_cut(self, moves, room):
        room().reset()
        moves("sockets_opened rooms", "sockets_closed rooms 1006", "sockets_failed rooms cut")

    @pytest.mark.parametrize(
        ("sent", "code", "reason"),
        [
            (b"\x81\x01x", 1002, "protocol"),
            (b"\x81\x81\x00\x00\x00\x00\xff", 1007, "not_utf8"),
            (b"\x81\xff" + struct.pack("!Q", 8 << 30), 1009, "too_large"),
            (b"\x82\x81\x00\x00\x00\x00x", 1003, "unsupported"),
        ],
        ids=["not masked", "not UTF-8", "too large", "binary"],
    )
    def test_one_that_breaks_the_protocol(self, moves, room, sent: bytes, code: int, reason: str):
        one = room()
        one._socket.sendall(sent)
        assert one.closed() == code
        moves("sockets_opened rooms", f"sockets_closed rooms {code}", f"sockets_failed rooms {reason}")

    def test_one_whose_client_complains(self, moves, room):
        room().made.close(status=1011)
        moves("sockets_opened rooms", "sockets_closed rooms 1011", "sockets_failed rooms peer_error")

    def test_one_that_is_sent_away_has_not_failed(self, server, moves, room, name):
        one = room(server.connection_token(sub=name))
        assert server.post(f"/api/users/{name}/disconnect").status_code == 200
        assert one.closed() == 4403
        moves("sockets_opened rooms", "sockets_closed rooms 4403")

    def test_a_handshake_that_is_refused(self, server, moves, name):
        assert handshake(server, f"/ws/rooms/{name}/", "sct_wrong").status_code == 401
        assert server.get("/socket.io/", "").status_code == 400
        moves("handshakes_refused unauthenticated", "handshakes_refused invalid")

    def test_errors_that_are_answered(self, server, moves, room, page):
        one = room()
        one.made.send("{")
        assert one.next()["type"] == "error"
        browser = page(server=server).connected()
        assert browser.call("subscribe_project", "a\nb")["code"] == "bad_name"
        assert page(server=server, token="wrong", reconnection=False).refused()[1] == {"code": "unauthenticated"}
        moves(
            "sockets_opened rooms",
            "sockets_opened socketio",
            "sockets_opened socketio",
            "sockets_closed socketio 1005",
            "socket_errors rooms invalid",
            "socket_errors socketio bad_name",
            "socket_errors socketio unauthenticated",
        )

    def test_the_official_client(self, server, moves, page):
        page(server=server).connected().disconnect()
        moves("sockets_opened socketio", "sockets_closed socketio 1005")

    def test_a_socketio_client_that_is_cut(self, server, moves, raw):
        cut(raw.joined(server).sock)
        moves("sockets_opened socketio", "sockets_closed socketio 1006", "sockets_failed socketio cut")

    def test_a_packet_that_no_client_may_send(self, server, moves, raw):
        raw.joined(server).send('42["connect"]')
        moves("sockets_opened socketio", "sockets_closed socketio 1000", "sockets_failed socketio bad_packet")

    def test_long_polling_and_its_upgrade(self, server, moves, page):
        browser = page(server=server, transports=["polling", "websocket"])
        browser.connected()
        moves("sockets_opened polling", "sockets_opened socketio", "sockets_closed polling upgraded")

    @pytest.mark.parametrize(("packet", "failed"), [("1", ()), ("x", ("sockets_failed polling bad_packet",))])
    def test_long_polling_that_ends(self, server, moves, packet: str, failed: tuple[str, ...]):
        polling = Polling(server)
        polling.post(packet)
        moves("sockets_opened polling", "sockets_closed polling 1000", *failed)
        polling.close()

    def test_the_bound_of_connections(self, server):
        assert "\nsidecar_socket_connections_max 321.0\n" in server.get("/metrics", token="").text


class TestDebugLog:
    def test_a_plain_socket(self, server, room, name):
        token = server.connection_token(sub="ada", rooms=["room:*"], scopes=["rooms:read", "messages:send"])
        one = room("", f"?token={token}")
        one.say(message_type="ping", more=SAID)
        assert one.say(message=SAID)["message"] == SAID
        one.say(message_type=f"{SAID} with a space")
        one.made.send(f"{SAID} {{")
        one.next()
        one.made.ping(SAID)
        assert one.made.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, SAID.encode())
        one.made.send_binary(SAID.encode())
        assert one.closed() == 1003
        lines = life(server, f"/ws/rooms/{quote(name)}/")
        assert lines[0].items() >= {"kind": "rooms", "who": "ada", "level": "debug"}.items()
        end = lines[-1]
        assert (end["code"], end["reason"], end["by"], end["failure"]) == (1003, "text only", "us", "unsupported")
        assert end["seconds"] > 0
        frames = told(lines)
        assert [frame[1:] for frame in frames if frame[0] == "received"] == [
            ("text", "ping"),
            ("text", "(none)"),
            ("text", "(other)"),
            ("text", "(no JSON)"),
            ("ping",),
            ("binary",),
            ("close", 1000),
        ]
        assert [frame[1:] for frame in frames if frame[0] == "sent"] == [
            ("text", "connection_status"),
            ("text", "pong"),
            ("text", "chat_message"),
            ("text", "echo"),
            ("text", "error"),
            ("pong",),
            ("close", 1003),
        ]
        for secret in (token, SAID):
            assert secret not in server.output()

    @pytest.mark.parametrize(
        ("end", "expected"),
        [
            (lambda one: one.made.close(status=1001), (1001, "peer", None)),
            (lambda one: one.reset(), (1006, "nobody", "cut")),
            (lambda one: one._socket.sendall(b"\x81\x01x"), (1002, "us", "protocol")),
        ],
        ids=["closed", "cut", "broken"],
    )
    def test_who_began(self, server, room, name, end: Callable[[Plain], None], expected: tuple[Any, ...]):
        end(room())
        line = life(server, f"/ws/rooms/{quote(name)}/")[-1]
        assert (line["code"], line["by"], line["failure"]) == expected

    def test_a_socketio_client(self, server, raw, name):
        token = server.connection_token(sub=f"user-{name}", rooms=[f"room:{name}"])
        made = raw(server, "/project-dashboard/ws", f"&token={token}")
        made.send("40" + json.dumps({"token": server.token}))
        assert str(made.recv()).startswith("40{")
        made.recv()
        made.send(f'420["subscribe_room","{name}",{{"note":"{SAID}"}}]')
        assert str(made.recv()).startswith("42[")
        assert str(made.recv()).startswith("430[")
        made.send(f'42["{SAID} with a space"]')
        made.send("3")
        made.close(status=1001)
        lines = life(server, "/project-dashboard/ws")
        assert lines[0].items() >= {"event": "websocket.opened", "kind": "socketio", "who": None}.items()
        (connected,) = [line for line in lines if line["event"] == "sockets.connected"]
        assert connected["who"] == "admin"
        assert [frame[1:] for frame in told(lines) if frame[0] == "received"] == [
            ("text", "connect"),
            ("text", "event", "subscribe_room"),
            ("text", "event", "(other)"),
            ("text", "pong"),
            ("close", 1001),
        ]
        assert [frame[1:] for frame in told(lines) if frame[0] == "sent"] == [
            ("text", "open"),
            ("text", "connect"),
            ("text", "event", "session"),
            ("text", "event", "subscription:confirmed"),
            ("text", "ack"),
            ("close", 1001),
        ]
        assert (lines[-1]["code"], lines[-1]["by"]) == (1001, "peer")
        for secret in (token, server.token, SAID):
            assert secret not in server.output()

    def test_long_polling(self, server):
        polling = Polling(server)
        polling.connect(server.token)
        polling.post("1")
        lines = life(server, "/socket.io/")
        assert lines[0].items() >= {"kind": "polling", "who": None}.items()
        frames = told(lines)
        assert frames[:3] == [
            ("sent", "text", "open"),
            ("received", "text", "connect"),
            ("sent", "text", "connect"),
        ]
        assert frames[-1] == ("received", "text", "close")
        assert (lines[-1]["code"], lines[-1]["by"]) == (1000, "peer")
        polling.close()
        assert server.token not in server.output()
        assert str(polling.handshake["sid"]) not in server.output(), "who knows it can take the session over"


def test_above_debug_there_is_no_line_a_socket(start_sidecar: Start, name):
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    one = Plain(server, f"/ws/rooms/{name}/")
    one.next()
    one.say(message_type="ping")
    one.close()
    wait_until(lambda: figures(server)["sockets_closed rooms 1000"] == 1, "it has ended")
    assert "websocket." not in server.output()


def test_a_socket_about_permissions_has_a_kind_of_its_own(server):
    """Also one that is refused after its handshake, and its errors."""
    before, token = figures(server), server.connection_token(sub="ada")
    one, refused = Plain(server, "/ws/permissions/ada", token), Plain(server, "/ws/permissions/eve", token)
    assert one.next()["type"] == "connection_confirmed"
    assert one.say(type="nonsense")["error_code"] == "UNKNOWN_MESSAGE_TYPE"
    assert refused.closed() == 4403
    one.close()
    refused.close()
    names = [
        "sockets_opened permissions",
        "sockets_closed permissions 1000",
        "sockets_closed permissions 4403",
        "socket_errors permissions UNKNOWN_MESSAGE_TYPE",
        "socket_errors permissions not_allowed",
    ]
    wait_until(
        lambda: [figures(server)[name] - before[name] for name in names] == [2, 1, 1, 1, 1],
        "all is counted",
        lambda: figures(server) - before,
    )
    assert token not in server.output()
