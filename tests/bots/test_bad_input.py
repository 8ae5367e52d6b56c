"""Whatever a bot with a good key sends harms nobody else: not a crash, not a leak, not a silent server."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websocket

from tests.bots.conftest import Connect
from tests.bots.peers import VERSIONS, Line, envelope, text_message
from tests.bots.raw import LINES, Key, RawBot, new_key
from tests.servers import RunningSidecar

LEFT_OUT = object()
WRONG: list[Any] = [
    LEFT_OUT,
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    10**40,
    "",
    " ",
    "x" * 5000,
    "\u0000",
    "\ud800",
    "__proto__",
    "../../etc",
    [],
    [[]],
    {},
    {"a": {"b": []}},
    {"$gt": ""},
]
FIELDS = [
    ("ver",),
    ("msg_id",),
    ("type",),
    ("meta",),
    ("meta", "queue"),
    ("meta", "target_platform"),
    ("meta", "timestamp"),
    ("meta", "sender_user"),
    ("payload",),
    ("payload", "message_info"),
    ("payload", "message_info", "platform"),
    ("payload", "message_info", "time"),
    ("payload", "message_segment"),
    ("payload", "message_segment", "type"),
    ("payload", "message_segment", "data"),
    ("payload", "message_dim"),
    ("payload", "message_dim", "api_key"),
    ("payload", "message_dim", "platform"),
]
TEXTS = {
    "not JSON": ["not json", "{", '{"type":', "[1,2", "\ufeff{}", "'a'", "{'type': 'sys_std'}", "undefined"],
    "no object": ["null", "true", "1", '"text"', "[]", "[[[]]]", '["message", {}]', "-0", "1e400"],
    "numbers that JSON has not": [
        '{"type":"sys_std","msg_id":NaN}',
        '{"type":"sys_std","msg_id":"n-1","payload":{"x":Infinity}}',
        '{"type":"sys_std","msg_id":"n-2","payload":{"x":-Infinity}}',
        '{"type":"sys_std","msg_id":"n-3","payload":{"x":1' + "0" * 5000 + "}}",
        '{"type":"sys_std","msg_id":"n-4","payload":{"x":1e999}}',
    ],
    "deep": [
        "[" * 100_000,
        "[" * 50_000 + "]" * 50_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        '{"type":"sys_std","msg_id":"deep-1","payload":' + "[" * 20_000 + "]" * 20_000 + "}",
    ],
    "neither envelope nor three parts": [
        "{}",
        '{"message_info":{}}',
        '{"message_info":{},"message_segment":{}}',
        '{"message_segment":{"type":"text","data":"x"},"message_dim":{"api_key":"a","platform":"b"}}',
        '{"type":"sys_std"}',
        '{"type":"custom_"}',
        '{"type":"custom_x","payload":null}',
        '{"type":"sys_ack"}',
        '{"type":"sys_ack","meta":[]}',
        '{"type":"sys_ack","meta":{"acked_msg_id":{"a":1}}}',
        '{"type":"sys_ack","meta":{"acked_msg_id":"msg_000000000000_1"}}',
    ],
    "lone surrogates": [
        '{"type":"sys_std","msg_id":"s-1","payload":{"x":"\\ud800"}}',
        '{"type":"sys_std","msg_id":"\\udfff","payload":{}}',
        '{"type":"custom_\\ud800","msg_id":"s-2","payload":{}}',
    ],
    "names twice": ['{"type":"sys_ack","type":"sys_std","msg_id":"d-1","msg_id":"d-2","payload":{}}'],
    "empty": ["", " ", "\n"],
}

NO_PACKETS = ("not JSON", "numbers that JSON has not", "deep", "empty")


class Stage:
    """An attacker with a good key of one tenant, a neighbour in it and a stranger of another tenant, both listening."""

    def __init__(self, server: RunningSidecar, name: str, line: str) -> None:
        self.server = server
        self.line = line
        self.keys: list[Key] = [
            new_key(server, f"{name}-attacker"),
            new_key(server, f"{name}-neighbour"),
            new_key(server, f"{name}-stranger", tenant="shop"),
        ]
        self.attacker, self.neighbour, self.stranger = (RawBot(server, key.key, "qq", line) for key in self.keys)
        self._numbers = itertools.count(1)

    def close(self) -> None:
        for bot in (self.attacker, self.neighbour, self.stranger):
            bot.socket.shutdown()

    def to(self, number: int) -> tuple[str, str]:
        return (self.keys[number].key, "qq")

    def assert_unharmed(self, attacker: RawBot | None = None) -> None:
        """The attacker's own connection still works, its next message is the first that the neighbour gets, the
        stranger gets nothing but its own, and the server is well."""
        word = f"fine {next(self._numbers)}"
        bot = attacker or self.attacker
        bot.acked(bot.send_to(self.to(1), word))
        assert self.neighbour.next()["payload"]["message_segment"]["data"] == word
        self.stranger.send_to(self.to(2), word)
        kinds = {self.stranger.next()["type"] for _ in range(2)}
        assert kinds == {"sys_ack", "sys_std"}
        assert httpx.get(f"{self.server.url}/healthz").status_code == 200
        output = self.server.output()
        assert "Traceback" not in output
        assert not [key.user for key in self.keys if key.key in output]


@pytest.fixture(params=LINES)
def stage(request: pytest.FixtureRequest, server: RunningSidecar, name: str) -> Iterator[Stage]:
    made = Stage(server, name, request.param)
    yield made
    made.close()


@pytest.mark.parametrize("kind", TEXTS)
def test_frames_that_are_no_messages(stage: Stage, kind: str):
    """On the Socket.IO line what is no JSON is no packet: it may end the connection that sends it."""
    for text in TEXTS[kind]:
        if stage.line == "socketio" and kind in NO_PACKETS:
            with RawBot(stage.server, stage.keys[0].key, "qq", stage.line) as bot:
                bot.send_text(text)
        else:
            stage.attacker.send_text(text)
    stage.assert_unharmed()


@pytest.mark.parametrize("field", FIELDS, ids=".".join)
def test_every_wrong_type_in_every_field(stage: Stage, field: tuple[str, ...]):
    """In messages to a stranger, and in messages that come back to the sender."""
    for value, receiver in itertools.product(WRONG, (2, 0)):
        frame = envelope(text_message("wrong", stage.to(receiver)))
        at: Any = frame
        for name in field[:-1]:
            at = at[name]
        if value is LEFT_OUT:
            at.pop(field[-1], None)
        else:
            at[field[-1]] = value
        stage.attacker.send(frame)
    stage.assert_unharmed()


def test_no_way_leads_to_another_tenant(stage: Stage):
    """By key, by address, on each platform, enveloped and bare, queued, custom, and by an override."""
    stranger = stage.keys[2]
    for key in (stranger.key, stranger.address, stranger.id, stranger.user):
        stage.attacker.send_to((key, "qq"), "leak")
        stage.attacker.send_to((key, "elsewhere"), "leak", target_platform="qq")
        stage.attacker.send_to((key, "qq"), "leak", queue=True)
        stage.attacker.send(text_message("leak", (key, "qq")))
        dim = {"message_dim": {"api_key": key, "platform": "qq", "tenant": "shop"}}
        stage.attacker.send(envelope(dim, "custom_leak", tenant="shop", target_user=stranger.user))
    stage.assert_unharmed()
    with RawBot(stage.server, stranger.key, "qq", stage.line) as again:
        again.send_to((stranger.key, "qq"), "mine")
        assert again.next_text() == "mine"


def test_a_binary_frame_ends_its_own_connection_alone(stage: Stage):
    with RawBot(stage.server, stage.keys[0].key, "qq", stage.line) as bot:
        bot.socket.send(b"\x00\xff", websocket.ABNF.OPCODE_BINARY)
        if stage.line == "websocket":
            assert bot.closed() == 1003
    stage.assert_unharmed()


def test_a_frame_over_the_limit_ends_its_own_connection_alone(stage: Stage):
    with RawBot(stage.server, stage.keys[0].key, "qq", stage.line) as bot:
        bot.send_text(json.dumps(envelope({"x": "y" * 1_048_576})))
        if stage.line == "websocket":
            assert bot.closed() == 1009
    stage.assert_unharmed()


def test_another_bots_name_gives_nothing(stage: Stage):
    """A connection says its own uuid, and may say that of another's, of this tenant or of another."""
    for victim, number in ((stage.neighbour, 1), (stage.stranger, 2)):
        victim.acked(victim.send_to(stage.to(number), "taken in"))  # a plain upgrade is answered before
        assert victim.next_text() == "taken in"
        with RawBot(stage.server, stage.keys[0].key, "elsewhere", stage.line, uuid=victim.uuid) as thief:
            thief.send_to((stage.keys[0].key, "elsewhere"), "mine")
            assert thief.next()["meta"]["uuid"] != victim.uuid
            assert thief.next_text() == "mine"
            victim.send_to(stage.to(number), "private")
            assert victim.next()["meta"]["uuid"] == victim.uuid
            assert victim.next_text() == "private"
            thief.send_to((stage.keys[0].key, "elsewhere"), "mine again")
            assert [thief.next()["type"] for _ in range(2)] == ["sys_ack", "sys_std"]
    stage.assert_unharmed()


