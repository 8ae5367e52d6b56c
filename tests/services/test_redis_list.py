"""What becomes of items of the Redis list, on both databases and a real Redis: each is stored once and in its order, or
kept in quarantine, wherever it breaks off."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import structlog
from sqlalchemy import select
from sqlalchemy.exc import DataError, OperationalError

from sidecar.core import Core
from sidecar.domain.access import Identity
from sidecar.domain.errors import Unavailable
from sidecar.jobs import redis_list as job
from sidecar.jobs.redis_list import ItemFailed, LeaseLost, ListTaking
from sidecar.observability.logs import RateLimited
from sidecar.observability.metrics import Metrics
from sidecar.services import deliveries as deliveries_module
from sidecar.services import redis_list as items_module
from sidecar.services.deliveries import Deliveries
from sidecar.services.projects import Projects
from sidecar.services.redis_list import POSTER, TRIES, ListItems
from sidecar.store.deliveries import DeliveryFilter
from sidecar.store.erasing import begin_erasing
from sidecar.store.leases import take_lease
from sidecar.store.redis import open_redis
from sidecar.store.redis_list import ReliableList
from sidecar.store.tables import idempotency, log_lines
from sidecar.wire.bodies import ParsedBody
from tests.redis import RedisServer
from tests.store.stores import Place, Store

NAME = "deployment_notifications"
ADMIN = Identity(kind="token", name="test", scopes=frozenset({"admin"}), projects=None, token_id="t")
ITEM_BYTES = 100_000
_numbers = itertools.count(1)


def line(message: str, deployment: str = "1", project: str = "shop") -> str:
    return json.dumps({"type": "log_entry", "project": project, "deployment_id": deployment, "message": message})


class Process:
    """One of an installation: what takes the items, and `now`, its monotonic clock."""

    def __init__(self, store: Store, client: redis.Redis):
        self.now = 1_000.0
        self.store = store
        self.metrics = Metrics()
        submit = store.writer.submit
        self.list = ReliableList(client, NAME, ITEM_BYTES)
        self.deliveries = Deliveries(store.database, submit, self.metrics, 10**9, lambda id: POSTER)
        self.items = ListItems(self.list, self.deliveries, submit, self.metrics)
        self.job = ListTaking(self.list, self.items, submit, f"node {next(_numbers)}", self.metrics, lambda: self.now)

    def work(self) -> None:
        """Until nothing is to be done at once."""
        while self.job.take():
            pass

    def kept(self) -> list[dict[str, Any]]:
        """All deliveries with their bodies, the oldest first."""
        rows = self.deliveries.list(DeliveryFilter(), None, 1_000)
        return [self.deliveries.find(row["number"]) for row in reversed(rows)]

    def verdicts(self) -> list[str]:
        return [row["verdict"] for row in self.kept()]

    def told(self, kind: str = "log_entry") -> list[str]:
        """The messages of the journal's events of this kind."""
        return [json.loads(event.payload)["message"] for event in self.store.journal() if event.type == kind]

    def lines(self) -> list[str]:
        """The log lines that are stored."""
        query = select(log_lines.c.message).order_by(log_lines.c.number)
        return list(self.store.database.read(lambda connection: connection.execute(query).scalars()))

    def counted(self) -> dict[str, float]:
        verdicts = ("stored", "test", "duplicate", "quarantined")
        return {
            verdict: value
            for verdict in verdicts
            if (value := self.metrics.registry.get_sample_value("sidecar_redis_list_items_total", {"verdict": verdict}))
        }

    def waiting(self) -> float | None:
        return self.metrics.registry.get_sample_value("sidecar_redis_list_waiting")


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    made = Store(place)
    yield made
    made.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with open_redis(redis_server.url) as client:
        yield client


@pytest.fixture
def push(client: redis.Redis) -> Callable[..., None]:
    return lambda *items: client.lpush(NAME, *items)


@pytest.fixture
def process(store: Store, client: redis.Redis) -> Process:
    return Process(store, client)


