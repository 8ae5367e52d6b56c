"""Deliveries: a posted webhook from its raw bytes to its answer. What is answered 2xx is stored; what can't be used
is kept raw in quarantine and can be replayed. Nothing is answered twice for one idempotency key."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from sidecar.domain.access import Identity
from sidecar.domain.deployments import Report
from sidecar.domain.errors import Conflict, FieldError, Invalid, NotFound, Refused, SidecarError
from sidecar.domain.redaction import MARK, redact
from sidecar.domain.times import utc_text
from sidecar.observability.metrics import Metrics
from sidecar.services.access import require
from sidecar.services.deployments import record
from sidecar.services.idempotency import KeyedRequest, answered, remember
from sidecar.store import deliveries as store
from sidecar.store.database import Database
from sidecar.store.deliveries import DeliveryFilter, NewDelivery
from sidecar.store.erasing import FORGOTTEN
from sidecar.store.journal import Transaction
from sidecar.store.writer import Submit, part
from sidecar.wire.bodies import clean_text, parse_body
from sidecar.wire.deployments import read_report

SCOPE = "webhooks:write"
MAX_HEADERS, MAX_HEADER_CHARACTERS = 60, 500
SOURCE_CHARACTERS = 200
_SECRETS = re.compile(r"(?i)auth|token|key|secret|signature|cookie|password|credential|session|jwt")


@dataclass(frozen=True, slots=True)
class Posted:
    """A request as it came. `path` is the route (prefix and last slash cut), `key` the sender's idempotency key."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    address: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivery."""

    seq: int
    type: str
    project: str
    deployment_id: str | None
    repaired: bool
    duplicate: bool = False

    def stored(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "type": self.type,
            "project": self.project,
            "deployment_id": self.deployment_id,
            "repaired": self.repaired,
        }


@dataclass(frozen=True, slots=True)
class Draft:
    """A body of a sender who hears no answer, as it was read before the writer's turn: what it reports, or why it can't
    be used."""

    identity: Identity
    delivery: NewDelivery
    found: Report | SidecarError
    mark: KeyedRequest
    """By which it is known again. It tells nothing of what the body says, so that it may outlive its project."""


