"""Who was away while the menu and permissions changed: a page that comes back by itself, and a plain socket that says
where it stood, get exactly what they missed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.governing import allow, give, keys, notify, put_item, put_role, seen, short_name, until, written
from tests.servers import RunningSidecar
from tests.sockets.clients import Page, Plain

QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with RunningSidecar(tmp_path_factory.mktemp("governed"), {"SIDECAR_RATE_LIMIT": "off"}) as server:
        yield server


def upheaval(server: RunningSidecar, ada: str) -> list[tuple[str, Any]]:
    """Changes of everything that ada is told of, and of what she is not. What she is told: (type, what tells it from
    others of its type)."""
    role, item = short_name(), short_name()
    put_item(server, item, icon="one")
    put_role(server, role, allow(role, "read"), menus=[item])
    give(server, f"{ada}-other", role)
    give(server, ada, role)
    put_item(server, item, icon="two")
    notify(server, {"user": ada}, "tool_status_changed", word=role)
    notify(server, {"user": f"{ada}-other"}, word="not for her")
    put_role(server, "authenticated", allow(role, "write"))
    written(server, "DELETE", f"/api/menu/{item}")
    put_role(server, role)
    notify(server, "all", word=item)
    return [
        ("menu_updated", "create"),
        ("role_updated", ada),
        ("permission_changed", ada),
        ("menu_access_changed", ada),
        ("cache_invalidation", ada),
        ("menu_updated", "update"),
        ("tool_status_changed", role),
        ("permission_changed", None),
        ("cache_invalidation", None),
        ("menu_updated", "delete"),
        ("permission_changed", ada),
        ("cache_invalidation", ada),
        ("system_notification", item),
    ]


def brief(kind: str, payload: dict[str, Any]) -> tuple[str, Any]:
    if kind == "menu_updated":
        return kind, payload["action"]
    return kind, payload["word"] if "word" in payload else payload["userId"]


def told(page: Page) -> list[tuple[str, Any]]:
    page.call("heartbeat")
    assert page.seqs == sorted(set(page.seqs))
    return [brief(event["type"], event["payload"]) for event in page.events]


def watching(js: Any, server: RunningSidecar, token: str, **options: Any) -> Page:
    page = Page(js, server, token=token, **QUICK, **options).connected()
    assert page.call("subscribe_menu")["ok"]
    return page


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]])
def test_a_page_that_was_cut_off(governed, js, transports: list[str]):
    put_role(governed, "authenticated")
    ada = short_name()
    page = watching(js, governed, governed.connection_token(sub=ada), transports=transports)
    expected = upheaval(governed, ada)
    page.wait_for(len(expected))
    put_role(governed, "authenticated")
    expected += [("permission_changed", None), ("cache_invalidation", None)]
    page.wait_for(len(expected))
    page.drop()
    page.next("disconnect")
    expected += upheaval(governed, ada)
    assert page.next("connect")["recovered"] is True
    page.wait_for(len(expected))
    put_item(governed, short_name())
    page.wait_for(len(expected) + 1)
    assert told(page) == [*expected, ("menu_updated", "create")]
    page.disconnect()


def test_over_a_kill_and_a_start_of_the_server(start_sidecar, js):
    """A page, and a plain socket that comes with what it read last."""
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    put_role(server, "authenticated")
    ada = short_name()
    token = server.connection_token(sub=ada)
    page = watching(js, server, token)
    plain = Plain(server, f"/ws/permissions/{ada}", token)
    plain.next()
    expected = upheaval(server, ada)
    page.wait_for(len(expected))
    frames = [plain.next() for _ in expected]
    server.kill()
    plain.close()
    page.next("disconnect")
    server.start()
    put_role(server, "authenticated")
    expected += [("permission_changed", None), ("cache_invalidation", None), *upheaval(server, ada)]
    plain = Plain(server, f"/ws/permissions/{ada}?since={frames[-1]['offset']}", token)
    assert plain.next()["offset"] == frames[-1]["offset"]
    assert page.next("connect")["recovered"] is True
    page.wait_for(len(expected))
    frames += [plain.next() for _ in expected[len(frames) :]]
    assert [brief(frame["type"], frame["data"]) for frame in frames] == told(page) == expected
    assert [frame["seq"] for frame in frames] == page.seqs
    plain.close()
    page.disconnect()


def test_a_plain_socket_gets_what_it_missed_and_then_is_live(governed):
    put_role(governed, "authenticated")
    ada = short_name()
    token = governed.connection_token(sub=ada)
    one = Plain(governed, "/ws/permissions/", token)
    offset = one.next()["offset"]
    one.close()
    expected = upheaval(governed, ada)
    again = Plain(governed, f"/ws/permissions/?since={offset}", token)
    confirmed = again.next()
    assert (confirmed["type"], confirmed["offset"]) == ("connection_confirmed", offset)
    assert [brief(frame["type"], frame["data"]) for frame in (again.next() for _ in expected)] == expected
    assert until(again, notify(governed, {"user": ada})) == []
    again.close()


def test_a_strangers_too(governed):
    one = Plain(governed, "/ws/permissions/anonymous", "")
    offset = one.next()["offset"]
    one.close()
    item = short_name()
    put_role(governed, "anonymous", menus=[item])
    put_item(governed, item)
    again = Plain(governed, f"/ws/permissions/anonymous?since={offset}", "")
    frames = [again.next() for _ in range(4)]
    assert [frame["type"] for frame in frames[1:]] == ["permission_changed", "cache_invalidation", "menu_updated"]
    assert until(again, notify(governed, {"role": "anonymous"})) == []
    put_role(governed, "anonymous")
    again.close()


def test_a_place_in_another_journal_is_told(governed, start_sidecar):
    """Of a restored backup, or another server: what it does not know can't be said."""
    other = start_sidecar(SIDECAR_RATE_LIMIT="off")
    notify(other, "all")
    one = Plain(other, "/ws/permissions/anonymous", "")
    offset = one.next()["offset"]
    one.close()
    ada = short_name()
    again = Plain(governed, f"/ws/permissions/?since={offset}", governed.connection_token(sub=ada))
    assert [again.next()["type"] for _ in range(2)] == ["connection_confirmed", "truncated"]
    assert until(again, notify(governed, {"user": ada})) == []
    again.close()


