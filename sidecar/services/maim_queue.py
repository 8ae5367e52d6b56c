"""Messages for bots that are away: kept, encrypted, until the receiver has acknowledged them or their time is over.

A message is stored together with a control event, and goes to whoever of its place is connected as that event passes a
process's tail. Whoever connects later is given what is still there, oldest first, before anything newer. So each
connection is given each message once, and a message that nobody has acknowledged is given to every connection to come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import structlog
from cryptography.fernet import Fernet, InvalidToken

from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Control
from sidecar.domain.maim import Place, Undelivered
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.fanout.roster import Bot, Roster
from sidecar.observability.logs import RateLimited
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.maim import QueuedRow, count_queued, enqueue, queued_after, remove_queued
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.maim"))

QUEUED = Control("control.maim_queued")
"""Type of the control event whose payload `{"seq","tenant","user","platform","msg_id","sealed"}` is such a message."""

RETRY_SECONDS = 1.0


class BotQueue:
    """`max_messages` may wait for one user, for `max_seconds`. `seal` encrypts them."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        roster: Roster,
        seal: Fernet,
        max_messages: int,
        max_seconds: float,
        clock: Callable[[], float] = time.time,
    ):
        self._database = database
        self._submit = submit
        self._roster = roster
        self._seal = seal
        self._max_messages = max_messages
        self._max_seconds = max_seconds
        self._clock = clock
        self._done: dict[int, None] = {}
        """The seqs that are acknowledged, and not struck out yet."""
        self._tidying: gevent.Greenlet | None = None

    def put(self, transaction: Transaction, place: Place, msg_id: str, text: str, ttl_seconds: float) -> None:
        """Keep a frame (JSON text) for this place, for so long; 0 is as long as may be. Raises Undelivered if too many
        wait for its user."""
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
            self._done[seq] = None
            if self._tidying is None:
                self._tidying = gevent.spawn(self._tidy)
                self._tidying.name = "maim-queue"

    def _hand_out(self, row: QueuedRow, bots: list[Bot]) -> None:
        """(One that can't be read was sealed with another secret, and stays until its time is over.)"""
        try:
            text = self._seal.decrypt(row.sealed.encode()).decode()
        except InvalidToken:
            log.warning("maim.queue_unreadable", seq=row.seq)
            return
        for bot in bots:
            bot.queued[row.msg_id] = row.seq
            if len(bot.queued) > 2 * self._max_messages:  # one that never acknowledges; the rows expire
                del bot.queued[next(iter(bot.queued))]
        self._roster.deliver(bots, text)

    def _catch_up(self, bot: Bot) -> None:
        """Page by page, and each message when those before it have left."""
        while bot.behind and self._roster.named(bot.uuid) is bot:
            newest = bot.newest
            look = partial(queued_after, place=bot.place, after=bot.reached, now=utc_text(self._clock()))
            try:
                rows = self._database.read(look)
            except Unavailable as error:
                log.warning("maim.queue_postponed", problem=error.detail)
                gevent.sleep(RETRY_SECONDS)
                continue
            if not rows:
                bot.reached = max(bot.reached, newest)
                bot.behind = bot.newest > bot.reached
            for row in rows:
                if not bot.link.wait_drained():
                    return
                bot.reached = row.seq
                if row.seq not in self._done:
                    self._hand_out(row, [bot])

    def _tidy(self) -> None:
        """Strike out what was acknowledged, all at once."""
        try:
            while self._done:
                done = list(self._done)
                try:
                    self._submit(partial(_strike_out, done))
                except Unavailable as error:
                    log.warning("maim.queue_postponed", problem=error.detail)
                    gevent.sleep(RETRY_SECONDS)
                    continue
                for seq in done:
                    del self._done[seq]
        finally:
            self._tidying = None


def _strike_out(seqs: list[int], transaction: Transaction) -> None:
    remove_queued(transaction.connection, seqs)
