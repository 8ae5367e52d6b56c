"""Bots of two processes of one installation: they reach each other, nothing comes twice, and a kill loses nothing that
was kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import wait_until
from tests.servers import RunningSidecar
from tests.services.bots import frame, message
from tests.sockets.clients import Plain

MESSAGES = 20
Stage = list[RunningSidecar]
Connect = Callable[..., "Bot"]


class Bot(Plain):
    """`told()` is the next frame that is no acknowledgement; those are in `acked`."""

    def __init__(self, server: RunningSidecar, key: str, platform: str = "qq", uuid: str = ""):
        super().__init__(server, f"/ws?api_key={key}&platform={platform}&uuid={uuid}", token="")
        self.acked: list[str] = []
        self.early: list[dict[str, Any]] = []
        self.send(msg_id="here")  # the handshake is answered before it is taken in
        while "here" not in self.acked:
            self.early += [found for found in [self.next()] if not self._is_ack(found)]

    def _is_ack(self, found: dict[str, Any]) -> bool:
        if found["type"] == "sys_ack":
            self.acked.append(found["meta"]["acked_msg_id"])
        return bool(found["type"] == "sys_ack")

    def told(self) -> dict[str, Any]:
        while not self.early:
            self.early += [found for found in [self.next()] if not self._is_ack(found)]
        return self.early.pop(0)

    def texts(self, count: int) -> list[Any]:
        return [self.told()["payload"]["message_segment"]["data"] for _ in range(count)]

    def quiet(self) -> bool:
        """Has nothing come but acknowledgements, up to now?"""
        self.send(msg_id="quiet")
        while self.acked[-1] != "quiet":
            self.early += [found for found in [self.next()] if not self._is_ack(found)]
        return not self.early

    def acknowledge(self, *frames: dict[str, Any]) -> None:
        for one in frames:
            self.send(type="sys_ack", meta={"acked_msg_id": one["msg_id"]}, payload={})


def reached(server: RunningSidecar, key: str) -> int:
    """How many connections a message from this process would go to."""
    found = server.post("/api/maim/route", {"api_key": key, "platform": "qq"}).json()
    return len(found["connections"])


@pytest.fixture(scope="module")
def stage(two_servers: list[RunningSidecar]) -> list[RunningSidecar]:
    return two_servers


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(server, key)`: a bot."""
    opened: list[Bot] = []

    def make(*args: Any, **more: Any) -> Bot:
        opened.append(Bot(*args, **more))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_bots_reach_each_other_and_a_repetition_nobody(stage: Stage, connect, name):
    here, there = stage
    key, own = (here.bot_key(user, tenant=name)["key"] for user in ("bob", "alice"))
    alice, again = connect(here, own, "wechat"), connect(there, own, "wechat")
    peers = [connect(here, key), connect(there, key), connect(there, key)]
    for server in stage:
        wait_until(lambda server=server: reached(server, key) == 3, "each knows of all")
    for number in range(MESSAGES):
        alice.send(**frame(message(key, text=number), msg_id=f"{name}-{number}"))
        again.send(**frame(message(key, text="repeated"), msg_id=f"{name}-{number}"))
        assert [peer.texts(1) for peer in peers] in ([[number]] * 3, [["repeated"]] * 3)
    assert all(peer.quiet() for peer in [*peers, alice, again])
    assert len(alice.acked) == len(again.acked) == MESSAGES + 2


def test_the_api_reaches_both(stage: Stage, connect, name):
    here, _ = stage
    key = here.bot_key("bob", tenant=name)["key"]
    peers = {f"{name[-20:]}-{number}": server for number, server in enumerate(stage)}
    bots = [connect(server, key, uuid=uuid) for uuid, server in peers.items()]
    everybody = dict.fromkeys(peers, True)
    for server in stage:
        answer = server.post("/api/maim/send", {"message": message(key)}, headers={"Idempotency-Key": name})
        assert answer.json() == everybody
        assert server.post("/api/maim/broadcast", message("") | {"tenant": name}).json() == everybody
        for uuid in peers:
            body = {"message_type": "x", "payload": 1, "connection_uuid": uuid}
            assert server.post("/api/maim/custom", body).json() == {uuid: True}
        items = server.get("/api/maim/connections", params={"tenant": name}).json()["items"]
        assert {item["uuid"] for item in items} == set(peers)
        assert len({item["node"] for item in items}) == 2
    for bot in bots:
        kinds = sorted(bot.told()["type"] for _ in range(5))
        assert kinds == ["custom_x", "custom_x", "sys_std", "sys_std", "sys_std"]
        assert bot.quiet()


