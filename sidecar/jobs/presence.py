"""Presence: this process says now and then that it lives, and finds out which of the others don't any more; and it
tells them who is in its free rooms."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import structlog

from sidecar.domain.errors import Unavailable
from sidecar.services.presences import TIMES, Presences, Times
from sidecar.store.journal import Transaction
from sidecar.store.nodes import add_node, forget_nodes, other_nodes, remove_node, touch_node
from sidecar.store.writer import Submit

log = structlog.get_logger("sidecar.presence")

RETRY_SECONDS = 1.0


class Presence:
    """`on_declared_dead` is called when the others have taken this process for dead (it stood still, or the database
    was away): what they have made of its sessions by now is not known. `presences` is who is in its rooms."""

    def __init__(
        self,
        submit: Submit,
        node: str,
        presences: Presences,
        on_declared_dead: Callable[[], None],
        times: Times = TIMES,
    ):
        self._submit = submit
        self._node = node
        self._presences = presences
        self._on_declared_dead = on_declared_dead
        self._times = times
        self._others: dict[str, tuple[str, int]] = {}
        """What each of them said last, and how often we have said something since we first saw that."""
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        """Raises Unavailable."""
        self._submit(lambda transaction: add_node(transaction.connection, self._node, transaction.now))
        for name, work in (("presence", self._beat), ("presence-rooms", self._tell)):
            greenlet = gevent.spawn(work)
            greenlet.name = name
            self._greenlets.append(greenlet)

    def stop(self) -> None:
        if not self._greenlets:
            return
        gevent.killall(self._greenlets)
        try:
            self._submit(lambda transaction: remove_node(transaction.connection, self._node))
            self._presences.end()
        except Unavailable as error:
            log.warning("presence.not_removed", problem=error.detail)

    def say(self) -> None:
        """It lives. Then see who doesn't: whoever has written nothing new while we could write often enough. (So no two
        clocks are compared, and when the database was away for everybody, nobody has been silent.) Raises
        Unavailable."""

        def command(transaction: Transaction) -> dict[str, str] | None:
            if not touch_node(transaction.connection, self._node, transaction.now):
                return None
            return other_nodes(transaction.connection, self._node)

        others = self._submit(command)
        if others is None:
            self._come_back()
            return
        silent = self._silent(others)
        if silent and (dead := self._submit(lambda transaction: forget_nodes(transaction.connection, silent))):
            log.warning("presence.dead", nodes=len(dead))
        seconds = self._times.silent_beats * self._times.beat_seconds
        self._presences.look_after_others(dict.fromkeys(silent, seconds))

    def _come_back(self) -> None:
        log.warning("presence.declared_dead")
        try:
            self._submit(lambda transaction: add_node(transaction.connection, self._node, transaction.now))
        finally:  # it may be stored though the store did not answer, and then nobody says so again
            self._presences.all_again()
            self._on_declared_dead()

    def _silent(self, others: dict[str, str]) -> dict[str, str]:
        """Those that are dead, with what they said last."""
        former, self._others = self._others, {}
        for node, said in others.items():
            last, beats = former.get(node, ("", 0))
            self._others[node] = said, beats + 1 if last == said else 0
        return {node: said for node, (said, beats) in self._others.items() if beats >= self._times.silent_beats}

    def _beat(self) -> None:
        while True:
            gevent.sleep(self._times.beat_seconds)
            try:
                self.say()
            except Unavailable as error:
                log.warning("presence.postponed", problem=error.detail)
            except Exception as error:
                log.error("presence.failed", exc_info=error)

    def _tell(self) -> None:
        """What changes is told as soon as a moment's changes are together."""
        while True:
            self._presences.wake.wait(self._times.sweep_seconds if self._presences.lingering else None)
            gevent.sleep(self._times.gather_seconds)
            try:
                if not self._presences.tell():
                    gevent.sleep(RETRY_SECONDS)
                if self._presences.lingering:
                    self._presences.sweep()
            except Unavailable as error:
                log.warning("presence.rooms_postponed", problem=error.detail)
                gevent.sleep(RETRY_SECONDS)
            except Exception as error:
                log.error("presence.rooms_failed", exc_info=error)
                gevent.sleep(RETRY_SECONDS)
