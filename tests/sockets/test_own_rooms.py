"""The rooms that a connection is in without asking: its user's, and everyone's."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from sidecar.store.database import open_database
from sidecar.store.writer import Writer
from tests.servers import RunningSidecar
from tests.sockets.clients import NAMESPACES


class Backstage:
    """Appends events to a running sidecar's journal, as another process of it does."""

    def __init__(self, instance: Path):
        self._database = open_database(Flask("backstage"), f"sqlite:///{instance / 'sidecar.db'}", instance)
        self._writer = Writer(self._database, lambda events: None)

    def append(self, *rooms: str) -> int:
        return self._writer.run_alone(lambda transaction: transaction.append("system_notification", {}, rooms)).seq

    def close(self) -> None:
        self._writer.stop()
        self._database.close()


@pytest.fixture
def backstage(sidecar: RunningSidecar):
    opened = Backstage(sidecar.instance)
    yield opened
    opened.close()


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("kind", ["user", "permissions"])
def test_a_users_room_reaches_that_user_alone(sidecar, page, backstage, name: str, kind: str, namespace: str):
    alice = page(namespace, token=sidecar.connection_token(sub=f"alice-{name}")).connected()
    bob = page(namespace, token=sidecar.connection_token(sub=f"bob-{name}")).connected()
    nobody = page(namespace, token=sidecar.connection_token()).connected()
    admin = page(namespace).connected()
    seq = backstage.append(f"{kind}:alice-{name}")
    last = backstage.append("everyone")
    assert alice.wait_for(2) == [seq, last]
    for other in (bob, nobody, admin):
        assert other.wait_for(1) == [last]


def test_nobody_subscribes_to_anothers_room(sidecar, page, backstage, name: str):
    one = page(token=sidecar.connection_token(sub="mallory")).connected()
    for event in ("subscribe_user", "subscribe:user", "subscribe_permissions", "subscribe_everyone"):
        one.emit(event, "alice")
    one.call("subscribe_room", "user:alice")
    one.call("subscribe_project", "../user:alice")
    backstage.append("user:alice")
    last = backstage.append("everyone")
    assert one.wait_for(1) == [last]


def test_strangers_are_not_everyone(start_sidecar, page):
    server = start_sidecar(SIDECAR_ANONYMOUS_READ="true")
    stranger = page(server=server, token=None).connected()
    known = page(server=server).connected()
    behind = Backstage(server.instance)
    last = behind.append("everyone")
    assert known.wait_for(1) == [last]
    assert stranger.quiet() == []
    behind.close()


def test_a_reserved_room_can_be_left_by_nobody_by_accident(page, backstage):
    """`unsubscribe_room("everyone")` names the free room of that name."""
    one = page().connected()
    one.call("unsubscribe_room", "everyone")
    last = backstage.append("everyone")
    assert one.wait_for(1) == [last]
