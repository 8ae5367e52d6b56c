"""The tokens that live sockets rest on: who ends when one is revoked or expires, or a user is sent away."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import gevent
from gevent.event import Event as Signal

from sidecar.domain.access import Identity
from sidecar.wire.spoken import Frame
from sidecar.wire.told import DISCONNECTED, TOKEN_EXPIRED

T = TypeVar("T")

WARNING_SECONDS = 30
LOOK_SECONDS = 10
"""How often the clock is looked at though no end is near: it may have been set, or the machine have slept."""
SPARE_EXPIRIES = 64
"""Ends of sockets gone that may wait to be forgotten, besides as many as there are sockets."""


class Watched(Protocol):
    """A live socket. Neither method may switch greenlets."""

    @property
    def identity(self) -> Identity: ...

    def token_expiring(self, expires_at: float) -> None:
        """Warn it; unix seconds."""

    def end(self, event: Frame, code: str, message: str) -> None:
        """Tell it why, by an event of this name where it hears events, and disconnect it for good."""


class Watch:
    """Knows every live socket of this process, and has one greenlet that watches expiries."""

    def __init__(self, clock: Callable[[], float] = time.time):
        self._clock = clock
        self._members: dict[Watched, None] = {}
        self._revocations = 0
        self._expiries: list[tuple[float, int, Watched, Identity, bool]] = []
        self._tie = itertools.count()
        self._wake = Signal()
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "token-expiry"

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def add(self, member: Watched) -> None:
        """From now on, or (if it is known) from now on under its new identity."""
        self._members[member] = None
        end = member.identity.expires_at
        if end is not None:
            if len(self._expiries) > 2 * len(self._members) + SPARE_EXPIRIES:
                self._expiries = [entry for entry in self._expiries if self._holds(entry[2], entry[3])]
                heapq.heapify(self._expiries)
            heapq.heappush(self._expiries, (end - WARNING_SECONDS, next(self._tie), member, member.identity, False))
            self._wake.set()

    def remove(self, member: Watched) -> None:
        self._members.pop(member, None)

    def unrevoked(self, find: Callable[[], T]) -> T:
        """What it finds, asked again when a token was revoked meanwhile: it may have been this one, read before."""
        while True:
            revocations = self._revocations
            found = find()
            if revocations == self._revocations:
                return found

    def token_revoked(self, token_id: str) -> None:
        """End every socket that rests on this token (or on one that it issued)."""
        self._revocations += 1
        for member in [m for m in self._members if m.identity.token_id == token_id]:
            member.end(TOKEN_EXPIRED, "token_expired", "The token has been revoked.")

    def user_disconnected(self, user: str) -> None:
        """End every socket of this user. Nothing is revoked: with a token they may connect again."""
        for member in [m for m in self._members if m.identity.user == user]:
            member.end(DISCONNECTED, "disconnected", "You have been disconnected.")

    def _holds(self, member: Watched, identity: Identity) -> bool:
        """Is it still live, under this identity?"""
        return member in self._members and member.identity is identity

    def _run(self) -> None:
        while True:
            pause = self._expiries[0][0] - self._clock() if self._expiries else None
            if pause is None or pause > 0:
                self._wake.wait(timeout=None if pause is None else min(pause, LOOK_SECONDS))
                self._wake.clear()
                continue
            _, _, member, identity, warned = heapq.heappop(self._expiries)
            if not self._holds(member, identity):
                continue
            if warned:
                member.end(TOKEN_EXPIRED, "token_expired", "The token has expired.")
                continue
            end = identity.expires_at or 0.0
            member.token_expiring(end)
            heapq.heappush(self._expiries, (end, next(self._tie), member, identity, True))