class Deliveries:
    """`limit_bytes` bounds the raw bodies that are kept; the oldest go first. `holder` finds a token by its id."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        metrics: Metrics,
        limit_bytes: int,
        holder: Callable[[str], Identity],
        clock: Callable[[], float] = time.time,
    ):
        self._clock = clock
        self._database = database
        self._submit = submit
        self._metrics = metrics
        self._limit_bytes = limit_bytes
        self._holder = holder
        self._kept_bytes = database.read(store.body_bytes)

    def receive(self, identity: Identity, posted: Posted) -> Receipt:
        """Store a deployment webhook. Raises Unauthenticated or NotAllowed; Unparsable, Invalid (kept in quarantine
        as a delivery whose number the error tells); Conflict for a key used with another body or a foreign id;
        UnsupportedMedia; Unavailable."""
        require(identity, SCOPE)
        request = KeyedRequest.of(identity, posted.address, posted.path, posted.key, posted.body)
        delivery = _delivery(identity, posted, request)
        try:
            report = _read(delivery, utc_text(self._clock()))
            receipt = self._submit(lambda transaction: self._store(transaction, identity, delivery, report, request))
        except Invalid as error:
            self._quarantine(delivery, error)
            raise
        verdict = "duplicate" if receipt.duplicate else "test" if receipt.type == "test" else "stored"
        self._metrics.deliveries.labels(verdict).inc()
        return receipt

    def replay(self, identity: Identity, number: int) -> Receipt:
        """Take a kept delivery again, with the rights of the token that posted it, or of `identity` if it came
        without one: nobody's post may do more by being replayed. Raises NotFound, Conflict for one whose project was
        deleted, Unauthenticated when that token is gone, and what `receive` raises, but without a second entry in
        quarantine."""
        kept = self.find(number)
        if kept["verdict"] == FORGOTTEN:
            message = "has been deleted, and what this delivery said with it"
            raise Conflict(f"The project {message}.", (FieldError("project", message),))
        if kept["token_id"] is not None:
            identity = self._holder(kept["token_id"])
        delivery = NewDelivery(
            path=kept["path"],
            source=kept["source"],
            address=kept["address"],
            token_id=identity.token_id,
            delivery_id=None,
            headers=kept["headers"],
            body=kept["body"],
            body_sha256=kept["body_sha256"],
        )
        report = _read(delivery, utc_text(self._clock()))

        def command(transaction: Transaction) -> Receipt:
            receipt = self._store(transaction, identity, delivery, report, replay_of=number)
            if kept["verdict"] == "quarantined":
                store.mark_replayed(transaction.connection, number)
            return receipt

        return self._submit(command)

    def draft(self, identity: Identity, posted: Posted, source: str, problem: SidecarError | None = None) -> Draft:
        """Read it. `source` is the kind of sender, which no header tells; with a `problem` it is not even read."""
        request = KeyedRequest.of(identity, posted.address, posted.path, posted.key, posted.body)
        delivery = replace(_delivery(identity, posted, request), source=source[:SOURCE_CHARACTERS])
        found: Report | SidecarError
        try:
            found = problem or _read(delivery, utc_text(self._clock()))
        except Invalid as error:
            found = error
        return Draft(identity, delivery, found, replace(request, body_sha256=""))

    def settle(self, transaction: Transaction, draft: Draft) -> str:
        """Store the draft or keep it in quarantine, within a command of the writer. Its verdict: stored, test,
        quarantined, or duplicate of one that was settled before. What is raised leaves the command as it was."""
        if answered(transaction, draft.mark) is not None:
            return "duplicate"
        found = draft.found
        if isinstance(found, Report):
            try:
                with part(transaction):
                    receipt = self._store(transaction, draft.identity, draft.delivery, found)
                    remember(transaction, draft.mark, {})
                    return "test" if receipt.type == "test" else "stored"
            except (Invalid, Refused, Conflict) as error:
                found = error
        with part(transaction):
            self._keep(transaction, draft.delivery, "quarantined", reason=_reason(found))
            remember(transaction, draft.mark, {})
            return "quarantined"

    def settled(self, verdict: str) -> None:
        """Count one whose command is committed."""
        self._metrics.deliveries.labels(verdict).inc()

    def find(self, number: int) -> dict[str, Any]:
        """Raises NotFound."""
        row = self._database.read(lambda c: store.find_delivery(c, number))
        if row is None:
            raise NotFound("There is no such delivery, or it is no longer kept.")
        return row

    def list(self, wanted: DeliveryFilter, before: int | None, limit: int) -> list[dict[str, Any]]:
        """Newest first, without their bodies."""
        return self._database.read(lambda c: store.list_deliveries(c, wanted, before, limit))

    def counts(self, since: str, verdicts: Sequence[str]) -> dict[str, int]:
        """How many came at this time or later, by verdict."""
        return self._database.read(lambda c: store.count_deliveries(c, since, verdicts))

    def _store(
        self,
        transaction: Transaction,
        identity: Identity,
        delivery: NewDelivery,
        report: Report,
        request: KeyedRequest | None = None,
        replay_of: int | None = None,
    ) -> Receipt:
        first = answered(transaction, request, report.project)
        if first is not None:
            return Receipt(**first, duplicate=True)
        report, event = record(transaction, identity, report, delivery.source)
        receipt = Receipt(event.seq, report.type, report.project, report.deployment_id or None, report.repaired)
        self._keep(
            transaction,
            delivery,
            "test" if report.type == "test" else "stored",
            repaired=report.repaired,
            project=report.project,
            deployment_id=report.deployment_id or None,
            seq=event.seq,
            replay_of=replay_of,
        )
        remember(transaction, request, receipt.stored(), report.project)
        return receipt

    def _quarantine(self, delivery: NewDelivery, error: Invalid) -> None:
        """Keep what could not be used, and say so in the error."""
        reason = _reason(error)
        number = self._submit(lambda transaction: self._keep(transaction, delivery, "quarantined", reason=reason))
        self._metrics.deliveries.labels("quarantined").inc()
        error.detail = f"{error.detail} Kept in quarantine as delivery {number}."

    def _keep(self, transaction: Transaction, delivery: NewDelivery, verdict: str, **facts: Any) -> int:
        number = store.insert_delivery(transaction.connection, delivery, transaction.now, verdict, **facts)
        self._kept_bytes += len(delivery.body)
        if self._kept_bytes > self._limit_bytes:
            self._prune(transaction)
        return number

    def _prune(self, transaction: Transaction) -> None:
        """Make room, and a little more, so that the sum (others delete rows too) is not taken at every delivery."""
        self._kept_bytes = store.body_bytes(transaction.connection)
        while self._kept_bytes > self._limit_bytes:
            spare = self._limit_bytes // 100
            freed = store.prune_deliveries(transaction.connection, self._kept_bytes - self._limit_bytes + spare)
            if not freed:
                return
            self._kept_bytes -= freed


def _reason(problem: SidecarError) -> dict[str, Any]:
    return {"code": problem.code, "detail": problem.detail, "errors": [asdict(field) for field in problem.fields]}


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers without secrets: those that are named like one are there, and say nothing."""
    found: dict[str, str] = {}
    for name, value in islice(headers.items(), MAX_HEADERS):
        shown = MARK if _secret(name) else redact(clean_text(value))
        found[name[:MAX_HEADER_CHARACTERS]] = shown[:MAX_HEADER_CHARACTERS]
    return found


@lru_cache(maxsize=1_000)
def _secret(name: str) -> bool:
    """Is a header of this name given to prove who one is?"""
    return _SECRETS.search(name) is not None and name.lower() != "idempotency-key"


def _delivery(identity: Identity, posted: Posted, request: KeyedRequest) -> NewDelivery:
    headers = _kept(posted.headers)
    return NewDelivery(
        path=posted.path,
        source=headers.get("User-Agent", "")[:SOURCE_CHARACTERS],
        address=posted.address,
        token_id=identity.token_id,
        delivery_id=posted.key,
        headers=headers,
        body=posted.body,
        body_sha256=request.body_sha256,
    )


def _read(delivery: NewDelivery, now: str) -> Report:
    parsed = parse_body(delivery.body, delivery.headers.get("Content-Type"))
    kind = "step" if delivery.path.endswith("/step") else "deployment"
    return read_report(parsed.value, kind, now, repaired=parsed.repaired)
