"""The roster: which bots are connected to this process, by the name of the connection and by user and platform; and
one frame to several of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from sidecar.domain.maim import Account, Place
from sidecar.fanout.transports import engine_frame
from sidecar.wire.frames import TEXT, frame

WEBSOCKET_LINE, SOCKETIO_LINE = "websocket", "socketio"


class Link(Protocol):
    """The connection under a bot. Only `wait_drained` may block."""

    def offer(self, frame: bytes) -> bool:
        """Queue a frame; False if there is no room for it."""

    def cut_off(self) -> None:
        """It does not take what it is sent: close it, so that its client comes back."""

    def wait_drained(self) -> bool:
        """Block until nearly nothing is unsent; False when the connection is gone."""

    def end(self, reason: str) -> None:
        """Close it in order."""


class Bot:
    """One connection of an account. `queued` are the msg_ids that it has been handed out of the queue and not
    acknowledged, with their seqs; while `behind` it is still being given what waited for it: it was up to `reached`,
    and `newest` has come meanwhile. `opened_seq` is that of the event that told of it, 0 before there is one;
    `unanswered` is how many acknowledgements are due from it; `greeted` says that it was taken in, `revoked` that
    nothing it says counts any more."""

    __slots__ = (
        "account",
        "address",
        "behind",
        "greeted",
        "key",
        "line",
        "link",
        "newest",
        "opened_at",
        "opened_seq",
        "place",
        "queued",
        "reached",
        "revoked",
        "unanswered",
        "uuid",
    )

    def __init__(
        self, uuid: str, key: str, account: Account, platform: str, line: str, link: Link, address: str, opened_at: str
    ):
        self.uuid = uuid
        self.key = key
        self.account = account
        self.place = Place(account.tenant, account.user, platform)
        self.line = line
        self.link = link
        self.address = address
        self.opened_at = opened_at
        self.queued: dict[str, int] = {}
        self.behind = False
        self.reached = 0
        self.newest = 0
        self.opened_seq = 0
        self.unanswered = 0
        self.greeted = False
        self.revoked = False

    @property
    def platform(self) -> str:
        return self.place.platform


class Roster:
    """`sent` and `sent_bytes` count what went out."""

    def __init__(self) -> None:
        self._bots: dict[str, Bot] = {}
        self._places: dict[Place, dict[Bot, None]] = {}
        self.sent = 0
        self.sent_bytes = 0

    def __len__(self) -> int:
        return len(self._bots)

    def __iter__(self) -> Iterator[Bot]:
        return iter(list(self._bots.values()))

    def add(self, bot: Bot) -> None:
        """Its uuid must be free."""
        self._bots[bot.uuid] = bot
        self._places.setdefault(bot.place, {})[bot] = None

    def remove(self, bot: Bot) -> bool:
        """False if it was not there (any more)."""
        if self._bots.get(bot.uuid) is not bot:
            return False
        del self._bots[bot.uuid]
        members = self._places[bot.place]
        del members[bot]
        if not members:
            del self._places[bot.place]
        return True

    def named(self, uuid: str) -> Bot | None:
        return self._bots.get(uuid)

    def at(self, place: Place) -> list[Bot]:
        return list(self._places.get(place, ()))

    def of_tenant(self, tenant: str, platform: str | None) -> list[Bot]:
        """All of them, or those on one platform."""
        return [
            bot
            for place, members in self._places.items()
            if place.tenant == tenant and platform in (None, place.platform)
            for bot in members
        ]

    def deliver(self, bots: Iterable[Bot], text: str) -> dict[str, bool]:
        """Put a frame, as JSON text, into the outboxes of those that are still connected: by uuid, whether it is there.
        One whose outbox is full is cut off: its client comes back. Never blocks."""
        frames: dict[str, bytes] = {}
        answer = {}
        for bot in bots:
            if bot.line not in frames:
                frames[bot.line] = encoded(bot.line, text)
            data = frames[bot.line]
            taken = self._bots.get(bot.uuid) is bot and bot.link.offer(data)
            if taken:
                bot.unanswered += 1
                self.sent += 1
                self.sent_bytes += len(data)
            elif self._bots.get(bot.uuid) is bot:
                bot.link.cut_off()
            answer[bot.uuid] = taken
        return answer


def encoded(line: str, text: str) -> bytes:
    """A frame's JSON text as this line sends it: bare, or as the argument of the event `message`."""
    if line == WEBSOCKET_LINE:
        return frame(TEXT, text.encode())
    return engine_frame(f'2["message",{text}]')
