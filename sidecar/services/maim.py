"""Bots that talk to each other (maim_message): who comes in, whom a message reaches, and what became of it.

A message goes straight to the connections of this process; those of others get it through the journal, as a control
event whose content is encrypted. What a bot has sent is known by its key and msg_id for an hour, over all processes.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog
from cryptography.fernet import Fernet

from sidecar.domain.access import Identity, may_reach_tenant
from sidecar.domain.errors import NotAllowed, NotFound, Unauthenticated, Unavailable
from sidecar.domain.maim import (
    ACK,
    CUSTOM,
    DEFAULT_TENANT,
    DUPLICATE_SECONDS,
    REASONS,
    STANDARD,
    VERSION,
    Account,
    Place,
    Undelivered,
    ack,
    destination,
    envelope,
    is_message,
    place_of,
    wrapped,
)
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.fanout.roster import Bot, Roster
from sidecar.observability.metrics import Metrics
from sidecar.services.access import require
from sidecar.services.idempotency import KeyedRequest, answered, remember
from sidecar.services.limits import RateLimit
from sidecar.services.maim_connections import BotConnections
from sidecar.services.maim_hooks import Hooks, Metadata
from sidecar.services.maim_keys import BotKeys
from sidecar.services.maim_queue import BotQueue
from sidecar.store.journal import Transaction
from sidecar.store.maim import ConnectionRow, first_seen
from sidecar.store.writer import Submit
from sidecar.wire.maim import Frame, MaimBroadcastBody, MaimCustomBody, MaimRouteBody, MaimSendBody, as_text

SCOPE = "maim:send"
RELAYED = "control.maim"
"""Type of the control event whose payload `{"to":{node:[uuid]},"sealed"}` is a frame for connections of other
processes."""
KNOWN_MESSAGES = 10_000

log = structlog.get_logger("sidecar.maim")


@dataclass(frozen=True, slots=True)
class Receivers:
    """The connections that a frame goes to, of this process and of others. `place` is where it can be kept for."""

    here: list[Bot]
    there: list[ConnectionRow]
    place: Place | None = None

    @property
    def uuids(self) -> list[str]:
        return [bot.uuid for bot in self.here] + [row.uuid for row in self.there]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message. `results`: by uuid, was it handed to the connection's outbox, or to the process that
    holds it? `reason` says why nobody was reached, `queued` that it waits for its receiver."""

    results: dict[str, bool] = field(default_factory=dict)
    reason: str | None = None
    queued: bool = False
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message would go."""

    place: Place | None
    connections: list[str]
    reason: str | None


@dataclass(slots=True)
class Figures:
    """Since the process began."""

    auth_requests: int = 0
    auths: int = 0
    messages: int = 0
    custom_messages: int = 0
    duplicates: int = 0
    connections: int = 0
    received: int = 0
    received_bytes: int = 0
    active: int = 0
    undelivered: Counter[str] = field(default_factory=Counter)


class Bots:
    """`limit` bounds what each key may send: a faster one is read more slowly. `logs` are the kinds of lines that are
    written: `connections`, `messages`."""

    def __init__(
        self,
        submit: Submit,
        keys: BotKeys,
        connections: BotConnections,
        queue: BotQueue,
        hooks: Hooks,
        seal: Fernet,
        metrics: Metrics,
        limit: RateLimit | None,
        logs: frozenset[str],
        clock: Callable[[], float] = time.time,
    ):
        self._submit = submit
        self._keys = keys
        self._connections = connections
        self._roster: Roster = connections.roster
        self._queue = queue
        self._hooks = hooks
        self._seal = seal
        self._metrics = metrics
        self._limit = limit
        self._logs = logs
        self._clock = clock
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._figures = Figures()

    # Connections

    def admit(self, key: str, platform: str, address: str) -> Account:
        """Who comes with this key, on this platform. Raises Unauthenticated, NotAllowed, RateLimited (an address that
        tries keys), Unavailable."""
        self._figures.auth_requests += 1
        metadata: Metadata = {
            "api_key": key,
            "platform": platform,
            "address": address,
            "message_type": "auth",
            "timestamp": self._clock(),
        }
        account = (self._keys.holder(key) or self._known_to_hooks(metadata)) if key else None
        if account is None or not self._hooks.admit(metadata):
            self._metrics.maim_auths.labels("refused").inc()
            if self._limit is not None:
                self._limit.take(f"address:{address}")
            raise Unauthenticated("The bot's key is not known.")
        if not account.may_use(platform):
            self._metrics.maim_auths.labels("refused").inc()
            raise NotAllowed("The key is not for this platform.")
        self._figures.auths += 1
        self._metrics.maim_auths.labels("admitted").inc()
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
        self._figures.connections += 1
        self._metrics.maim_connections.inc()
        self._say("connections", "maim.connected", bot)
        self._queue.opened(bot, waiting)
        self._hooks.connected(bot.uuid, self._metadata(bot))

    def close(self, bot: Bot) -> None:
        """Its connection has ended. Does not block."""
        if self._connections.close(bot) and bot.greeted:
            self._metrics.maim_connections.dec()
            self._say("connections", "maim.disconnected", bot)
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
        figures.received += 1
        figures.received_bytes += size
        figures.active += 1
        try:
            if bot.revoked:  # what was read before is behind what is late
                self._count("revoked")
            elif said is None:
                self._count("not_understood")
            elif said.type == ACK:
                self._count("ack")
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
            self._count("standard")
            self._figures.messages += 1
            acknowledged = self._pass_message(bot, said)
        elif said.type.startswith(CUSTOM):
            self._count("custom")
            self._figures.custom_messages += 1
            acknowledged = self._pass_custom(bot, said)
        else:
            self._count("other")
            acknowledged = True
        if acknowledged and said.msg_id is not None and said.ttl_seconds is not None:
            self._acknowledge(bot, said.msg_id)

    def _pass_message(self, bot: Bot, said: Frame) -> bool:
        """False if it was to be kept, and is not."""
        payload = said.payload
        if not isinstance(payload, Mapping) or "message_info" not in payload:
            payload = wrapped(payload, bot.key, bot.platform, self._clock())
        name = self._name(bot, said)
        if self._is_known(name, until_stored=said.ttl_seconds is not None):
            return True
        if not self._hooks.message(payload, self._metadata(bot)):
            return True
        return self._pass_on(bot, said, payload, name, is_message(payload))

    def _pass_custom(self, bot: Bot, said: Frame) -> bool:
        """To the handler for its type, and to whom a `message_dim` in its payload names."""
        addressed = isinstance(said.payload, Mapping) and "message_dim" in said.payload
        name = self._name(bot, said)
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
            if addressed or self._is_first(name):
                self._hooks.custom(frame, self._metadata(bot))
        return self._pass_on(bot, said, said.payload, name, True) if addressed else True

    def _pass_on(self, bot: Bot, said: Frame, payload: Any, name: bytes | None, valid: bool) -> bool:
        account = bot.account
        try:
            if not valid:
                raise Undelivered("invalid")
            place = destination(payload, said.target_platform, self._receiver, lambda t: t == account.tenant)
            first = None if name is None else self._first(name)
            sent = self._publish(self._at(place), said.type, payload, self._to(place), said.ttl_seconds, first)
        except Undelivered as problem:
            sent = Sent(reason=problem.reason)
        except Unavailable:
            sent = Sent(reason="unavailable")
        if sent.duplicate:
            self._figures.duplicates += 1
            self._count("duplicate")
        elif name is not None:
            if sent.reason is not None:
                self._known.pop(name, None)  # it may be tried again
            else:
                self._know(name)
        self._account_for(sent, f"{account.tenant}/{account.user}", said.type)
        return said.ttl_seconds is None or sent.reason not in ("queue_full", "unavailable")

    # What back ends and hooks send

    def send(self, identity: Identity, body: MaimSendBody, request: KeyedRequest | None = None) -> Sent:
        """A message to whom its `message_dim` names. Raises Unauthenticated, NotAllowed, Conflict, Unavailable."""
        require(identity, SCOPE)
        known = self._answered(request)
        if known is not None:
            return known
        try:
            place = destination(body.message, body.target_platform, self._receiver, _reach(identity))
        except Undelivered as problem:
            return self._account_for(Sent(reason=problem.reason), identity.name, STANDARD)
        to, meta = self._at(place), self._to(place)
        return self._send(identity, request, to, STANDARD, body.message, meta, body.kept_seconds)

    def broadcast(self, identity: Identity, body: MaimBroadcastBody, request: KeyedRequest | None = None) -> Sent:
        """A message to every connection of a tenant, or to those on one platform. Raises as `send`."""
        require(identity, SCOPE)
        tenant = body.tenant or _tenant(identity)
        if not may_reach_tenant(identity, tenant):
            raise NotAllowed("The token does not give the right to this tenant.")
        known = self._answered(request)
        if known is not None:
            return known
        to = Receivers(*self._connections.of_tenant(tenant, body.platform))
        meta = {"broadcast": True} | ({} if body.platform is None else {"platform": body.platform})
        return self._send(identity, request, to, STANDARD, body.message, meta, None)

    def custom(self, identity: Identity, body: MaimCustomBody, request: KeyedRequest | None = None) -> Sent:
        """A custom message to one connection, to a user on a platform, or to whom a key stands for. Raises as `send`,
        and NotFound for a connection that is not there."""
        require(identity, SCOPE)
        known = self._answered(request)
        if known is not None:
            return known
        reach = _reach(identity)
        meta: dict[str, Any] = {"target_user": None, "platform": None}
        try:
            if body.connection_uuid is not None:
                to = self._one(body.connection_uuid, reach)
            else:
                if body.target_user is not None:
                    place = Place(body.tenant or _tenant(identity), body.target_user, body.target_platform or "")
                    if not reach(place.tenant):
                        raise Undelivered("foreign_tenant")
                else:
                    place = place_of(body.api_key, body.target_platform or body.platform, self._receiver, reach)
                to, meta = self._at(place), self._to(place)
        except Undelivered as problem:
            return self._account_for(Sent(reason=problem.reason), identity.name, body.message_type)
        return self._send(identity, request, to, body.message_type, body.payload, meta, body.kept_seconds)

    def route(self, identity: Identity, body: MaimRouteBody) -> Route:
        """Where a message would go; nothing is sent. Raises as `send`."""
        require(identity, SCOPE)
        try:
            if body.message is not None:
                place = destination(body.message, body.target_platform, self._receiver, _reach(identity))
            else:
                place = place_of(body.api_key, body.target_platform or body.platform, self._receiver, _reach(identity))
        except Undelivered as problem:
            return Route(None, [], problem.reason)
        uuids = self._at(place).uuids
        return Route(place, uuids, None if uuids else "offline")

    def connections(self, identity: Identity) -> list[ConnectionRow]:
        """Of the tenants that it may reach, over all processes, in the order in which they came."""
        require(identity, SCOPE)
        rows = self._connections.of_this() + self._connections.of_others()
        reach = _reach(identity)
        return sorted((row for row in rows if reach(row.tenant)), key=lambda row: (row.opened_at, row.uuid))

    def stats(self) -> dict[str, object]:
        """Of this process, by the names of the original server (UPSTREAMS, 4.5)."""
        figures, roster = self._figures, self._roster
        return {
            "total_auth_requests": figures.auth_requests,
            "successful_auths": figures.auths,
            "failed_auths": figures.auth_requests - figures.auths,
            "messages_processed": figures.messages,
            "custom_messages_processed": figures.custom_messages,
            "current_users": len({(bot.place.tenant, bot.place.user) for bot in roster}),
            "current_connections": len(roster),
            "active_handler_tasks": figures.active,
            "duplicate_messages_ignored": figures.duplicates,
            "undelivered": {reason: figures.undelivered[reason] for reason in REASONS},
            "network": {
                "total_connections": figures.connections,
                "current_connections": len(roster),
                "messages_received": figures.received,
                "messages_sent": roster.sent,
                "bytes_received": figures.received_bytes,
                "bytes_sent": roster.sent_bytes,
            },
        }

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

    def relayed(self, node: str, body: Mapping[str, Any]) -> None:
        """A frame of another process, for connections of this one (`node`) perhaps."""
        bots = [self._roster.named(name) for name in body["to"].get(node, ())]
        if bots:
            text = self._seal.decrypt(body["sealed"].encode()).decode()
            self._roster.deliver([bot for bot in bots if bot is not None], text)

    def _end(self, bot: Bot, reason: str) -> None:
        """From now on nothing reaches it, however long its client takes to go. Does not block."""
        bot.link.end(reason)
        self.close(bot)

    # The way of one frame

    def _send(
        self,
        identity: Identity,
        request: KeyedRequest | None,
        to: Receivers,
        type: str,
        payload: Any,
        meta: Mapping[str, Any],
        ttl_seconds: float | None,
    ) -> Sent:
        """What a request asks for; one with a key that was used gets its first answer again."""
        repeated: list[Sent] = []

        def first(transaction: Transaction) -> bool:
            known = answered(transaction, request)
            if known is not None:
                repeated.append(Sent(**known, duplicate=True))
                return False
            found = Sent(dict.fromkeys(to.uuids, True), _reason(to, ttl_seconds), ttl_seconds is not None)
            answer = asdict(found)
            del answer["duplicate"]
            remember(transaction, request, answer)
            return True

        keyed = request is not None and request.key is not None
        try:
            sent = self._publish(to, type, payload, meta, ttl_seconds, first if keyed else None, must_store=keyed)
        except Undelivered as problem:
            sent = Sent(reason=problem.reason)
        return repeated[0] if repeated else self._account_for(sent, identity.name, type)

    def _answered(self, request: KeyedRequest | None) -> Sent | None:
        """What a request with this key was answered before, wherever its receivers are by now. Raises Conflict,
        Unavailable."""
        if request is None or request.key is None:
            return None
        known = self._submit(lambda transaction: answered(transaction, request))
        return None if known is None else Sent(**known, duplicate=True)

    def _publish(
        self,
        to: Receivers,
        type: str,
        payload: Any,
        meta: Mapping[str, Any],
        ttl_seconds: float | None,
        first: Callable[[Transaction], bool] | None,
        must_store: bool = False,
    ) -> Sent:
        """`first` says, within the transaction, whether this has not been sent before; with `must_store` nothing
        is sent unless that is stored. Raises Undelivered, Unavailable."""
        frame = envelope(type, payload, meta, self._clock())
        text = as_text(frame)
        place = to.place if ttl_seconds is not None else None
        if place is None and not to.uuids:
            return Sent(reason="offline")

        def command(transaction: Transaction) -> bool:
            if first is not None and not first(transaction):
                return False
            if place is not None:
                self._queue.put(transaction, place, frame["msg_id"], text, ttl_seconds or 0.0)
            elif to.there:
                nodes: dict[str, list[str]] = {}
                for row in to.there:
                    nodes.setdefault(row.node, []).append(row.uuid)
                transaction.append(RELAYED, {"to": nodes, "sealed": self._seal.encrypt(text.encode()).decode()}, ())
            return True

        if place is not None or to.there or first is not None:
            stored = True
            try:
                if not self._submit(command):
                    return Sent(duplicate=True)
            except Unavailable:
                if place is not None or must_store or not to.here:
                    raise
                stored = False
            if place is not None:
                return Sent(dict.fromkeys(to.uuids, True), _reason(to, ttl_seconds), queued=True)
        else:
            stored = True
        results = self._roster.deliver(to.here, text)
        results |= {row.uuid: stored for row in to.there}
        return Sent(results, None if any(results.values()) else "slow")

    def _at(self, place: Place) -> Receivers:
        return Receivers(*self._connections.at(place), place)

    def _one(self, name: str, reach: Callable[[str], bool]) -> Receivers:
        found = self._connections.named(name)
        if found is None or not reach(found.place.tenant):
            raise NotFound("There is no such connection.")
        here, there = ([found], []) if isinstance(found, Bot) else ([], [found])
        return Receivers(here, there, None)

    def _to(self, place: Place) -> dict[str, Any]:
        return {"target_user": place.user, "platform": place.platform}

    def _receiver(self, named: str) -> Account | None:
        account = self._keys.receiver(named)
        if account is not None:
            return account
        metadata: Metadata = {
            "api_key": named,
            "platform": None,
            "message_type": "outgoing",
            "timestamp": self._clock(),
        }
        user = self._hooks.user_of(metadata)
        return None if user is None else Account(DEFAULT_TENANT, user)

    def _known_to_hooks(self, metadata: Metadata) -> Account | None:
        user = self._hooks.user_of(metadata)
        return None if user is None else Account(DEFAULT_TENANT, user)

    # What came already

    def _name(self, bot: Bot, said: Frame) -> bytes | None:
        if said.msg_id is None:
            return None
        sender = bot.account.key_id or bot.key
        return hashlib.sha256(f"{sender}\n{said.msg_id}".encode("utf-8", "replace")).digest()

    def _is_known(self, name: bytes | None, until_stored: bool) -> bool:
        """Has this process seen it? The database is asked as it is passed on. One that is acknowledged when it is
        stored (`until_stored`) is known from then on: who repeats it before shall not be told that it is."""
        if name is None:
            return False
        now = self._clock()
        if now - self._known.get(name, -DUPLICATE_SECONDS) < DUPLICATE_SECONDS:
            self._figures.duplicates += 1
            self._count("duplicate")
            return True
        if not until_stored:
            self._know(name)
        return False

    def _know(self, name: bytes) -> None:
        self._known[name] = self._clock()
        self._known.move_to_end(name)
        while len(self._known) > KNOWN_MESSAGES:
            self._known.popitem(last=False)

    def _first(self, name: bytes) -> Callable[[Transaction], bool]:
        def first(transaction: Transaction) -> bool:
            since = utc_text(unix_seconds(transaction.now) - DUPLICATE_SECONDS)
            return first_seen(transaction.connection, name, transaction.now, since)

        return first

    def _is_first(self, name: bytes | None) -> bool:
        if name is None:
            return True
        try:
            return self._submit(self._first(name))
        except Unavailable:
            return True

    # Telling

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

    def _count(self, kind: str) -> None:
        self._metrics.maim_messages.labels(kind).inc()

    def _account_for(self, sent: Sent, sender: str, type: str) -> Sent:
        delivered = sum(sent.results.values())
        self._metrics.maim_delivered.inc(delivered)
        if sent.reason is not None:
            self._figures.undelivered[sent.reason] += 1
            self._metrics.maim_undelivered.labels(sent.reason).inc()
        if "messages" in self._logs and not sent.duplicate:
            log.info(
                "maim.message",
                sender=sender,
                type=type[:100],
                connections=delivered,
                reason=sent.reason,
                queued=sent.queued,
            )
        return sent

    def _say(self, kind: str, event: str, bot: Bot) -> None:
        if kind in self._logs:
            place = bot.place
            log.info(event, tenant=place.tenant, user=place.user, platform=place.platform, uuid=bot.uuid, line=bot.line)


def _reason(to: Receivers, ttl_seconds: float | None) -> str | None:
    return None if to.uuids or ttl_seconds is not None else "offline"


def _reach(identity: Identity) -> Callable[[str], bool]:
    return lambda tenant: may_reach_tenant(identity, tenant)


def _tenant(identity: Identity) -> str:
    projects = identity.projects
    return projects[0] if projects is not None and len(projects) == 1 else DEFAULT_TENANT
