"""Messages for bots that are away: kept, encrypted, until the receiver has acknowledged them or their time is over.

A message is stored together with a control event, and goes to whoever of its place is connected as that event passes a
process's tail. Whoever connects later is given what is still there, oldest first, before anything newer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import structlog
from cryptography.fernet import Fernet

from sidecar.domain.errors import Unavailable
from sidecar.domain.maim import Place, Undelivered
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.fanout.roster import Bot, Roster
from sidecar.observability.logs import RateLimited
from sidecar.store.journal import Transaction
from sidecar.store.maim import (
    PAGE,
    QueuedRow,
    claim_queued,
    count_queued,
    enqueue,
    find_queued,
    release_queued,
    remove_queued,
)
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.maim"))

QUEUED = "control.maim_queued"
"""Type of the control event whose payload `{"seq","tenant","user","platform","msg_id","sealed"}` is such a message."""

RETRY_SECONDS = 1.0


class BotQueue:
    """`max_messages` may wait for one place, for `max_seconds`. `seal` encrypts them."""

    def __init__(self, submit: Submit, node: str, roster: Roster, seal: Fernet, max_messages: int, max_seconds: float):
        self._submit = submit
        self._node = node
        self._roster = roster
        self._seal = seal
        self._max_messages = max_messages
        self._max_seconds = max_seconds
        self._held: dict[int, Bot] = {}
        """By seq, who of this process was given it and has not acknowledged it."""
        self._done: list[int] = []
        self._free: list[int] = []
        self._tidying: gevent.Greenlet | None = None

    def put(self, transaction: Transaction, place: Place, msg_id: str, text: str, ttl_seconds: float) -> None:
        """Keep a frame (JSON text) for this place, for so long; 0 is as long as may be. Raises Undelivered if too many
        wait there."""
        if count_queued(transaction.connection, place, transaction.now) >= self._max_messages:
            raise Undelivered("queue_full")
        sealed = self._seal.encrypt(text.encode()).decode()
        seconds = min(ttl_seconds or self._max_seconds, self._max_seconds)
        seq = transaction.seq + 1
        body = {"seq": seq, "tenant": place.tenant, "user": place.user, "platform": place.platform}
        transaction.append(QUEUED, {**body, "msg_id": msg_id, "sealed": sealed}, ())
        expires_at = utc_text(unix_seconds(transaction.now) + seconds)
        enqueue(transaction.connection, seq, msg_id, place, sealed, expires_at)

    def heard(self, body: dict[str, Any]) -> None:
        """As its control event passes the tail. Does not block."""
        bots = self._roster.at(Place(body["tenant"], body["user"], body["platform"]))
        row = QueuedRow(body["seq"], body["msg_id"], body["sealed"])
        for bot in bots:
            if bot.behind:
                bot.newest = row.seq
        ready = [bot for bot in bots if not bot.behind and row.seq > bot.reached]
        if ready:
            self._hand_out(row, ready)

    def opened(self, bot: Bot, waiting: bool) -> None:
        """It has come, and is `behind`."""
        if waiting or bot.newest:
            gevent.spawn(self._catch_up, bot).name = "maim-queue"
        else:
            bot.behind = False

    def acknowledged(self, bot: Bot, msg_id: str) -> None:
        seq = bot.queued.pop(msg_id, None)
        if seq is not None:
            self._held.pop(seq, None)
            self._done.append(seq)
            self._tidy_up()

    def closed(self, bot: Bot) -> None:
        """What it has not acknowledged is anybody's again, of the same place."""
        free = [seq for seq in bot.queued.values() if self._held.get(seq) is bot]
        for seq in free:
            del self._held[seq]
        if free:
            self._free += free
            self._tidy_up()
            gevent.spawn(self._pass_on, bot.place, free).name = "maim-queue"

    def _hand_out(self, row: QueuedRow, bots: list[Bot]) -> None:
        text = self._seal.decrypt(row.sealed.encode()).decode()
        for uuid in [uuid for uuid, taken in self._roster.deliver(bots, text).items() if taken]:
            bot = self._roster.named(uuid)
            if bot is not None:
                bot.queued[row.msg_id] = row.seq
                if len(bot.queued) > 2 * self._max_messages:  # one that never acknowledges; the rows expire
                    self._held.pop(bot.queued.pop(next(iter(bot.queued))), None)
                self._held.setdefault(row.seq, bot)

    def _catch_up(self, bot: Bot) -> None:
        """Page by page, the next when the one before has left."""
        while bot.behind and self._roster.named(bot.uuid) is bot:
            newest = bot.newest
            try:
                rows = self._submit(
                    lambda transaction: claim_queued(
                        transaction.connection, bot.place, self._node, bot.reached, transaction.now
                    )
                )
            except Unavailable as error:
                log.warning("maim.queue_postponed", problem=error.detail)
                gevent.sleep(RETRY_SECONDS)
                continue
            for row in rows:
                if row.seq not in self._held:
                    self._hand_out(row, [bot])
                bot.reached = row.seq
            if len(rows) < PAGE:
                bot.reached = max(bot.reached, newest)
                bot.behind = bot.newest > bot.reached
            if not bot.link.wait_drained():
                return

    def _pass_on(self, place: Place, seqs: list[int]) -> None:
        """To another connection of the same place, if there is one."""
        if not self._roster.at(place):
            return
        try:
            rows = self._submit(lambda transaction: find_queued(transaction.connection, seqs, transaction.now))
        except Unavailable as error:
            log.warning("maim.queue_postponed", problem=error.detail)
            return
        for row in rows:
            bots = [bot for bot in self._roster.at(place) if row.msg_id not in bot.queued and not bot.behind]
            if bots and row.seq not in self._held:
                self._hand_out(row, bots[:1])

    def _tidy_up(self) -> None:
        if self._tidying is None:
            self._tidying = gevent.spawn(self._tidy)
            self._tidying.name = "maim-queue"

    def _tidy(self) -> None:
        """Strike out what was acknowledged, and let go of what was not, all at once."""
        while self._done or self._free:
            done, free = self._done, self._free
            self._done, self._free = [], []
            try:
                self._submit(_tidying(done, free))
            except Unavailable as error:
                log.warning("maim.queue_postponed", problem=error.detail)
                self._done, self._free = done + self._done, free + self._free
                gevent.sleep(RETRY_SECONDS)
        self._tidying = None


def _tidying(done: list[int], free: list[int]) -> Callable[[Transaction], None]:
    def command(transaction: Transaction) -> None:
        release_queued(transaction.connection, free)
        remove_queued(transaction.connection, done)

    return command
