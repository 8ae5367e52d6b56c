"""Two processes of one installation behind a real nginx: every client and transport connects, and stays at one."""

from __future__ import annotations

import contextlib
import re
import threading
import uuid
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from socket import SHUT_RDWR, create_server

import httpx
import pytest

from sidecar.drain import refuse_newcomers
from tests.programs import JsClient, Nginx, running_nginx, wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import PythonPage, post_line
from tests.test_nginx import SHIPPED, TRANSPORTS

Pair = tuple[RunningSidecar, RunningSidecar]
CLIENTS = 6
"""Of each kind and transport, one after the other: by chance alone all would hardly reach one process."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    first = RunningSidecar(folder / "first", {"SIDECAR_RATE_LIMIT": "off"})
    first.start()
    second = RunningSidecar(folder / "second", {"SIDECAR_RATE_LIMIT": "off"}, first.instance)
    second.start()
    yield first, second
    for server in (first, second):
        server.stop()


@pytest.fixture(scope="module")
def site(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx/sidecar.conf as docs/nginx.md says to change it for two."""
    one, two = pair
    conf = SHIPPED.replace("# server 127.0.0.1:8092 ", f"server 127.0.0.1:{two.port} ")
    assert conf != SHIPPED
    with running_nginx(tmp_path_factory.mktemp("nginx") / "site", conf, one.port) as running:
        yield running


def two_of(pair: Pair, port: int) -> str:
    """nginx/sidecar.conf for the first process of the pair, and what is at this port."""
    return SHIPPED.replace("# server 127.0.0.1:8092 ", f"server 127.0.0.1:{port} ")


def post_lines(pair: Pair, nginx: Nginx, name: str, count: int = 24) -> tuple[list[int], list[int]]:
    """Post so many log lines through this nginx, which places each by chance: the statuses of the answers, and the
    numbers of those lines that are stored."""
    statuses = []
    headers = {"Authorization": f"Token {pair[0].token}"}
    for number in range(count):
        line = {"type": "log_entry", "project": name, "deployment_id": name, "message": str(number)}
        posted = httpx.post(f"{nginx.url}/project-dashboard/api/webhooks/deployment", json=line, headers=headers)
        statuses.append(posted.status_code)
    found = pair[0].get(f"/api/deployments/{name}/events").json().get("items", [])
    return statuses, [int(event["payload"]["message"]) for event in found]


class Site:
    """What the clients of the tests ask of a server: nginx in its place."""

    def __init__(self, nginx: Nginx):
        self.url = nginx.url


def connections(pair: Pair, figure: str = "sidecar_socket_connections") -> list[int]:
    """Open Engine.IO connections of each process, or what else it counts."""
    found = []
    for server in pair:
        figures = server.get("/metrics").text
        match = re.search(rf"^{figure} (\d+)", figures, re.MULTILINE)
        assert match
        found.append(int(match[1]))
    return found


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_official_client_connects_and_stays(pair: Pair, site: Nginx, js: JsClient, transport: str):
    name = f"several-{uuid.uuid4().hex[:12]}"
    sockets = [f"{name}-{number}" for number in range(CLIENTS)]
    for socket in sockets:
        js.connect(
            site.url,
            socket=socket,
            path="/project-dashboard/ws/",
            transports=TRANSPORTS[transport],
            auth={"token": pair[0].token},
            reconnection=False,
            withCredentials=True,
        )
        js.next("connect", socket=socket)
        assert js.call("subscribe_project", name, socket=socket)["ok"] is True
    wait_until(lambda: sum(connections(pair)) == CLIENTS, "all are connected")
    for number in range(4):
        post_line(pair[number % 2], name, f"{name}-1", f"line {number}")
    for socket in sockets:
        wait_until(lambda socket=socket: len(messages(js, socket)) == 4, f"{socket} has all")
        assert messages(js, socket) == [f"line {number}" for number in range(4)]
        assert not [line for line in js.lines if line["socket"] == socket and line["what"] == "disconnect"]
        js.send("disconnect", socket=socket)
    wait_until(lambda: sum(connections(pair)) == 0, "all are gone")


def messages(js: JsClient, socket: str) -> list[str]:
    return [
        line["args"][0]["payload"]["message"]
        for line in list(js.lines)
        if line["socket"] == socket and line["what"] == "event" and line["event"] == "event"
    ]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_python_client_connects_and_stays(pair: Pair, site: Nginx, transport: str):
    name = f"several-{uuid.uuid4().hex[:12]}"
    for attempt in range(CLIENTS):
        with PythonPage(
            Site(site),
            path="project-dashboard/ws",
            transports=TRANSPORTS[transport],
            auth={"token": pair[0].token},
        ) as page:
            assert page.client.transport() == TRANSPORTS[transport][-1]
            assert page.call("subscribe_project", name)["ok"] is True
            seqs = [post_line(pair[number % 2], name, f"{name}-{attempt}") for number in range(4)]
            wait_until(lambda page=page, seqs=seqs: page.seqs == seqs, "it has all")


