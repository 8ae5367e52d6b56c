"""What only PostgreSQL can do to the writer: answers lost on the wire, restarts, frozen clients, text without NUL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import psycopg
import pytest
from flask import Flask
from gevent import socket
from gevent.server import StreamServer
from sqlalchemy import insert, select
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from sidecar.domain.errors import Unavailable
from sidecar.store.database import open_database
from sidecar.store.deployments import insert_project, list_projects
from sidecar.store.journal import found_journal, lock_head, read_head
from sidecar.store.statements import Statement
from sidecar.store.tables import projects
from tests.alarms import alarm
from tests.postgres import Postgres
from tests.store.stores import Place, Store, open_journal

INSERT_PROJECT = Statement(insert(projects), ["name", "first_at", "last_at"])
ANSWER, QUESTION, SILENCE = "answer", "question", "silence"


class Proxy:
    """Between the writer and PostgreSQL. `lose` names what becomes of the next COMMIT: its ANSWER is swallowed, or
    the QUESTION itself, and the connection is cut; with SILENCE the server isn't told of the cut either. `shut` takes
    no more connections."""

    def __init__(self, port: int):
        self._port = port
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self._kept: list[socket.socket] = []
        self.port: int = self._server.server_port
        self.lose: str | None = None
        self.shut_after = False
        self.lost = 0

    def stop(self) -> None:
        self._server.stop()
        for kept in self._kept:
            kept.close()

    def _serve(self, client: socket.socket, _address: object) -> None:
        if self.shut_after and self.lost:
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self._port))
        back = gevent.spawn(_pipe, server, client)
        while data := _received(client):
            if self.lose and b"COMMIT\0" in data:
                back.kill()
                how, self.lose = self.lose, None
                self.lost += 1
                if how == ANSWER:
                    server.sendall(data)
                    assert b"COMMIT\0" in server.recv(65536), "the server has committed"
                if how == SILENCE:
                    self._kept.append(server)
                    client.close()
                    return
                break
            server.sendall(data)
        client.close()
        server.close()
        back.kill()


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _pipe(source: socket.socket, target: socket.socket) -> None:
    while data := _received(source):
        try:
            target.sendall(data)
        except OSError:
            return
    target.close()


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    opened = Proxy(postgres.port)
    yield opened
    opened.stop()


@pytest.fixture
def behind(proxy: Proxy, postgres: Postgres, postgres_place: Place) -> Iterator[Store]:
    """A store whose connections go through the proxy, with one event and a connection in use."""
    url = postgres_place.url.replace(f":{postgres.port}/", f":{proxy.port}/")
    store = Store(Place(url, postgres_place.folder))
    store.append("room:a")
    with alarm(60):
        yield store
    store.close()


@pytest.fixture
def store(postgres_place: Place) -> Iterator[Store]:
    store = Store(postgres_place)
    with alarm(60):
        yield store
    store.close()


def test_a_commit_whose_answer_was_lost_is_found_and_answered_as_stored(behind: Store, proxy: Proxy):
    """The sender would otherwise be told 503 and post again: the same deployment event twice."""
    proxy.lose = ANSWER
    outcomes = behind.submit_all([lambda t: t.append("fact", {"n": 1}, ["room:a"]), lambda t: t.seq])
    assert proxy.lost == 1
    assert outcomes[0].seq == 2
    assert outcomes[1] == 2
    assert [event.seq for event in behind.committed] == behind.seqs() == [1, 2]
    assert behind.writer.healthy
    assert behind.append("room:a").seq == 3


@pytest.mark.parametrize("how", [QUESTION, SILENCE])
def test_a_commit_that_never_arrived_is_answered_as_not_stored(behind: Store, proxy: Proxy, how: str):
    """Also when the server doesn't know yet that the connection is cut and holds the counter row for it."""
    proxy.lose = how
    outcomes = behind.submit_all([lambda t: t.append("fact", {}, ["room:a"])] * 3)
    assert proxy.lost == 1
    assert [type(outcome) for outcome in outcomes[:1]] == [Unavailable]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
    assert all("nothing of this request was stored" in outcome.detail for outcome in refused)
    assert behind.seqs() == list(range(1, 5 - len(refused)))
    assert [event.seq for event in behind.committed] == behind.seqs()
    assert behind.append("room:a").seq == 5 - len(refused)