def test_each_item_is_stored_as_if_it_had_been_posted(process, push):
    push(
        json.dumps({"type": "deployment_started", "project": "shop", "deployment_id": "1", "status": "running"}),
        json.dumps({"project": "shop", "deployment_id": 1, "step_name": "build", "status": "started"}),
        '{"type": "log_entry", "project": "shop", "deployment_id": "1", "message": ""doubled""}',
        json.dumps({"type": "log_entry", "deployment_id": "1", "message": "without a project"}),
        json.dumps({"type": "test", "project": "shop", "message": "hello"}),
    )
    process.work()
    kept = process.kept()
    assert [row["verdict"] for row in kept] == ["stored"] * 4 + ["test"]
    assert [row["repaired"] for row in kept] == [False, False, True, False, False]
    assert {row["project"] for row in kept} == {"shop"}
    assert {(row["source"], row["token_id"], row["path"]) for row in kept} == {
        (f"redis:{NAME}", "redis_list", "/api/webhooks/deployment")
    }
    assert [event.type for event in process.store.journal()] == [
        *("project_created", "deployment_started", "step_started", "log_entry", "log_entry", "test")
    ]
    assert process.told() == ["doubled", "without a project"]
    assert process.counted() == {"stored": 4, "test": 1}
    assert process.waiting() == 0


def test_order_and_equal_items_are_kept(process, push, client):
    messages = [str(number % 7) for number in range(100)]
    for message in messages:
        push(line(message))
    process.work()
    assert process.told() == messages
    assert client.keys() == []


POISON = {
    "no-utf-8": (b"\xff\xfe{", "unparsable"),
    "no-json": ('{"type":', "unparsable"),
    "empty": ("", "unparsable"),
    "nested": ("[" * 5_000, "unparsable"),
    "no-object": ("[1, 2]", "invalid"),
    "lacks-fields": ('{"type": "step_completed"}', "invalid"),
    "wrong-fields": ('{"type": "log_entry", "project": ["x"], "deployment_id": "1", "message": "m"}', "invalid"),
    "unknown-type": ('{"type": "no_such_type", "project": "shop"}', "invalid"),
    "unplaced": ('{"type": "step_completed", "step_name": "build"}', "invalid"),
    "foreign-id": (line("m", deployment="1", project="another"), "conflict"),
}


def test_what_can_t_be_used_goes_to_quarantine_and_holds_nobody_up(process, push):
    push(line("first"))
    for item, _ in POISON.values():
        push(item)
    push("x" * (ITEM_BYTES + 1), line("last"))
    process.work()
    kept = process.kept()
    assert [row["verdict"] for row in kept] == ["stored", *["quarantined"] * (len(POISON) + 1), "stored"]
    poisoned = dict(zip(POISON, kept[1:], strict=False))
    for name, (item, code) in POISON.items():
        assert poisoned[name]["body"] == (item if isinstance(item, bytes) else item.encode()), name
        assert poisoned[name]["reason"]["code"] == code, name
    assert kept[-2]["reason"]["code"] == "too_large"
    assert process.list.large in kept[-2]["reason"]["detail"]
    assert process.told() == ["first", "last"]
    assert process.counted() == {"stored": 2, "quarantined": len(POISON) + 1}


def test_a_repetition_after_a_crash_before_the_removal_is_recognised(process, push, store, client, monkeypatch):
    """Of what was stored, and of what went to quarantine: it could even be stored now, were it tried again."""
    step = json.dumps({"type": "step_completed", "deployment_id": "later", "step_name": "build"})
    push(line("one"), "{poison", step, line("two", "later"))
    monkeypatch.setattr(process.list, "remove", fail(redis.ConnectionError("gone")))
    with pytest.raises(redis.ConnectionError):
        process.job.take()
    process.job.stop()
    assert client.llen(process.list.processing) == 4

    before = process.kept()
    successor = Process(store, client)
    push(line("three"))
    successor.work()
    assert [row["verdict"] for row in before] == ["stored", "quarantined", "quarantined", "stored"]
    assert successor.kept()[:-1] == before
    assert successor.told() == ["one", "two", "three"]
    assert successor.counted() == {"duplicate": 4, "stored": 1}
    assert client.keys() == []


def test_a_crash_before_the_commit_leaves_all_to_the_next(process, push, store, client, monkeypatch):
    push(line("one"), line("two"))
    monkeypatch.setattr(process.items, "settle", fail(Unavailable("The store can't commit now.")))
    with pytest.raises(Unavailable):
        process.job.take()
    process.job.stop()
    push(line("three"))
    successor = Process(store, client)
    successor.work()
    assert successor.told() == ["one", "two", "three"]