def test_browsers_are_spread_and_each_stays(pair: Pair, site: Nginx):
    """Twenty browsers, each long-polling with the cookie of its first answer: no session is lost, and both serve."""
    before = connections(pair)
    browsers = []
    for _ in range(20):
        browser = httpx.Client(base_url=site.url)
        opened = browser.get("/socket.io/", params={"EIO": "4", "transport": "polling"})
        assert opened.status_code == 200
        browsers.append((browser, re.search(r'"sid":"([^"]+)"', opened.text)[1]))
    for browser, sid in browsers:
        params = {"EIO": "4", "transport": "polling", "sid": sid}
        for _ in range(3):
            assert browser.post("/socket.io/", params=params, content="3").status_code == 200
    after = connections(pair)
    assert all(now > then for now, then in zip(after, before, strict=True))
    for browser, sid in browsers:
        browser.post("/socket.io/", params={"EIO": "4", "transport": "polling", "sid": sid}, content="1")
        browser.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_is_given_once_and_says_what_a_browser_must_know(
    pair: Pair, tmp_path_factory: pytest.TempPathFactory, scheme: str
):
    conf = SHIPPED.replace('map "$scheme $cookie', f'map "{scheme} $cookie')
    assert conf.count(f'map "{scheme} $cookie') == 1
    with running_nginx(tmp_path_factory.mktemp("nginx") / "site", conf, pair[0].port) as nginx:
        asked = f"{nginx.url}/socket.io/?EIO=4&transport=polling"
        (cookie,) = SimpleCookie(httpx.get(asked).headers["set-cookie"]).values()
        assert cookie.key == "sidecar_node"
        assert cookie["path"] == "/"
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        assert bool(cookie["secure"]) is (scheme == "https")
        again = httpx.get(asked, headers={"Cookie": f"sidecar_node={cookie.value}"})
        assert "sidecar_node" not in again.headers.get("set-cookie", "")


def test_a_client_that_polls_comes_back_at_the_other_process(pair: Pair, site: Nginx, js: JsClient):
    """Its cookie names the process that left: the other one is asked in its place, and doesn't know the session."""
    name = f"several-{uuid.uuid4().hex[:12]}"
    wait_until(lambda: sum(connections(pair, "sidecar_subscribers")) == 0, "nobody else is here")
    options = {"path": "/project-dashboard/ws/", "transports": ["polling"], "withCredentials": True}
    js.connect(site.url, socket=name, auth={"token": pair[0].token}, **options)
    first = js.next("connect", socket=name)
    assert js.call("subscribe_project", name, socket=name)["ok"] is True
    post_line(pair[0], name, name, "before")
    js.next("event", lambda line: line["event"] == "event", socket=name)
    leaving, staying = pair if connections(pair, "sidecar_subscribers")[0] else reversed(pair)
    assert leaving.stop() == 0
    try:
        post_line(staying, name, name, "meanwhile")
        again = js.next("connect", socket=name)
        assert (again["sid"], again["recovered"], again["transport"]) == (first["sid"], True, "polling")
        post_line(staying, name, name, "after")
        wait_until(lambda: messages(js, name)[-1:] == ["after"], "the last has come")
        assert messages(js, name) == ["before", "meanwhile", "after"]
    finally:
        leaving.start()
        js.send("disconnect", socket=name)


def test_a_host_that_is_gone_costs_time_and_no_post(pair: Pair, tmp_path: Path):
    """It doesn't refuse, it says nothing."""
    with create_server(("127.0.0.1", 0)) as gone:
        refuse_newcomers(gone)
        conf = two_of(pair, gone.getsockname()[1]).replace("proxy_connect_timeout 3s;", "proxy_connect_timeout 50ms;")
        assert "50ms" in conf
        with running_nginx(tmp_path / "site", conf, pair[0].port) as nginx:
            name = f"several-{uuid.uuid4().hex[:12]}"
            assert post_lines(pair, nginx, name) == ([200] * 24, list(range(24)))
    tried = (nginx.folder / "sidecar.access.log").read_text()
    assert re.search(r" 504, 200$", tried, re.MULTILINE), "it was asked"


def test_a_post_that_was_sent_is_given_to_nobody_else(pair: Pair, tmp_path: Path):
    """The process that took it may have stored it before it died: only its sender, who has the key, may try again."""
    with create_server(("127.0.0.1", 0)) as listener:

        def take_and_die() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken, _ = listener.accept()
                    with taken:
                        taken.recv(10_000)

        dying = threading.Thread(target=take_and_die)
        dying.start()
        with running_nginx(tmp_path / "site", two_of(pair, listener.getsockname()[1]), pair[0].port) as nginx:
            name = f"several-{uuid.uuid4().hex[:12]}"
            statuses, stored = post_lines(pair, nginx, name)
        listener.shutdown(SHUT_RDWR)
    dying.join()
    assert set(statuses) == {200, 502}
    assert stored == [number for number, status in enumerate(statuses) if status == 200]
