"""What the scenarios have in common: pages and senders behind proxies that break, and the reckoning at the end.

Scenarios are paced by what is observed (posts answered, pages complete), never by the clock.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import pytest

from tests.chaos.loop import Loop
from tests.chaos.official import OfficialPages
from tests.chaos.pages import LightPages, Plan, Report, plans
from tests.chaos.proxy import Proxy
from tests.chaos.senders import Senders
from tests.chaos.tally import Events, behind, connects, due_rooms, faults, stored, tell, verdict
from tests.servers import RunningSidecar

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
"""How often a scenario breaks what it is about."""
STEPS = int(os.environ.get("CHAOS_STEPS", "4"))
"""How often connections are broken in a round."""
POSTS = int(os.environ.get("CHAOS_POSTS", "15"))
"""How many posts are answered between two of those."""
RATE = float(os.environ.get("CHAOS_RATE", "60"))
"""Posts a second of all senders together."""
LATE_PART = min(0.1, 4 / (ROUNDS * STEPS))
"""Of the late pages that have not begun, how many do with each step: some are left to the end."""
OFFICIAL = int(os.environ.get("CHAOS_OFFICIAL", "30"))
LIGHT = int(os.environ.get("CHAOS_LIGHT", "70"))
SEED = int(os.environ.get("CHAOS_SEED", "7"))
LONG = os.environ.get("CHAOS_LONG") == "1"
"""`make chaos`: what takes its time, and what changes the machine's network, is done, too."""
WAIT_SECONDS = 60.0
"""How long a scenario waits for what usually takes a second; generous, because machines stall."""

PROJECTS = {name: [f"{name}-{number}" for number in (1, 2)] for name in ("axi", "bay", "cove", "dune")}
PATHS = ("/socket.io/", "/socket.io")
LIVE_EACH = 4
"""With a live room every so many pages want its news."""


