"""Messages for one user in a room: they reach that user's sockets in it, and nobody and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.programs import JsClient, wait_until
from tests.servers import RunningSidecar, two_processes
from tests.sockets.clients import Page

QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}
SEND = "/api/send-websocket/"
Stage = list[RunningSidecar]


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "two hosts"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two processes of one installation; on "two hosts" they share the database alone."""
    url = None
    if request.param != "sqlite":
        postgres = request.getfixturevalue("postgres")
        url = postgres.url(postgres.new_database()).replace("+psycopg", "")
    with two_processes(tmp_path_factory.mktemp("targets"), url, apart=request.param == "two hosts") as servers:
        yield servers


@pytest.fixture
def browser(js: JsClient) -> Iterator[Callable[..., Page]]:
    opened: list[Page] = []

    def connect(server: RunningSidecar, user: str | None, room: str | None, **options: Any) -> Page:
        token = server.token if user is None else server.connection_token(sub=user)
        page = Page(js, server, token=token, **QUICK).connected()
        opened.append(page)
        if room is not None:
            assert page.call("subscribe_room", room, options)["ok"]
        return page

    yield connect
    for page in opened:
        page.disconnect()


def send(server: RunningSidecar, room: str, target: str | None = None, **more: Any) -> int:
    answer = server.post(SEND, {"room": room, "target_user": target, "message": target or "all", **more})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["event_id"])


def test_live(stage: Stage, browser, name: str):
    """The target has two sockets in the room and one outside of it; everyone else in the room goes without."""
    here, there = stage
    ada = [browser(server, "ada", name) for server in stage]
    outside = [browser(here, "ada", None), browser(there, "ada", f"{name}-other")]
    others = [browser(here, "bob", name), browser(there, "bob", name), browser(here, None, name)]
    alone = [send(here, name, "ada"), send(there, name, "ada")]
    both = send(here, name)
    for page in ada:
        assert page.wait_for(3) == [*alone, both]
    for page in others:
        assert page.wait_for(1) == [both]
    send(here, f"{name}-other", "bob")
    assert [page.quiet() for page in outside] == [[], []]


def test_it_says_how_many_it_reached(stage: Stage, browser, name: str):
    here = stage[0]
    for user in ("ada", "ada", "bob", None):
        browser(here, user, name)
    answers = {user: here.post(SEND, {"room": name, "target_user": user}).json() for user in ("ada", "bob", "eve", "")}
    assert {user: answer["recipients"] for user, answer in answers.items()} == {"ada": 2, "bob": 1, "eve": 0, "": 4}


def test_a_replay_gives_each_their_own(stage: Stage, browser, name: str):
    """(What the other process has not heard of yet comes live, behind what is replayed.)"""
    here, there = stage
    sent = [(user, send(here, name, user)) for user in ("ada", "bob", None, "ada", "eve", "Ada", "ada ")]
    for server, user in [(here, "ada"), (there, "ada"), (there, "bob"), (here, None)]:
        page = browser(server, user, None)
        assert page.call("subscribe_room", name, {"since": sent[0][1] - 1})["replayed"] <= len(theirs(sent, user))
        assert page.wait_for(len(theirs(sent, user))) == theirs(sent, user)


def theirs(sent: list[tuple[str | None, int]], user: str | None) -> list[int]:
    return [seq for target, seq in sent if target is None or target.strip() == user]


def test_a_recovery_gives_each_their_own(stage: Stage, browser, name: str):
    here, there = stage
    pages = {user: browser(here, user, name) for user in ("ada", "bob", None)}
    first = send(there, name)
    for page in pages.values():
        page.wait_for(1)
        page.drop()
        page.next("disconnect")
    sent = [(None, first)] + [(user, send(there, name, user)) for user in ("ada", None, "bob", "ada", "eve")]
    for user, page in pages.items():
        assert page.next("connect")["recovered"] is True
        assert page.wait_for(len(theirs(sent, user))) == theirs(sent, user)


