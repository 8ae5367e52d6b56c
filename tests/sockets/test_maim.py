"""Bots' handshakes and frames on a real server, by bare WebSockets and bare Engine.IO."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import websocket

from sidecar.domain.maim import address_of
from tests.programs import wait_until
from tests.servers import RunningSidecar
from tests.services.bots import frame, message
from tests.sockets.clients import Plain

Connect = Callable[..., Plain]


@pytest.fixture
def connect(sidecar: RunningSidecar) -> Iterator[Connect]:
    """`connect(path, *headers)`: a plain WebSocket that was taken in."""
    opened: list[Plain] = []

    def make(path: str, *headers: str) -> Plain:
        opened.append(Plain(sidecar, path, token="", header=headers))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def refusal(server: RunningSidecar, path: str, *headers: str) -> int:
    """The status by which a plain WebSocket is refused."""
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        Plain(server, path, token="", header=headers)
    return int(caught.value.status_code)


def place(server: RunningSidecar, user: str) -> list[tuple[str, str, str]]:
    """Line, platform and uuid of each connection of this user."""
    items = server.get("/api/maim/connections", params={"user": user}).json()["items"]
    return [(item["line"], item["platform"], item["uuid"]) for item in items]


@pytest.mark.parametrize("path", ["/ws", "/ws/", "/project-dashboard/ws", "/project-dashboard/ws/", "/%77s"])
def test_a_key_in_the_query_or_in_a_header(sidecar, connect, name, path: str):
    key = sidecar.bot_key(name)["key"]
    for query, headers in (
        (f"?api_key={key}&platform=qq&uuid=u-1", ()),
        ("", (f"x-apikey: {key}", "x-platform: qq", "x-uuid: u-1")),
        (f"?api_key={key}&platform=qq&uuid=u-1", ("x-apikey: other", "x-platform: other", "x-uuid: other")),
        (f"?api_key={key}&api_key=other&platform=qq&platform=x&uuid=u-1&uuid=x", ()),
        (f"?platform=&uuid=&api_key={key}", ("x-platform: qq", "x-uuid: u-1")),
        ("?" + "".join(f"%{byte:02x}" for byte in b"api_key") + f"={key}&platform=%71q&uuid=u%2D1", ()),
    ):
        connect(path + query, *headers)
        wait_until(lambda: place(sidecar, name) == [("websocket", "qq", "u-1")], "it is connected")


def test_what_a_bot_does_not_say(sidecar, connect, name):
    key = sidecar.bot_key(name)["key"]
    connect(f"/ws?api_key={key}")
    ((line, platform, uuid),) = place(sidecar, name)
    assert (line, platform, len(uuid)) == ("websocket", "unknown", 36)
    connect(f"/ws?api_key={key}&uuid=a%20b%0a&platform=x")
    assert all("a b" not in uuid for _, _, uuid in place(sidecar, name))


@pytest.mark.parametrize("platform", ["微信", "中", "Zoë"])
def test_a_platform_in_any_language_is_the_same_in_a_header_and_a_message(sidecar, connect, name, platform: str):
    """The libraries write headers in UTF-8; read as Latin-1 it was another platform, or refused."""
    key = sidecar.bot_key(name)["key"]
    one = connect("/ws", f"x-apikey: {key}", f"x-platform: {platform}", "x-uuid: u")
    answer = sidecar.post("/api/maim/send", {"message": message(key, platform)})
    assert answer.json() == {"u": True}
    assert one.next()["meta"]["platform"] == platform


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?api_key=", (), 401),
        ("?api_key", (), 401),
        ("", ("x-apikey:",), 401),
        ("?api_key=no-such-key", (), 401),
        ("?api_key=%00", (), 401),
        ("?api_key=%ff%fe", (), 401),
        ("", ("x-apikey: ü",), 401),
        ("?api_key=&x=1", ("x-apikey: KEY",), 401),
        ("?api_key=ADDRESS", (), 401),
        ("?api_key=KEY&platform=wechat", (), 403),
        ("?api_key=KEY&platform=%0a", (), 400),
        ("?api_key=KEY&platform=" + "x" * 201, (), 400),
        ("?api_key=KEY&platform=qq", ("Origin: http://elsewhere.example",), 403),
        ("?api_key=KEY&EIO=3", (), 400),
        ("?api_key=KEY&EIO=", (), 400),
        ("", (), 400),
    ],
)
def test_who_is_refused_before_the_upgrade(sidecar, name, query: str, headers: tuple[str, ...], status: int):
    made = sidecar.bot_key(name, platforms=["qq"])
    query = query.replace("KEY", made["key"]).replace("ADDRESS", address_of(made["id"]))
    headers = tuple(header.replace("KEY", made["key"]) for header in headers)
    assert refusal(sidecar, f"/ws{query}", *headers) == status
    assert place(sidecar, name) == []


def test_a_request_without_upgrade_tells_nothing_of_the_key(sidecar, name):
    key = sidecar.bot_key(name)["key"]
    answers = [sidecar.get(f"/ws?api_key={one}", "") for one in (key, "other")]
    assert {answer.status_code for answer in answers} == {426}
    assert answers[0].json() == answers[1].json()


def test_frames_of_any_kind_leave_the_connection_open(sidecar, connect, name):
    key = sidecar.bot_key(name)["key"]
    one = connect(f"/ws?api_key={key}&platform=qq&uuid=u")
    for text in (
        "",
        "not json",
        '"text"',
        "[]",
        "null",
        "{}",
        '{"msg_id":NaN}',
        '{"type":["sys_std"],"payload":{}}',
        "[" * 1_000,
        '{"a":' * 33 + "1" + "}" * 33,
        '{"meta":{"queue":{"ttl_seconds":1' + "0" * 400 + "}}}",
        '{"msg_id":1' + "0" * 5_000 + "}",
        '{"type":"sys_ack","meta":{"acked_msg_id":{}}}',
        '{"type":"\\ud800","payload":"\\u0000"}',
    ):
        one.made.send(text)
    assert one.say(msg_id="last")["meta"]["acked_msg_id"] == "last"


def test_what_it_may_not_send_closes_with_a_code(sidecar, connect, name):
    key = sidecar.bot_key(name)["key"]
    binary, large = (connect(f"/ws?api_key={key}") for _ in range(2))
    binary.made.send_binary(b"{}")
    assert binary.closed() == 1003
    large.made.send(" " * 1_048_577)
    assert large.closed() == 1009
    wait_until(lambda: place(sidecar, name) == [], "nobody is left")


def test_a_revoked_key_closes_with_4401(sidecar, connect, name):
    made = sidecar.bot_key(name)
    one = connect(f"/ws?api_key={made['key']}")
    assert sidecar.request("DELETE", f"/api/maim/keys/{made['id']}").status_code == 200
    assert one.closed() == 4401
    assert refusal(sidecar, f"/ws?api_key={made['key']}") == 401


def test_bytes_are_counted_and_not_characters(sidecar, connect, name):
    one = connect(f"/ws?api_key={sidecar.bot_key(name)['key']}")
    network = "network"

    def received() -> int:
        return int(sidecar.get("/api/maim/stats").json()[network]["bytes_received"])

    text = json.dumps({"msg_id": "微" * 100}, ensure_ascii=False)
    before = received()
    one.made.send(text)
    one.next()
    assert received() - before == len(text.encode())


class Engine:
    """Bare Engine.IO by polling, at /ws/."""

    def __init__(self, server: RunningSidecar, query: str = "", **headers: str):
        self._http = httpx.Client(base_url=server.url, timeout=30, headers=headers, verify=server.tls)
        self._query = f"/ws/?EIO=4&transport=polling&{query}"
        self.opened = self._http.get(self._query)
        assert self.opened.status_code == 200, self.opened.text
        self._query += f"&sid={json.loads(self.opened.text[1:])['sid']}"

    def post(self, *packets: str) -> int:
        return self._http.post(self._query, content="\x1e".join(packets)).status_code

    def get(self) -> list[str]:
        answer = self._http.get(self._query)
        return answer.text.split("\x1e") if answer.status_code == 200 else [str(answer.status_code)]

    def connected(self) -> Engine:
        self.post("40")
        (answer,) = self.get()
        assert answer.startswith('40{"sid"'), answer
        return self

    def say(self, said: Any, number: str = "") -> int:
        return self.post(f"42{number}" + json.dumps(["message", said]))

    def told(self) -> list[Any]:
        """The arguments of the events that have come."""
        return [json.loads(packet[2:])[1] for packet in self.get() if packet.startswith('42["message",')]

    def close(self) -> None:
        self.post("1")
        self._http.close()


@pytest.fixture
def engine(sidecar: RunningSidecar) -> Iterator[Callable[..., Engine]]:
    opened: list[Engine] = []

    def make(query: str = "", **headers: str) -> Engine:
        opened.append(Engine(sidecar, query, **headers))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.mark.parametrize("where", ["query", "headers"])
def test_a_bot_may_poll(sidecar, engine, name, where: str):
    key = sidecar.bot_key(name)["key"]
    said = {"x-apikey": key, "x-platform": "qq", "x-uuid": "u"}
    one = engine(**said) if where == "headers" else engine(f"api_key={key}&platform=qq&uuid=u")
    one.connected()
    assert place(sidecar, name) == [("socketio", "qq", "u")]
    one.say(frame(message(key), msg_id="m"))
    told = one.told()
    while len(told) < 2:
        told += one.told()
    assert [one["type"] for one in told] == ["sys_ack", "sys_std"]
    assert told[0]["meta"] == {"uuid": "u", "acked_msg_id": "m", "timestamp": told[0]["meta"]["timestamp"]}
    one.post("41")
    wait_until(lambda: place(sidecar, name) == [], "it has left")


def test_a_wrong_key_is_refused_in_the_connect(sidecar, engine, name):
    made = sidecar.bot_key(name, platforms=["qq"])
    for key, platform, code in (
        ("no-such-key", "qq", "unauthenticated"),
        ("", "qq", "unauthenticated"),
        (made["key"], "wechat", "not_allowed"),
        (made["key"], "a\tb", "invalid"),
    ):
        one = engine(**{"x-apikey": key, "x-platform": platform})
        one.post("40")
        (answer,) = one.get()
        assert answer.startswith("44"), answer
        assert json.loads(answer[2:])["data"]["code"] == code
        assert "no-such-key" not in answer


def test_a_bot_has_one_namespace_and_nothing_of_a_dashboard(sidecar, engine, name):
    key = sidecar.bot_key(name)["key"]
    one = engine(**{"x-apikey": key}).connected()
    one.post("40/project-dashboard/ws,")
    (answer,) = one.get()
    assert answer.startswith("44/project-dashboard/ws,"), answer
    one.post('420["subscribe_project","p"]')
    (answer,) = one.get()
    assert answer.startswith('430[{"ok":false'), answer
    one.say({"msg_id": "m"}, number="7")
    packets = one.get()
    while not any(packet.startswith("437") for packet in packets):
        packets += one.get()
    assert [json.loads(packet[2:])[1]["type"] for packet in packets if packet.startswith("42")] == ["sys_ack"]


def test_what_comes_before_the_connect_counts_for_nothing(sidecar, engine, name):
    key = sidecar.bot_key(name)["key"]
    receiver = engine(**{"x-apikey": key, "x-platform": "qq"}).connected()
    early = engine(**{"x-apikey": key, "x-platform": "other"})
    early.say(frame(message(key, text="early")))
    later = engine(**{"x-apikey": key, "x-platform": "other"}).connected()
    later.say(frame(message(key, text="later")))
    assert [one["payload"]["message_segment"]["data"] for one in receiver.told()] == ["later"]


@pytest.mark.parametrize(
    "packets",
    [
        ['451-["message",{"_placeholder":true,"num":0}]', "bAAAA"],
        ['451-["message",{"payload":{"_placeholder":true,"num":0}}]', "bAAAA"],
    ],
)
def test_a_binary_message_ends_its_own_connection_alone(sidecar, engine, name, packets: list[str]):
    key = sidecar.bot_key(name)["key"]
    other, one = (engine(**{"x-apikey": key}).connected() for _ in range(2))
    one.post(*packets)
    assert one.post("3") == 400
    other.say({"msg_id": "m"})
    assert [one["type"] for one in other.told()] == ["sys_ack"]
    wait_until(lambda: len(place(sidecar, name)) == 1, "the other is there")


@pytest.mark.parametrize("said", ["", "not json", 5, None, [], {}, ["a"], {"type": 5}, True])
def test_a_message_of_any_kind_leaves_the_connection_open(sidecar, engine, name, said: object):
    one = engine(**{"x-apikey": sidecar.bot_key(name)["key"]}).connected()
    one.say(said)
    one.post('42["message"]', '42["other",1]', '42["message",1,2,3]')
    one.say(json.dumps({"msg_id": "m"}))
    assert [told["meta"]["acked_msg_id"] for told in one.told()] == ["m"]


def test_a_dashboard_on_the_same_path_is_no_bot(sidecar, engine, name):
    one = engine()
    one.post("40" + json.dumps({"token": sidecar.token}))
    assert one.get()[0].startswith('40{"sid"')
    one.say(frame(message("x"), msg_id="m"))
    one.post('421["heartbeat"]')
    packets = one.get()
    while not any(packet.startswith("431") for packet in packets):
        packets += one.get()
    assert not [packet for packet in packets if "sys_ack" in packet]


def test_no_key_is_in_the_output(start_sidecar, name):
    server = start_sidecar(SIDECAR_LOG_LEVEL="debug", SIDECAR_MAIM_MESSAGE_LOG="true", SIDECAR_RATE_LIMIT="off")
    key = server.bot_key(name, key="a-short-own-key")["key"]
    one = Plain(server, f"/ws?api_key={key}&platform=qq", token="")
    two = Engine(server, f"api_key={key}&platform=qq").connected()
    one.say(**frame(message(key, text="private words")))
    two.say(frame(message(key, text="private words")))
    assert refusal(server, "/ws?api_key=another-wrong-key") == 401
    server.get("/ws?api_key=a-short-own-key", "")
    server.get("/api/info?api_key=a-short-own-key", "")
    one.close()
    two.close()
    server.stop()
    for secret in (key, "private", "another-wrong-key"):
        assert secret not in server.output()
    assert "maim.message" in server.output()
