"""Redis, as far as it is used: it hurries what the database decides, and lends a list to those who post by it."""

from __future__ import annotations

import random

import gevent
from redis import Redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

CONNECT_SECONDS = 2
ANSWER_SECONDS = 5
RETRY_SECONDS, RETRY_MOST_SECONDS = 0.1, 1.5


def open_redis(url: str) -> Redis:
    """A client with a pool of connections, none made yet. What can't be done raises redis.RedisError at once, without
    another try: who uses it knows best when to come again. Answers are bytes."""
    return Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        client_name="sidecar",
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


class Pace:
    """How long to wait before the next try: longer each time, below two seconds always, and not all at once."""

    def __init__(self) -> None:
        self._seconds = RETRY_SECONDS

    def reset(self) -> None:
        self._seconds = RETRY_SECONDS

    def wait(self) -> None:
        gevent.sleep(self._seconds * random.uniform(0.5, 1.25))  # noqa: S311 - no secret
        self._seconds = min(2 * self._seconds, RETRY_MOST_SECONDS)
