"""What a page does with its socket, and the light pages that do it in this process (tests/node/crowd.mjs is the same
for the official client).

Three kinds: `once` subscribes at its first connect and relies on recovery (when `recovered` is false it subscribes
again since what it knows of each room), `always` subscribes in every connect handler, `late` begins when it is told to,
since 0, and then is like `once`. The offset that it gives as `since` is kept a room, of the events' envelopes. Volatile
news of a free room may come to a page between its events.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.loop import Loop
from tests.chaos.wire import Socket

KINDS = ("once", "always", "late")
AGAIN_SECONDS = 0.2
QUIET_SECONDS = 30.0

Room = tuple[str, str]
"""("project" or "deployment", its name). Of a page, the wider room comes first, as it would in a view of both."""

Report = dict[str, Any]
"""What became of a page: `connects` (for each, whether it was recovered), `truncated` (how often it was told so),
`faults` (texts), `news` (when each volatile message was sent, and by which connection it came), and `rooms`: for each
`<kind>:<name>` its `start`, a seq (null: never subscribed) behind which all is due, and `events`, the (seq, text) in
the order in which they came."""


@dataclass(frozen=True)
class Plan:
    """A page to be."""

    name: str
    kind: str
    rooms: tuple[Room, ...]
    transports: tuple[str, ...] = ("websocket",)
    live: str | None = None
    """A free room whose volatile news it wants, too."""


def plans(count: int, projects: dict[str, list[str]], prefix: str, chooser: random.Random) -> list[Plan]:
    """Pages of every kind, in a room, in two that overlap, or in two of different projects. `projects`: the deployments
    of each."""
    made = []
    names = list(projects)
    shapes = itertools.cycle(("project", "deployment", "both", "two"))
    for number, shape in zip(range(count), shapes, strict=False):
        one, other = chooser.sample(names, 2)
        deployment = chooser.choice(projects[one])
        rooms: dict[str, tuple[Room, ...]] = {
            "project": (("project", one),),
            "deployment": (("deployment", deployment),),
            "both": (("project", one), ("deployment", deployment)),
            "two": (("project", one), ("project", other)),
        }
        transports = ("polling", "websocket") if number % 5 == 0 else ("websocket",)
        made.append(Plan(f"{prefix}{number}", KINDS[number // 4 % 3], rooms[shape], transports))
    return made


class _Watched:
    """A room of a page."""

    def __init__(self, room: Room):
        self.kind, self.name = room
        self.since: object = None
        self.start: int | None = None
        self.events: list[tuple[int, str]] = []


class Page:
    """A light one. All of it runs in the loop."""

    def __init__(self, plan: Plan, port: int, path: str, token: str):
        self.plan = plan
        self._rooms = [_Watched(room) for room in plan.rooms]
        self._active = plan.kind != "late"
        self._shown: set[str] = set()
        self.connects: list[bool] = []
        self.faults: list[str] = []
        self.news: list[str] = []
        self.truncated = 0
        self._live = False
        self.socket = Socket(port, path, token, self)

    def begin(self) -> None:
        """A late page begins now, since the journal's beginning."""
        self._active = True
        for room in self._rooms:
            room.since = 0
        if self.socket.connected:
            self._subscribe_all(recovered=False)

    def connected(self, recovered: bool) -> None:
        self.connects.append(recovered)
        if self._active:
            self._subscribe_all(recovered)
        if self.plan.live is not None and not (recovered and self._live):
            self._listen(self.plan.live, len(self.connects))

    def _listen(self, room: str, connection: int) -> None:
        if connection != len(self.connects) or not self.socket.connected:
            return

        def answered(answer: dict[str, Any]) -> None:
            self._live = answer["ok"]
            if not self._live:
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._listen, room, connection)

        self.socket.emit("subscribe_room", room, {}, answered=answered)

    def _subscribe_all(self, recovered: bool) -> None:
        for room in self._rooms:
            if not recovered or self.plan.kind == "always" or room.start is None:
                self._subscribe(room, len(self.connects))

    def _subscribe(self, room: _Watched, connection: int) -> None:
        if connection != len(self.connects) or not self.socket.connected:
            return
        options = {} if room.since is None else {"since": room.since}

        def answered(answer: dict[str, Any]) -> None:
            self._answered(room, connection, answer)

        self.socket.emit(f"subscribe_{room.kind}", room.name, options, answered=answered)

    def _answered(self, room: _Watched, connection: int, answer: dict[str, Any]) -> None:
        if not answer["ok"]:
            if answer["code"] == "unavailable":
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._subscribe, room, connection)
            else:
                self.faults.append(f"{room.name}: {answer}")
            return
        if answer["truncated"]:
            self.truncated += 1
            if answer["room"] not in self._shown:
                self.faults.append(f"{room.name}: truncated, and no snapshot")
            self._shown.discard(answer["room"])
        elif room.since is None:
            room.since = answer["offset"]
        if room.start is None:
            room.start = 0 if room.since == 0 else answer["seq"]

    def event(self, name: str, args: list[Any]) -> None:
        if name == "snapshot":
            self._show(args[0])
        elif name == "event" and args[0].get("volatile"):
            self.news.append(f"{args[0]['timestamp']} by {self.socket.opened}")
        elif name == "event":
            self._take(args[0])

    def _show(self, snapshot: dict[str, Any]) -> None:
        """Its past is lost: the model is dropped, this is the new one."""
        self._shown.add(snapshot["room"])
        for room in self._rooms:
            if f"{room.kind}:{room.name}" == snapshot["room"]:
                room.events = []
                room.start, room.since = snapshot["seq"], snapshot["offset"]

    def _take(self, envelope: dict[str, Any]) -> None:
        payload = envelope["payload"]
        event = (envelope["seq"], payload["message"])
        found = False
        for room in self._rooms:
            if payload["project" if room.kind == "project" else "deployment_id"] == room.name:
                room.events.append(event)
                room.since = envelope["offset"]
                found = True
        if not found:
            self.faults.append(f"got an event of no room of it: {envelope}")

    def over(self, why: str) -> None:
        self.faults.append(f"ended for good: {why}")

    def progress(self) -> Report:
        rooms = {}
        for room in self._rooms:
            last = room.events[-1][0] if room.events else 0
            rooms[f"{room.kind}:{room.name}"] = {"start": room.start, "last": last, "count": len(room.events)}
        connected, connects = self.socket.connected, len(self.connects)
        return {"connected": connected, "connects": connects, "news": len(self.news), "rooms": rooms}

    def report(self) -> Report:
        rooms = {f"{r.kind}:{r.name}": {"start": r.start, "events": list(r.events)} for r in self._rooms}
        told = {"connects": self.connects, "truncated": self.truncated, "faults": self.faults, "news": self.news}
        return {**told, "rooms": rooms}


