"""Which bots are connected, over all processes: this one's roster, and what the others have written down."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial

import gevent
import structlog

from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Control
from sidecar.domain.maim import Place
from sidecar.domain.times import utc_text
from sidecar.fanout.roster import Bot, Roster
from sidecar.observability.logs import RateLimited
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.maim import (
    ConnectionRow,
    anything_queued,
    connections_of_others,
    holder_of,
    put_connection,
    remove_connections,
)
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.maim"))

CHANGED = Control("control.maim_connections")
"""Type of the control event whose payload `{"node","opened":[uuid],"seq"}` tells that bots have come to a process or
left; `seq` is its own."""

ALIVE_SECONDS = 30.0
"""A process that has said nothing for so long holds nobody any more (each says so every five seconds)."""
STALE_SECONDS = 5.0
"""So old may what is known of the others be: a process that died does not say so."""
RETRY_SECONDS = 1.0


class BotConnections:
    """`node` is this process. What others hold is read when it is needed and has changed."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        node: str,
        roster: Roster,
        clock: Callable[[], float] = time.time,
    ):
        self._database = database
        self._submit = submit
        self._node = node
        self._clock = clock
        self.roster = roster
        self._others: dict[Place, list[ConnectionRow]] = {}
        self._read_at: float | None = None
        self._begun = self._held = self._changes = 0
        """How many reads were begun, the newest of them that is held, and how many changes have been heard of."""
        self._gone: dict[str, None] = {}
        self._again = False
        self._writing: gevent.Greenlet | None = None

    def open(self, bot: Bot) -> bool:
        """Take it in; its connection may be given another uuid, if one goes by that already here, or another account's
        elsewhere. Is something waiting for it? Raises Unavailable."""
        if self.roster.named(bot.uuid) is not None:
            bot.uuid = str(uuid.uuid4())
        self._gone.pop(bot.uuid, None)
        bot.behind = True
        self.roster.add(bot)

        def command(transaction: Transaction) -> tuple[str, bool]:
            holder = holder_of(transaction.connection, bot.uuid, self._alive_since())
            name = bot.uuid
            if holder is not None and not _same_holder(holder, bot):
                name = str(uuid.uuid4())
            put_connection(transaction.connection, self._row(bot, name))
            bot.opened_seq = self._tell(transaction, [name])
            return name, anything_queued(transaction.connection, bot.place, transaction.now)

        try:
            name, waiting = self._submit(command)
        except BaseException:
            self.close(bot)
            raise
        if name != bot.uuid:
            if self.roster.remove(bot):
                bot.uuid = name
                self.roster.add(bot)
            else:  # it went meanwhile
                self._gone[name] = None
                self._write_down()
        return waiting

    def close(self, bot: Bot) -> bool:
        """Its connection has ended; False if it was not there any more. Does not block."""
        if not self.roster.remove(bot):
            return False
        self._gone[bot.uuid] = None
        self._write_down()
        return True

    def at(self, place: Place) -> tuple[list[Bot], list[ConnectionRow]]:
        """Who is there: of this process, and of the others. Before nobody is found, the database is asked."""
        here = self.roster.at(place)
        there = self._read().get(place, [])
        if not here and not there:
            there = self._read(afresh=True).get(place, [])
        return here, there

    def of_tenant(self, tenant: str, platform: str | None) -> tuple[list[Bot], list[ConnectionRow]]:
        """All of a tenant's, or those on one platform."""
        there = [row for row in self.of_others() if row.tenant == tenant and platform in (None, row.platform)]
        return self.roster.of_tenant(tenant, platform), there

    def named(self, name: str) -> Bot | ConnectionRow | None:
        """The connection of this uuid."""
        bot = self.roster.named(name)
        if bot is not None:
            return bot
        return next((row for row in self.of_others() if row.uuid == name), None)

    def of_others(self) -> list[ConnectionRow]:
        return [row for rows in self._read(afresh=True).values() for row in rows]

    def of_this(self) -> list[ConnectionRow]:
        return [self._row(bot, bot.uuid) for bot in self.roster]

    def heard(self, node: str, opened: Iterable[str], seq: int) -> list[Bot]:
        """What a process has told by this event, this one too; whose connections here have been replaced by one there.
        (One that is not written down yet is newer.)"""
        if node == self._node:
            return []
        self.doubt()
        bots = [bot for bot in map(self.roster.named, opened) if bot is not None]
        return [bot for bot in bots if 0 < bot.opened_seq < seq]

    def doubt(self) -> None:
        """What is known of the others is old."""
        self._changes += 1
        self._read_at = None

    def all_again(self) -> None:
        """The others have taken this process for dead, and struck out its connections. Does not block."""
        self._again = True
        self._write_down()

    def _row(self, bot: Bot, name: str) -> ConnectionRow:
        place = bot.place
        return ConnectionRow(
            name, self._node, bot.account.key_id, place.tenant, place.user, place.platform, bot.line, bot.opened_at
        )

    def _alive_since(self) -> str:
        return utc_text(self._clock() - ALIVE_SECONDS)

    def _read(self, afresh: bool = False) -> dict[Place, list[ConnectionRow]]:
        now = self._clock()
        if not afresh and self._read_at is not None and 0 <= now - self._read_at <= STALE_SECONDS:
            return self._others
        self._begun += 1
        begun, changes, since = self._begun, self._changes, self._alive_since()
        try:
            rows = self._database.read(lambda connection: connections_of_others(connection, self._node, since))
        except Unavailable as error:
            log.warning("maim.others_not_read", problem=error.detail)
            self._read_at = now
            return self._others
        if begun > self._held:  # a later one may have been quicker
            self._held = begun
            self._read_at = now if changes == self._changes else None
            self._others = {}
            for row in rows:
                self._others.setdefault(row.place, []).append(row)
        return self._others

    def _write_down(self) -> None:
        if self._writing is None:
            self._writing = gevent.spawn(self._write)
            self._writing.name = "maim-connections"

    def _write(self) -> None:
        """Strike out those that are gone, all at once; and write down the others again, if they were struck out."""
        try:
            while self._gone or self._again:
                gone, self._gone = self._gone, {}
                again, self._again = self._again, False
                try:
                    self._submit(partial(self._changed, list(gone), self.of_this() if again else []))
                except Unavailable as error:
                    log.warning("maim.connections_postponed", problem=error.detail)
                    self._gone, self._again = {**gone, **self._gone}, again or self._again
                    gevent.sleep(RETRY_SECONDS)
                    for name in [name for name in self._gone if self.roster.named(name) is not None]:
                        del self._gone[name]
        finally:
            self._writing = None

    def _changed(self, gone: list[str], here: list[ConnectionRow], transaction: Transaction) -> None:
        remove_connections(transaction.connection, self._node, gone)
        for row in here:
            put_connection(transaction.connection, row)
        self._tell(transaction, [])

    def _tell(self, transaction: Transaction, opened: list[str]) -> int:
        seq = transaction.seq + 1
        return transaction.append(CHANGED, {"node": self._node, "opened": opened, "seq": seq}, ()).seq


def _same_holder(holder: ConnectionRow, bot: Bot) -> bool:
    return (holder.tenant, holder.user, holder.key_id) == (bot.place.tenant, bot.place.user, bot.account.key_id)
