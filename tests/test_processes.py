"""Two processes of one installation, on one host or on two: whatever comes to one is at the other too, at once and in
order."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from sidecar.services.connections import COOKIE_AUDIENCE
from sidecar.services.keys import load_keys
from sidecar.wire.claims import Claims, sign
from tests.programs import ROOT, JsClient, running_nginx, wait_until
from tests.servers import RunningSidecar, two_processes
from tests.sockets.clients import NAMESPACES, Page, Plain, RawWebSockets, closed_by_server, connections, post_step

SITE = (ROOT / "nginx" / "sidecar.conf").read_text()
QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}
_names = itertools.count(1)


@pytest.fixture(scope="module", params=["one host", "two hosts"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningSidecar]]:
    """On one host they share a folder and SQLite; on two a PostgreSQL and a Redis."""
    url, more = None, {}
    if request.param == "two hosts":
        postgres, redis = request.getfixturevalue("postgres"), request.getfixturevalue("redis_session")
        url = postgres.url(postgres.new_database()).replace("+psycopg", "")
        more["SIDECAR_REDIS_URL"] = redis.url
    with two_processes(tmp_path_factory.mktemp("pair"), url, apart=url is not None, **more) as servers:
        yield servers


@pytest.fixture
def browser(js: JsClient) -> Iterator[Callable[..., Page]]:
    opened: list[Page] = []

    def connect(server: RunningSidecar, **options: Any) -> Page:
        opened.append(Page(js, server, token=options.pop("token", server.token), **QUICK, **options))
        return opened[-1]

    yield connect
    for page in opened:
        page.disconnect()


@pytest.fixture
def plain() -> Iterator[Callable[..., Plain]]:
    opened: list[Plain] = []

    def connect(server: RunningSidecar, path: str, token: str) -> Plain:
        opened.append(Plain(server, path, token))
        if token:
            opened[-1].next()
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


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
        seqs.extend(post_step(server, name, f"{name}-{number}") for number in range(15))

    threads = [threading.Thread(target=post, args=[server]) for server in (*pair, *pair)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for page in pages:
        assert page.wait_for(60) == sorted(seqs)


def test_a_token_revoked_at_one_ends_the_sockets_at_both(pair, browser):
    here, there = pair
    token = here.new_token("deployments:read")
    pages = [browser(server, token=token).connected() for server in pair]
    httpx.delete(f"{there.url}/api/tokens/{token.split('_')[1]}", headers={"Authorization": f"Token {there.token}"})
    for page in pages:
        assert page.told("token_expired")["message"] == "The token has been revoked."
        assert page.next("disconnect")["reason"] == "io server disconnect"


def test_what_is_revoked_at_one_opens_nothing_at_the_other(pair, browser, plain, name: str):
    """Not from the moment on at which the other has told somebody of what came after; and what was open is closed."""
    here, there = pair
    scopes = ("deployments:read", "rooms:read", "messages:send")
    issuer, admin = here.new_token("tokens:issue", *scopes), here.new_token("admin")
    issued = here.post("/api/tokens/connection", {"sub": name, "scopes": scopes}, token=issuer).json()["token"]
    now = int(time.time())
    claims = Claims(COOKIE_AUDIENCE, admin.split("_")[1], now, now + 600)
    cookie = sign(claims, load_keys(here.instance, None).derive("login-cookie"))
    secret = here.post("/api/secrets", {"name": name}).json()
    bot = here.bot_key("ada", tenant=name)

    def post_signed() -> int:
        body = json.dumps({"type": "step_started", "project": name, "deployment_id": name, "step_name": "x"}).encode()
        signature = hmac.new(secret["secret"].encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Hub-Signature-256": f"sha256={signature}"}
        return here.post("/api/webhooks/deployment", token="", content=body, headers=headers).status_code

    def statuses() -> list[int]:
        """Of requests with each of them."""
        by_cookie = here.get("/api/tokens", token="", headers={"Cookie": f"sidecar_login={cookie}"})
        asked = [here.get("/api/projects", token=token).status_code for token in (issuer, issued, admin)]
        return [*asked, by_cookie.status_code, post_signed()]

    assert statuses() == [200] * 5
    assert statuses() == [200] * 5, "from memory"
    pages = [browser(here, token=token).connected() for token in (issuer, issued)]
    sockets = [plain(here, path, issued) for path in ("/ws/rooms/x/", "/ws/permissions/")]
    sockets.append(plain(here, f"/ws?api_key={bot['key']}&platform=qq", ""))
    wait_until(lambda: here.get("/api/maim/connections", params={"tenant": name}).json()["items"] != [], "the bot")
    witness = browser(here).connected()
    witness.call("subscribe_project", name)
    for path in (
        f"/api/tokens/{issuer.split('_')[1]}",
        f"/api/tokens/{admin.split('_')[1]}",
        f"/api/secrets/{secret['id']}",
        f"/api/maim/keys/{bot['id']}",
    ):
        assert there.request("DELETE", path).status_code == 200
    seq = post_step(there, name, name)
    assert witness.wait_for(1) == [seq]
    assert statuses() == [401] * 5
    for page in pages:
        assert page.told("token_expired")["message"] == "The token has been revoked."
        assert page.next("disconnect")["reason"] == "io server disconnect"
    assert [socket.closed() for socket in sockets] == [4401] * 3


def test_a_token_revoked_in_a_terminal_opens_nothing_at_either(pair, browser):
    """A process without a server, on one of the hosts."""
    here, there = pair
    token = here.new_token("deployments:read")
    pages = [browser(server, token=token).connected() for server in pair]
    done = there.cli("token", "revoke", token.split("_")[1])
    assert done.returncode == 0, done.stderr
    for page in pages:
        assert page.next("disconnect")["reason"] == "io server disconnect"
    assert [server.get("/api/projects", token=token).status_code for server in pair] == [401, 401]


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


def test_every_kind_of_socket_of_a_user_sent_away_at_the_other_ends(pair, browser, plain):
    here, there = pair
    user = f"ada-{next(_names)}"
    token = here.connection_token(sub=user)
    pages = [
        browser(here, token=token, namespace=namespace, transports=transports).connected()
        for namespace, transports in zip(NAMESPACES, (["websocket"], ["polling"]), strict=True)
    ]
    sockets = [plain(here, path, token) for path in ("/ws/rooms/x/", "/ws/test/x/", "/ws/permissions/")]
    assert there.post(f"/api/users/{user}/disconnect").status_code == 200
    for page in pages:
        assert page.told("disconnected")["code"] == "disconnected"
        assert page.next("disconnect")["reason"] == "io server disconnect"
    assert [socket.closed() for socket in sockets] == [4403] * 3


def test_the_connections_of_both_are_counted(pair, browser, plain, name: str):
    here, there = pair
    token = here.connection_token(sub=name, rooms=[f"room:{name}", f"project:{name}"])
    for page in (browser(here), browser(there), browser(there, token=token)):
        page.connected()
        page.call("subscribe_room", name)
        page.call("subscribe_project", name)
    plain(there, f"/ws/rooms/{quote(name)}/", here.token)
    everybody = {"asked": 2, "answered": 2}
    for server, of_one in ((here, 1), (there, 3)):
        assert server.post("/api/send-websocket/", {"room": name}).json()["recipients"] == of_one
        answer = server.post("/api/send-websocket/?count=all", {"room": name}).json()
        assert (answer["recipients"], answer["nodes"]) == (4, everybody)
        body = {"room": name, "target_user": name}
        answer = server.post("/ashe/send-websocket?count=all", body).json()
        assert (answer["recipients"], answer["nodes"]) == (1, everybody)
        body = {"type": "step_started", "project": name, "deployment_id": name, "step_name": "build"}
        answer = server.post("/api/webhooks/deployment?count=all", body).json()
        assert (answer["recipients"], answer["nodes"]) == (3, everybody)


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
