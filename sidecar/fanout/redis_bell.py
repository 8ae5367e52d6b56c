"""The doorbell of processes on several hosts that share a Redis: pub/sub, each message a committed batch.

The usual case needs no query then. Redis keeps nothing and decides nothing: who was away looks into the journal, and
what comes is checked. A message is signed with a key of the installation and names the journal by its epoch. A batch is
taken only where its first seq is the next one (fanout/tail.py); volatile news, which has no seq, by a number that rises
with each message of its sender, and with the time, so that a recorded one is known as old by who came later.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import deque
from collections.abc import Callable, Iterable

import gevent
import structlog
from gevent.event import Event as Signal
from redis import Redis, RedisError

from sidecar.domain.events import Volatile
from sidecar.fanout.doorbells import Batch, Ear, HeardVolatile, read_rows, read_volatile, write_volatile
from sidecar.observability.logs import RateLimited, described
from sidecar.store.redis import Pace

logger = structlog.get_logger("sidecar.redis_bell")
log = RateLimited(logger)

MAC_BYTES = 32
WAITING_BATCHES = 1_000
WAITING_BATCH_BYTES = 8 * 1024 * 1024
"""What may wait for Redis; beyond it the others are only told that there is more."""
WAITING_NEWS = 1_000
WAITING_NEWS_BYTES = 1024 * 1024
"""What may wait of volatile news; beyond it the oldest is dropped."""
NEWS_A_TURN = 100
SENDERS = 1_000
"""So many senders' numbers are remembered."""
QUIET_SECONDS = 1.0
"""After so long without a word Redis is asked whether it lives, and has as long for its answer."""
BATCH, MORE, NEWS = "batch", "more", "news"


