"""What the scenarios have in common: pages and senders behind proxies that break, and the reckoning at the end.

Scenarios are paced by what is observed (posts answered, pages complete), never by the clock.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Sequence

import pytest

from tests.chaos.loop import Loop
from tests.chaos.official import OfficialPages
from tests.chaos.pages import LightPages, Report, plans
from tests.chaos.proxy import Proxy
from tests.chaos.senders import Senders
from tests.chaos.tally import behind, connects, due_rooms, faults, stored, tell
from tests.servers import RunningSidecar

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "2"))
"""How often a scenario breaks what it is about."""
STEPS = int(os.environ.get("CHAOS_STEPS", "4"))
"""How often connections are broken in a round."""
POSTS = int(os.environ.get("CHAOS_POSTS", "15"))
"""How many posts are answered between two of those."""
RATE = float(os.environ.get("CHAOS_RATE", "60"))
"""Posts a second of all senders together."""
LATE_PART = min(0.1, 4 / (ROUNDS * STEPS))
"""Of the late pages that have not begun, how many do with each step: some are left to the end."""
OFFICIAL = int(os.environ.get("CHAOS_OFFICIAL", "60"))
LIGHT = int(os.environ.get("CHAOS_LIGHT", "140"))
SEED = int(os.environ.get("CHAOS_SEED", "7"))
WAIT_SECONDS = 60.0
"""How long a scenario waits for what usually takes a second; generous, because machines stall."""

PROJECTS = {name: [f"{name}-{number}" for number in (1, 2)] for name in ("axi", "bay", "cove", "dune")}
PATHS = ("/socket.io/", "/socket.io")


class Stage:
    """`ports` are where clients and senders may reach a server, through the proxies `line` and `post`."""

    def __init__(self, ports: Sequence[int], server: RunningSidecar):
        tell(f"\nseed {SEED}, {OFFICIAL} + {LIGHT} pages")
        self.random = random.Random(SEED)
        self.server = server
        self.kills = 0
        self.lost: set[str] = set()
        """Texts that were answered 200 and then taken away by a restored backup."""
        self._closers: list[Callable[[], None]] = []
        self._senders: list[Senders] = []
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
        token = self.server.new_token("deployments:read")
        light = plans(LIGHT, PROJECTS, "light-", self.random)
        official = plans(OFFICIAL, PROJECTS, "official-", self.random)
        self._late = [plan.name for plan in (*light, *official) if plan.kind == "late"]
        self._light = LightPages(self._loop, light, self.line.port, PATHS[0], token)
        self._closers.append(self._light.close)
        self._official = OfficialPages(official, self.line.port, PATHS[1], token)
        self._closers.append(self._official.close)

        self.settled()

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

    def send(self, rate: float = RATE) -> Senders:
        """Begin to post."""
        senders = Senders(self.post.url, self.server.token, PROJECTS, f"{len(self._senders)}-", rate)
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
        self._light.begin(names)
        self._official.begin(names)

    def mend(self) -> None:
        """Nothing breaks any more."""
        self.line.mend()
        self.post.mend()

    def kill(self, server: RunningSidecar) -> None:
        self.kills += 1
        server.kill()

    def progress(self) -> dict[str, Report]:
        return self._light.progress() | self._official.progress()

    def quiet(self) -> None:
        """All that was sent to the pages has come to them."""
        self._light.quiet()
        self._official.quiet()

    def complete(self) -> None:
        """Wait until every page has all that is stored now."""
        due = self.due()
        self.wait(
            lambda: not behind(due, self.progress()),
            "all pages are complete",
            lambda: behind(due, self.progress())[:10],
        )

    def report(self) -> dict[str, Report]:
        return self._light.report() | self._official.report()

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
        self._tell(what, reports)
        wrong = faults(due, reports)
        assert not wrong, f"{len(wrong)} faults:\n" + "\n".join(wrong[:40])
        return reports

    def stored_texts(self) -> set[str]:
        return {text for names in PROJECTS.values() for name in names for _, text in stored(self.server, name)}

    def due(self) -> dict[str, list[tuple[int, str]]]:
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

    def _tell(self, what: str, reports: dict[str, Report]) -> None:
        each = [sender for senders in self._senders for sender in senders.each]
        recovered, fresh = connects(reports)
        delivered = sum(len(room["events"]) for page in reports.values() for room in page["rooms"].values())
        tell(
            f"{what}: {sum(s.tried for s in each)} posts tried, {sum(len(s.answered) for s in each)} acknowledged"
            f" ({sum(s.doubles for s in each)} of them as duplicates), {sum(s.refused for s in each)} refused 503,"
            f" {sum(s.unanswered for s in each)} unanswered; {self.kills} kills, {self.line.cuts} + {self.post.cuts}"
            f" cuts, {self.line.stalls} stalls; {recovered} recoveries, {fresh} fresh sessions after the first,"
            f" {sum(page['truncated'] for page in reports.values())} truncated;"
            f" {delivered} events in {len(reports)} pages' rooms"
        )
