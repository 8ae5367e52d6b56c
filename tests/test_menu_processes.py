"""Two processes of one installation: whoever edits the menu or permissions at one is heard at the other, and nobody who
was told of a version reads an older one, wherever they ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.governing import allow, give, notify, put_item, put_role, seen, short_name, until, written
from tests.servers import RunningSidecar
from tests.sockets.clients import Page, Plain

QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}
EDITS = 24
Stage = list[RunningSidecar]


@pytest.fixture(scope="module")
def stage(two_servers: list[RunningSidecar]) -> list[RunningSidecar]:
    return two_servers


@pytest.fixture
def plain() -> Iterator[Callable[..., Plain]]:
    opened: list[Plain] = []

    def connect(server: RunningSidecar, user: str | None = None, query: str = "") -> Plain:
        token = "" if user is None else server.connection_token(sub=user)
        opened.append(Plain(server, f"/ws/permissions/{query}", token))
        assert opened[-1].next()["type"] == "connection_confirmed"
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def test_an_edit_at_one_reaches_the_sockets_of_both(stage: Stage, js, plain):
    here, there = stage
    ada, role, item = (short_name() for _ in range(3))
    sockets = [plain(server, ada) for server in stage]
    others = [plain(server, f"{ada}-other") for server in stage]
    pages = [Page(js, server, token=server.connection_token(sub=ada), **QUICK).connected() for server in stage]
    for page in pages:
        page.call("subscribe_menu")
    put_item(here, item)
    put_role(there, role, allow("a", "b"), menus=[item])
    give(here, ada, role)
    put_role(there, role)
    last = notify(there, "all")
    told = [until(one, last) for one in sockets]
    assert told[0] == told[1]
    kinds = [frame["type"] for frame in told[0]]
    assert kinds[-7:] == [
        "role_updated",
        "permission_changed",
        "menu_access_changed",
        "cache_invalidation",
        "permission_changed",
        "menu_access_changed",
        "cache_invalidation",
    ]
    mine = [frame["seq"] for frame in told[0]]
    assert [page.wait_for(len(mine) + 1) for page in pages] == [[*mine, last]] * 2
    for one in others:
        assert not {frame["data"].get("userId") for frame in until(one, last)} & {ada}
    for page in pages:
        page.disconnect()


def test_who_was_told_of_a_version_reads_none_that_is_older(stage: Stage, plain):
    """Not the menu's, not that of the permissions, and not an older menu or an older right either."""
    here, there = stage
    ada, role, item = (short_name() for _ in range(3))
    put_role(here, role)
    give(here, ada, role)
    token = here.connection_token(sub=ada)
    one = plain(there, ada)
    until(one, notify(here, "all"))  # what was before may come a moment later
    with (
        httpx.Client(base_url=there.url) as public,
        httpx.Client(base_url=there.url, headers={"Authorization": f"Token {token}"}) as mine,
    ):
        for number in range(EDITS):
            put_item(here, item, description=f"{number}")
            event = one.next()
            version = event["data"]["version"]
            assert public.get("/api/menu/version").json()["version"] >= version
            granted = number % 2 == 0
            put_role(here, role, *([allow("door", "open")] if granted else []), menus=[item] if granted else [])
            kinds = []
            while not kinds or kinds[-1] != "cache_invalidation":
                event = one.next()
                kinds.append(event["type"])
                menu = mine.get("/api/menu").json()
                assert ([entry["key"] for entry in menu["items"]] == [item]) is granted, event
                assert not granted or menu["items"][0]["description"] == f"{number}"
            assert kinds == ["permission_changed", "menu_access_changed", "cache_invalidation"]
            assert mine.get("/api/permissions/version").json()["version"] >= event["data"]["version"]
            assert mine.get("/api/permissions/check?resource=door&action=open").json()["has_permission"] is granted
            said = one.say(type="permission_check", resource="door", action="open")
            assert said["has_permission"] is granted