def test_a_client_that_goes_to_the_other_process_is_at_one_place(stage: Stage, connect, name):
    here, there = stage
    key = here.bot_key(name)["key"]
    for _ in range(3):
        for server, other in ((here, there), (there, here)):
            before = connect(server, key, uuid=name[-20:])
            after = connect(other, key, uuid=name[-20:])
            assert before.closed() == 1000
            answer = server.post("/api/maim/send", {"message": message(key)})
            assert answer.json() == {name[-20:]: True}
            assert after.texts(1) == ["hello"]


def test_what_is_kept_comes_wherever_its_receiver_connects(stage: Stage, connect, name):
    here, there = stage
    key, own = (here.bot_key(user, tenant=name)["key"] for user in ("bob", "alice"))
    senders = [connect(server, own, "wechat") for server in stage]
    for number in range(MESSAGES):
        sender = senders[number % 2]
        sender.send(**frame(message(key, text=number), queue=True))
        assert sender.next()["type"] == "sys_ack"
    dead = connect(here, key)
    given = [dead.told() for _ in range(MESSAGES)]
    dead.acknowledge(*given[:5])
    assert dead.quiet()
    alive = connect(there, key)
    first = alive.told()
    while first["msg_id"] in {one["msg_id"] for one in given[:5]}:  # acknowledged a moment ago at the other process
        first = alive.told()
    assert [first["payload"]["message_segment"]["data"], *alive.texts(MESSAGES - 6)] == list(range(5, MESSAGES))
    assert first["msg_id"] == given[5]["msg_id"]
    alive.acknowledge(*given[5:])
    wait_until(lambda: connect(here, key).quiet(), "nothing waits")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_kill_loses_nothing_that_was_kept_and_leaves_no_ghost(
    start_sidecar, request, tmp_path: Path, connect, database: str
):
    environment = {"SIDECAR_RATE_LIMIT": "off"}
    if database == "postgresql":
        postgres = request.getfixturevalue("postgres")
        environment["SIDECAR_DATABASE_URL"] = postgres.url(postgres.new_database()).replace("+psycopg", "")
    first = start_sidecar(**environment)
    second = start_sidecar(share=first, **environment)
    key, own = (first.bot_key(user)["key"] for user in ("bob", "alice"))
    receiver, sender = connect(first, key), connect(second, own, "wechat")
    acked: list[str] = []
    enough = threading.Event()
    stopped = threading.Event()

    def send() -> None:
        number = 0
        while not stopped.is_set():
            msg_id = f"m{number}"
            sender.send(**frame(message(key, text=number), msg_id=msg_id, queue=True))
            assert sender.next()["meta"]["acked_msg_id"] == msg_id
            acked.append(msg_id)
            number += 1
            if number == 30:
                enough.set()

    sending = threading.Thread(target=send)
    sending.start()
    assert enough.wait(30)
    given = [receiver.told() for _ in range(10)]
    receiver.acknowledge(*given[:3])
    first.kill()
    again = connect(second, key)
    stopped.set()
    sending.join()
    texts = [one["payload"]["message_segment"]["data"] for one in given]
    assert texts == list(range(10))
    came: list[Any] = []
    while not came or came[-1] != len(acked) - 1:
        came += again.texts(1)
    assert set(range(len(acked))) <= set(texts[:3]) | set(came)
    assert came == sorted(set(came)), "in order, and each once"
    again.close()
    wait_until(
        lambda: second.get("/api/maim/connections", params={"user": "bob"}).json()["items"] == [], "nobody is there"
    )
    answer = second.post("/api/maim/send", {"message": message(key)})
    assert (answer.json(), answer.headers["X-Maim-Undelivered"]) == ({}, "offline")