def test_nobody_else_can_acknowledge_what_waits(stage: Stage):
    """It is offered again, by the same msg_id, until its receiver has acknowledged it."""
    receiver = (stage.keys[1].key, "later")
    stage.attacker.acked(stage.attacker.send_to(receiver, "kept", queue=True))

    def offered() -> Line:
        with RawBot(stage.server, *receiver, stage.line) as bot:
            return bot.next(lambda frame: frame["type"] == "sys_std")

    first = offered()
    ack = {"type": "sys_ack", "msg_id": "a-1", "meta": {"acked_msg_id": first["msg_id"]}, "payload": {}}
    for bot in (stage.attacker, stage.stranger):
        bot.send(ack)
        bot.send({"type": "sys_none", "msg_id": "read"})
        bot.acked("read")
    again = offered()
    assert (again["msg_id"], again["payload"]) == (first["msg_id"], first["payload"])
    with RawBot(stage.server, *receiver, stage.line) as bot:
        bot.next(lambda frame: frame["type"] == "sys_std")
        bot.send(ack)
        bot.send({"type": "sys_none", "msg_id": "read"})
        bot.acked("read")
    with RawBot(stage.server, *receiver, stage.line) as bot:
        bot.send_to(receiver, "last")
        assert bot.next_text() == "last"


