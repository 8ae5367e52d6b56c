"""Who is in the free rooms of two processes, with real sockets: who comes, who moves over, who was at one that died.
(The rules are those of tests/services/test_presences.py.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.http.test_rooms import presence
from tests.programs import ROOT, JsClient, wait_until
from tests.servers import RunningSidecar, two_processes
from tests.sockets.clients import Page

QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}


@pytest.fixture(scope="module", params=["sqlite", "two hosts"])
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningSidecar, RunningSidecar]]:
    """Two processes of one installation, the second of which may be killed and started again."""
    url, settings = None, {}
    if request.param != "sqlite":
        postgres = request.getfixturevalue("postgres")
        url = postgres.url(postgres.new_database()).replace("+psycopg", "")
        settings = {"SIDECAR_REDIS_URL": request.getfixturevalue("redis_session").url}  # news crosses hosts by it alone
    apart, program = url is not None, ROOT / "tests" / "fleeting.py"
    with two_processes(tmp_path_factory.mktemp("presence"), url, apart, program, **settings) as (here, there):
        for server in (here, there):
            wait_until(lambda server=server: not server.get("/readyz").json()["warnings"], "Redis is there")
        yield here, there


@pytest.fixture
def browser(js: JsClient) -> Iterator[Callable[..., Page]]:
    opened: list[Page] = []

    def connect(server: RunningSidecar, user: str, room: str | None = None) -> Page:
        page = Page(js, server, token=server.connection_token(sub=user), **QUICK).connected()
        opened.append(page)
        if room is not None:
            assert page.call("subscribe_room", room)["ok"]
        return page

    yield connect
    for page in opened:
        page.disconnect()


def news(page: Page) -> list[tuple[str, list[str]]]:
    """What it was told of who comes and leaves."""
    return [(body["type"].removeprefix("presence_"), body["payload"]["users"]) for body in page.events]


def listed(page: Page, room: str) -> dict[str, Any]:
    answer = page.call("subscribe_presence", room)
    return {item["user"]: item["connections"] for item in answer["users"]}


def test_a_list_and_what_follows(stage, browser, name: str):
    here, there = stage
    watching = browser(here, "eve")
    assert listed(watching, name) == {}
    one = browser(here, "ada", name)
    wait_until(lambda: news(watching) == [("joined", ["ada"])], "ada has come", watching.lines)
    other = browser(there, "ada", name)
    wait_until(lambda: presence(here, name)["connections"] == 2, "the other process has told")
    assert presence(here, name)["users"] == presence(there, name)["users"] == [{"user": "ada", "connections": 2}]
    one.disconnect()
    wait_until(lambda: listed(watching, name) == {"ada": 1}, "she is at the other process alone")
    other.disconnect()
    moved = browser(here, "ada", name)
    wait_until(lambda: listed(watching, name) == {"ada": 1}, "she has moved over")
    wait_until(lambda: presence(there, name)["connections"] == 1, "that is told")
    assert news(watching) == [("joined", ["ada"])], "and she never left"
    moved.disconnect()
    wait_until(lambda: news(watching)[1:] == [("left", ["ada"])], "she has left", watching.lines)
    assert listed(watching, name) == {}
    assert presence(there, name)["users"] == []


def test_who_was_at_a_process_that_was_killed_leaves(stage, browser, name: str):
    here, there = stage
    watching = browser(here, "eve")
    for server, user in ((there, "ada"), (there, "bob"), (here, "bob")):
        browser(server, user, name)
    wait_until(lambda: listed(watching, name) == {"ada": 1, "bob": 2}, "all are there")
    before = len(news(watching))
    there.kill()
    wait_until(lambda: news(watching)[before:] == [("left", ["ada"])], "it was found out", watching.lines)
    assert listed(watching, name) == {"bob": 1}
    assert presence(here, name)["users"] == [{"user": "bob", "connections": 1}]
    there.start()
    wait_until(lambda: listed(watching, name) == {"ada": 1, "bob": 2}, "their sessions are given back")