class RedisBell:
    """A `Doorbell`. `node` names this process, `epoch` the journal; `key` signs. One that was not started rings nobody:
    the database's own doorbells do."""

    def __init__(self, client: Redis, node: str, epoch: str, key: bytes, clock: Callable[[], float] = time.time):
        self._client = client
        self._node = node
        self._epoch = epoch
        self._key = key
        self._clock = clock
        self._channel = f"sidecar:{epoch}"
        self._greenlets: list[gevent.Greenlet] = []
        self._wake = Signal()
        self._batches: deque[Batch] = deque()
        self._batch_bytes = 0
        self._behind = 0
        """Up to here the others are to be told that there is more; 0 if not."""
        self._told = 0
        self._news: deque[str] = deque()
        self._news_bytes = 0
        self._number = 0
        self._numbers: dict[str, int] = {}
        self._began = 0
        self._sending = False
        self._hearing = False
        self.dropped = 0
        self.sent = 0
        self.heard = 0
        self.refused = 0
        """Messages that were not of this installation, or came a second time."""

    @property
    def connected(self) -> bool:
        """Can it tell and hear?"""
        return self._sending and self._hearing

    @property
    def carries(self) -> bool:
        return self._hearing

    def start(self, ear: Ear, heard_volatile: HeardVolatile) -> None:
        self._began = self._now()
        self._greenlets = [gevent.spawn(self._send_always), gevent.spawn(self._hear_always, ear, heard_volatile)]
        for greenlet, name in zip(self._greenlets, ("redis-sender", "redis-listener"), strict=True):
            greenlet.name = name

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        self._sending = self._hearing = False

    def ring(self, batch: Batch) -> None:
        if not self._greenlets:
            return
        if not self._sending or len(self._batches) >= WAITING_BATCHES or self._batch_bytes >= WAITING_BATCH_BYTES:
            self._behind = max(self._behind, batch.last)
        else:
            self._batches.append(batch)
            self._batch_bytes += _size(batch)
        self._wake.set()

    def tell(self, news: Volatile) -> bool:
        if not self.connected:
            self.dropped += len(self._greenlets) > 0
            return False
        text = write_volatile(news)
        self._news.append(text)
        self._news_bytes += len(text)
        while len(self._news) > WAITING_NEWS or self._news_bytes > WAITING_NEWS_BYTES:
            self._news_bytes -= len(self._news.popleft())
            self.dropped += 1
        self._wake.set()
        return True

    # -- Telling

    def _send_always(self) -> None:
        pace = Pace()
        while True:
            try:
                self._client.ping()
                self._sending = True
                pace.reset()
                while True:
                    self._wake.wait()
                    self._wake.clear()
                    self._send_all()
            except (RedisError, OSError) as error:
                log.warning("redis_bell.not_rung", problem=described(error))
            except Exception as error:
                logger.error("redis_bell.failed", exc_info=error)
            self._sending = False
            self._give_up()
            pace.wait()

    def _send_all(self) -> None:
        """Batches first; what is left of volatile news has to wait while there are any."""
        while self._batches or self._behind or self._news:
            messages = [self._batch_message(batch) for batch in self._batches]
            self._told = max([self._told, *(batch.last for batch in self._batches)])
            if self._behind:
                messages.append(self._message(MORE, self._behind, self._behind, ""))
            self._batches.clear()
            self._batch_bytes = self._behind = 0
            for _ in range(min(NEWS_A_TURN, len(self._news))):
                text = self._news.popleft()
                self._news_bytes -= len(text)
                messages.append(self._message(NEWS, 0, 0, text))
            self._publish(messages)

    def _publish(self, messages: Iterable[bytes]) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for message in messages:
                pipeline.publish(self._channel, message)
            self.sent += len(pipeline.execute())

    def _give_up(self) -> None:
        """What waited can't be told now; once Redis is back the others are told that there is more, as they are of what
        was on its way."""
        self._behind = max([self._behind, self._told, *(batch.last for batch in self._batches)])
        self._batches.clear()
        self._batch_bytes = 0
        self.dropped += len(self._news)
        self._news.clear()
        self._news_bytes = 0
        self._wake.set()

    def _batch_message(self, batch: Batch) -> bytes:
        if batch.rows is None:
            return self._message(MORE, batch.last, batch.last, "")
        return self._message(BATCH, batch.events[0].seq, batch.last, batch.rows)

    def _message(self, kind: str, first: int, last: int, body: str) -> bytes:
        self._number = max(self._number + 1, self._now())
        told = f"{kind} {self._epoch} {self._node} {self._number} {first} {last}\n{body}".encode()
        return self._sign(told) + told

    def _now(self) -> int:
        return int(self._clock() * 1e6)

    def _sign(self, told: bytes) -> bytes:
        return hmac.digest(self._key, told, hashlib.sha256)

    # -- Hearing

    def _hear_always(self, ear: Ear, heard_volatile: HeardVolatile) -> None:
        pace = Pace()
        while True:
            try:
                self._hear(ear, heard_volatile, pace)
            except (RedisError, OSError) as error:
                log.warning("redis_bell.deaf", problem=described(error))
            except Exception as error:
                logger.error("redis_bell.failed", exc_info=error)
            self._hearing = False
            ear.look()  # what was being waited for may not come any more
            pace.wait()

    def _hear(self, ear: Ear, heard_volatile: HeardVolatile, pace: Pace) -> None:
        with self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(self._channel)
            asked = False
            while True:
                message = pubsub.get_message(timeout=QUIET_SECONDS)
                if message is None:
                    if asked:
                        raise TimeoutError("Redis says nothing any more.")
                    pubsub.ping()
                    asked = True
                    continue
                asked = False
                if message["type"] == "subscribe":
                    self._hearing = True
                    pace.reset()
                    ear.look()  # nothing was kept for us until now
                elif message["type"] == "message":
                    self._take(message["data"], ear, heard_volatile)

    def _take(self, message: bytes, ear: Ear, heard_volatile: HeardVolatile) -> None:
        """Anybody with Redis' password can publish: whatever it is, it costs a line in the log."""
        try:
            told = memoryview(message)[MAC_BYTES:]
            head, _, body = bytes(told).partition(b"\n")
            kind, epoch, node, number, _, last = head.decode("ascii").split(" ")
            if node == self._node:
                return
            if kind != NEWS and int(last) <= ear.last:
                return  # known by another road
            if epoch != self._epoch or not hmac.compare_digest(self._sign(bytes(told)), message[:MAC_BYTES]):
                raise ValueError("not signed by this installation")
            if kind == NEWS and not self._is_new(node, int(number)):
                raise ValueError("heard before")
            self.heard += 1
            if kind == BATCH:
                ear.heard(read_rows(json.loads(body)))
            elif kind == NEWS:
                heard_volatile(read_volatile(json.loads(body)))
            else:
                ear.look(int(last))
        except Exception as error:
            self.refused += 1
            log.warning("redis_bell.not_understood", problem=described(error))

    def _is_new(self, node: str, number: int) -> bool:
        """Each sender's numbers rise, and lie behind our beginning. (News of a host whose clock is late is refused
        until that has come to our beginning.) The senders heard of longest ago are forgotten."""
        if number <= self._numbers.get(node, self._began):
            return False
        self._numbers.pop(node, None)
        self._numbers[node] = number
        while len(self._numbers) > SENDERS:
            del self._numbers[next(iter(self._numbers))]
        return True


def _size(batch: Batch) -> int:
    return sum(len(event.payload) for event in batch.events)
