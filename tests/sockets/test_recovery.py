"""Connection state recovery with the official client, unmodified, against a real server: pid, offsets, the same sid,
`recovered`, and exactly what was missed. (How it is exact under any cut: tests/fanout/test_recovery.py.)"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.programs import JsClient
from tests.servers import RunningSidecar
from tests.sockets.clients import Page, closed_by_server, post_step

QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}


@pytest.fixture
def browser(js: JsClient) -> Callable[..., Page]:
    def connect(server: RunningSidecar, namespace: str = "/project-dashboard/ws", **options: Any) -> Page:
        return Page(js, server, namespace, token=options.pop("token", server.token), **QUICK, **options)

    return connect


def offline(server: RunningSidecar, page: Page, while_away: Callable[[], object]) -> dict[str, Any]:
    """The network goes, something happens, it comes back; the line of the new connect."""
    page.drop()
    page.next("disconnect")
    while_away()
    return page.next("connect")


def told(page: Page) -> list[tuple[str, int | None, list[Any]]]:
    """(name, seq, further arguments) of each Socket.IO event that came."""
    events = [line for line in page.lines() if line["what"] == "event"]
    return [(line["event"], line["args"][0].get("seq"), line["args"][1:]) for line in events]


@pytest.mark.parametrize("namespace", ["/", "/project-dashboard/ws"])
@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
def test_what_was_missed_comes_by_itself(sidecar, browser, name: str, namespace: str, transports: list[str]):
    page = browser(sidecar, namespace, transports=transports)
    first = page.next("connect")
    page.call("subscribe_project", name)
    seqs = [post_step(sidecar, name, name) for _ in range(2)]
    page.wait_for(2)
    again = offline(sidecar, page, lambda: seqs.extend(post_step(sidecar, name, name) for _ in range(3)))
    assert (again["sid"], again["recovered"]) == (first["sid"], True)
    seqs.append(post_step(sidecar, name, name))
    assert page.wait_for(6) == seqs


def test_it_is_counted(sidecar, browser):
    def recovered() -> float:
        lines = sidecar.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("sidecar_sessions_recovered ")).split()[1])

    before = recovered()
    page = browser(sidecar).connected()
    offline(sidecar, page, lambda: None)
    assert recovered() == before + 1


def test_over_a_kill_of_the_server(start_sidecar, browser, name: str):
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    page = browser(server)
    first = page.next("connect")
    page.call("subscribe_project", name, {"since": 0})
    seqs = [post_step(server, name, name) for _ in range(3)]
    page.wait_for(3)
    server.kill()
    page.next("disconnect")
    server.start()
    seqs += [post_step(server, name, name) for _ in range(3)]
    again = page.next("connect")
    assert (again["sid"], again["recovered"]) == (first["sid"], True)
    assert page.wait_for(6) == seqs


def test_the_first_event_gives_an_offset_and_each_one_after_it_too(sidecar, browser, name: str):
    page = browser(sidecar).connected()
    answer = page.call("subscribe_project", name)
    post_step(sidecar, name, name)
    page.wait_for(1)
    (event,) = page.events
    session, *others = told(page)
    assert session == ("session", answer["seq"], [answer["offset"]])
    assert others[0] == ("subscription:confirmed", None, [])
    assert others[1] == ("event", event["seq"], [event["offset"]])
    body = next(line["args"][0] for line in page.lines() if line["what"] == "event")
    assert set(body) == {"recovered", "seq", "epoch", "timestamp"}
    assert body["recovered"] is False


def test_before_any_event_and_any_room(sidecar, browser, name: str):
    page = browser(sidecar)
    first = page.next("connect")
    again = offline(sidecar, page, lambda: post_step(sidecar, name, name))
    assert (again["sid"], again["recovered"]) == (first["sid"], True)
    page.call("heartbeat")
    assert [name for name, _, _ in told(page)] == ["session", "session", "heartbeat:ack"]


def test_a_page_that_subscribes_in_its_connect_handler_gets_nothing_twice(sidecar, browser, name: str):
    page = browser(sidecar).connected()
    page.call("subscribe_project", name, {"since": 0})
    seqs = [post_step(sidecar, name, name) for _ in range(2)]
    page.wait_for(2)
    known = page.events[-1]["offset"]
    offline(sidecar, page, lambda: seqs.extend(post_step(sidecar, name, name) for _ in range(2)))
    assert page.call("subscribe_project", name, {"since": known})["replayed"] == 0
    seqs.append(post_step(sidecar, name, name))
    assert page.wait_for(5) == seqs


def test_who_left_a_room_is_not_in_it_when_it_comes_back(sidecar, browser, name: str):
    page = browser(sidecar).connected()
    page.call("subscribe_project", name)
    page.call("subscribe_project", f"{name}-other")
    page.call("unsubscribe_project", name)
    offline(sidecar, page, lambda: post_step(sidecar, name, name))
    post_step(sidecar, f"{name}-other", f"{name}-other")
    page.wait_for(1)
    (event,) = page.events
    assert event["payload"]["project"] == f"{name}-other"


def test_who_said_goodbye_begins_anew(sidecar, browser, name: str):
    page = browser(sidecar)
    first = page.next("connect")
    page.disconnect()
    page.next("disconnect")
    page.reconnect()
    again = page.next("connect")
    assert again["recovered"] is False
    assert again["sid"] != first["sid"]


def test_rooms_that_a_new_token_does_not_give_are_lost_and_told(sidecar, browser, name: str):
    """The rights are asked anew; of an event in two rooms one is enough."""
    tokens = [
        sidecar.connection_token(sub="ada", rooms=[f"project:{name}*", f"deployment:{name}*"]),
        sidecar.connection_token(sub="ada", rooms=[f"project:{name}-b"]),
    ]
    page = browser(sidecar, token=tokens[0]).connected()
    page.call("subscribe_project", f"{name}-a")
    page.call("subscribe_project", f"{name}-b")
    page.use_token(tokens[1])

    def post() -> None:
        post_step(sidecar, f"{name}-a", f"{name}-1")
        post_step(sidecar, f"{name}-b", f"{name}-2")

    assert offline(sidecar, page, post)["recovered"] is True
    page.wait_for(1)
    (event,) = page.events
    assert event["payload"]["project"] == f"{name}-b"
    revoked = [line["args"][0] for line in page.lines() if line.get("event") == "subscription:revoked"]
    assert [(item["type"], item["id"]) for item in revoked] == [("project", f"{name}-a")]


def test_another_user_does_not_get_the_session(sidecar, browser, name: str):
    page = browser(sidecar, token=sidecar.connection_token(sub="ada"))
    first = page.next("connect")
    page.use_token(sidecar.connection_token(sub="bob"))
    again = offline(sidecar, page, lambda: None)
    assert (again["recovered"], again["sid"] == first["sid"]) == (False, False)


def test_without_a_window_nobody_is_given_a_pid(start_sidecar, browser, name: str):
    server = start_sidecar(SIDECAR_RECOVERY_SECONDS="0", SIDECAR_RATE_LIMIT="off")
    page = browser(server).connected()
    page.call("subscribe_project", name)
    post_step(server, name, name)
    page.wait_for(1)
    assert all(more == [] for _, _, more in told(page))
    assert "session" not in [event for event, _, _ in told(page)]
    assert offline(server, page, lambda: None)["recovered"] is False


class TestPackets:
    """What lies on the wire."""

    def connect(self, raw, sidecar, query: str = "", path: str = "/socket.io/", **headers: str):
        one = raw(sidecar, path=path, query=query, header=[f"{key}: {value}" for key, value in headers.items()])
        one.send("40" + json.dumps({"token": sidecar.token}))
        return one, json.loads(str(one.recv()).removeprefix("40"))

    def test_connect_is_answered_with_sid_and_pid(self, sidecar, raw):
        _, answer = self.connect(raw, sidecar)
        assert set(answer) == {"sid", "pid"}
        assert len(answer["pid"]) == 22

    @pytest.mark.parametrize(
        ("query", "path", "agent"),
        [
            ("&recovery=0", "/socket.io/", ""),
            ("&t=1795260000.123", "/socket.io/", ""),
            ("", "/ws/", ""),
            ("", "/socket.io/", "python-requests/2"),
            ("", "/socket.io/", "Python/3.12 aiohttp/3"),
            ("", "/socket.io/", "Dart/3.2 (dart:io)"),
        ],
    )
    def test_other_clients_get_no_argument_more(self, sidecar, raw, name, query: str, path: str, agent: str):
        one, answer = self.connect(raw, sidecar, query, path, **({"User-Agent": agent} if agent else {}))
        assert set(answer) == {"sid"}
        one.send(f'421["subscribe_project","{name}"]')
        assert str(one.recv()).startswith('42["subscription:confirmed"')
        one.recv()
        post_step(sidecar, name, name)
        assert len(json.loads(str(one.recv()).removeprefix("42"))) == 2

    @pytest.mark.parametrize("query", ["&t=PzK1x2a", "&t=abc.def", "&recovery=1", "&t=123"])
    def test_javascript_in_any_dress_does(self, sidecar, raw, query: str):
        assert "pid" in self.connect(raw, sidecar, query)[1]
        assert "pid" in self.connect(raw, sidecar, query, path="/project-dashboard/ws/")[1]

    def test_each_namespace_has_a_pid_of_its_own(self, sidecar, raw):
        one, answer = self.connect(raw, sidecar)
        one.recv()
        one.send("40/project-dashboard/ws," + json.dumps({"token": sidecar.token}))
        other = json.loads(str(one.recv()).removeprefix("40/project-dashboard/ws,"))
        assert other["pid"] != answer["pid"]

    def test_a_connection_that_is_still_open_is_closed_when_its_client_comes_back(self, sidecar, raw, name):
        """A laptop that woke up: the server has not noticed that it slept."""
        one, answer = self.connect(raw, sidecar)
        one.recv()
        one.send(f'421["subscribe_project","{name}"]')
        one.recv()
        one.recv()
        other = raw(sidecar)
        other.send("40" + json.dumps({"token": sidecar.token, "pid": answer["pid"]}))
        assert json.loads(str(other.recv()).removeprefix("40")) == answer
        assert closed_by_server(one), "the end of the former connection"
        seq = post_step(sidecar, name, name)
        assert str(other.recv()).startswith('42["session",{"recovered":true')
        assert json.loads(str(other.recv()).removeprefix("42"))[1]["seq"] == seq

    @pytest.mark.parametrize("pid", [5, None, "", "x", {"a": 1}, [1], "a" * 10_000, "ä", "\x00"])
    @pytest.mark.parametrize("offset", [5, None, "x", {"a": 1}, "1" * 10_000])
    def test_rubbish_begins_anew(self, sidecar, raw, pid: object, offset: object):
        one = raw(sidecar)
        one.send("40" + json.dumps({"token": sidecar.token, "pid": pid, "offset": offset}))
        answer = json.loads(str(one.recv()).removeprefix("40"))
        assert set(answer) == {"sid", "pid"}
        assert answer["pid"] != pid
