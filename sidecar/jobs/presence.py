"""Presence: this process says now and then that it lives, so that the others know whose sessions have no connection,
and who is in its free rooms."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import structlog

from sidecar.domain.errors import Unavailable
from sidecar.store.nodes import add_node, remove_node, touch_node
from sidecar.store.writer import Submit

log = structlog.get_logger("sidecar.presence")

PERIOD_SECONDS = 10.0


class Presence:
    """`on_declared_dead` is called when the others have taken this process for dead (it stood still, or the database
    was away): what they have made of its sessions by now is not known. `rooms` says who is in which, as JSON."""

    def __init__(self, submit: Submit, node: str, rooms: Callable[[], str], on_declared_dead: Callable[[], None]):
        self._submit = submit
        self._node = node
        self._rooms = rooms
        self._on_declared_dead = on_declared_dead
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Raises Unavailable."""
        self._submit(lambda transaction: add_node(transaction.connection, self._node, transaction.now))
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "presence"

    def stop(self) -> None:
        if self._greenlet is None:
            return
        self._greenlet.kill()
        try:
            self._submit(lambda transaction: remove_node(transaction.connection, self._node))
        except Unavailable as error:
            log.warning("presence.not_removed", problem=error.detail)

    def say(self) -> None:
        """Raises Unavailable."""
        rooms = self._rooms()
        if self._submit(lambda transaction: touch_node(transaction.connection, self._node, transaction.now, rooms)):
            return
        log.warning("presence.declared_dead")
        try:
            self._submit(lambda transaction: add_node(transaction.connection, self._node, transaction.now))
        finally:  # it may be stored though the store did not answer, and then nobody says so again
            self._on_declared_dead()

    def _run(self) -> None:
        while True:
            gevent.sleep(PERIOD_SECONDS)
            try:
                self.say()
            except Unavailable as error:
                log.warning("presence.postponed", problem=error.detail)
            except Exception as error:
                log.error("presence.failed", exc_info=error)