def test_a_session_that_moves_to_the_other_process_keeps_to_its_own(stage: Stage, browser, js, name: str):
    """Recovered from the database by a process that never saw the socket."""
    here, there = stage
    token = here.connection_token(sub="ada")
    page = Page(js, here, token=token, **QUICK).connected()
    assert page.call("subscribe_room", name)["ok"]
    send(here, name)
    page.wait_for(1)
    offset = page.events[-1]["offset"]
    page.drop()
    page.next("disconnect")
    sent = [(user, send(here, name, user)) for user in ("bob", "ada", None, "eve")]
    other = Page(js, there, token=token, **QUICK).connected()
    assert other.call("subscribe_room", name, {"since": offset})["replayed"] <= 2
    assert other.wait_for(2) == theirs(sent, "ada")
    page.disconnect()
    other.disconnect()


def test_a_slow_reader_that_catches_up_gets_its_own_alone(start_sidecar, browser, name: str):
    """Off the live path it is served from the journal in pages."""
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    begin = send(server, name) - 1
    sent = [(user, send(server, name, user)) for _ in range(150) for user in ("ada", "bob", None, "eve")]
    page = browser(server, "ada", None)
    assert page.call("subscribe_room", name, {"since": begin})["replayed"] == 301
    assert page.wait_for(301) == [begin + 1, *theirs(sent, "ada")]


def test_a_users_room_is_not_told_to_namesakes(stage: Stage, browser, name: str):
    here, there = stage
    pages = {user: browser(there, f"{user}-{name}", None) for user in ("ada", "Ada", "ad")}
    seq = int(here.post("/api/notify-user/", {"user_id": f"ada-{name}", "message": "tea"}).json()["event_id"])
    last = int(here.post("/api/broadcast/", {"message": "all"}).json()["event_id"])
    for user, page in pages.items():
        wait_until(lambda page=page: last in page.seqs, "the last")
        assert (seq in page.seqs) is (user == "ada")


def test_no_read_api_tells_of_it(stage: Stage, name: str):
    here = stage[0]
    secret = f"only-for-ada-{name}"
    here.post(SEND, {"room": name, "target_user": "ada", "message": secret, "data": {"x": secret}})
    for path in ("deployments", "projects", "deliveries", "rooms", f"rooms/{name}/presence", "live-push", "info"):
        answer = here.get(f"/api/{path}")
        assert secret not in answer.text, path
    for path in ("/metrics", "/readyz", "/healthz"):
        assert secret not in here.get(path).text
    assert secret not in here.output()


def test_the_first_answer_of_a_key_goes_to_the_target_once(stage: Stage, browser, name: str):
    here, there = stage
    ada, bob = browser(here, "ada", name), browser(here, "bob", name)
    body = {"room": name, "target_user": "ada", "message": "once"}
    answers = [server.post(SEND, body, headers={"Idempotency-Key": name}).json() for server in (here, there, here)]
    assert [answer["duplicate"] for answer in answers] == [False, True, True]
    assert len({answer["event_id"] for answer in answers}) == 1
    last = send(there, name)
    assert ada.wait_for(2) == [int(answers[0]["event_id"]), last]
    assert bob.wait_for(1) == [last]


def test_the_envelope_names_neither_the_target_nor_other_users(stage: Stage, browser, name: str):
    page = browser(stage[0], "ada", name)
    send(stage[1], name, "ada", data={"type": "note", "content": "psst", "level": 3})
    page.wait_for(1)
    (event,) = page.events
    assert set(event) == {"type", "payload", "seq", "epoch", "offset", "timestamp"}
    assert event["type"] == "api_message"
    sender = event["payload"]
    assert (sender["content"], sender["type"], sender["level"]) == ("psst", "note", 3)
    assert set(sender) == {"content", "sender", "sender_id", "type", "level", "timestamp"}
    assert sender["sender"]
    assert isinstance(sender["sender_id"], int)
