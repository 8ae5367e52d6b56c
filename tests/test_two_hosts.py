"""Two processes as on two hosts, on a PostgreSQL and a Redis: a browser that loses one finds its place at the other,
and who is sent away or loses a token loses it at both; also while the Redis is away, or one of them stands still."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.chaos.loop import Loop
from tests.chaos.proxy import Proxy
from tests.programs import JsClient, wait_until
from tests.redis import RedisServer
from tests.servers import RunningSidecar, two_processes
from tests.sockets.clients import Page, Plain, connections, post_step

QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}
_names = itertools.count(1)


@pytest.fixture(scope="module")
def hosts(
    postgres, redis_session: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[RunningSidecar]]:
    url = postgres.url(postgres.new_database()).replace("+psycopg", "")
    folder = tmp_path_factory.mktemp("hosts")
    with two_processes(folder, url, apart=True, SIDECAR_REDIS_URL=redis_session.url) as servers:
        yield servers


@pytest.fixture(params=["redis", "no redis"])
def stage(request: pytest.FixtureRequest, hosts, redis_server: RedisServer) -> list[RunningSidecar]:
    """Both, with their Redis or without it."""
    if request.param == "no redis":
        redis_server.stop(signal.SIGKILL)
    servers: list[RunningSidecar] = hosts
    return servers


@pytest.fixture
def road() -> Iterator[Callable[[RunningSidecar], Road]]:
    """`road(server)`: browsers reach this one by it, until it is changed."""
    loop = Loop()
    opened: list[Road] = []

    def make(server: RunningSidecar) -> Road:
        opened.append(Road(loop, server))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    loop.close()


class Road(Proxy):
    """What lies between a browser and the servers; `url` is what the browser knows of them."""

    def __init__(self, loop: Loop, server: RunningSidecar):
        super().__init__(loop, [server.port], random.Random(0))

    def cut(self, how: str) -> None:  # type: ignore[override]
        """Every connection, and nobody is reached before it leads to a server again. `mute`: the former server hears
        nothing of it; `end`: it is told."""
        self.targets = []
        self._loop.call(lambda: self._each(1.0, lambda link: link.cut(how)))

    def lead_to(self, server: RunningSidecar) -> None:
        self.targets = [server.port]


class Browser(Page):
    """A page of one project that comes to the servers by a road."""

    def __init__(self, js: JsClient, road: Road, server: RunningSidecar, project: str):
        super().__init__(js, road, token=server.token, **QUICK)  # type: ignore[arg-type]
        self.sid = self.next("connect")["sid"]
        self.call("subscribe_project", project)
        self.next("event", lambda line: line["event"] == "session")

    def recovered(self) -> bool:
        """As the same session, when it comes back."""
        line = self.next("connect")
        session = self.told("session")
        return line["recovered"] is True and line["sid"] == self.sid and session["recovered"] is True


@contextmanager
def frozen(server: RunningSidecar) -> Iterator[None]:
    """It stands still: its connections stay, and it does nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("how", ["end", "mute"])
def test_a_browser_that_is_cut_off_goes_on_at_the_other(stage, js, road, name: str, how: str):
    """The former server may not have noticed, as of a laptop that was shut; it ends that connection when it hears."""
    one, two = stage
    way = road(one)
    page = Browser(js, way, one, name)
    seqs = [post_step(server, name, name) for server in (one, two, one)]
    assert page.wait_for(3) == seqs
    way.cut(how)
    seqs += [post_step(server, name, name) for server in (one, two)]
    way.lead_to(two)
    assert page.recovered()
    seqs += [post_step(server, name, name) for server in (one, two)]
    assert page.wait_for(len(seqs)) == seqs
    wait_until(lambda: connections(one) == 0, "it has ended the connection that it had")
    page.disconnect()


def test_a_browser_whose_server_stands_still_goes_on_at_the_other(stage, js, road, name: str):
    """When it goes on, it says nothing more to who is elsewhere by now."""
    one, two = stage
    way = road(one)
    page = Browser(js, way, one, name)
    seqs = [post_step(one, name, name)]
    assert page.wait_for(1) == seqs
    with frozen(one):
        seqs.append(post_step(two, name, name))
        way.cut("mute")
        way.lead_to(two)
        assert page.recovered()
        seqs.append(post_step(two, name, name))
        assert page.wait_for(3) == seqs
    wait_until(lambda: connections(one) == 0, "it has ended the connection that it had")
    seqs.append(post_step(one, name, name))
    assert page.wait_for(4) == seqs
    page.disconnect()