def test_versions_rise_strictly_when_both_edit_at_once(stage: Stage, plain):
    here, there = stage
    sockets = [plain(server, short_name()) for server in stage]
    answers: list[dict[str, Any]] = []

    def edit(server: RunningSidecar, key: str) -> None:
        for number in range(EDITS // 4):
            answers.append(put_item(server, key, description=f"{number}"))

    threads = [threading.Thread(target=edit, args=[server, short_name()]) for server in (here, there, here, there)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = sorted(answer["version"] for answer in answers)
    assert len(set(versions)) == len(answers) == EDITS // 4 * 4
    by_seq = [answer["version"] for answer in sorted(answers, key=lambda answer: int(answer["event_id"]))]
    assert by_seq == versions
    last = notify(here, "all")
    for one in sockets:
        assert [frame["data"]["version"] for frame in until(one, last)] == versions
    public = [server.get("/api/menu/version", "") for server in stage]
    assert public[0].json() == public[1].json()
    assert public[0].json()["version"] == versions[-1]
    assert {answer.headers["ETag"] for answer in public} == {f'"{versions[-1]}"'}


def test_of_two_edits_of_one_version_one_is_refused(stage: Stage):
    """Each says by If-Match what it has read; whichever process it asks."""
    here, there = stage
    key = short_name()
    version = put_item(here, key)["version"]
    for _ in range(5):
        answers: list[httpx.Response] = []

        def edit(server: RunningSidecar, icon: str, version: int = version, answers: list[Any] = answers) -> None:
            headers = {"If-Match": f'"{version}"'}
            answers.append(server.request("PATCH", f"/api/menu/{key}", json={"icon": icon}, headers=headers))

        threads = [threading.Thread(target=edit, args=[server, short_name()]) for server in (here, there)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won, refused = sorted(answers, key=lambda answer: answer.status_code)
        assert (won.status_code, refused.status_code) == (200, 412)
        version = won.json()["version"]  # the other process may read it a moment later


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_kill_of_one_loses_nothing_that_was_answered(
    start_sidecar, request, tmp_path: Path, js, plain, database: str
):
    """Its clients go on at the other: a plain socket by its offset, and everybody reads what was acknowledged."""
    environment = {"SIDECAR_RATE_LIMIT": "off"}
    if database == "postgresql":
        postgres = request.getfixturevalue("postgres")
        environment["SIDECAR_DATABASE_URL"] = postgres.url(postgres.new_database()).replace("+psycopg", "")
    first = start_sidecar(**environment)
    second = start_sidecar(share=first, **environment)
    ada, role = short_name(), short_name()
    put_role(first, role)
    give(first, ada, role)
    one = plain(first, ada)
    answers: list[dict[str, Any]] = []
    enough = threading.Event()

    def edit() -> None:
        number = 0
        try:
            while True:
                number += 1
                answers.append(put_item(first, f"{role}-{number}"))
                answers.append(put_role(first, role, menus=[f"{role}-{number}"]))
                if number == 10:
                    enough.set()
        except httpx.HTTPError:
            enough.set()

    editor = threading.Thread(target=edit)
    editor.start()
    assert enough.wait(30)
    first.kill()
    editor.join()
    offset = None
    frames = []
    try:
        while True:
            frames.append(one.next())
            offset = frames[-1]["offset"]
    except Exception:  # the process is gone; how the socket ends is not the point
        assert offset is not None
    again = plain(second, ada, f"?since={offset}")
    last = notify(second, {"user": ada})
    frames += until(again, last)
    seqs = [frame["seq"] for frame in frames]
    assert seqs == sorted(set(seqs))
    assert {int(answer["event_id"]) for answer in answers} <= set(seqs)
    items = {change["targetId"] for answer in answers for change in answer["changes"] if change["target"] == "menu"}
    known = {item["key"] for item in second.get("/api/menu?all=1").json()["items"]}
    assert items <= known
    assert len(known) <= len(items) + 1
    (menus,) = [written(second, "GET", f"/api/roles/{role}")["menus"]]
    assert seen(second, second.connection_token(sub=ada)) == set(menus)
    versions = [answer["version"] for answer in answers if "checksum" in answer]
    assert versions == sorted(set(versions))
    assert second.get("/api/menu/version", "").json()["version"] >= versions[-1]
    assert put_item(second, short_name())["version"] > versions[-1]
