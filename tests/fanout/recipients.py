"""The other end of a connection, in memory: what was sent to it, and as congested as a test says."""

from __future__ import annotations

import gevent

from sidecar.domain.events import Event


class CountingCodec:
    """A frame is the event's seq and the place told with it; `made` counts how often one was made."""

    def __init__(self) -> None:
        self.made = 0
        self.events: dict[bytes, Event] = {}
        self.places: dict[bytes, str] = {}

    def frame(self, event: Event, place: str | None = None) -> bytes:
        self.made += 1
        frame = f"{event.seq} {place or event.offset}".encode()
        self.events[frame] = event
        self.places[frame] = place or event.offset
        return frame


class FakeRecipient:
    """Holds `capacity` frames until the client reads them; `received` is everything that was ever queued."""

    def __init__(self, codec: CountingCodec | None = None, capacity: int = 1_000_000):
        self.codec = codec or CountingCodec()
        self.capacity = capacity
        self.received: list[Event] = []
        self.frames: list[bytes] = []
        self.unread = 0
        self.most_unread = 0
        self.closed = False
        self.broken: Exception | None = None

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.received]

    def offer(self, frame: bytes) -> bool:
        if self.unread >= self.capacity and self.broken is None:
            return False
        if self.broken is not None:
            raise self.broken
        if not self.closed:
            self.received.append(self.codec.events[frame])
            self.frames.append(frame)
            self.unread += 1
            self.most_unread = max(self.most_unread, self.unread)
        return True

    def read(self, count: int | None = None) -> None:
        """The client takes some of what waits (all of it)."""
        self.unread -= self.unread if count is None else min(count, self.unread)

    def cut_off(self) -> None:
        self.closed = True

    def wait_drained(self, entirely: bool = False) -> bool:
        pause = 0.001
        while self.unread > 0 and not self.closed:
            gevent.sleep(pause)
            pause = min(1.5 * pause, 0.02)
        return not self.closed