class LightPages:
    """Many of them; called from the test's thread."""

    def __init__(self, loop: Loop, plans: Sequence[Plan], port: int, path: str, token: str):
        self._loop = loop
        self._pages = {plan.name: Page(plan, port, path, token) for plan in plans}
        loop.call(lambda: [page.socket.open() for page in self._pages.values()])

    def begin(self, names: Sequence[str]) -> None:
        self._loop.call(lambda: [self._pages[name].begin() for name in names if name in self._pages])

    def progress(self) -> dict[str, Report]:
        return self._loop.call(lambda: {name: page.progress() for name, page in self._pages.items()})

    def report(self) -> dict[str, Report]:
        return self._loop.call(lambda: {name: page.report() for name, page in self._pages.items()})

    def quiet(self) -> None:
        """All that was sent to them before has come: each has asked something and was answered."""

        async def asked(page: Page) -> None:
            while True:
                if not page.socket.connected:
                    await asyncio.sleep(0.05)
                    continue
                answer = asyncio.get_running_loop().create_future()
                page.socket.emit("heartbeat", answered=answer.set_result)
                while page.socket.connected and not answer.done():
                    await asyncio.wait((answer,), timeout=0.05)
                if answer.done():
                    return

        async def ask() -> None:
            async with asyncio.timeout(QUIET_SECONDS):
                await asyncio.gather(*(asked(page) for page in self._pages.values()))

        self._loop.run(ask())

    def close(self) -> None:
        self._loop.call(lambda: [page.socket.close() for page in self._pages.values()])
