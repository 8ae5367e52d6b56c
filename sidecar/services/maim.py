"""Bots that talk to each other (maim_message): who comes in, what they say, and whom that reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from sidecar.domain.errors import NotAllowed, SidecarError, Unauthenticated, Unavailable
from sidecar.domain.maim import (
    ACK,
    CUSTOM,
    DEFAULT_TENANT,
    STANDARD,
    VERSION,
    Account,
    Undelivered,
    ack,
    destination,
    is_message,
    wrapped,
)
from sidecar.fanout.roster import Bot, Roster
from sidecar.services.limits import RateLimit
from sidecar.services.maim_connections import BotConnections
from sidecar.services.maim_delivery import Delivery
from sidecar.services.maim_figures import Figures, Sent
from sidecar.services.maim_hooks import Hooks, Metadata
from sidecar.services.maim_keys import BotKeys
from sidecar.services.maim_queue import BotQueue
from sidecar.services.maim_seen import Seen
from sidecar.wire.maim import Frame, as_text

log = structlog.get_logger("sidecar.maim")


class Bots:
    """`limit` bounds what each key may send: a faster one is read more slowly."""

    def __init__(
        self,
        keys: BotKeys,
        connections: BotConnections,
        queue: BotQueue,
        hooks: Hooks,
        delivery: Delivery,
        seen: Seen,
        figures: Figures,
        limit: RateLimit | None,
        clock: Callable[[], float] = time.time,
    ):
        self._keys = keys
        self._connections = connections
        self._roster: Roster = connections.roster
        self._queue = queue
        self._hooks = hooks
        self._delivery = delivery
        self._seen = seen
        self._figures = figures
        self._limit = limit
        self._clock = clock

    # Connections

    def admit(self, key: str, platform: str, address: str) -> Account:
        """Who comes with this key, on this platform. Raises Unauthenticated, NotAllowed, RateLimited (an address that
        tries keys), Unavailable."""
        try:
            account = self._admitted(key, platform, address)
        except Unavailable:
            self._figures.asked("failed")
            raise
        except SidecarError:
            self._figures.asked("refused")
            raise
        self._figures.asked("admitted")
        return account

    def open(self, bot: Bot) -> bool:
        """Its connection stands, and messages may reach it from now on; `greet` it once it is read from, with the
        answer. Raises Unavailable; Unauthenticated if its key was revoked meanwhile."""
        former = self._roster.named(bot.uuid)
        if former is not None and former.key == bot.key:
            former.link.end("replaced")
            self.close(former)
        waiting = self._connections.open(bot)
        try:
            if bot.account.key_id is not None and self._keys.holder(bot.key) is None:
                raise Unauthenticated("The key has been revoked.")
        except BaseException:
            self._connections.close(bot)
            raise
        return waiting

    def greet(self, bot: Bot, waiting: bool) -> None:
        """What waited for it comes, and the hooks hear of it; unless it has gone already. Does not block."""
        if self._roster.named(bot.uuid) is not bot:
            return
        bot.greeted = True
        self._figures.came(bot)
        self._queue.opened(bot, waiting)
        self._hooks.connected(bot.uuid, self._metadata(bot))

    def close(self, bot: Bot) -> None:
        """Its connection has ended. Does not block."""
        if self._connections.close(bot) and bot.greeted:
            self._figures.went(bot)
            self._hooks.disconnected(bot.uuid, self._metadata(bot))

    def pace(self, bot: Bot, said: Frame | None) -> float:
        """Count a frame; after how many seconds it may be dealt with. An acknowledgement for each frame that the bot
        was sent costs nothing: who is written to a lot would otherwise be slowed, and then cut off as too slow."""
        if self._limit is None:
            return 0.0
        if said is not None and said.type == ACK and bot.unanswered:
            bot.unanswered -= 1
            return 0.0
        account = bot.account
        return self._limit.owe(f"bot:{account.key_id or f'{account.tenant} {account.user}'}")

    # What bots say

    def receive(self, bot: Bot, said: Frame | None, size: int) -> None:
        """Deal with a frame of so many bytes; None is one that was not understood. Never raises."""
        figures = self._figures
        figures.received(size)
        figures.active += 1
        try:
            if bot.revoked:  # what was read before is behind what is late
                self._figures.count("revoked")
            elif said is None:
                self._figures.count("not_understood")
            elif said.type == ACK:
                self._figures.count("ack")
                self._queue.acknowledged(bot, said.acked or "")
            else:
                self._take(bot, said)
        except Exception as error:
            log.error("maim.frame_failed", exc_info=error)
        finally:
            figures.active -= 1

    def _take(self, bot: Bot, said: Frame) -> None:
        if said.msg_id is not None and said.ttl_seconds is None:
            self._acknowledge(bot, said.msg_id)
        if said.type == STANDARD:
            self._figures.count("standard")
            acknowledged = self._pass_message(bot, said)
        elif said.type.startswith(CUSTOM):
            self._figures.count("custom")
            acknowledged = self._pass_custom(bot, said)
        else:
            self._figures.count("other")
            acknowledged = True
        if acknowledged and said.msg_id is not None and said.ttl_seconds is not None:
            self._acknowledge(bot, said.msg_id)

    def _pass_message(self, bot: Bot, said: Frame) -> bool:
        """False if it was to be kept, and is not."""
        payload = said.payload
        if not isinstance(payload, Mapping) or "message_info" not in payload:
            payload = wrapped(payload, bot.key, bot.platform, self._clock())
        name = self._seen.name(bot, said.msg_id)
        if self._is_known(name, until_stored=said.ttl_seconds is not None):
            return True
        if not self._hooks.message(payload, self._metadata(bot)):
            return True
        return self._pass_on(bot, said, payload, name, is_message(payload))

    def _pass_custom(self, bot: Bot, said: Frame) -> bool:
        """To the handler for its type, and to whom a `message_dim` in its payload names."""
        addressed = isinstance(said.payload, Mapping) and "message_dim" in said.payload
        name = self._seen.name(bot, said.msg_id)
        if self._is_known(name, until_stored=addressed and said.ttl_seconds is not None):
            return True
        if self._hooks.handles(said.type):
            frame = {
                "ver": VERSION,
                "msg_id": said.msg_id,
                "type": said.type,
                "meta": said.meta,
                "payload": said.payload,
            }
            if addressed or self._seen.is_first(name):
                self._hooks.custom(frame, self._metadata(bot))
        return self._pass_on(bot, said, said.payload, name, True) if addressed else True

    def _pass_on(self, bot: Bot, said: Frame, payload: Any, name: bytes | None, valid: bool) -> bool:
        account, delivery = bot.account, self._delivery
        try:
            if not valid:
                raise Undelivered("invalid")
            place = destination(payload, said.target_platform, delivery.receiver, lambda t: t == account.tenant)
            first = None if name is None else self._seen.first(name)
            sent = delivery.publish(delivery.at(place), said.type, payload, said.ttl_seconds, first)
        except Undelivered as problem:
            sent = Sent(reason=problem.reason)
        except Unavailable:
            sent = Sent(reason="unavailable")
        if sent.duplicate:
            self._figures.count("duplicate")
        elif name is not None and sent.reason is not None:
            self._seen.forget(name)
        elif name is not None:
            self._seen.keep(name)
        self._figures.account_for(sent, f"{account.tenant}/{account.user}", said.type)
        return said.ttl_seconds is None or sent.reason not in ("queue_full", "unavailable")

    def _is_known(self, name: bytes | None, until_stored: bool) -> bool:
        known = self._seen.knows(name, until_stored)
        if known:
            self._figures.count("duplicate")
        return known

    # Control events

    def key_changed(self, id: str, revoked: bool) -> None:
        """As the event passes the tail. The connections of a revoked key end."""
        self._keys.forget()
        if revoked:
            for bot in [bot for bot in self._roster if bot.account.key_id == id]:
                bot.revoked = True
                self._end(bot, "revoked")

    def others_changed(self, node: str, opened: Iterable[str], seq: int) -> None:
        """Bots have come to a process, or left it."""
        for bot in self._connections.heard(node, opened, seq):
            self._end(bot, "replaced")

    def doubt(self) -> None:
        """Events have been missed: which keys were revoked is not known, nor what waits. All have to come back."""
        self._keys.forget()
        self._connections.doubt()
        for bot in self._roster:
            bot.link.cut_off()

    def _end(self, bot: Bot, reason: str) -> None:
        """From now on nothing reaches it, however long its client takes to go. Does not block."""
        bot.link.end(reason)
        self.close(bot)

    def _admitted(self, key: str, platform: str, address: str) -> Account:
        metadata: Metadata = {
            "api_key": key,
            "platform": platform,
            "address": address,
            "message_type": "auth",
            "timestamp": self._clock(),
        }
        account = self._keys.holder(key) if key else None
        if account is None and key and (user := self._hooks.user_of(metadata)) is not None:
            account = Account(DEFAULT_TENANT, user)
        if account is None or not self._hooks.admit(metadata):
            if self._limit is not None:
                self._limit.take(f"address:{address}")
            raise Unauthenticated("The bot's key is not known.")
        if not account.may_use(platform):
            raise NotAllowed("The key is not for this platform.")
        return account

    def _acknowledge(self, bot: Bot, msg_id: object) -> None:
        self._roster.deliver([bot], as_text(ack(bot.uuid, msg_id, self._clock())))

    def _metadata(self, bot: Bot) -> Metadata:
        return {
            "uuid": bot.uuid,
            "api_key": bot.key,
            "platform": bot.platform,
            "user": bot.place.user,
            "tenant": bot.place.tenant,
            "line": bot.line,
            "address": bot.address,
            "timestamp": self._clock(),
        }
