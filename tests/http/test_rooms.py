"""Which free rooms there are, and who is in them, over all processes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.programs import wait_until
from tests.servers import RunningSidecar


def presence(server: RunningSidecar, room: str, token: str | None = None) -> dict[str, Any]:
    answer = server.get(f"/api/rooms/{quote(room, safe='')}/presence", token)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_who_is_in_a_room(sidecar, browser, name):
    for user in ("ada", "ada", "bob", None):
        browser(name, user)
    expected = {
        "room": name,
        "connections": 4,
        "anonymous": 1,
        "users": [{"user": "ada", "connections": 2}, {"user": "bob", "connections": 1}],
    }
    assert presence(sidecar, name) == expected
    assert expected in sidecar.get("/api/rooms").json()["items"]


def test_who_leaves_may_come_back(sidecar, browser, name):
    """So the list is right beside the news, which tell of nobody who leaves and comes back (test_presences.py)."""
    one, other = browser(name, "ada"), browser(name, "bob")
    wait_until(lambda: len(other.call("subscribe_presence", name)["users"]) == 2, "it is written down")
    one.call("unsubscribe_room", name)
    users = [{"user": "ada", "connections": 0}, {"user": "bob", "connections": 1}]
    assert presence(sidecar, name)["users"] == users
    other.disconnect()
    wait_until(lambda: presence(sidecar, name)["connections"] == 0, "the other is gone")
    assert [item["connections"] for item in presence(sidecar, name)["users"]] == [0, 0]


def test_an_empty_room_is_no_error(sidecar, name):
    assert presence(sidecar, name) == {"room": name, "connections": 0, "anonymous": 0, "users": []}


@pytest.mark.parametrize("room", ["a/b", "Züri 🚀", "a b", "presence", "x/presence", "50%"])
def test_rooms_of_any_name(sidecar, browser, name, room: str):
    browser(f"{room}{name}", "ada")
    assert presence(sidecar, f"{room}{name}")["connections"] == 1


@pytest.mark.parametrize("room", ["x" * 201, "%0A", "%20", "%E2%80%AE"])
def test_a_bad_name_is_refused(sidecar, room: str):
    answer = sidecar.get(f"/api/rooms/{room}/presence")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_name")


def test_it_needs_its_scope(sidecar, name):
    for path in ("/api/rooms", f"/api/rooms/{name}/presence"):
        assert sidecar.get(path, "").status_code == 401
        assert sidecar.get(path, sidecar.new_token("messages:send")).status_code == 403
        assert sidecar.get(path, sidecar.new_token("rooms:read")).status_code == 200


def test_a_browser_sees_its_rooms_alone(sidecar, browser, name):
    for room in ("a", "b"):
        browser(f"{name}-{room}")
    token = sidecar.connection_token(rooms=[f"room:{name}-a"])
    assert [item["room"] for item in sidecar.get("/api/rooms", token).json()["items"]] == [f"{name}-a"]
    assert sidecar.get(f"/api/rooms/{quote(name)}-b/presence", token).status_code == 403


def test_strangers_see_numbers_and_no_names(start_sidecar, browser, name):
    server = start_sidecar(SIDECAR_ANONYMOUS_READ="true")
    browser(name, "ada", server)
    assert presence(server, name, "") == {"room": name, "connections": 1, "anonymous": 0}
    assert "ada" not in server.get("/api/rooms", "").text


def test_projects_and_users_are_no_free_rooms(sidecar, browser, name):
    one = browser(name, "ada")
    one.call("subscribe_project", f"p-{name}")
    rooms = [item["room"] for item in sidecar.get("/api/rooms").json()["items"]]
    assert name in rooms
    assert not {f"p-{name}", f"project:p-{name}", "user:ada", "everyone"} & set(rooms)
