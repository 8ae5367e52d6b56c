"""A live socket ends with its token: warned, renewed, expired, or revoked."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.programs import wait_until
from tests.sockets.clients import NAMESPACES, end_of, in_time, post_step


def test_a_socket_is_warned_then_told_then_disconnected_when_its_token_expires(sidecar, page, name: str):
    """With less than 30 s to live the warning comes at once. The client may not reconnect by itself: its token is
    the same."""
    tokens = []

    def connect(token: str) -> Any:
        tokens.append(token)
        one = page(token=token).connected()
        one.call("subscribe_project", name)
        return one

    one = in_time(sidecar.connection_token, connect, sub=name)
    warned = one.told("token_expiring")
    assert set(warned) == {"expires_at"}
    expired = one.told("token_expired")
    assert expired["code"] == "token_expired"
    assert time.time() >= end_of(tokens[-1])
    assert one.next("disconnect")["reason"] == "io server disconnect"
    post_step(sidecar, name, name)
    assert one.seqs == []


def test_both_namespaces_of_a_connection_end(sidecar, page, name: str):
    def connect(token: str) -> list[Any]:
        return [page(namespace, token=token, forceNew=False).connected() for namespace in NAMESPACES]

    pages = in_time(sidecar.connection_token, connect, sub=name)
    for one in pages:
        assert one.next("disconnect")["reason"] == "io server disconnect"


def test_a_renewed_socket_lives_on_and_gets_everything(sidecar, page, name: str):
    tokens = []

    def connect_and_renew(token: str) -> Any:
        one = page(token=token).connected()
        one.call("subscribe_project", name)
        one.told("token_expiring")
        answer = one.call("refresh_token", sidecar.connection_token(sub=name))
        assert answer["ok"]
        assert answer["expires_at"].endswith("Z")
        tokens.append(token)
        return one

    one = in_time(sidecar.connection_token, connect_and_renew, sub=name)
    wait_until(lambda: time.time() > end_of(tokens[-1]) + 0.1, "the first end")
    seq = post_step(sidecar, name, name)
    assert one.wait_for(1) == [seq]

    def renew(token: str) -> None:
        assert one.call("refresh_token", token)["ok"]

    in_time(sidecar.connection_token, renew, sub=name)
    assert one.told("token_expired"), "the first end has passed without it, the last has not"


@pytest.mark.parametrize("spelling", [lambda token: token, lambda token: {"token": token}], ids=["text", "object"])
def test_a_renewal_rechecks_the_rooms(sidecar, page, name: str, spelling):
    post_step(sidecar, name, f"{name}-1")
    post_step(sidecar, f"{name}-kept", f"{name}-2")
    one = page(token=sidecar.connection_token(sub=name)).connected()
    for kind, room in (
        ("project", name),
        ("project", f"{name}-kept"),
        ("deployment", f"{name}-1"),
        ("deployment", f"{name}-2"),
        ("deployment", f"{name}-unseen"),
        ("room", name),
        ("menu", None),
    ):
        assert one.call(f"subscribe_{kind}", *([room] if room else []))["ok"]
    narrower = sidecar.connection_token(sub=name, rooms=[f"project:{name}-kept"])
    assert one.call("refresh_token", spelling(narrower))["ok"]
    revoked = sorted((body["type"], body["id"]) for body in (one.told("subscription:revoked") for _ in range(4)))
    assert revoked == [("deployment", f"{name}-1"), ("menu", "menu"), ("project", name), ("room", name)]
    post_step(sidecar, name, f"{name}-1", "unseen")
    kept = [post_step(sidecar, f"{name}-kept", f"{name}-2", "seen")]
    post_step(sidecar, name, f"{name}-unseen")
    assert one.told("subscription:revoked")["id"] == f"{name}-unseen", "checked again at its first event"
    assert one.wait_for(1) == kept


@pytest.mark.parametrize("given", [(), (None,), (7,), ("nonsense",), ({"token": 7},)])
def test_what_is_no_token_renews_nothing(sidecar, page, name: str, given: tuple):
    one = page(token=sidecar.connection_token(sub=name)).connected()
    one.call("subscribe_project", name)
    answer = one.call("refresh_token", *given)
    assert answer["ok"] is False
    assert answer["code"] in ("not_allowed", "unauthenticated")
    seq = post_step(sidecar, name, name)
    assert one.wait_for(1) == [seq], "the old token still holds"


def test_another_users_token_does_not_renew(sidecar, page, name: str):
    """Else the socket would be in one user's rooms with another user's rights."""
    one = page(token=sidecar.connection_token(sub="alice")).connected()
    for other in (sidecar.connection_token(sub="bob"), sidecar.connection_token(), sidecar.token):
        assert one.call("refresh_token", other)["code"] == "not_allowed"


def token_id(token: str) -> str:
    return token.split("_")[1]


def test_revoking_an_api_token_ends_its_sockets_and_those_of_tokens_it_issued(sidecar, page, name: str):
    issuer = sidecar.new_token("tokens:issue", "deployments:read")
    issued = sidecar.post("/api/tokens/connection", {"sub": name}, token=issuer).json()["token"]
    bystander = page().connected()
    ended = [page(token=issuer).connected(), page("/project-dashboard/ws", token=issued).connected()]
    for one in (*ended, bystander):
        one.call("subscribe_project", name)
    assert sidecar.request("DELETE", f"/api/tokens/{token_id(issuer)}").status_code == 200
    for one in ended:
        assert one.told("token_expired")["message"] == "The token has been revoked."
        assert one.next("disconnect")["reason"] == "io server disconnect"
    seq = post_step(sidecar, name, name)
    assert bystander.wait_for(1) == [seq]
    assert [one.seqs for one in ended] == [[], []]
    for token in (issuer, issued):
        assert page(token=token).refused()[1] == {"code": "unauthenticated"}


def test_revoking_from_the_command_line_ends_live_sockets(sidecar, page):
    """Another process: the control event comes through the journal."""
    token = sidecar.new_token("deployments:read")
    one = page(token=token).connected()
    answer = sidecar.cli("token", "revoke", token_id(token))
    assert answer.returncode == 0, answer.stderr
    assert one.next("disconnect")["reason"] == "io server disconnect"
    assert "control." not in str(one.lines())


def test_an_api_token_that_ends_ends_its_sockets(sidecar, page):
    one = in_time(sidecar.new_token, lambda token: page(token=token).connected(), "deployments:read")
    assert one.told("token_expired")
    assert one.next("disconnect")["reason"] == "io server disconnect"
