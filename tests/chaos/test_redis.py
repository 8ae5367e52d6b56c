"""Two hosts on PostgreSQL and Redis: whatever becomes of the Redis, and who else speaks on it, nothing is lost. In the
long run the hosts are network namespaces, whose cables are pulled."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.chaos import namespaces
from tests.chaos.forger import Forger
from tests.chaos.hosts import Hosts, two_namespaces, two_ports
from tests.chaos.pages import LightPages, plans
from tests.chaos.senders import PATH
from tests.chaos.stage import LONG, PATHS, PROJECTS, ROUNDS, Stage
from tests.chaos.tally import connects, tell
from tests.programs import wait_until
from tests.servers import RunningSidecar

LIVE = "hall"
REFUSED = "sidecar_redis_refused_total"
HERE = 12
"""Pages that a host has on itself, where its cable matters nothing."""
AWAY_SECONDS = 20.0 if LONG else 0.0
BURST_RATE = 400.0
BURST_POSTS = 60
LARGE = 50 if LONG else 10, 60_000
"""Posts and their bytes, of a project that no page looks at."""


@pytest.fixture
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hosts]:
    postgres = request.getfixturevalue("postgres")
    redis = request.getfixturevalue("redis_server")
    why = namespaces.missing() if LONG else "the short run needs none"
    tell(f"\ntwo network namespaces on a bridge: {why or 'yes'}")
    with two_ports(tmp_path, postgres, redis) if why else two_namespaces(tmp_path) as made:
        yield made


class Trouble:
    """What becomes of the Redis, and of others meanwhile. Each returns when all is there again."""

    def __init__(self, hosts: Hosts, stage: Stage):
        self.hosts = hosts
        self.stage = stage
        self.redis = hosts.redis
        self.senders = stage.send()

    def stopped(self, _number: int) -> None:
        with self.away(signal.SIGTERM):
            for server in self.hosts.servers:
                wait_until(lambda server=server: warnings(server) != [], "it says that Redis is away, and is ready")
            end = time.monotonic() + AWAY_SECONDS
            while True:
                self.stage.break_lines(2)
                self.stage.mend()
                self.stage.caught_up("without Redis")
                if time.monotonic() > end:
                    break

    def killed_in_a_burst(self, _number: int) -> None:
        burst = self.stage.send(BURST_RATE)
        try:
            self.stage.go_on(BURST_POSTS)
            with self.away(signal.SIGKILL):
                self.stage.go_on(BURST_POSTS)
            self.stage.go_on(BURST_POSTS)
        finally:
            burst.end()

    def frozen(self, number: int) -> None:
        """Whoever tells it something waits for an answer; no post does."""
        with self.redis.frozen():
            self.post_large(number)
            self.stage.mend()
            self.stage.caught_up("while Redis stands still")
            self.stage.line.cut(0.2)
            self.stage.go_on()

    def post_large(self, number: int) -> None:
        count, size = LARGE
        server = self.hosts.servers[number % 2]
        headers = {"Authorization": f"Token {server.token}"}
        with httpx.Client(base_url=f"http://{server.address}:{server.port}", headers=headers, timeout=20) as http:
            for _ in range(count):
                body = {"type": "log_entry", "project": "ebb", "deployment_id": "ebb-1", "message": "x" * size}
                answer = http.post(PATH, json=body)
                assert answer.status_code == 200, answer.text

    def node_killed(self, number: int) -> None:
        killed = self.hosts.servers[number % 2]
        with self.away(signal.SIGTERM):
            self.stage.kill(killed)
            self.stage.go_on()
            self.stage.line.cut(0.2)
            killed.start()
            self.stage.go_on()

    def postgres_restarted(self, number: int) -> None:
        with self.away(signal.SIGKILL):
            refused = self.senders.refused
            self.hosts.postgres.stop(signal.SIGQUIT if number % 2 else signal.SIGINT)
            try:
                self.stage.wait(lambda: self.senders.refused > refused + 10, "posts are refused")
                self.stage.line.cut(0.1)
            finally:
                self.hosts.postgres.start()
            self.stage.go_on()

    @contextlib.contextmanager
    def away(self, how: signal.Signals) -> Iterator[None]:
        self.redis.stop(how)
        try:
            yield
        finally:
            self.redis.start()

    def back(self) -> None:
        """Both processes have it again."""
        for server in self.hosts.servers:
            wait_until(lambda server=server: server.metric("sidecar_redis_connected") == 1, "Redis is back")
            wait_until(lambda server=server: warnings(server) == [], "it has nothing to warn of")

    def news_flow(self) -> None:
        """Volatile news, which one process has and Redis alone carries to the other host."""
        before = {name: page["news"] for name, page in self.stage.progress().items()}
        listening = [name for name, page in self.stage.report().items() if page["news"]]
        self.stage.mend()

        def lacking() -> list[str]:
            return [
                name
                for name, page in self.stage.progress().items()
                if name in listening and page["news"] <= before[name]
            ]

        self.stage.wait(lambda: not lacking(), "news flow to both hosts", lambda: lacking()[:10])


class Cables:
    """Trouble of hosts that have a cable each."""

    def __init__(self, trouble: Trouble):
        self.trouble = trouble
        self.stage = trouble.stage
        self.hosts = trouble.hosts
        self.here: list[set[str]] = []
        self.posting = []
        for number, (node, server) in enumerate(zip(self.hosts.nodes, self.hosts.servers, strict=True)):
            made = plans(HERE, PROJECTS, f"here-{number}-", self.stage.random)
            made = [plan for plan in made if plan.kind != "late"]
            self.here.append({plan.name for plan in made})
            self.stage.join(LightPages(self.stage.loop(node.enter), made, server.port, PATHS[0], self.stage.token))
            url = f"http://127.0.0.1:{server.port}"
            self.posting.append(self.stage.send(4, {"axi": ["axi-1"]}, url, node.enter))

    def pulled(self, number: int) -> None:
        """The host acknowledges nothing that it can't commit, and its pages there get nothing that the others don't;
        those behind nginx come to the other host."""
        cut = number % 2
        own = self.posting[cut]
        before = sum(sender.refused + sender.unanswered for sender in own.each)
        with self.hosts.nodes[cut].unplugged():
            self.stage.wait(
                lambda: sum(sender.refused + sender.unanswered for sender in own.each) > before,
                "the host without a cable refuses posts",
            )
            answered = own.answered
            if number // 2 % 2:
                self.stage.line.cut(1.0)
            self.stage.go_on()
            self.stage.mend()
            self.stage.caught_up("on the host that has its cable", self.here[cut])
            assert own.answered == answered, "nothing is acknowledged that PostgreSQL did not hear of"
        self.stage.wait(lambda: own.answered > answered, "it acknowledges again")
        self.stage.caught_up("on both hosts")

    def none_left(self) -> None:
        """Of the processes' sessions, once they have ended: those that died with a cable are ended, too."""
        for server in self.hosts.servers:
            server.stop()
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sidecar'"
        with self.hosts.postgres.connect(self.hosts.database) as connection:
            wait_until(lambda: connection.execute(query).fetchone() == (0,), "PostgreSQL has ended all sessions")

    def lossy(self, number: int) -> None:
        with self.hosts.nodes[number % 2].lossy() as how:
            tell(f"packets are lost: {how}")
            self.stage.break_lines(4)
            self.stage.mend()
            self.stage.caught_up("though packets are lost")


