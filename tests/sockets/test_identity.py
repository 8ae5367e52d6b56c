"""Who connects: every way to say it, and what is told to those who can't come in."""

from __future__ import annotations

import sqlite3
import time

import pytest

from tests.programs import wait_until
from tests.sockets.clients import NAMESPACES, Polling, end_of, login_cookie, post_step

UNKNOWN = "sct_0123456789ab_" + "x" * 43


def connect_packet(server, headers=None, query="", auth: str = "") -> str:
    """The packet that answers a CONNECT over bare HTTP, so that the test says exactly what is sent."""
    polling = Polling(server, f"/socket.io/?{query}" if query else "/socket.io/", headers=headers or {})
    polling.post(f"40{auth}")
    packet = polling.packets()[-1]
    polling.close()
    return packet


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_an_api_token_as_auth_token(page, namespace: str):
    assert page(namespace).connected().call("heartbeat")["ok"]


def test_a_connection_token_as_auth_token(sidecar, page):
    assert page(token=sidecar.connection_token(sub="7")).connected().call("heartbeat")["ok"]


@pytest.mark.parametrize("scheme", ["Bearer", "Token", "bearer"])
def test_a_token_in_the_authorization_header(sidecar, page, scheme: str):
    """Back ends and the python client send headers; browsers can't."""
    for token in (sidecar.token, sidecar.connection_token(sub="7")):
        one = page(token=None, extraHeaders={"Authorization": f"{scheme} {token}"})
        assert one.connected().call("heartbeat")["ok"]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_short_connection_token_in_the_url(sidecar, page, transport: str):
    one = page(token=None, query={"token": sidecar.connection_token(ttl_seconds=300)}, transports=[transport])
    assert one.connected().call("heartbeat")["ok"]


def test_tokens_in_urls_are_in_no_line_of_the_log(sidecar, page):
    token = sidecar.connection_token(ttl_seconds=60)
    page(token=None, query={"token": token}).connected()
    page(token=None, query={"token": UNKNOWN}).refused()
    assert token not in sidecar.output()
    assert UNKNOWN not in sidecar.output()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "unauthenticated"),
        ({"auth": {"token": UNKNOWN}}, "unauthenticated"),
        ({"auth": {"token": "ey.not.ours"}}, "unauthenticated"),
        ({"auth": {"token": "ü" * 50}}, "unauthenticated"),
        ({"auth": {"token": 7}}, "unauthenticated"),
        ({"auth": {"token": ["x"]}}, "unauthenticated"),
        ({"auth": {"token": {"x": 1}}}, "unauthenticated"),
        ({"auth": {"other": "x"}}, "unauthenticated"),
        ({"extraHeaders": {"Authorization": f"Bearer {UNKNOWN}"}}, "unauthenticated"),
        ({"query": {"token": UNKNOWN}}, "unauthenticated"),
    ],
    ids=["nothing", "unknown", "no jwt", "not ascii", "number", "list", "object", "no token", "header", "url"],
)
def test_a_refusal_says_why_in_words_and_in_a_code(page, options: dict, code: str):
    message, data = page(token=None, **options).refused()
    assert message
    assert data == {"code": code}


def test_an_api_token_never_counts_in_a_url(sidecar, page):
    _, data = page(token=None, query={"token": sidecar.token}).refused()
    assert data == {"code": "unauthenticated"}


def test_a_connection_token_of_more_than_five_minutes_never_counts_in_a_url(sidecar, page):
    token = sidecar.connection_token(ttl_seconds=301)
    _, data = page(token=None, query={"token": token}).refused()
    assert data == {"code": "unauthenticated"}
    page(token=token).connected()


def test_an_expired_connection_token_is_refused_by_name(sidecar, page):
    """The page then knows that a new token helps."""
    token = sidecar.connection_token(ttl_seconds=1)
    wait_until(lambda: time.time() > end_of(token), "its end")
    assert page(token=token).refused()[1] == {"code": "token_expired"}


def test_a_wrong_token_does_not_fall_back_to_the_cookie_or_to_a_stranger(sidecar, start_sidecar, page):
    cookie = login_cookie(sidecar)
    one = page(token=UNKNOWN, extraHeaders={"Cookie": f"sidecar_login={cookie}"})
    assert one.refused()[1] == {"code": "unauthenticated"}
    open_one = start_sidecar(SIDECAR_ANONYMOUS_READ="true")
    assert page(server=open_one, token=UNKNOWN).refused()[1] == {"code": "unauthenticated"}


