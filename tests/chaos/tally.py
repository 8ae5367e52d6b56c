"""The reckoning at the end of a scenario: what every page should have got, what it has, and the figures of it all."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.pages import Report
from tests.servers import RunningSidecar

Events = list[tuple[int, str]]
"""(seq, text), by seq."""


def tell(text: str) -> None:
    """Seen with `pytest -s`, and where the test fails."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def stored(server: RunningSidecar, deployment: str) -> Events:
    """What the read API has of it, page by page."""
    found: Events = []
    after: str | int = 0
    while True:
        answer = server.get(f"/api/deployments/{deployment}/events?after={after}&limit=1000")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [(item["seq"], item["payload"]["message"]) for item in page["items"]]
        if page["next"] is None:
            return found
        after = page["next"]


def check_gapless(database: Path) -> None:
    """The seqs of a journal in SQLite are 1, 2, 3, …"""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        seqs = [row[0] for row in connection.execute("SELECT seq FROM events ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1))


def due_rooms(projects: Mapping[str, list[str]], events: Mapping[str, Events]) -> dict[str, Events]:
    """Of each room all its events; `events` are those of each deployment."""
    due = {f"deployment:{deployment}": sorted(found) for deployment, found in events.items()}
    for project, deployments in projects.items():
        due[f"project:{project}"] = sorted(event for deployment in deployments for event in events[deployment])
    return due


def behind(due: Mapping[str, Events], progress: Mapping[str, Report]) -> list[str]:
    """The pages that have not reached the last event of one of their rooms, or are not connected."""
    found = []
    for name, page in progress.items():
        lacking = [
            f"{room} at {state['last']} of {due[room][-1][0]} (start {state['start']})"
            for room, state in page["rooms"].items()
            if state["start"] is None or (due[room] and due[room][-1][0] > max(state["start"], state["last"]))
        ]
        if lacking or not page["connected"]:
            found.append(f"{name} (connected {page['connected']}): {', '.join(lacking)}")
    return found


def faults(due: Mapping[str, Events], reports: Mapping[str, Report]) -> list[str]:
    """What is wrong with what the pages got: each event of a room exactly once and in order, and no others."""
    found = []
    for name, page in reports.items():
        found += [f"{name}: {fault}" for fault in page["faults"]]
        for room, state in page["rooms"].items():
            found += [f"{name} in {room}: {fault}" for fault in _faults(due[room], state)]
    return found


@dataclass(frozen=True, slots=True)
class Compared:
    """What a room of a page has, against what it should have."""

    due: int
    """How many events it should have."""
    missing: Events
    twice: list[int]
    """The seqs of those that came more than once, by seq."""
    places: list[int]
    """Where in the order of their coming a seq is below the one before it."""
    foreign: Events
    """Those that are not stored so."""


def compared(due: Events, state: Mapping[str, Any]) -> Compared:
    """One that never subscribed lacks all."""
    got = [(seq, text) for seq, text in state["events"]]
    seqs = [seq for seq, _ in got]
    wanted = {event for event in due if event[0] > (state["start"] or 0)}
    return Compared(
        due=len(wanted),
        missing=sorted(wanted - set(got)),
        twice=sorted(seq for seq, count in Counter(seqs).items() if count > 1),
        places=[place for place in range(1, len(seqs)) if seqs[place] < seqs[place - 1]],
        foreign=sorted(set(got) - set(due)),
    )


def _faults(due: Events, state: dict[str, Any]) -> Iterable[str]:
    if state["start"] is None:
        yield "never subscribed"
        return
    found = compared(due, state)
    if found.places:
        place, seqs = found.places[0], [seq for seq, _ in state["events"]]
        yield f"out of order: … {seqs[max(0, place - 3) : place + 3]} …"
    if found.twice:
        yield f"{len(found.twice)} more than once: {found.twice[:10]}"
    if found.missing:
        yield f"{len(found.missing)} missing behind {state['start']}: {found.missing[:5]}"
    if found.foreign:
        yield f"{len(found.foreign)} that are not stored so: {found.foreign[:5]}"


def verdict(due: Mapping[str, Events], reports: Mapping[str, Report]) -> str:
    """The promise in figures: of the events that are due in the rooms of all pages."""

    def each() -> Iterator[Compared]:
        for page in reports.values():
            for room, state in page["rooms"].items():
                yield compared(due[room], state)

    rooms = list(each())
    return (
        f"lost {sum(len(room.missing) for room in rooms)}, repeated {sum(len(room.twice) for room in rooms)},"
        f" out of order {sum(len(room.places) for room in rooms)} of {sum(room.due for room in rooms)} due"
    )


def connects(reports: Mapping[str, Report]) -> tuple[int, int]:
    """How many of the pages' reconnects were recovered, how many were fresh."""
    again = [recovered for page in reports.values() for recovered in page["connects"][1:]]
    return sum(again), len(again) - sum(again)
