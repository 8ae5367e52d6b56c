"""static/sidecar.js follows projects and deployments in a real Chromium: behind a proxy that cuts, beside a server
that is killed and started again, with tokens that end."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from tests.chaos.loop import Loop
from tests.chaos.proxy import Proxy
from tests.chromium import Browser
from tests.conftest import Start
from tests.servers import RunningSidecar
from tests.sidecar_js.site import PREFIX, QUICK, Site, allowing, connect


@pytest.fixture
def own_server(site: Site, start_sidecar: Start) -> RunningSidecar:
    """One that the test may end."""
    server = start_sidecar(**allowing(site))
    site.token = lambda: server.connection_token(sub="ada")
    return server


@pytest.fixture
def proxy(server: RunningSidecar) -> Iterator[Proxy]:
    loop = Loop()
    proxy = Proxy(loop, [server.port], random.Random(1))
    yield proxy
    proxy.close()
    loop.close()


def post(server: RunningSidecar, name: str, message: str, deployment: str | None = None) -> None:
    body = {"type": "log_entry", "project": name, "deployment_id": deployment or name, "message": message}
    assert server.post("/api/webhooks/deployment", body).status_code == 200


def follow(page: Browser, kind: str, name: str, variable: str = "room") -> None:
    """Keep what a consumer is given: `told` is the log of it, messages and snapshots."""
    page.evaluate(f"""
        window.{variable} = {{ events: [], seqs: [], snapshots: [], states: [] }};
        window.{variable}.room = sidecar.{kind}({json.dumps(name)}, {{
          onEvent: (event) => {{ {variable}.events.push(event.payload.message); {variable}.seqs.push(event.seq); }},
          onSnapshot: (snapshot, at) => {{ {variable}.snapshots.push([snapshot, at]); }},
          onState: ({{ state, code }}) => {{ {variable}.states.push(code ? state + " " + code : state); }},
        }}); null""")


def live(page: Browser, variable: str = "room") -> None:
    page.wait_for(f"{variable}.room.state.state === 'live'")


def events(page: Browser, number: int, variable: str = "room") -> list[str]:
    """The messages, once there are so many."""
    page.wait_for(f"{variable}.events.length >= {number}")
    assert page.evaluate(f"{variable}.seqs.every((seq, at) => at === 0 || seq > {variable}.seqs[at - 1])")
    found: list[str] = page.evaluate(f"{variable}.events")
    return found


def numbered(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last)]


def test_a_deployment_is_a_snapshot_and_then_each_event_once(page, server, name):
    post(server, name, "before", f"{name}-1")
    connect(page, server.url)
    follow(page, "deployment", f"{name}-1")
    live(page)
    post(server, name, "after", f"{name}-1")
    post(server, name, "of another", f"{name}-2")
    post(server, name, "last", f"{name}-1")
    assert events(page, 2) == ["after", "last"]
    [[snapshot, at]] = page.evaluate("room.snapshots")
    assert (snapshot["id"], snapshot["lines"], at["reason"]) == (f"{name}-1", 1, "start")
    assert page.evaluate("room.states") == ["connecting", "live"]
    assert page.errors == []


def test_a_deployment_that_nobody_has_seen_is_followed_from_its_first_event(page, server, name):
    connect(page, server.url)
    follow(page, "deployment", name)
    live(page)
    assert page.evaluate("room.snapshots[0][0]") is None
    post(server, name, "first", name)
    assert events(page, 1) == ["first"]


def test_a_project_and_its_deployment_each_get_every_event(page, server, name):
    """On one connection the server would send each only once, and replay them in its own order."""
    connect(page, server.url)
    follow(page, "project", name, "project")
    live(page, "project")
    for number in range(5):
        post(server, name, f"line {number}", name)
    assert events(page, 5, "project") == numbered(0, 5)
    follow(page, "deployment", name, "deployment")
    live(page, "deployment")
    post(server, name, "line 5", name)
    assert events(page, 6, "project") == numbered(0, 6)
    assert events(page, 1, "deployment") == ["line 5"]
    assert page.evaluate("deployment.snapshots[0][0].lines") == 5


def test_cut_connections_lose_nothing_and_double_nothing(page, server, proxy, name):
    connect(page, proxy.url)
    follow(page, "project", name)
    live(page)
    for number in range(60):
        if number % 6 == 3:
            proxy.cut(1.0)
        post(server, name, f"line {number}")
    assert events(page, 60) == numbered(0, 60)
    assert page.evaluate("room.snapshots.length") == 1


def test_a_server_that_is_killed_and_started_again_loses_nothing(page, own_server, name):
    connect(page, own_server.url)
    follow(page, "project", name)
    live(page)
    for round in range(3):
        for number in range(10 * round, 10 * round + 5):
            post(own_server, name, f"line {number}")
        own_server.kill()
        page.wait_for("room.room.state.state === 'away'")
        own_server.start()
        for number in range(10 * round + 5, 10 * round + 10):
            post(own_server, name, f"line {number}")
    assert events(page, 30) == numbered(0, 30)
    assert page.evaluate("room.snapshots.length") == 1


def test_two_processes_give_a_page_that_changes_between_them_each_event_once(
    page, site, own_server, start_sidecar, name
):
    second = start_sidecar(share=own_server, **allowing(site))
    loop = Loop()
    proxy = Proxy(loop, [own_server.port, second.port], random.Random(3))
    connect(page, proxy.url)
    follow(page, "project", name)
    live(page)
    for number in range(40):
        if number % 8 == 4:
            proxy.cut(1.0)
        post((own_server, second)[number % 2], name, f"line {number}")
    assert events(page, 40) == numbered(0, 40)
    proxy.close()
    loop.close()


def test_without_a_session_to_recover_the_last_offset_does(page, site, start_sidecar, name):
    server = start_sidecar(**allowing(site), SIDECAR_RECOVERY_SECONDS="0")
    site.token = lambda: server.connection_token(sub="ada")
    connect(page, server.url)
    follow(page, "project", name)
    live(page)
    post(server, name, "line 0")
    assert events(page, 1) == ["line 0"]
    page.evaluate("room.room.line.socket.disconnect(); null")
    for number in range(1, 6):
        post(server, name, f"line {number}")
    page.evaluate("room.room.line.socket.connect(); null")
    assert events(page, 6) == numbered(0, 6)
    assert not page.evaluate("room.room.line.socket.recovered")
    assert page.evaluate("room.snapshots.length") == 1


def test_another_journal_gives_a_new_snapshot(page, site, own_server, start_sidecar, name):
    """A backup was restored, or the installation was made anew, at the same address."""
    connect(page, own_server.url)
    follow(page, "project", name)
    live(page)
    post(own_server, name, "of the old journal", "old")
    events(page, 1)
    own_server.stop()
    other = start_sidecar(**allowing(site), SIDECAR_PORT=str(own_server.port))
    site.token = lambda: other.connection_token(sub="ada")
    post(other, name, "of the new one", "new")
    page.evaluate("sidecar.renew()")
    page.wait_for("room.snapshots.length === 2")
    snapshot, at = page.evaluate("room.snapshots[1]")
    live(page)
    post(other, name, "line 1", "new")
    assert at["reason"] == "truncated"
    # The answer to the subscription may be older than the first event: it is in the snapshot or comes, never both.
    in_snapshot = [item["id"] for item in snapshot["deployments"]] == ["new"]
    assert events(page, 2 if in_snapshot else 3)[1:] == ([] if in_snapshot else ["of the new one"]) + ["line 1"]


def test_messages_that_name_the_project_are_not_taken_for_its_events(page, server, name):
    connect(page, server.url)
    follow(page, "project", name)
    live(page)
    for path, more in (("/api/notify-user/", {"user_id": "ada"}), ("/api/broadcast/", {})):
        body = {"type": "notice", "message": "x", "data": {"project": name, "deployment_id": "1"}, **more}
        assert server.post(path, body).json()["recipients"] >= 1
    post(server, name, "the only one")
    assert events(page, 1) == ["the only one"]


def test_an_event_that_comes_twice_is_told_once(page, server, name):
    """As behind a snapshot that includes what is replayed after it."""
    connect(page, server.url)
    follow(page, "project", name)
    live(page)
    page.evaluate("room.room.line.socket.on('event', (event) => (window.old ??= event)); null")
    post(server, name, "first")
    post(server, name, "second")
    assert events(page, 2) == ["first", "second"]
    page.evaluate("room.room.line.socket.listeners('event').forEach((listener) => listener(old))")
    assert events(page, 2) == ["first", "second"]


def test_a_room_without_the_right_to_it_says_so(page, site, server, name):
    site.token = lambda: server.connection_token(sub="ada", rooms=["project:another"])
    connect(page, server.url)
    follow(page, "project", name)
    page.wait_for("room.states.at(-1) === 'refused not_allowed'")


def test_a_right_that_ends_with_a_new_token_is_told(page, site, server, name):
    connect(page, server.url)
    follow(page, "project", name)
    live(page)
    site.token = lambda: server.connection_token(sub="ada", rooms=["project:another"])
    page.evaluate("room.room.line._renew()")
    page.wait_for("room.states.at(-1) === 'refused not_allowed'")
    post(server, name, "not for ada")
    site.token = lambda: server.connection_token(sub="ada")
    page.evaluate("sidecar.renew(); room.room.stop(); room.room.start(); null")
    live(page)
    assert page.evaluate("room.events") == []
    assert page.evaluate("room.snapshots.at(-1)[0].deployments.length") == 1


def test_before_a_token_ends_a_new_one_takes_its_place_on_the_live_connection(page, site, server, name):
    """The server warns half a minute before the end: of this one at once. Revoking what it rested on shows that the
    connection rests on the new one."""
    first = server.post("/api/tokens", {"name": "back end", "scopes": ["tokens:issue", "deployments:read"]}).json()
    body = {"sub": "ada", "ttl_seconds": 25}
    short = server.post("/api/tokens/connection", body, token=first["token"]).json()["token"]
    site.token = lambda: server.connection_token(sub="ada") if site.asked > 1 else short
    connect(page, server.url)
    follow(page, "project", name)
    follow(page, "deployment", name, "other")
    for room in ("room", "other"):
        page.wait_for(f"![null, {json.dumps(short)}].includes({room}.room.line.token)")
    live(page)
    live(page, "other")
    assert site.asked == 2
    assert server.request("DELETE", f"/api/tokens/{first['id']}").status_code == 200
    post(server, name, "line 0")
    assert events(page, 1) == ["line 0"]
    assert page.evaluate("room.states") == ["connecting", "live"]


def test_a_revoked_token_is_replaced_by_a_new_one(page, site, server, name):
    first = server.post("/api/tokens", {"name": "back end", "scopes": ["tokens:issue", "deployments:read"]}).json()
    site.token = lambda: server.post("/api/tokens/connection", {"sub": "ada"}, token=first["token"]).json()["token"]
    connect(page, server.url)
    follow(page, "project", name)
    live(page)
    post(server, name, "line 0")
    site.token = lambda: None  # the back end has no good token either, for a while
    assert server.request("DELETE", f"/api/tokens/{first['id']}").status_code == 200
    page.wait_for("room.states.includes('away no_token')")
    post(server, name, "line 1")
    site.token = lambda: server.connection_token(sub="ada")
    assert events(page, 2) == ["line 0", "line 1"]
    live(page)


def test_the_only_token_of_a_page_that_has_ended_is_said_and_not_tried_again(page, server, name):
    made = server.post("/api/tokens", {"name": "page", "scopes": ["deployments:read"]}).json()
    page.evaluate(
        f"window.sidecar = new Sidecar({{ url: '{server.url}{PREFIX}', token: '{made['token']}', {QUICK} }}); null"
    )
    follow(page, "project", name)
    live(page)
    assert server.request("DELETE", f"/api/tokens/{made['id']}").status_code == 200
    page.wait_for("room.states.at(-1) === 'refused token_expired'")
    assert page.evaluate("room.room.line._timers.size") == 0


def test_who_is_sent_away_does_not_come_back(page, site, server, name):
    site.token = lambda: server.connection_token(sub=name)
    connect(page, server.url)
    follow(page, "project", name)
    live(page)
    assert server.post(f"/api/users/{name}/disconnect", {}).json()["disconnected"] == 1
    page.wait_for("room.states.at(-1) === 'refused disconnected'")


def test_a_server_that_is_not_there_yet_is_waited_for(page, own_server, name):
    own_server.stop()
    connect(page, own_server.url)
    follow(page, "project", name)
    page.wait_for("room.states.at(-1) === 'away no_token'")
    own_server.start()
    live(page)
    post(own_server, name, "line 0")
    assert events(page, 1) == ["line 0"]


def test_a_consumer_that_throws_hurts_nobody(page, server, name):
    connect(page, server.url)
    page.evaluate(f"sidecar.project('{name}', {{ onEvent: () => {{ throw new Error('a bug of the page'); }} }}); null")
    follow(page, "project", name)
    live(page)
    post(server, name, "line 0")
    post(server, name, "line 1")
    assert events(page, 2) == ["line 0", "line 1"]
    assert any("a bug of the page" in error for error in page.errors)


def test_closed_it_leaves_no_connection(page, server, name):
    connect(page, server.url)
    follow(page, "project", name)
    live(page)
    page.evaluate("sidecar.close()")
    assert page.evaluate("room.states.at(-1)") == "stopped"
    assert page.evaluate("room.room.line.socket") is None
    post(server, name, "nobody there")
    assert page.evaluate("room.events") == []


def test_without_socket_io_a_room_says_what_it_needs(page, server):
    answer = page.evaluate(
        f"(() => {{ try {{ new Sidecar({{ url: '{server.url}{PREFIX}', io: null }}).project('x', {{}}); }}"
        " catch (error) { return error.message; } })()"
    )
    assert "needs socket.io-client" in answer


def test_it_works_on_the_sidecars_own_pages(window, sidecar, name):
    """Their Content-Security-Policy lets no inline script run."""
    window.open(f"{sidecar.url}{PREFIX}/console")
    window.evaluate(f"import('{PREFIX}/static/sidecar.js').then((module) => {{ Object.assign(window, module); }})")
    window.evaluate(f"window.sidecar = new Sidecar({{ token: {json.dumps(sidecar.token)} }}); null")
    follow(window, "project", name)
    live(window)
    post(sidecar, name, "line 0")
    assert events(window, 1) == ["line 0"]
    assert window.errors == []
