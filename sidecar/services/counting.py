"""How many connections an event is for: of this process, and of all. The others are asked through the journal, and each
counts its own; so it goes with every database, and with or without Redis."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gevent
import structlog
from gevent.event import Event as Signal

from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Control
from sidecar.fanout.hub import Hub
from sidecar.observability.logs import RateLimited
from sidecar.store.database import Database
from sidecar.store.nodes import other_nodes
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.counting"))

ASKED = Control("control.count")
"""Type of the control event whose payload `{"id","node","rooms","target"}` is this node's question to the others."""
COUNTED = Control("control.counted")
"""Type of the control event whose payload `{"node","counts":{id: recipients}}` holds this node's answers."""

DEADLINE_SECONDS = 2.0
MAX_QUESTIONS = 100
"""So many of this process wait for answers at once; beyond it only its own connections are counted."""


@dataclass(frozen=True, slots=True)
class Count:
    """`recipients` of the processes that `answered`, this one among them. `asked` are all that live; None where that
    could not be found out."""

    recipients: int
    asked: int | None
    answered: int


NOBODY = Count(0, 0, 0)
"""Where there was nothing to tell anybody."""


class _Question:
    """`nodes`: the others, and when each last said that it lives; None before that is known. `awaited` of them are
    waited for."""

    __slots__ = ("answers", "awaited", "complete", "nodes")

    def __init__(self) -> None:
        self.nodes: Mapping[str, str] | None = None
        self.awaited: set[str] = set()
        self.answers: dict[str, int] = {}
        self.complete = Signal()


class Counting:
    """`node` is this process, whose connections the `hub` knows; `submit` runs a command in the writer."""

    def __init__(self, database: Database, submit: Submit, node: str, hub: Hub):
        self._database = database
        self._submit = submit
        self._node = node
        self._hub = hub
        self._questions: dict[str, _Question] = {}
        self._silent: dict[str, str] = {}
        self._due: dict[str, int] = {}
        self._answering = False

    def here(self, rooms: Iterable[str], target: str | None = None) -> int:
        """The connections of this process that an event for these rooms, and this user alone, would reach."""
        return self._hub.count(rooms, target)

    def everywhere(self, rooms: Iterable[str], target: str | None = None) -> Count:
        """Those of all processes, as far as they answer within DEADLINE_SECONDS. To be asked when the event is
        committed, and never by a command of the writer: it waits for one."""
        names = list(rooms)
        here = self._hub.count(names, target)
        if len(self._questions) >= MAX_QUESTIONS:
            return Count(here, None, 1)
        id, question = secrets.token_hex(8), _Question()
        self._questions[id] = question
        asking = gevent.spawn(self._ask, id, question, names, target)
        asking.name = "counting"
        asking.join(DEADLINE_SECONDS)
        answers = dict(question.answers)
        asked = None if question.nodes is None else 1 + len(question.nodes.keys() | answers.keys())
        return Count(here + sum(answers.values()), asked, 1 + len(answers))

    def asked(self, body: Mapping[str, Any]) -> None:
        """As a question passes the tail: answered soon, together with those that come meanwhile."""
        if body["node"] == self._node:
            return
        self._due[body["id"]] = self._hub.count(body["rooms"], body["target"])
        if not self._answering:
            self._answering = True
            gevent.spawn(self._answer).name = "counted"

    def counted(self, body: Mapping[str, Any]) -> None:
        """As answers pass the tail, to this process's questions or others'."""
        node = body["node"]
        self._silent.pop(node, None)
        for id, recipients in body["counts"].items():
            question = self._questions.get(id)
            if question is not None:
                question.answers[node] = recipients
                if question.awaited <= question.answers.keys():
                    question.complete.set()

    def _ask(self, id: str, question: _Question, rooms: list[str], target: str | None) -> None:
        """One that did not answer before, and has not said since that it lives, is asked and not waited for: a process
        that died costs the deadline once."""
        end = time.monotonic() + DEADLINE_SECONDS
        try:
            nodes = question.nodes = self._database.read(lambda c: other_nodes(c, self._node))
            question.awaited = {node for node, seen_at in nodes.items() if self._silent.get(node) != seen_at}
            if not question.awaited:
                return
            body = {"id": id, "node": self._node, "rooms": rooms, "target": target}
            self._submit(lambda transaction: transaction.append(ASKED, body, ()))
            if question.awaited <= question.answers.keys() or question.complete.wait(max(0.0, end - time.monotonic())):
                return
            missing = question.awaited - question.answers.keys()
            self._silent = {node: nodes[node] for node in nodes if node in missing or node not in question.awaited}
        except Unavailable as error:
            log.warning("counting.not_asked", problem=error.detail)
        finally:
            del self._questions[id]

    def _answer(self) -> None:
        try:
            while self._due:
                body = {"node": self._node, "counts": self._due}
                self._due = {}
                self._submit(lambda transaction, body=body: transaction.append(COUNTED, body, ()))  # type: ignore[misc]
        except Unavailable as error:
            log.warning("counting.not_answered", problem=error.detail)
        finally:
            self._answering = False
