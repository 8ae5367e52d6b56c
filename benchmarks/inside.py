"""What single steps cost, seen from inside of a process of the sidecar: to commit, to read the journal, to hear of a
batch. A program of its own for benchmarks/costs.py, because gevent's patch has to come before all else. Usage:
python -m benchmarks.inside STEP PIDS with settings in the environment and process ids by name in JSON; prints JSON:
milliseconds p50 and p99, and microseconds of CPU by name."""

# ruff: noqa: E402
import gevent
from gevent import monkey

monkey.patch_all()

import itertools
import json
import sys
import time
from collections.abc import Callable

from benchmarks.servers import event
from benchmarks.services import tree_cpu_seconds
from config.settings import load_settings
from sidecar.core import Core, open_core
from sidecar.domain.events import Event, Volatile
from sidecar.fanout.doorbells import Batch
from sidecar.fanout.redis_bell import RedisBell
from sidecar.store.journal import Transaction, events_after, read_head
from sidecar.store.nodes import add_node
from sidecar.store.presences import put_presences
from sidecar.wire.news import DEPLOYMENT_STARTED

COMMITS = 300
READS = 300
PLACES = 100
BATCHES = 2_000
WARM = 50
CONNECT_SECONDS = 10
KEY = b"of two processes of the benchmark"
PAYLOAD = json.loads(event(0, 0))["payload"]
ROOMS = ["project:bench", "deployment:bench-1"]

Figures = dict[str, float]
Pids = dict[str, int]


def commits(pids: Pids) -> Figures:
    """Batches of one bare event, one after the other, told to others by whatever the settings name."""
    return _measured(_running(), pids, COMMITS, _commit)


def unannounced(pids: Pids) -> Figures:
    """As `commits`, and nobody is told."""
    core = open_core(load_settings(), running=True)
    core.database.backend.announce = lambda connection, seq: None  # type: ignore[method-assign]
    core.writer.start()
    return _measured(core, pids, COMMITS, _commit)


def reads(pids: Pids) -> Figures:
    """What a tail reads that was told to look, one event being new."""
    core = _running()
    for _ in range(2):
        _commit(core)

    def look(core: Core) -> None:
        head = core.database.read(read_head)
        core.database.read(lambda connection: events_after(connection, head.seq - 1, 500))

    return _measured(core, pids, READS, look)


def presences(pids: Pids) -> Figures:
    """So many users come into a room, and are told of at once."""
    core = _running()
    core.writer.submit(lambda transaction: add_node(transaction.connection, core.node, transaction.now))
    numbers = itertools.count()

    def come(core: Core) -> None:
        here = {("room", f"user-{next(numbers)}"): 1 for _ in range(PLACES)}
        core.writer.submit(lambda transaction: put_presences(transaction.connection, core.node, here, transaction.now))

    return _measured(core, pids, READS // 10, come)


def hearing_1(pids: Pids) -> Figures:
    """A batch of one event from another process, as far as the hub, which has no subscribers."""
    return _hearing(1)


def hearing_16(pids: Pids) -> Figures:
    return _hearing(16)


def _running() -> Core:
    core = open_core(load_settings(), running=True)
    core.start()
    with gevent.Timeout(CONNECT_SECONDS):
        while core.redis_bell is not None and not core.redis_bell.connected:
            gevent.sleep(0.01)
    return core


def _commit(core: Core) -> None:
    def append(transaction: Transaction) -> None:
        transaction.append(DEPLOYMENT_STARTED, PAYLOAD, ROOMS)

    core.writer.submit(append)


def _hearing(events: int) -> Figures:
    core = open_core(load_settings(), running=True)
    assert core.redis is not None
    there, here = (RedisBell(core.redis, node, core.tail.epoch, KEY) for node in ("there", "here"))
    messages = [there._batch_message(Batch(_batch(number * events, events))) for number in range(BATCHES)]
    begin = time.process_time()
    for message in messages:
        here._take(message, core.tail, _no_news)
    used = time.process_time() - begin
    assert core.tail.last == BATCHES * events
    return {"process": used / BATCHES * 1e6}


def _no_news(news: Volatile) -> None:
    raise AssertionError(news)


def _batch(after: int, events: int) -> list[Event]:
    text = json.dumps(PAYLOAD, separators=(",", ":"))
    at = PAYLOAD["timestamp"]
    return [Event(after + each + 1, 7, DEPLOYMENT_STARTED, text, tuple(ROOMS), at) for each in range(events)]


def _measured(core: Core, pids: Pids, times: int, act: Callable[[Core], None]) -> Figures:
    for _ in range(WARM):
        act(core)
    before = _used(pids)
    taken = []
    for _ in range(times):
        begin = time.monotonic()
        act(core)
        taken.append(time.monotonic() - begin)
    used = {name: (seconds - before[name]) / times * 1e6 for name, seconds in _used(pids).items()}
    core.close()
    taken.sort()
    return {"p50 ms": taken[times // 2] * 1e3, "p99 ms": taken[times * 99 // 100] * 1e3, **used}


def _used(pids: Pids) -> Figures:
    return {"process": time.process_time(), **{name: tree_cpu_seconds(pid) for name, pid in pids.items()}}


STEPS = {step.__name__: step for step in (commits, unannounced, reads, presences, hearing_1, hearing_16)}

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](json.loads(sys.argv[2]))))