def warnings(server: RunningSidecar) -> list[str]:
    """Of one that is ready."""
    answer = server.get("/readyz")
    assert answer.status_code == 200, answer.text
    found: list[str] = answer.json()["warnings"]
    return found


def test_redis_hurries_and_decides_nothing(hosts: Hosts):
    first = hosts.servers[0]
    assert first.post("/api/start-live-push/", {"room": LIVE, "interval": 0.25}).status_code == 200
    with contextlib.ExitStack() as ends:
        stage = ends.enter_context(Stage([hosts.nginx.port], first, LIVE, part=1.0 if LONG else 0.3))
        forger = Forger(hosts.redis, first.get("/api/info").json()["epoch"], stage.random)
        ends.callback(forger.close)
        trouble = Trouble(hosts, stage)
        trouble.news_flow()
        acts: list[Callable[[int], None]] = [
            trouble.stopped,
            trouble.killed_in_a_burst,
            trouble.frozen,
            trouble.node_killed,
            trouble.postgres_restarted,
        ]
        cables = Cables(trouble) if hosts.nodes else None
        if cables is not None:
            acts += [cables.pulled, cables.lossy]
        for number in range(max(1, ROUNDS // 10)):
            for act in stage.random.sample(acts, len(acts)):
                stage.break_lines(1)
                act(number)
                trouble.back()
        trouble.news_flow()
        for server in hosts.servers:
            wait_until(lambda server=server: server.metric(REFUSED) > 0, "it refuses what is forged")
        forger.close()
        tell(
            f"{forger.heard} messages heard on Redis, {forger.said} forged or repeated; since their last starts the"
            f" processes refused {', '.join(f'{server.metric(REFUSED):.0f}' for server in hosts.servers)}"
        )
        reports = stage.reckon(f"two hosts ({'namespaces' if hosts.nodes else 'ports'}) on PostgreSQL and Redis")
    assert forger.heard > 0
    assert connects(reports)[0] > 0
    assert not any(page["truncated"] for page in reports.values())
    for name, page in reports.items():
        twice = [news for news, count in Counter(page["news"]).items() if count > 1]
        assert not twice, f"{name} got news twice"
    with hosts.postgres.connect(hosts.database) as connection:
        seqs = [row[0] for row in connection.execute("SELECT seq FROM events ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1))
    if cables is not None:
        cables.none_left()
    for server in hosts.servers:
        assert "Traceback" not in server.output()