class TestLoginCookie:
    """It holds for our own pages only: another site's page would be somebody else using it."""

    def test_without_an_origin_or_from_our_own_page_it_holds(self, sidecar):
        cookie = {"Cookie": f"sidecar_login={login_cookie(sidecar)}"}
        assert connect_packet(sidecar, cookie).startswith("40{")
        assert connect_packet(sidecar, cookie | {"Origin": sidecar.url}).startswith("40{")

    def test_from_an_allowed_other_origin_it_does_not_hold(self, start_sidecar):
        server = start_sidecar(SIDECAR_ALLOWED_ORIGINS="https://friend.example")
        cookie = {"Cookie": f"sidecar_login={login_cookie(server)}"}
        assert connect_packet(server, cookie).startswith("40{")
        refused = connect_packet(server, cookie | {"Origin": "https://friend.example"})
        assert refused.startswith("44{")
        assert '"unauthenticated"' in refused
        friend = connect_packet(server, {"Origin": "https://friend.example"}, auth=f'{{"token":"{server.token}"}}')
        assert friend.startswith("40{"), "with a token the friend may come in"

    def test_a_spoilt_cookie_makes_a_stranger(self, sidecar):
        assert connect_packet(sidecar, {"Cookie": "sidecar_login=spoilt"}).startswith("44{")


def test_strangers_may_watch_projects_where_reading_is_anonymous(start_sidecar, page, name: str):
    server = start_sidecar(SIDECAR_ANONYMOUS_READ="true")
    one = page(server=server, token=None).connected()
    assert one.call("subscribe_project", name)["ok"]
    assert one.call("subscribe_deployment", name)["ok"]
    assert one.call("subscribe_room", "r")["ok"]
    assert one.call("subscribe_menu")["code"] == "not_allowed"
    seq = post_step(server, name, name)
    assert one.wait_for(1) == [seq]


@pytest.mark.parametrize(("open", "may"), [("true", True), ("webhooks", False), ("false", False)])
def test_open_mode_lets_strangers_watch_projects_and_nothing_else(start_sidecar, page, name: str, open: str, may: bool):
    server = start_sidecar(SIDECAR_OPEN=open)
    one = page(server=server, token=None)
    if not may:
        assert one.refused()[1] == {"code": "unauthenticated"}
        return
    one.connected()
    assert one.call("subscribe_project", name)["ok"]
    assert one.call("subscribe_room", "r")["code"] == "not_allowed"
    assert one.call("subscribe_menu")["code"] == "not_allowed"
    assert one.call("refresh_token", server.connection_token(sub="7"))["code"] == "not_allowed", "another user"


def test_a_database_that_is_away_makes_a_client_come_back_instead_of_giving_up(start_sidecar, page):
    """After a CONNECT_ERROR socket.io-client never tries again; a passing fault must look like a lost network."""
    server = start_sidecar()
    token = server.new_token("deployments:read")
    database = sqlite3.connect(server.instance / "sidecar.db", isolation_level=None)
    database.execute("ALTER TABLE tokens RENAME TO hidden")
    one = page(server=server, token=token, reconnectionDelay=50, reconnectionDelayMax=100)
    one.next("reconnect_attempt")
    assert not [line for line in one.lines() if line["what"] == "connect_error" and line["data"]]
    database.execute("ALTER TABLE hidden RENAME TO tokens")
    database.close()
    assert one.connected().call("heartbeat")["ok"]


@pytest.mark.parametrize(
    "auth",
    ["[]", "[1,2]", '"text"', "7", "true", "null", '{"token":null}', '{"token":""}', '{"token":{"a":[1]}}', "{}"],
)
def test_whatever_auth_is_nobody_gets_in_by_it(sidecar, auth: str):
    """Flask-SocketIO answers a TypeError in a connect handler by calling it again without auth."""
    polling = Polling(sidecar)
    polling.post(f"40{auth}")
    answer = polling.get()
    assert answer.status_code == 400 or answer.text.startswith(("44{", "1")), answer.text
    polling.close()