def test_a_page_that_says_where_it_stood_in_the_menu(governed, js):
    token = governed.connection_token(sub=short_name())
    state = governed.get("/api/menu", token).json()
    first, second = short_name(), short_name()
    put_item(governed, first)
    put_item(governed, second)
    page = Page(js, governed, token=token).connected()
    answer = page.call("subscribe_menu", {"since": state["offset"]})
    assert (answer["replayed"], answer["truncated"]) == (2, False)
    page.wait_for(2)
    assert [event["payload"]["menuId"] for event in page.events] == [first, second]
    page.disconnect()


def test_a_page_whose_past_is_not_ours_is_shown_what_it_sees(governed, js):
    """Of the menu its own view."""
    ada, secret, shown = short_name(), short_name(), short_name()
    for key in (secret, shown):
        put_item(governed, key)
    put_role(governed, ada, menus=[shown])
    give(governed, ada, ada)
    token = governed.connection_token(sub=ada)
    page = Page(js, governed, token=token).connected()
    assert page.call("subscribe_menu", {"since": "1.deadbeef"})["truncated"] is True
    snapshot = page.told("snapshot")["snapshot"]
    assert keys(snapshot["items"]) == seen(governed, token) == {shown}
    assert snapshot["version"] == governed.get("/api/menu/version").json()["version"]
    page.disconnect()


class Editing:
    """Changes of all that ada is told of, by a thread, as long as it is entered, `count` times."""

    def __init__(self, server: RunningSidecar, ada: str):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._edit, args=[server, ada])
        self.count = 0

    def _edit(self, server: RunningSidecar, ada: str) -> None:
        item = short_name()
        while not self._stop.is_set():
            self.count += 1
            put_item(server, item, description=f"{self.count}")
            put_role(server, ada, allow("a", f"{self.count}"))
            notify(server, "all" if self.count % 2 else {"user": ada})

    def __enter__(self) -> Editing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_cut_off_again_and_again_while_all_changes(governed, js):
    """A page that is dropped and comes back by itself, and a plain socket that is reset after some frames and comes
    back to the last one that it read: each gets everything once, in one order."""
    ada = short_name()
    put_role(governed, ada)
    give(governed, ada, ada)
    token = governed.connection_token(sub=ada)
    page = watching(js, governed, token)
    plain = Plain(governed, "/ws/permissions/", token)
    begin = offset = plain.next()["offset"]
    got: list[int] = []
    with Editing(governed, ada) as editing:
        for turn in range(12):
            for _ in range(turn):
                frame = plain.next()
                got.append(frame["seq"])
                offset = frame["offset"]
            plain.reset()
            plain = Plain(governed, f"/ws/permissions/?since={offset}", token)
            assert plain.next()["offset"] == offset
            if turn % 3 == 0:
                page.drop()
                page.next("disconnect")
                assert page.next("connect")["recovered"] is True
    last = notify(governed, {"user": ada})
    got += [frame["seq"] for frame in until(plain, last)] + [last]
    plain.close()
    whole = Plain(governed, f"/ws/permissions/?since={begin}", token)
    whole.next()
    every = [frame["seq"] for frame in until(whole, last)] + [last]
    whole.close()
    assert len(every) >= 4 * editing.count
    assert got == every
    assert page.wait_for(len(every)) == every
    page.disconnect()