def test_what_fails_unexpectedly_is_tried_again_then_put_aside(process, push, monkeypatch, logged):
    """Those behind it wait meanwhile: it may yet be stored, and then comes before them."""
    record = deliveries_module.record

    def broken(transaction, identity, report, source):
        if report.payload.get("message") == "bug":
            record(transaction, identity, report, source)
            raise DataError("INSERT …", {}, Exception("a fault of ours"))
        return record(transaction, identity, report, source)

    monkeypatch.setattr(deliveries_module, "record", broken)
    monkeypatch.setattr(items_module, "log", RateLimited(structlog.get_logger()))
    push(line("one"), line("bug"), line("two"))
    for _ in range(TRIES):
        with pytest.raises(ItemFailed):
            process.work()
        assert process.told() == ["one"]
    process.work()
    assert process.told() == process.lines() == ["one", "two"]
    assert process.verdicts() == ["stored", "quarantined", "stored"]
    assert process.kept()[1]["body"] == line("bug").encode()
    assert [entry["event"] for entry in logged] == ["redis_list.item_failed"]


def test_what_fails_once_keeps_its_place(process, push, monkeypatch):
    record = deliveries_module.record
    failures = [TypeError("once")]

    def broken(*arguments):
        if failures:
            raise failures.pop()
        return record(*arguments)

    monkeypatch.setattr(deliveries_module, "record", broken)
    push(line("one"), line("two"))
    with pytest.raises(ItemFailed):
        process.work()
    process.work()
    assert process.told() == ["one", "two"]


def test_what_can_t_even_be_read_by_a_fault_of_ours_is_kept(process, push, monkeypatch):
    parse = deliveries_module.parse_body

    def broken(body: bytes, media: str | None) -> ParsedBody:
        if b"bug" in body:
            raise RecursionError
        return parse(body, media)

    monkeypatch.setattr(deliveries_module, "parse_body", broken)
    push(line("bug"), line("one"))
    process.work()
    assert process.verdicts() == ["quarantined", "stored"]
    assert process.told() == ["one"]


def test_a_full_database_puts_nothing_into_quarantine(process, push, store, monkeypatch):
    push(line("one"), line("two"))
    monkeypatch.setattr(deliveries_module, "record", fail(OperationalError("INSERT …", {}, Exception("disk full"))))
    for _ in range(2 * TRIES):
        with pytest.raises(Unavailable):
            process.work()
    monkeypatch.undo()
    process.work()
    assert process.told() == ["one", "two"]
    assert process.verdicts() == ["stored", "stored"]


def test_what_names_a_project_that_is_being_deleted_holds_up_nobody_for_long(process, push, store):
    push(line("old"))
    process.work()
    store.writer.submit(lambda transaction: begin_erasing(transaction, "shop"))
    push(line("late"), line("other", "2", "other"))
    for _ in range(TRIES):
        with pytest.raises(ItemFailed):
            process.work()
    process.work()
    assert process.told() == ["old", "other"]
    assert process.kept()[1]["reason"]["code"] == "unavailable"


def test_nothing_of_a_deleted_project_stays_behind_its_items(process, push, store):
    push(line("one"))
    process.work()
    Projects(store.database, store.writer.submit, lambda: "").delete(ADMIN, "shop")
    rows = store.database.read(lambda c: [tuple(row) for row in c.execute(select(idempotency))])
    assert [(row[1], json.loads(row[2])) for row in rows] == [("", {})]


def test_one_process_takes_and_another_takes_over(process, push, store, client):
    other = Process(store, client)
    push(line("one"))
    assert process.job.take()
    push(line("two"))
    assert not other.job.take()
    assert other.waiting() == 1
    assert process.job.take()
    process.job.stop()
    push(line("three"))
    other.work()
    assert other.told() == ["one", "two", "three"]
    assert other.counted() == {"stored": 1}


def test_a_holder_that_stood_still_stores_nothing_more(process, push, store, client, monkeypatch):
    other = Process(store, client)
    push(line("one"))
    take = process.list.take

    def stand_still():
        taken = take()
        hour = store.writer._clock() + 3_600
        monkeypatch.setattr(store.writer, "_clock", lambda: hour)
        other.work()
        return taken

    monkeypatch.setattr(process.list, "take", stand_still)
    with pytest.raises(LeaseLost):
        process.job.take()
    assert process.told() == ["one"]
    assert other.counted() == {"stored": 1}


def test_who_can_t_reach_redis_asks_for_no_lease(store, redis_server):
    with open_redis("redis://127.0.0.1:1/0") as away, pytest.raises(redis.ConnectionError):
        Process(store, away).job.take()
    lease = f"{job.LEASE} {NAME}"
    assert store.writer.submit(lambda transaction: take_lease(transaction, lease, "any", 1)) == 1


def test_an_item_is_replayed_by_nobody_else_s_rights(core: Core):
    assert core.poster("redis_list") == POSTER
    assert not POSTER.admin


def fail(error: Exception) -> Callable[..., Any]:
    def failing(*_: object) -> None:
        raise error

    return failing