def test_a_commit_that_stays_unsettled_is_not_claimed_to_be_lost(
    behind: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sidecar.store.writer.SETTLE_SECONDS", 0.3)
    proxy.lose, proxy.shut_after = ANSWER, True
    with pytest.raises(Unavailable, match="not known"):
        behind.append("room:a")
    proxy.shut_after = False
    assert behind.seqs() == [1, 2]
    assert behind.append("room:a").seq == 3


def test_a_restart_of_the_database_costs_what_was_sent_meanwhile_and_nothing_after(store: Store, postgres: Postgres):
    """The connections kept from before are dead: neither the writer nor a reader may trip over them."""
    store.append("room:a")
    assert store.seqs() == [1]
    postgres.stop()
    try:
        with pytest.raises(Unavailable) as refused:
            store.append("room:a")
        assert refused.value.retry_after_seconds
        with pytest.raises(Unavailable):
            store.seqs()
    finally:
        postgres.start()
    assert store.seqs() == [1]
    assert store.append("room:a").seq == 2
    postgres.stop()
    postgres.start()
    assert store.append("room:a").seq == 3, "a connection that died unused is replaced, and nobody is told"
    assert store.seqs() == [1, 2, 3]


def test_a_frozen_process_that_holds_the_counter_row_is_ended(store: Store, postgres_place: Place):
    """SIGSTOP, a paused container, a cut network: the others would wait for as long as it lasts."""
    frozen = Store(postgres_place, started=False)
    with frozen.database.connect_to_write() as connection:
        connection.begin()
        lock_head(connection)
        assert store.append("room:a").seq == 1
        with pytest.raises(SQLAlchemyError):
            lock_head(connection)
        connection.invalidate()
    frozen.close()


def test_one_that_stopped_in_the_middle_of_a_pipeline_is_ended_too(store: Store, postgres_place: Place):
    """There PostgreSQL has no timer: without the others' help they would wait for as long as it lasts."""
    frozen = Store(postgres_place, started=False)
    with frozen.database.connect_to_write() as connection:
        connection.begin()
        lock_head(connection)
        driver: Any = connection.connection.driver_connection
        pipeline = ExitStack()
        pipeline.enter_context(driver.pipeline())
        driver.execute("UPDATE journal_head SET floor = floor")
        driver.pgconn.send_flush_request()
        driver.pgconn.flush()
        assert store.append("room:a").seq == 1
        assert store.append("room:a").seq == 2
        with pytest.raises(psycopg.OperationalError):
            pipeline.close()
        connection.invalidate()
    frozen.close()


def test_one_that_works_for_long_is_not_ended(store: Store, postgres_place: Place):
    """Its senders are asked to come again."""
    busy = Store(postgres_place, started=False)
    with busy.database.connect_to_write() as connection, connection.begin():
        lock_head(connection)
        working = gevent.spawn(connection.exec_driver_sql, "SELECT pg_sleep(5)")
        with pytest.raises(Unavailable):
            store.append("room:a")
        working.get()
    assert store.append("room:a").seq == 1
    busy.close()


def test_nul_in_text_is_stored_as_the_replacement_character(store: Store):
    """PostgreSQL's text can't hold it; a payload can, because JSON writes it as an escape."""

    def command(transaction):
        values = {"name": "a\0b", "first_at": "t", "last_at": "t"}
        transaction.connection.execute(insert(projects).values(values))
        return transaction.append("fa\0ct", {"text": "x\0y"}, ["room:\0"])

    assert [type(outcome).__name__ for outcome in store.submit_all([command, lambda t: t.seq])] == ["Event", "int"]
    (event,) = store.journal()
    assert (event.type, event.payload) == ("fa\ufffdct", '{"text":"x\\u0000y"}')
    assert store.room_rows() == {("room:\ufffd", 1)}
    found = store.database.read(lambda c: c.execute(select(projects.c.name).where(projects.c.name == "a\0b")).scalar())
    assert found == "a\ufffdb", "what is looked for is changed alike"


def test_a_number_beyond_the_column_costs_its_own_command_alone(store: Store):
    def command(transaction):
        transaction.append("fact", {"n": 2**80}, ["room:a"])
        transaction.connection.exec_driver_sql("UPDATE journal_head SET floor = %s", (2**80,))

    outcomes = store.submit_all([command, lambda t: t.append("fact", {"n": 2**80}, ["room:a"])])
    assert isinstance(outcomes[0], DataError)
    assert store.seqs() == [1]


def test_names_are_ordered_by_code_points_whatever_the_language_of_the_database(store: Store):
    names = ["B", "Z", "_x", "a", "b-a", "ba", "é"]

    def fill(transaction):
        for name in reversed(names):
            transaction.connection.execute(insert(projects).values(name=name, first_at="t", last_at="t"))

    store.writer.submit(fill)
    assert [row["name"] for row in store.database.read(lambda c: list_projects(c, None))] == names
    assert store.database.read(lambda c: c.exec_driver_sql("SELECT 'B' > 'a'").scalar()), (
        "the language orders otherwise"
    )


def test_a_read_can_not_write_and_sees_one_moment(store: Store):
    def query(connection):
        before = connection.exec_driver_sql("SELECT seq FROM journal_head").scalar()
        store.append("room:a")
        return before, connection.exec_driver_sql("SELECT seq FROM journal_head").scalar()

    assert store.database.read(query) == (0, 0)
    with pytest.raises(Unavailable):
        store.database.read(lambda c: c.exec_driver_sql("UPDATE journal_head SET seq = 7"))


def test_a_server_that_answers_nothing_is_given_up(behind: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch):
    """A frozen machine acknowledges every packet: neither keepalives nor its own time-outs would end the waiting."""
    monkeypatch.setattr("sidecar.store.database.DEADLINE_SECONDS", 0.3)
    with pytest.raises(Unavailable):
        behind.database.read(lambda c: c.exec_driver_sql("SELECT pg_sleep(5)"))
    monkeypatch.undo()
    assert behind.seqs() == [1]


def test_sessions_of_a_host_that_is_gone_are_ended_within_seconds(store: Store):
    """PostgreSQL would ask a silent client after two hours whether it lives; each cut left ten sessions."""

    def shown(name: str) -> str:
        return str(store.database.read(lambda c: c.exec_driver_sql(f"SHOW {name}").scalar()))

    keepalives = [shown(f"tcp_keepalives_{name}") for name in ("idle", "interval", "count")]
    assert [*keepalives, shown("tcp_user_timeout")] == ["5", "2", "3", "8000"]


def test_a_database_that_is_set_to_answer_before_the_disk_has_it_does_not(postgres: Postgres, postgres_place: Place):
    """200 means stored: `synchronous_commit = off` would lose the last answers in a power cut."""
    name = postgres_place.url.rpartition("/")[2]
    with postgres.connect() as operator:
        operator.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = Store(postgres_place)
    assert store.database.read(lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar()) == "local"
    store.close()


def test_a_database_that_can_not_hold_every_text_is_refused(postgres: Postgres, tmp_path: Path):
    with postgres.connect() as operator:
        operator.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'")
    database = open_database(Flask("test"), postgres.url("latin"), tmp_path)
    with pytest.raises(Unavailable, match="LATIN1"):
        database.upgrade(found_journal)
    database.close()


def test_a_host_is_found_by_its_name(postgres_place: Place):
    store = Store(Place(postgres_place.url.replace("127.0.0.1", "localhost"), postgres_place.folder))
    assert store.append("room:a").seq == 1
    store.close()


def test_a_host_that_has_no_address_is_told(postgres_place: Place):
    place = Place(postgres_place.url.replace("127.0.0.1", "no.such.host.invalid"), postgres_place.folder)
    with pytest.raises(Unavailable, match="host name"):
        open_journal(place)


def test_what_a_broken_rule_tells_holds_no_value(store: Store):
    """PostgreSQL's own message quotes the key that was there already."""

    def insert_secret(transaction):
        insert_project(transaction.connection, "a secret", "t")
        INSERT_PROJECT.run(transaction.connection, {"name": "a secret", "first_at": "t", "last_at": "t"})

    with pytest.raises(IntegrityError) as refused:
        store.writer.submit(insert_secret)
    assert "a secret" not in str(refused.value)


def test_a_greenlet_killed_while_it_reads_ends(postgres_place: Place):
    """Also in the question whether the pooled connection still lives, which psycopg can't abandon without an error of
    its own: taken for a database that is away, the kill was lost and the server never stopped."""
    database = open_database(Flask("test"), postgres_place.url, postgres_place.folder)
    try:
        for _ in range(5):
            database.read(read_head)  # leaves a connection in the pool
            reading = gevent.spawn(database.read, read_head)
            gevent.sleep(0)
            assert not reading.ready()
            reading.kill()
            assert isinstance(reading.value, gevent.GreenletExit)
    finally:
        database.close()
