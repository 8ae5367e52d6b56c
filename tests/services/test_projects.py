"""Forgetting a project: all that is of it and nothing else, on both databases, also when it is broken off anywhere."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from sidecar.domain import rooms
from sidecar.domain.access import Identity
from sidecar.domain.badges import KINDS as BADGES
from sidecar.domain.errors import Conflict, Invalid, NotFound, Unavailable
from sidecar.jobs.projects import ABANDONED_SECONDS, Deletions
from sidecar.observability.metrics import Metrics
from sidecar.services.badges import Badges
from sidecar.services.deliveries import Deliveries, Posted
from sidecar.services.deployments import History
from sidecar.services.menu import Menu
from sidecar.services.permissions import Permissions
from sidecar.services.projects import DELETED, Projects, _scope_of
from sidecar.services.views import Views
from sidecar.store import erasing
from sidecar.store.deliveries import DeliveryFilter
from sidecar.store.deployments import DeploymentFilter, list_deployments, list_projects
from sidecar.store.journal import room_events
from sidecar.store.tables import metadata
from tests.services.conftest import Clock
from tests.store.stores import Place, Store

ADMIN = Identity(kind="token", name="test", scopes=frozenset({"admin"}), projects=None, token_id="t")
NAMES = ("shop", "shop:2", "商店 %", "a/b")
LAST = 2**62
_numbers = itertools.count(1)


class Installation:
    """A store with what posts to it and what forgets; `now` passes only when a test says so."""

    def __init__(self, place: Place):
        self.clock = Clock()
        self.store = Store(place)
        self.store.writer._clock = self.clock
        submit = self.store.writer.submit
        self.database = self.store.database
        self.deliveries = Deliveries(self.database, submit, Metrics(), 10**9, lambda token_id: ADMIN, self.clock)
        self.history = History(self.database)
        self.projects = self.new_projects()
        menu = Menu(self.database, submit, Permissions(self.database, submit))
        self.badges = Badges(self.database, Views(24, menu, self.clock), (), self.clock)

    def new_projects(self) -> Projects:
        """As another process has them."""
        return Projects(self.database, self.store.writer.submit, lambda: "", self.clock)

    def post(self, body: str | dict[str, Any], key: str | None = None) -> int:
        """The seq of its event; -1 for one that went to quarantine."""
        raw = body if isinstance(body, str) else json.dumps(body)
        posted = Posted("/api/webhooks/deployment", raw.encode(), {}, "192.0.2.1", key)
        try:
            return self.deliveries.receive(ADMIN, posted).seq
        except Invalid:
            return -1

    def dump(self) -> str:
        """Every value of every table."""

        def query(connection):
            return {
                table.name: [tuple(row) for row in connection.execute(select(table))]
                for table in metadata.sorted_tables
            }

        return repr(self.database.read(query))

    def rows_of(self, project: str) -> dict[str, list[Any]]:
        """All that is stored of a project, and the streams that its subscribers would be given."""

        def query(connection):
            found = {}
            ids = select(metadata.tables["deployments"].c.deployment_id).where(
                metadata.tables["deployments"].c.project == project
            )
            for name in ("projects", "deployments", "steps", "log_lines", "deliveries"):
                columns = metadata.tables[name].c
                mine = (
                    columns.name == project
                    if name == "projects"
                    else columns.project == project
                    if "project" in columns
                    else columns.deployment_id.in_(ids)
                )
                query = select(metadata.tables[name]).where(mine).order_by(*metadata.tables[name].primary_key)
                found[name] = [tuple(row) for row in connection.execute(query)]
            streams = [rooms.project(project), *(rooms.deployment(id) for id in connection.execute(ids).scalars())]
            for room in streams:
                found[room] = room_events(connection, [room], 0, LAST, 10_000, 10**9).events
            return found

        return self.database.read(query)


@pytest.fixture
def installation(place: Place) -> Iterator[Installation]:
    made = Installation(place)
    yield made
    made.store.close()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "CHUNK", 3)
    monkeypatch.setattr(erasing, "DEPLOYMENTS", 2)


def body_of(project: str, what: str, id: str, text: str) -> str | dict[str, Any]:
    common = {"project": project, "deployment_id": id}
    bodies: dict[str, str | dict[str, Any]] = {
        "step": {"type": "step_completed", "step_name": text, "step_status": "success", "logs": text, **common},
        "line": {"type": "log_entry", "message": text, **common},
        "batch": {"type": "log_batch", "logs": [{"message": f"{text} {n}"} for n in range(5)], **common},
        "end": {"type": "deployment_completed", "status": "failed", "error_message": text, **common},
        "figures": {"type": "metrics_update", "metrics": {"total_duration": 3, "note": text}, **common},
        "again": {"type": "deployment_started", "attempt": 2, "title": text, **common},
        "test": {"type": "test", "project": project, "message": text},
        "unusable": f'{{"projectId": {json.dumps(project)}, "message": "{text}", oops}}',
    }
    return bodies[what]


KINDS = ("step", "line", "batch", "again", "end", "figures", "test", "unusable")
posts = st.tuples(st.sampled_from(NAMES), st.sampled_from(KINDS), st.integers(0, 2), st.booleans())


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=15, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_posts=st.lists(posts, max_size=20), broken_off_after=st.integers(0, 25))
def test_a_deletion_takes_all_of_one_project_and_nothing_of_another(installation, given_posts, broken_off_after):
    """Broken off anywhere, and gone on with by somebody who knows only the store."""
    number = next(_numbers)
    names = {name: f"{name} no. {number};" for name in NAMES}
    secret = f"secret-of-{number}-"
    gone, *others = names.values()
    each_kind = [(name, what, 0, True) for name in NAMES[:2] for what in KINDS]
    for place, (name, what, id, keyed) in enumerate([*each_kind, *given_posts]):
        project = names[name]
        text = f"{secret}{project}-{place}"
        installation.post(body_of(project, what, f"{project}#{id}", text), key=f"{number}/{place}" if keyed else None)
    before = {project: installation.rows_of(project) for project in others}
    seqs = installation.store.seqs()

    installation.projects.delete(ADMIN, gone, seconds=0)
    with contextlib.suppress(StopIteration):
        for _ in range(broken_off_after):
            step = installation.store.writer.submit(lambda t: erasing.erase_some(t, gone, _scope_of))
            if step.finished:
                raise StopIteration
    with pytest.raises(NotFound):
        installation.projects.metrics(ADMIN, gone, None, None)
    with pytest.raises(NotFound):
        installation.history.deployment(ADMIN, f"{gone}#0")
    listed = installation.database.read(lambda c: list_deployments(c, DeploymentFilter(), None, 0, 100))
    assert gone not in {row.state.project for row in listed}
    assert gone not in {item["name"] for item in installation.database.read(lambda c: list_projects(c, None))}
    badges = [installation.badges.badge(lambda: ADMIN, gone, kind, None).message for kind in BADGES]
    assert set(badges) == {"none"}

    installation.clock.now += ABANDONED_SECONDS + 1
    Deletions(installation.new_projects()).run_once()
    assert {project: installation.rows_of(project) for project in others} == before
    assert installation.store.seqs() == [*seqs, seqs[-1] + 1, seqs[-1] + 2], "no hole for the tails of other processes"
    assert not any(installation.rows_of(gone)[table] for table in ("projects", "deployments", "deliveries"))
    told = [event.type for event in installation.rows_of(gone)[rooms.project(gone)]]
    assert told == ["project_deleted"], "who comes back is told that, and nothing of the past"
    dump = installation.dump()
    assert f"{secret}{gone}-" not in dump
    assert dump.count(gone) == 4, "in two payloads, the rooms of one of them, and the index of rooms"


def fill(installation: Installation, project: str, count: int = 3) -> None:
    for number in range(count):
        installation.post(body_of(project, "batch", f"{project}#{number}", "text"), key=f"{project} {number}")


def test_it_is_told_how_much_was_forgotten(installation):
    fill(installation, "shop")
    installation.post(body_of("shop", "step", "shop#0", "build"))
    installation.post(body_of("shop", "unusable", "", ""))
    done = installation.projects.delete(ADMIN, "shop")
    assert done == erasing.Erased(deployments=3, steps=1, lines=15, events=5, deliveries=5, finished=True)


def test_nothing_of_it_is_taken_before_it_is_gone_and_then_it_begins_anew(installation):
    fill(installation, "shop")
    installation.projects.delete(ADMIN, "shop", seconds=0)
    for what in ("line", "test"):
        with pytest.raises(Unavailable):
            installation.post(body_of("shop", what, "shop#0", "late"))
    assert installation.post(body_of("other", "line", "other#0", "x")) > 0
    assert installation.projects.delete(ADMIN, "shop").finished
    head = installation.store.head()
    assert installation.post(body_of("shop", "line", "shop#0", "new"), key="shop 0") == head + 2
    assert [event.type for event in installation.store.journal()[-2:]] == ["project_created", "log_entry"]
    lines, _ = installation.history.lines(ADMIN, "shop#0", 0, 10, (), None)
    assert [row.line.message for row in lines] == ["new"]


def test_a_second_deletion_goes_on_with_the_first_and_tells_it_once(installation):
    fill(installation, "shop", 5)
    first = installation.projects.delete(ADMIN, "shop", seconds=0)
    assert not first.finished
    second = installation.new_projects().delete(ADMIN, "shop")
    assert (second.finished, second.deployments) == (True, 5)
    types = [event.type for event in installation.store.journal()]
    assert (types.count(DELETED), types.count("project_deleted")) == (1, 1)
    with pytest.raises(NotFound):
        installation.projects.delete(ADMIN, "shop")


def test_a_deletion_that_somebody_works_on_is_left_to_them(installation):
    fill(installation, "shop")
    installation.projects.delete(ADMIN, "shop", seconds=0)
    assert installation.projects.abandoned(ABANDONED_SECONDS) == []
    installation.clock.now += ABANDONED_SECONDS + 1
    assert installation.projects.abandoned(ABANDONED_SECONDS) == ["shop"]
    Deletions(installation.projects).run_once()
    assert installation.projects.abandoned(-1) == []


@pytest.mark.parametrize(
    "identity",
    [
        Identity(kind="token", name="other", scopes=frozenset({"admin"}), projects=("other",), token_id="o"),
        Identity(kind="connection", name="c", scopes=frozenset({"admin"}), projects=None, patterns=("project:o*",)),
    ],
)
def test_a_project_that_may_not_be_seen_is_not_found(installation, identity):
    fill(installation, "shop")
    for name in ("shop", "never seen"):
        with pytest.raises(NotFound):
            installation.projects.delete(identity, name)
        with pytest.raises(NotFound):
            installation.projects.metrics(identity, name, None, None)
    assert installation.projects.delete(ADMIN, "shop").deployments == 3


def test_a_delivery_whose_project_is_gone_is_not_replayed(installation):
    """It has no body any more, so it would be judged by what it is not."""
    fill(installation, "shop", 1)
    number = installation.deliveries.list(DeliveryFilter(), None, 1)[0]["number"]
    installation.projects.delete(ADMIN, "shop")
    with pytest.raises(Conflict) as refused:
        installation.deliveries.replay(ADMIN, number)
    assert [field.path for field in refused.value.fields] == ["project"]
    kept = installation.deliveries.find(number)
    assert (kept["verdict"], kept["body"], kept["headers"]) == ("erased", b"", {})
