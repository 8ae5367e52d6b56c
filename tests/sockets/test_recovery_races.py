"""Coming back at the worst moment: a whole sidecar in this process, so that a test can act where the code waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from config.settings import load_settings
from sidecar.domain.errors import Unavailable
from sidecar.factory import Sidecar, create_app
from sidecar.fanout.transports import EngineSocket
from sidecar.sockets.gate import RECOVERS
from tests.fanout.stages import wait_until


class Installation:
    def __init__(self, folder: Path):
        self.sidecar: Sidecar = create_app(load_settings(instance_dir=folder))
        self.sidecar.start()
        self.token = self.sidecar.core.tokens.create("admin", ["admin"]).text
        self._count = 0

    def user_token(self, *patterns: str) -> str:
        issuer = self.sidecar.core.connections.identify(self.token)
        return self.sidecar.core.connections.issue(issuer, sub="ada", patterns=patterns).text

    def post(self, project: str, deployment: str) -> int:
        body = {"type": "step_started", "project": project, "deployment_id": deployment, "step_name": "build"}
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = self.sidecar.app.test_client().post("/api/webhooks/deployment", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return int(answer.get_json()["event_id"])

    def connect(self, **auth: object) -> Client:
        self._count += 1
        return Client(self.sidecar, f"engine-{self._count}", auth)


class Client:
    """A client that polls. `told` is every packet that it got, parsed: (kind, body)."""

    def __init__(self, sidecar: Sidecar, engine_sid: str, auth: dict[str, object]):
        server = sidecar.socketio.server
        self.session = EngineSocket(server.eio, sidecar.network, engine_sid, "")
        self.session.connected = True
        server.eio.sockets[engine_sid] = self.session
        environ = {"REMOTE_ADDR": "127.0.0.1", RECOVERS: "1", "HTTP_HOST": "localhost"}
        environ |= {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
        server._handle_eio_connect(engine_sid, environ)
        self._told: list[tuple[str, Any]] = []
        self._send("0" + json.dumps(auth))

    def _send(self, packet: str) -> None:
        self.session._receive("4" + packet)

    @property
    def told(self) -> list[tuple[str, Any]]:
        for taken in self.session.outbox.take(1_000_000, 1_000):
            text = taken[{126: 4, 127: 10}.get(taken[1], 2) :].decode()
            if text[:1] == "4":
                self._told.append((text[1], json.loads(text[2:].lstrip("0123456789") or "null")))
        self.session.outbox.arrived()
        return self._told

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]

    @property
    def pid(self) -> str:
        return str(next(body for kind, body in self.told if kind == "0")["pid"])

    def call(self, name: str, *arguments: object) -> dict[str, Any]:
        count = sum(kind == "3" for kind in self.kinds)
        self._send("21" + json.dumps([name, *arguments]))
        answers = [body for kind, body in self.told if kind == "3"]
        assert len(answers) == count + 1
        return answers[-1][0]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [body[1] for kind, body in self.told if kind == "2" and body[0] == name]

    @property
    def seqs(self) -> list[int]:
        return [body["seq"] for body in self.named("event")]

    @property
    def offset(self) -> str:
        return str([body[-1] for kind, body in self.told if kind == "2" and isinstance(body[-1], str)][-1])

    def cut(self) -> None:
        self.session.close(wait=False, abort=True, reason="transport close")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.sidecar.stop()
    made.sidecar.network.stop()


def after(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, act: Callable[[], object]) -> None:
    """The first time that this method has done its work, something happens before its caller goes on."""
    method = getattr(owner, name)

    def wrapped(*arguments: object, **named: object) -> object:
        result = method(*arguments, **named)
        monkeypatch.setattr(owner, name, method)
        act()
        return result

    monkeypatch.setattr(owner, name, wrapped)


def test_the_first_event_of_a_deployment_comes_while_its_rights_are_asked(installation, monkeypatch):
    """Nobody gets it who was not asked for the right."""
    token = installation.user_token("project:mine")
    page = installation.connect(token=token)
    assert page.call("subscribe_project", "mine")["ok"]
    assert page.call("subscribe_deployment", "unseen")["ok"]
    pid, offset = page.pid, page.offset
    page.cut()
    rights = installation.sidecar.sessions._rights
    after(monkeypatch, rights, "projects", lambda: installation.post("secret", "unseen"))
    page = installation.connect(token=token, pid=pid, offset=offset)
    seq = installation.post("mine", "other")
    wait_until(lambda: seq in page.seqs, "it is live")
    assert page.seqs == [seq]
    assert [body["id"] for body in page.named("subscription:revoked")] == ["unseen"]


def test_rooms_that_were_lost_come_back_whole_or_not_at_all(installation):
    """A token without them, then one with them again: what lies between was never sent."""
    wide, narrow = installation.user_token("project:a", "project:b"), installation.user_token("project:b")
    page = installation.connect(token=wide)
    for project in "ab":
        assert page.call("subscribe_project", project)["ok"]
    seqs = [installation.post("a", "a")]
    wait_until(lambda: page.seqs == seqs, "the first")
    pid, offset = page.pid, page.offset
    page.cut()
    page = installation.connect(token=narrow, pid=pid, offset=offset)
    assert [body["id"] for body in page.named("subscription:revoked")] == ["a"]
    missed = installation.post("a", "a")
    other = installation.post("b", "b")
    wait_until(lambda: page.seqs == [other], "the other")
    offset_between = page.offset
    page.cut()
    page = installation.connect(token=wide, pid=pid, offset=offset_between)
    answer = page.call("subscribe_project", "a", {"since": offset})
    assert answer["replayed"] == 1
    wait_until(lambda: page.seqs == [missed], "what it missed")


def test_a_subscribe_that_was_stored_though_the_store_did_not_answer(installation, monkeypatch):
    """The client was told No: what it asks for when it comes back it does not have."""
    page = installation.connect(token=installation.token)
    assert page.call("subscribe_project", "b")["ok"]
    old = installation.post("a", "a")
    start = page.offset
    sessions = installation.sidecar.sessions

    def lose_the_answer() -> None:
        raise Unavailable("The store did not answer.")

    after(monkeypatch, sessions, "save", lose_the_answer)
    assert page.call("subscribe_project", "a", {"since": start})["code"] == "unavailable"
    missed = installation.post("a", "a")
    other = installation.post("b", "b")
    wait_until(lambda: page.seqs == [other], "the other")
    pid, offset = page.pid, page.offset
    page.cut()
    page = installation.connect(token=installation.token, pid=pid, offset=offset)
    assert page.call("subscribe_project", "a", {"since": start})["replayed"] == 2
    wait_until(lambda: page.seqs == [old, missed], "what it asked for")


def test_a_deployment_that_was_lost_at_its_first_event_comes_back_whole(installation):
    """With a token that gives it after all."""
    narrow, wide = installation.user_token("project:mine"), installation.user_token("project:mine", "project:secret")
    page = installation.connect(token=narrow)
    assert page.call("subscribe_project", "mine")["ok"]
    assert page.call("subscribe_deployment", "unseen")["ok"]
    start = page.offset
    missed = [installation.post("secret", "unseen"), installation.post("secret", "unseen")]
    other = installation.post("mine", "other")
    wait_until(lambda: page.seqs == [other], "the other")
    pid, offset = page.pid, page.offset
    page.cut()
    page = installation.connect(token=wide, pid=pid, offset=offset)
    assert page.call("subscribe_deployment", "unseen", {"since": start})["replayed"] == 2
    wait_until(lambda: page.seqs == missed, "what it asked for")


def test_nothing_is_sent_while_a_lost_room_can_not_be_stored(installation, monkeypatch):
    """A page that must come back meanwhile has missed nothing that its place says it has."""
    narrow = installation.user_token("project:mine")
    page = installation.connect(token=narrow)
    assert page.call("subscribe_project", "mine")["ok"]
    assert page.call("subscribe_deployment", "unseen")["ok"]
    sessions = installation.sidecar.sessions
    away = [True]
    save = sessions.save

    def fail(*arguments: object, **named: object) -> None:
        if away:
            raise Unavailable("away")
        save(*arguments, **named)

    monkeypatch.setattr(sessions, "save", fail)
    monkeypatch.setattr("sidecar.sockets.sessions.STORE_SECONDS", 0.01)
    installation.post("secret", "unseen")
    other = installation.post("mine", "other")
    gevent.sleep(0.1)
    assert page.seqs == []
    away.clear()
    wait_until(lambda: page.seqs == [other], "it goes on")


def test_an_older_connect_of_the_same_client_does_not_close_the_newer(installation, monkeypatch):
    """A client whose first try took too long tries again; then the first one goes on."""
    page = installation.connect(token=installation.token)
    assert page.call("subscribe_project", "a")["ok"]
    pid, offset = page.pid, page.offset
    page.cut()
    newer: list[Client] = []

    def come_again() -> None:
        newer.append(installation.connect(token=installation.token, pid=pid, offset=offset))

    after(monkeypatch, installation.sidecar.sessions._rights, "projects", come_again)
    older = installation.connect(token=installation.token, pid=pid, offset=offset)
    assert older.session.closed
    assert older.kinds == []
    assert newer[0].call("subscribe_project", "b")["ok"]
    seq = installation.post("a", "a")
    wait_until(lambda: newer[0].seqs == [seq], "the newer is live")


def test_a_token_that_is_revoked_while_this_process_catches_up(installation, monkeypatch):
    """With what was the process of its last connection, which was ahead."""
    tokens = installation.sidecar.core.tokens
    made = tokens.create("one", ["deployments:read"])
    page = installation.connect(token=made.text)
    assert page.call("subscribe_project", "a")["ok"]
    pid, offset = page.pid, page.offset
    page.cut()
    after(monkeypatch, installation.sidecar.sessions, "_must_reach", lambda: tokens.revoke(made.id))
    page = installation.connect(token=made.text, pid=pid, offset=offset)
    assert page.kinds == ["4"]


def test_a_fault_after_the_session_was_given_back_leaves_nothing_of_the_connection(installation, monkeypatch):
    """Its sid is the former one by then."""
    page = installation.connect(token=installation.token)
    assert page.call("subscribe_project", "a")["ok"]
    pid, offset = page.pid, page.offset
    page.cut()
    missed = installation.post("a", "1")
    sessions = installation.sidecar.sessions

    def fail() -> None:
        raise Unavailable("not now")

    after(monkeypatch, sessions._rights, "recheck", fail)
    page = installation.connect(token=installation.token, pid=pid, offset=offset)
    assert page.session.closed
    assert page.kinds == []
    assert len(sessions) == 0
    assert not list(installation.sidecar.socketio.server.manager.get_namespaces())
    page = installation.connect(token=installation.token, pid=pid, offset=offset)
    assert page.named("session")[0]["recovered"]
    wait_until(lambda: page.seqs == [missed], "it has what it missed")


def test_who_comes_back_as_its_session_is_ended_stays(installation, monkeypatch):
    """The end was for the former connection, which went by the same sid."""
    token = installation.user_token("project:a")
    page = installation.connect(token=token)
    pid, offset = page.pid, page.offset
    sessions = installation.sidecar.sessions
    after(monkeypatch, sessions._rights, "projects", lambda: installation.sidecar.watch.user_disconnected("ada"))
    back = installation.connect(token=token, pid=pid, offset=offset)
    gevent.idle()
    assert page.session.closed
    assert back.named("session")[0]["recovered"]
    assert back.call("subscribe_project", "a")["ok"]