def test_a_browser_whose_server_was_killed_goes_on_at_the_other(stage, js, road, name: str):
    one, two = stage
    way = road(one)
    page = Browser(js, way, one, name)
    seqs = [post_step(server, name, name) for server in (one, two)]
    assert page.wait_for(2) == seqs
    seqs.append(post_step(one, name, name))
    way.lead_to(two)
    one.kill()
    try:
        seqs += [post_step(two, name, name) for _ in range(2)]
        assert page.recovered()
        assert page.wait_for(len(seqs)) == seqs
    finally:
        one.start()
    seqs.append(post_step(one, name, name))
    assert page.wait_for(len(seqs)) == seqs
    page.disconnect()


def test_who_is_sent_away_at_one_goes_at_the_other(stage, js):
    one, two = stage
    user = f"ada-{next(_names)}"
    token = one.connection_token(sub=user)
    page = Page(js, one, token=token, **QUICK).connected()
    plain = [Plain(one, path, token) for path in ("/ws/rooms/x/", "/ws/permissions/")]
    for connection in plain:
        connection.next()  # it is in: the handshake's answer comes a moment before
    assert two.post(f"/api/users/{user}/disconnect").status_code == 200
    assert page.told("disconnected")["code"] == "disconnected"
    assert [connection.closed() for connection in plain] == [4403] * 2
    for connection in plain:
        connection.close()


def test_all_connections_are_counted(stage, js, name: str):
    one, two = stage
    pages = [Page(js, server, token=server.token, **QUICK).connected() for server in stage]
    for page in pages:
        page.call("subscribe_room", name)
    for server in stage:
        answer = server.post("/api/send-websocket/?count=all", {"room": name}).json()
        assert (answer["recipients"], answer["nodes"]) == (2, {"asked": 2, "answered": 2})
    with frozen(one):
        answer = two.post("/api/send-websocket/?count=all", {"room": name}).json()
        assert (answer["recipients"], answer["nodes"]) == (1, {"asked": 2, "answered": 1})
    for page in pages:
        assert len(page.wait_for(3)) == 3
        page.disconnect()


def test_who_loses_a_token_loses_it_at_both(stage, js):
    """By the command line, a process without a server on one of the hosts."""
    one, two = stage
    token = one.new_token("deployments:read")
    pages = [Page(js, server, token=token, **QUICK).connected() for server in stage]
    answer = two.cli("token", "revoke", token.split("_")[1])
    assert answer.returncode == 0, answer.stderr
    for page in pages:
        assert page.told("token_expired")["message"] == "The token has been revoked."
        assert page.next("disconnect")["reason"] == "io server disconnect"
    assert [server.get("/api/projects", token=token).status_code for server in stage] == [401, 401]


def test_who_stood_still_takes_no_token_that_was_revoked_meanwhile(hosts, js):
    """Nor in the first requests, which it finds waiting before it can have heard of it, nor from open sockets."""
    one, two = hosts
    room = f"room-{next(_names)}"
    token = one.new_token("deployments:read", "rooms:read", "messages:send")
    page, witness = (Page(js, one, token=given, **QUICK).connected() for given in (token, one.token))
    plain = Plain(one, f"/ws/rooms/{room}/", token)
    witness.call("subscribe_room", room)
    assert [one.get("/api/projects", token=token).status_code for _ in range(2)] == [200, 200]
    head = f"GET /api/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Token {token}\r\nConnection: close\r\n\r\n"
    with contextlib.ExitStack() as opened:
        with frozen(one):
            assert two.request("DELETE", f"/api/tokens/{token.split('_')[1]}").status_code == 200
            end = time.monotonic() + 2.5
            wait_until(lambda: time.monotonic() > end, "what it knows is old")
            waiting = [opened.enter_context(socket.create_connection(("127.0.0.1", one.port), 60)) for _ in range(8)]
            for one_more in waiting:
                one_more.sendall(head.encode())
            page.emit("chat", room, {"message": "I should be gone"})
            plain.send(message="I should be gone")
        answers = [bytes(part.recv(12)) for part in waiting]
    assert answers == [b"HTTP/1.1 401"] * 8
    assert page.told("token_expired")["code"] == "token_expired"
    assert plain.closed() == 4401
    seq = int(two.post("/api/send-websocket/", {"room": room}).json()["event_id"])
    assert witness.wait_for(1) == [seq]
    plain.close()
    witness.disconnect()
