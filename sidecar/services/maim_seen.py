"""Which messages of bots have come already: for an hour, by key and msg_id, over all processes and restarts."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from sidecar.domain.errors import Unavailable
from sidecar.domain.maim import DUPLICATE_SECONDS
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.fanout.roster import Bot
from sidecar.store.journal import Transaction
from sidecar.store.maim import first_seen
from sidecar.store.writer import Submit

KNOWN_MESSAGES = 10_000
"""Those that came last are known without asking the database."""


class Seen:
    def __init__(self, submit: Submit, clock: Callable[[], float] = time.time):
        self._submit = submit
        self._clock = clock
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def name(self, bot: Bot, msg_id: str | int | None) -> bytes | None:
        """What a message goes by, so that another key's is another one; None for one that has no msg_id."""
        if msg_id is None:
            return None
        sender = bot.account.key_id or bot.key
        return hashlib.sha256(f"{sender}\n{msg_id}".encode("utf-8", "replace")).digest()

    def knows(self, name: bytes | None, until_stored: bool) -> bool:
        """Has this process seen it? The database is asked as it is passed on. One that is acknowledged when it is
        stored (`until_stored`) is known from then on: who repeats it before shall not be told that it is."""
        if name is None:
            return False
        if self._clock() - self._known.get(name, -DUPLICATE_SECONDS) < DUPLICATE_SECONDS:
            return True
        if not until_stored:
            self.keep(name)
        return False

    def keep(self, name: bytes) -> None:
        self._known[name] = self._clock()
        self._known.move_to_end(name)
        while len(self._known) > KNOWN_MESSAGES:
            self._known.popitem(last=False)

    def forget(self, name: bytes) -> None:
        """It reached nobody, and may be tried again."""
        self._known.pop(name, None)

    def first(self, name: bytes) -> Callable[[Transaction], bool]:
        """Says within a transaction whether it has not come before, to any process; from then on it has."""

        def first(transaction: Transaction) -> bool:
            since = utc_text(unix_seconds(transaction.now) - DUPLICATE_SECONDS)
            return first_seen(transaction.connection, name, transaction.now, since)

        return first

    def is_first(self, name: bytes | None) -> bool:
        """The same at once. Without a database it is taken for new."""
        if name is None:
            return True
        try:
            return self._submit(self.first(name))
        except Unavailable:
            return True
