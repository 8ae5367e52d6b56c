"""Two processes of one installation on one host: whatever comes to one is at the other too, at once and in order."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.programs import ROOT, JsClient, running_nginx
from tests.servers import RunningSidecar, two_processes
from tests.sockets.clients import Page, RawWebSockets, closed_by_server, post_step, wait_until

SITE = (ROOT / "nginx" / "sidecar.conf").read_text()
QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}
_names = itertools.count(1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningSidecar]]:
    with two_processes(tmp_path_factory.mktemp("pair"), None, apart=False) as both:
        yield both


@pytest.fixture(scope="module")
def js() -> Iterator[JsClient]:
    with JsClient() as client:
        yield client


@pytest.fixture
def browser(js: JsClient) -> Iterator[Callable[..., Page]]:
    opened: list[Page] = []

    def connect(server: RunningSidecar, **options: Any) -> Page:
        opened.append(Page(js, server, token=options.pop("token", server.token), **QUICK, **options))
        return opened[-1]

    yield connect
    for page in opened:
        page.disconnect()


def test_an_event_reaches_the_browsers_of_the_other_process(pair, browser, name: str):
    here, there = pair
    page = browser(there).connected()
    page.call("subscribe_project", name)
    seqs = [post_step(here, name, name), post_step(there, name, name), post_step(here, name, name)]
    assert page.wait_for(3) == seqs


def test_posts_to_both_come_everywhere_in_one_order(pair, browser, name: str):
    pages = [browser(server).connected() for server in (*pair, *pair)]
    for page in pages:
        page.call("subscribe_project", name)
    seqs: list[int] = []

    def post(server: RunningSidecar) -> None:
        seqs.extend(post_step(server, name, f"{name}-{number}") for number in range(30))

    threads = [threading.Thread(target=post, args=[server]) for server in (*pair, *pair)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for page in pages:
        assert page.wait_for(120) == sorted(seqs)


def test_a_token_revoked_at_one_ends_the_sockets_at_both(pair, browser):
    here, there = pair
    token = here.new_token("deployments:read")
    pages = [browser(server, token=token).connected() for server in pair]
    httpx.delete(f"{there.url}/api/tokens/{token.split('_')[1]}", headers={"Authorization": f"Token {there.token}"})
    for page in pages:
        assert page.told("token_expired")["message"] == "The token has been revoked."
        assert page.next("disconnect")["reason"] == "io server disconnect"


def test_a_user_sent_away_at_one_goes_at_both_and_may_come_back(pair, browser):
    here, there = pair
    user = f"ada-{next(_names)}"
    pages = [browser(server, token=here.connection_token(sub=user)).connected() for server in pair]
    other = browser(there, token=here.connection_token(sub=f"{user}-other")).connected()
    answer = here.post(f"/api/users/{user}/disconnect").json()
    assert (answer["success"], answer["disconnected"]) == (True, 1)
    for page in pages:
        assert page.told("disconnected") == {"code": "disconnected", "message": "You have been disconnected."}
        assert page.next("disconnect")["reason"] == "io server disconnect"
        page.reconnect()
        assert page.next("connect")["recovered"] is False
    other.call("heartbeat")


def test_by_the_command_line_too(pair, browser):
    here, there = pair
    user = f"ada-{next(_names)}"
    page = browser(there, token=here.connection_token(sub=user)).connected()
    done: subprocess.CompletedProcess[str] = here.cli("user", "disconnect", user)
    assert (done.returncode, done.stdout) == (0, f"User {user} is disconnected.\n")
    page.told("disconnected")


@pytest.mark.parametrize(
    ("scopes", "token_user", "status"),
    [
        (["messages:send"], None, 200),
        (["deployments:read"], None, 403),
        (["messages:send"], "ada", 200),
        (["messages:send"], "bob", 403),
    ],
)
def test_who_may_send_a_user_away(pair, scopes: list[str], token_user: str | None, status: int):
    here, _ = pair
    token = here.new_token(*scopes, "tokens:issue")
    if token_user is not None:
        body = {"sub": token_user, "scopes": scopes}
        token = here.post("/api/tokens/connection", body, token=token).json()["token"]
    assert here.post("/api/users/ada/disconnect", token=token).status_code == status
    assert here.post("/api/users/ada/disconnect", token="").status_code == 401
    assert here.post(f"/api/users/{'x' * 300}/disconnect").status_code == 400


def test_a_client_that_comes_back_by_the_other_process_leaves_no_second_connection(pair, name: str):
    """A laptop that woke up: the first process has not noticed that it slept."""
    here, there = pair
    raw = RawWebSockets()
    former = raw(here)
    former.send("40" + json.dumps({"token": here.token}))
    answer = json.loads(str(former.recv()).removeprefix("40"))
    former.recv()
    former.send(f'421["subscribe_project","{name}"]')
    former.recv()
    former.recv()
    other = raw(there)
    other.send("40" + json.dumps({"token": here.token, "pid": answer["pid"]}))
    assert json.loads(str(other.recv()).removeprefix("40")) == answer
    assert closed_by_server(former)
    seq = post_step(here, name, name)
    assert str(other.recv()).startswith('42["session",{"recovered":true')
    assert json.loads(str(other.recv()).removeprefix("42"))[1]["seq"] == seq
    raw.close()


def test_behind_nginx_a_browser_whose_process_was_killed_goes_on_at_the_other(start_sidecar, tmp_path, js, name: str):
    """Recovered by a process that has never seen it; and nothing is missed of what came meanwhile."""
    first = start_sidecar(SIDECAR_RATE_LIMIT="off")
    second = start_sidecar(share=first, SIDECAR_RATE_LIMIT="off")
    servers = [first, second]
    site = SITE.replace("# server 127.0.0.1:8092 ", f"server 127.0.0.1:{second.port} ")
    with running_nginx(tmp_path / "nginx", site, first.port) as nginx:
        pages = [
            Page(js, nginx, token=first.token, transports=transports, withCredentials=True, **QUICK)
            for transports in (["websocket"], ["polling", "websocket"], ["polling"])
            for _ in range(4)
        ]
        sids = [page.next("connect")["sid"] for page in pages]
        for page in pages:
            page.call("subscribe_project", name)
        placed = [connections(server) for server in servers]
        assert sum(placed) == len(pages)
        seqs = [post_step(servers[number % 2], name, name) for number in range(6)]
        fuller = placed.index(max(placed))
        servers[fuller].kill()
        alive = servers[1 - fuller]
        seqs += [post_step(alive, name, name) for _ in range(6)]
        wait_until(lambda: connections(alive) == len(pages), "all have come to the other")
        seqs += [post_step(alive, name, name) for _ in range(3)]
        for page, sid in zip(pages, sids, strict=True):
            assert page.wait_for(len(seqs)) == seqs
            last = [line for line in page.lines() if line["what"] == "connect"][-1]
            assert last["sid"] == sid
        for page in pages:
            page.disconnect()


def connections(server: RunningSidecar) -> int:
    """How many sockets it holds, by its own metrics."""
    lines = server.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("sidecar_socket_connections ")).split()[1]))