def test_a_bot_that_does_not_read_harms_itself_alone(stage: Stage):
    """Ten megabytes for it: its connection may end, and whoever sent them gets every acknowledgement."""
    sent = [stage.neighbour.send_to(stage.to(0), "x" * 200_000) for _ in range(50)]
    for msg_id in sent:
        stage.neighbour.acked(msg_id)
    with RawBot(stage.server, stage.keys[0].key, "qq", stage.line) as again:
        stage.assert_unharmed(again)


PACKETS = ["", "4", "42", "42[", '42["message"', '42["message",not json]', "42[]", "42{}", "42null", '42[1,{"a":1}]']
PACKETS += ['42["other",{"msg_id":"o-1"}]', '42["message"]', '42["message",1,2,3]', '42/ws,["message",{}]', "9", "x"]
PACKETS += ['451-["message",{"_placeholder":true,"num":0}]', '42999["message",{}]', '43["message"]', "44", "41/other,"]
PACKETS += ['42["message",' + "[" * 100_000, '42["message",' + "[" * 50_000 + "]" * 50_000 + "]"]


def test_packets_that_are_no_socketio(server: RunningSidecar, name: str):
    """They may end the connection that sends them, each its own, and no other."""
    made = Stage(server, name, "socketio")
    try:
        for packet in PACKETS:
            with RawBot(server, made.keys[0].key, "qq", "socketio") as bot:
                bot.socket.send(packet)
                bot.socket.send('42["message",{"type":"sys_none","msg_id":"after"}]')
        made.assert_unharmed()
    finally:
        made.close()


def test_a_flood_slows_its_own_key_alone(start_sidecar: Any, connect: Connect, name: str):
    """Above the limit frames are read more slowly, and none is dropped; neighbours' real bots talk meanwhile."""
    server = start_sidecar(SIDECAR_RATE_LIMIT="100/second, burst 100")
    one, two = (new_key(server, f"{name}-{number}") for number in range(2))
    url = server.url.replace("http", "ws", 1) + "/ws"
    old, new = (connect(version, url, key.key, "qq") for version, key in zip(VERSIONS, (one, two), strict=True))
    with contextlib.ExitStack() as ends:
        floods = [
            ends.enter_context(RawBot(server, new_key(server, f"{name}-{line}").key, "qq", line)) for line in LINES
        ]
        sent = [[flood.send_to(("nobody", "nowhere"), "flood") for _ in range(300)] for flood in floods]
        for number in range(5):
            old.send_text(f"there {number}", to=(two.key, "qq"))
            assert new.next_text() == f"there {number}"
            new.send_text(f"back {number}", to=(one.key, "qq"))
            assert old.next_text() == f"back {number}"
        acks = [[flood.next()["meta"]["acked_msg_id"] for _ in range(300)] for flood in floods]
    assert acks == sent
    assert "Traceback" not in server.output()
