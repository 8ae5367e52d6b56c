"""Two processes of one installation behind a real nginx: every client and transport connects, and stays at one."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from http.cookies import SimpleCookie

import httpx
import pytest

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


@pytest.fixture(scope="module")
def js() -> Iterator[JsClient]:
    with JsClient() as client:
        yield client


class Site:
    """What the clients of the tests ask of a server: nginx in its place."""

    def __init__(self, nginx: Nginx):
        self.url = nginx.url


def connections(pair: Pair) -> list[int]:
    """Open Engine.IO connections of each process."""
    found = []
    for server in pair:
        figures = server.get("/metrics").text
        match = re.search(r"^sidecar_socket_connections (\d+)", figures, re.MULTILINE)
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
