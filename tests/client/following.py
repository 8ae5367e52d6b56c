"""A listener in a thread of its own, and what it has heard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sidecar.client import ApiError, SidecarClient
from sidecar.client.listener import Listener

WAIT_SECONDS = 60


class Following:
    def __init__(self, client: SidecarClient, *rooms: tuple[str, str], since: str | None = None):
        self.heard: list[dict[str, Any]] = []
        self.problem: str | None = None
        self.listener = Listener(client)
        for kind, name in rooms:
            self.listener.subscribe(kind, name, since)
        self._arrived = threading.Condition()
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        try:
            for event in self.listener.events():
                with self._arrived:
                    self.heard.append(event)
                    self._arrived.notify_all()
        except ApiError as error:
            self.problem = str(error)

    def wait(self, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: condition(self.heard), WAIT_SECONDS), self.heard
        return self.heard

    def payloads(self, count: int) -> list[dict[str, Any]]:
        """Of the first so many events, once they are there."""
        return [event["payload"] for event in self.wait(lambda heard: len(heard) >= count)[:count]]

    def end(self) -> None:
        self.listener.close()
        self.thread.join(WAIT_SECONDS)
        assert not self.thread.is_alive()


@contextmanager
def following(client: SidecarClient, *rooms: tuple[str, str], since: str | None = None) -> Iterator[Following]:
    """Subscribed."""
    made = Following(client, *rooms, since=since)
    try:
        assert made.listener.wait_subscribed(WAIT_SECONDS), made.problem
        yield made
    finally:
        made.end()