class Stage:
    """`ports` are where clients and senders may reach a server, through the proxies `line` and `post`. `live` is a free
    room whose volatile news some of the pages want beside their events; `part` is how many of the pages there are."""

    def __init__(self, ports: Sequence[int], server: RunningSidecar, live: str | None = None, part: float = 1.0):
        self._official, self._light = int(OFFICIAL * part), int(LIGHT * part)
        tell(f"\nseed {SEED}, {self._official} + {self._light} pages")
        self.random = random.Random(SEED)
        self.server = server
        self.kills = 0
        self.lost: set[str] = set()
        """Texts that were answered 200 and then taken away by a restored backup."""
        self._closers: list[Callable[[], None]] = []
        self._senders: list[Senders] = []
        self._crowds: list[LightPages | OfficialPages] = []
        self._live = live
        try:
            self._loop = Loop()
            self._closers.append(self._loop.close)
            self.line = self._proxy(ports)
            self.post = self._proxy(ports)
            self._open_pages()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Servers that the senders need are still there; a scenario that failed while they were away ends them so."""
        for senders in self._senders:
            for sender in senders.each:
                sender.faults.append("the scenario is over")
            senders.end()
        for close in reversed(self._closers):
            close()

    def _proxy(self, ports: Sequence[int]) -> Proxy:
        proxy = Proxy(self._loop, ports, self.random)
        self._closers.append(proxy.close)
        return proxy

    def _open_pages(self) -> None:
        self.token = self.server.new_token("deployments:read", "rooms:read")
        light = self._some_live(plans(self._light, PROJECTS, "light-", self.random))
        official = self._some_live(plans(self._official, PROJECTS, "official-", self.random))
        self._late = [plan.name for plan in (*light, *official) if plan.kind == "late"]
        self.join(LightPages(self._loop, light, self.line.port, PATHS[0], self.token))
        self.join(OfficialPages(official, self.line.port, PATHS[1], self.token))
        self.settled()

    def _some_live(self, made: list[Plan]) -> list[Plan]:
        return [plan if number % LIVE_EACH else replace(plan, live=self._live) for number, plan in enumerate(made)]

    def loop(self, enter: Callable[[], None]) -> Loop:
        """One for more pages; it ends after them."""
        made = Loop(enter)
        self._closers.append(made.close)
        return made

    def join(self, pages: LightPages | OfficialPages) -> None:
        """They count as those that were there from the beginning."""
        self._crowds.append(pages)
        self._closers.append(pages.close)

    def settled(self) -> None:
        """Wait until all pages are connected, and subscribed if they have begun. (One whose process was killed behind
        its back holds itself for connected until it asks something.)"""

        def settled() -> bool:
            return all(
                page["connected"]
                and (name in self._late or all(room["start"] is not None for room in page["rooms"].values()))
                for name, page in self.progress().items()
            )

        before: dict[str, int] | None = None
        while before != self.connects():
            self.wait(settled, "all pages are connected and subscribed")
            before = self.connects()
            self.quiet()

    # -- While it goes on

    def wait(self, condition: Callable[[], bool], what: str, instead: Callable[[], object] | None = None) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"after {WAIT_SECONDS:g} s still not: {what}" + (f"; {instead()}" if instead else ""))
            for senders in self._senders:
                assert not senders.faults, senders.faults
            time.sleep(0.05)

    def send(
        self,
        rate: float = RATE,
        projects: dict[str, list[str]] = PROJECTS,
        url: str | None = None,
        enter: Callable[[], None] = lambda: None,
    ) -> Senders:
        """Begin to post, here or in the threads' own way by `enter` and to the `url`."""
        label = f"{len(self._senders)}-"
        senders = Senders(url or self.post.url, self.server.token, projects, label, rate, enter)
        self._senders.append(senders)
        return senders

    def go_on(self, posts: int = POSTS) -> None:
        """Until so many more posts have been answered."""
        before = self._answered()
        self.wait(lambda: self._answered() >= before + posts, f"{posts} more posts are answered")

    def _answered(self) -> int:
        return sum(senders.answered for senders in self._senders)

    def break_lines(self, steps: int = STEPS) -> None:
        """Connections are cut and stalled while posts go on; some late pages begin."""
        self.line.fragile, self.post.fragile = 0.2, 0.02
        breaks: list[Callable[[], None]] = [
            lambda: self.line.cut(0.3),
            lambda: self.line.cut_later(0.3),
            lambda: self.line.stall(0.2),
            self.line.resume,
            lambda: self.post.cut(0.4),
        ]
        chosen = itertools.chain.from_iterable(
            self.random.sample(breaks, len(breaks)) for _ in range(steps // len(breaks) + 1)
        )
        for act in itertools.islice(chosen, steps):
            self.begin_late(LATE_PART)
            act()
            self.go_on()

    def begin_late(self, part: float) -> None:
        """Some of the late pages that have not begun begin now: their backfills are under way when the next break
        comes."""
        names = [name for name in self._late if part >= 1 or self.random.random() < part]
        self._late = [name for name in self._late if name not in names]
        for crowd in self._crowds:
            crowd.begin(names)

    def mend(self) -> None:
        """Nothing breaks any more."""
        self.line.mend()
        self.post.mend()

    def kill(self, server: RunningSidecar) -> None:
        self.kills += 1
        server.kill()

    def progress(self) -> dict[str, Report]:
        return {name: page for crowd in self._crowds for name, page in crowd.progress().items()}

    def quiet(self) -> None:
        """All that was sent to the pages has come to them."""
        for crowd in self._crowds:
            crowd.quiet()

    def caught_up(self, what: str, away: Collection[str] = ()) -> None:
        """Wait until every page that has begun, and is not `away`, has all that is answered by now."""
        last = {
            deployment: [
                (max(s.last for senders in self._senders for s in senders.each if s.deployment == deployment), "")
            ]
            for names in PROJECTS.values()
            for deployment in names
        }
        due, others = due_rooms(PROJECTS, last), {*self._late, *away}

        def lacking() -> list[str]:
            return behind(due, {name: page for name, page in self.progress().items() if name not in others})

        self.wait(lambda: not lacking(), f"all pages are up to date {what}", lambda: lacking()[:10])

    def complete(self) -> None:
        """Wait until every page has all that is stored now."""
        due = self.due()
        self.wait(
            lambda: not behind(due, self.progress()),
            "all pages are complete",
            lambda: behind(due, self.progress())[:10],
        )

    def report(self) -> dict[str, Report]:
        return {name: page for crowd in self._crowds for name, page in crowd.report().items()}

    def connects(self) -> dict[str, int]:
        """How often each page has connected."""
        return {name: page["connects"] for name, page in self.progress().items()}

    # -- In the end

    def reckon(self, what: str) -> dict[str, Report]:
        """Wait until all is answered and all pages are complete; then nothing may be missing, twice, out of order or
        foreign, and nothing may be stored that was not acknowledged."""
        self.mend()
        self.begin_late(1.0)
        for senders in self._senders:
            senders.end()
            assert not senders.faults, senders.faults
        self._check_stored()
        self.complete()
        self.quiet()
        due, reports = self.due(), self.report()
        self._tell(what, due, reports)
        wrong = faults(due, reports)
        assert not wrong, f"{len(wrong)} faults:\n" + "\n".join(wrong[:40])
        return reports

    def stored_texts(self) -> set[str]:
        return {text for names in PROJECTS.values() for name in names for _, text in stored(self.server, name)}

    def due(self) -> dict[str, Events]:
        found = {deployment: stored(self.server, deployment) for names in PROJECTS.values() for deployment in names}
        return due_rooms(PROJECTS, found)

    def _check_stored(self) -> None:
        for project, names in PROJECTS.items():
            for deployment in names:
                answered = {
                    text: seq
                    for senders in self._senders
                    for sender in senders.each
                    if sender.deployment == deployment
                    for text, seq in sender.answered.items()
                    if text not in self.lost
                }
                events = stored(self.server, deployment)
                assert [seq for seq, _ in events] == sorted(seq for seq, _ in events), project
                assert {text: seq for seq, text in events} == answered, f"{deployment}: stored is what was acknowledged"
                assert len(events) == len(answered), f"{deployment}: and each once"

    def _tell(self, what: str, due: Mapping[str, Events], reports: dict[str, Report]) -> None:
        each = [sender for senders in self._senders for sender in senders.each]
        recovered, fresh = connects(reports)
        delivered = sum(len(room["events"]) for page in reports.values() for room in page["rooms"].values())
        tell(
            f"{what}: {sum(s.tried for s in each)} posts tried, {sum(len(s.answered) for s in each)} acknowledged"
            f" ({sum(s.doubles for s in each)} of them as duplicates), {sum(s.refused for s in each)} refused 503,"
            f" {sum(s.unanswered for s in each)} unanswered; {self.kills} kills, {self.line.cuts} + {self.post.cuts}"
            f" cuts, {self.line.stalls} stalls; {recovered} recoveries, {fresh} fresh sessions after the first,"
            f" {sum(page['truncated'] for page in reports.values())} truncated;"
            f" {delivered} events in {len(reports)} pages' rooms,"
            f" {sum(len(page['news']) for page in reports.values())} volatile news\n"
            f"{what}: {verdict(due, reports)}"
        )
