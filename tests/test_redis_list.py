"""Items of the Redis list, taken by two processes as on two hosts while each part dies, freezes and comes back: every
item is stored once, in its order, and every bad one is in quarantine once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from config.settings import load_settings
from sidecar.factory import create_app
from sidecar.jobs.redis_list import ListTaking
from sidecar.store.redis_list import ReliableList
from tests.postgres import Postgres
from tests.programs import ROOT, require, wait_until
from tests.redis import PASSWORD, RedisServer, program
from tests.servers import RunningSidecar, two_processes

NAME = "deployment_notifications"
ITEMS, ITEMS_AND_KILLS = 80, 300
PAUSE_SECONDS = 0.005
POISON_EVERY = 20
KILLS = 3

_PUSH = """\
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  redis.call('LPUSH', KEYS[1], ARGV[1])
  redis.call('SET', KEYS[2], ARGV[2])
end
"""
"""The same call again changes nothing, for a pusher who was not told whether the first one did."""


@pytest.fixture(scope="module")
def lasting_redis() -> Iterator[RedisServer]:
    """One that remembers across its own crash."""
    if program() is None:
        pytest.skip("redis-server is not installed (make services)")
    server = RedisServer(persistent=True)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, lasting_redis: RedisServer
) -> Iterator[list[RunningSidecar]]:
    url = postgres.url(postgres.new_database()).replace("+psycopg", "")
    quick = ROOT / "tests" / "quick_leases.py"
    folder = tmp_path_factory.mktemp("list")
    with two_processes(folder, url, apart=True, program=quick, SIDECAR_REDIS_URL=lasting_redis.url) as servers:
        yield servers
    for server in servers:
        assert PASSWORD not in server.output()


class Pusher:
    """Pushes so many items in a thread, whether Redis is there or not, bad ones among them. They tell of `project`."""

    def __init__(self, server: RedisServer, project: str, items: int = ITEMS):
        self.good = [f"item {number}" for number in range(items) if number % POISON_EVERY]
        self.bad = [f"{project} item {number}" for number in range(0, items, POISON_EVERY)]
        self.pushed = 0
        self._items = items
        self._half = items // 2
        self._project = project
        self._go_on = threading.Event()
        self._go_on.set()
        self._client = server.client()
        self._thread = threading.Thread(target=self._run, name="pusher")
        self._thread.start()

    def __enter__(self) -> Pusher:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._client.close()

    def until(self, share: float) -> None:
        """So much has been pushed."""
        wait_until(lambda: self.pushed >= share * self._items, "items are pushed")

    def pause(self) -> None:
        """At half of them, until `go_on`."""
        self._go_on.clear()

    def go_on(self) -> None:
        self._go_on.set()

    def _run(self) -> None:
        for number in range(self._items):
            if number == self._half:
                self._go_on.wait()
            while not self._push(number):
                time.sleep(0.02)
            self.pushed = number + 1
            time.sleep(PAUSE_SECONDS)

    def _push(self, number: int) -> bool:
        text = f"item {number}"
        item = {"type": "log_entry", "project": self._project, "deployment_id": self._project, "message": text}
        body = json.dumps(item) if number % POISON_EVERY else f"{self._project} {text}"
        with contextlib.suppress(redis.RedisError):
            self._client.eval(_PUSH, 2, NAME, "pushed", body, f"{self._project} {number}")
            return True
        return False


def check(server: RunningSidecar, source: RedisServer, pusher: Pusher, project: str) -> None:
    """Wait until nothing waits, then compare all that was stored with all that was pushed."""
    with source.client() as client:
        wait_until(lambda: client.llen(NAME) + client.llen(f"{{{NAME}}}:processing") == 0, "all items are taken")
    assert told(server, project) == pusher.good
    assert quarantined(server, pusher.bad) == pusher.bad


def told(server: RunningSidecar, deployment: str) -> list[str]:
    """The messages of the deployment's events."""
    found: list[str] = []
    after: Any = 0
    while after is not None:
        answer = server.get(f"/api/deployments/{deployment}/events?after={after}&limit=500")
        if answer.status_code == 404:
            break
        page = answer.json()
        found += [item["payload"]["message"] for item in page["items"]]
        after = page["next"]
    return found


def quarantined(server: RunningSidecar, bodies: list[str]) -> list[str]:
    """What is in quarantine of these, in its order."""
    names = {hashlib.sha256(body.encode()).hexdigest(): body for body in bodies}
    items = server.get("/api/deliveries?verdict=quarantined&limit=100").json()["items"]
    return [names[item["body_sha256"]] for item in reversed(items) if item["body_sha256"] in names]


def taken_by(server: RunningSidecar) -> float:
    """How many items it has taken since its start."""
    counts = re.findall(r"^sidecar_redis_list_items_total\S* (\S+)$", server.get("/metrics").text, re.MULTILINE)
    return sum(map(float, counts))


def holder(pair: list[RunningSidecar], source: RedisServer) -> RunningSidecar:
    """The one that takes the items now."""
    before = [taken_by(server) for server in pair]
    with source.client() as client:
        client.lpush(NAME, json.dumps({"type": "test", "project": "holder", "message": "who?"}))

    def now() -> list[bool]:
        return [taken_by(server) > count for server, count in zip(pair, before, strict=True)]

    wait_until(lambda: any(now()), "somebody takes the items")
    return pair[now().index(True)]


