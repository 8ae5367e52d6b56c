"""Somebody else on the Redis: hears all that the sidecars say there, and says it again, broken, and other things."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable

import redis

from tests.redis import RedisServer

PATTERN = "sidecar:*"
KEPT = 200
PAUSE_SECONDS = 0.02
PATIENCE_SECONDS = 0.5


class Forger:
    """Goes on until `close`, whatever becomes of the Redis. `epoch` is the journal's."""

    def __init__(self, server: RedisServer, epoch: str, chooser: random.Random):
        self.heard = 0
        self.said = 0
        self._server = server
        self._epoch = epoch.encode()
        self._random = chooser
        self._kept: deque[tuple[bytes, bytes]] = deque(maxlen=KEPT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forger")
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with redis.Redis.from_url(
                    self._server.url, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
                ) as client:
                    self._meddle(client)
            except redis.RedisError:
                self._stop.wait(PAUSE_SECONDS)

    def _meddle(self, client: redis.Redis) -> None:
        with client.pubsub(ignore_subscribe_messages=True) as listening:
            listening.psubscribe(PATTERN)
            said: set[bytes] = set()
            while not self._stop.is_set():
                for _ in range(KEPT):
                    message = listening.get_message()
                    if message is None:
                        break
                    if message["data"] not in said:
                        self.heard += 1
                        self._kept.append((message["channel"], message["data"]))
                for channel, text in self._some():
                    said.add(text)
                    client.publish(channel, text)
                    self.said += 1
                if len(said) > 2 * KEPT:
                    said.clear()
                time.sleep(PAUSE_SECONDS)

    def _some(self) -> list[tuple[bytes, bytes]]:
        if not self._kept:
            return [(PATTERN[:-1].encode(), self._noise(b""))]
        channel, text = self._random.choice(self._kept)
        forms: list[Callable[[bytes], bytes]] = [bytes, self._flipped, self._cut, self._foreign, self._noise]
        return [(channel, self._random.choice(forms)(text))]

    def _flipped(self, text: bytes) -> bytes:
        """One bit of it."""
        if not text:
            return text
        place = self._random.randrange(len(text))
        return text[:place] + bytes((text[place] ^ 1 << self._random.randrange(8),)) + text[place + 1 :]

    def _cut(self, text: bytes) -> bytes:
        return text[: self._random.randrange(len(text) + 1)]

    def _foreign(self, text: bytes) -> bytes:
        """As if of another journal."""
        return text.replace(self._epoch, self._epoch[::-1])

    def _noise(self, _text: bytes) -> bytes:
        return self._random.choice(
            (b"", b"null", b"[]", b"{", b'["x", null]', self._random.randbytes(300), b"[" * 5000)
        )