def test_an_item_is_a_delivery_at_once_at_both(pair, lasting_redis, name):
    with lasting_redis.client() as client:
        client.lpush(
            NAME, json.dumps({"project": name, "deployment_id": name, "message": "hello", "type": "log_entry"})
        )
    for server in pair:
        wait_until(lambda server=server: told(server, name) == ["hello"], "it is told")
        [kept] = server.get(f"/api/deliveries?project={name}").json()["items"]
        assert (kept["verdict"], kept["source"], kept["token_id"]) == ("stored", f"redis:{NAME}", "redis_list")
    answer = pair[0].post(f"/api/deliveries/{kept['number']}/replay")
    assert answer.status_code == 200, answer.text
    assert told(pair[1], name) == ["hello", "hello"]


def test_the_commands_of_the_pages_do_what_they_say(pair, lasting_redis):
    """One pushes an item, one fetches back those that were too large, and one makes a user with just enough rights."""
    push, user, back = redis_commands("protocol.md", "hosting.md")
    count = sum(map(taken_by, pair))
    redis_cli(push, lasting_redis)
    wait_until(lambda: sum(map(taken_by, pair)) == count + 1, "the item is taken")
    with lasting_redis.client() as client:
        client.lpush(f"{{{NAME}}}:too_large", "{}")
        redis_cli(back, lasting_redis)
        wait_until(lambda: sum(map(taken_by, pair)) == count + 2, "the item is taken")
        redis_cli(user, lasting_redis)
        with redis.Redis(port=lasting_redis.port, username="sidecar", password="PASSWORD") as limited:
            limited.client_setname("sidecar")
            source = ReliableList(limited, NAME, 100)
            client.set("elsewhere", "secret")
            source.remove(source.take().items)
            source.wait(0.01)
            limited.publish("sidecar:epoch", "")
            for refused in (lambda: limited.get("elsewhere"), lambda: limited.keys(), lambda: limited.flushall()):
                with pytest.raises(NoPermissionError):
                    refused()


def redis_commands(*pages: str) -> list[str]:
    texts = ((ROOT / "docs" / page).read_text() for page in pages)
    return [command for text in texts for command in re.findall(r"^    (redis-cli .*)$", text, re.MULTILINE)]


def redis_cli(command: str, server: RedisServer) -> None:
    """Run it in a shell as it is written, but for the port."""
    require("redis-cli")
    command = command.replace("redis-cli", f"redis-cli -e -p {server.port}", 1)
    environment = os.environ | {"REDISCLI_AUTH": PASSWORD}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_killed_at_any_moment(pair, lasting_redis, name):
    chance = random.Random(f"{name} {os.environ.get('CHAOS_SEED', '')}")
    with Pusher(lasting_redis, name, ITEMS_AND_KILLS) as pusher:
        for kill in range(KILLS):
            pusher.until(kill / KILLS)
            server = holder(pair, lasting_redis)
            time.sleep(chance.uniform(0, 0.1))
            server.kill()
            server.start()
    check(pair[0], lasting_redis, pusher, name)


def test_redis_is_killed_stops_and_stands_still(pair, lasting_redis, name):
    with Pusher(lasting_redis, name) as pusher:
        for share, how in ((0.2, signal.SIGKILL), (0.5, signal.SIGTERM)):
            pusher.until(share)
            lasting_redis.stop(how)
            lasting_redis.start()
        pusher.until(0.8)
        with lasting_redis.frozen():
            time.sleep(0.2)
    check(pair[0], lasting_redis, pusher, name)


def test_the_holder_stands_still_until_another_has_taken_over(pair, lasting_redis, name):
    frozen = holder(pair, lasting_redis)
    [other] = (server for server in pair if server is not frozen)
    with Pusher(lasting_redis, name) as pusher:
        pusher.pause()
        pusher.until(0.4)
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            count = taken_by(other)
            pusher.go_on()
            wait_until(lambda: taken_by(other) > count + 10, "the other takes over")
        except pytest.fail.Exception as error:
            error.add_note(f"{other.output()}\n{frozen.output()}")
            raise
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
    check(pair[0], lasting_redis, pusher, name)


def test_the_database_is_away(pair, lasting_redis, postgres, name):
    with Pusher(lasting_redis, name) as pusher:
        pusher.until(0.3)
        postgres.stop()
        pusher.until(0.6)
        postgres.start()
    check(pair[0], lasting_redis, pusher, name)


def test_a_stop_in_order_hands_over(pair, lasting_redis, name):
    server = holder(pair, lasting_redis)
    with Pusher(lasting_redis, name) as pusher:
        pusher.until(0.3)
        assert server.stop() == 0
        server.start()
    check(pair[0], lasting_redis, pusher, name)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 0),
        ({"redis_url": "redis://127.0.0.1:1"}, 1),
        ({"redis_url": "redis://127.0.0.1:1", "redis_list": "off"}, 0),
    ],
)
def test_it_is_taken_where_there_is_a_redis_and_a_list(tmp_path: Path, settings: dict[str, str], count: int):
    sidecar = create_app(load_settings(instance_dir=tmp_path / "instance", **settings))
    assert sum(isinstance(job, ListTaking) for job in sidecar.jobs) == count
    sidecar.core.close()


def test_a_refused_password_is_told_and_nothing_else_breaks(start_sidecar: Callable[..., RunningSidecar], redis_server):
    wrong = "not-the-" + PASSWORD
    server = start_sidecar(SIDECAR_REDIS_URL=redis_server.url.replace(PASSWORD, wrong))
    wait_until(lambda: "redis_list.redis_failed" in server.output(), "it is told")
    assert server.post("/api/webhooks/deployment", {"type": "test", "project": "p", "message": "m"}).status_code == 200
    assert server.stop() == 0
    assert wrong not in server.output()
    assert "Traceback" not in server.output()
