"""Users' tokens of the other platform: handed to back ends, renewed before they end, forgotten when told to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial

import structlog

from sidecar.domain.access import Identity, may_have_tokens
from sidecar.domain.authorizations import AppToken, AppTokenKind, Person
from sidecar.domain.errors import (
    AuthorizationFailed,
    NotAllowed,
    NotFound,
    ProviderUnavailable,
    UserTokenExpired,
)
from sidecar.domain.times import utc_text
from sidecar.services.access import require
from sidecar.services.authorization_news import tell
from sidecar.services.authorization_parts import PartOf, Parts
from sidecar.services.authorizations import READ, WRITE
from sidecar.services.token_renewal import Renewal
from sidecar.store.authorizations import (
    SessionRow,
    UseRow,
    change_session,
    drop_tokens,
    insert_use,
    list_uses,
    session_with_tokens,
    tokens_after,
    tokens_due,
)
from sidecar.store.journal import Transaction
from sidecar.wire.news import AUTHORIZATION_REVOKED

log = structlog.get_logger("sidecar.authorizations")

BATCH = 50


@dataclass(frozen=True, slots=True)
class UserToken:
    """A token as a back end gets it; `is_expiring` if it should have been renewed, and could not be."""

    text: str
    expires_at: str
    expires_in: float
    is_expiring: bool
    scope: str
    open_id: str | None


class TokenStore(PartOf):
    """`threshold` is the part of a token's life that is left when it is renewed. Every method may raise Unavailable."""

    def __init__(self, parts: Parts, threshold: float):
        super().__init__(parts)
        self._renewal = Renewal(parts, threshold)

    def token(self, identity: Identity, app_id: str, user: str, refused: str | None = None) -> UserToken:
        """A token that holds now, and the use of it in the audit log. If it is the one of this `fingerprint`, which the
        platform does not take, it is renewed first. Raises NotFound, NotAllowed, AuthenticationRequired,
        UserTokenExpired, TokenRefreshFailed, ProviderUnavailable."""
        self._entitled(identity, READ, app_id)
        row = self._renewal.holder(app_id, user)
        with structlog.contextvars.bound_contextvars(authorization=row.session_id):
            if refused is not None and fingerprint(self._renewal.open(row, "access", row.user_access_token)) == refused:
                row = self._renewal.replaced(row)
            elif self._renewal.ends_soon(row):
                row = self._renewal.renewed_if_possible(row)
            left = self._renewal.left(row)
            if left <= 0:
                raise UserTokenExpired(
                    "The user's token has expired and can't be renewed; they have to authorize again."
                )
            text = self._renewal.open(row, "access", row.user_access_token)
            self._note(identity, app_id, user, "token")
            self._metrics.token_used()
            log.info("authorizations.token_used", app=app_id, by=identity.name)
            return UserToken(
                text, row.token_expires_at or "", left, self._renewal.ends_soon(row), row.token_scope or "", row.open_id
            )

    def app_token(self, identity: Identity, app_id: str, kind: AppTokenKind) -> AppToken:
        """A token of the app itself, for what needs no user. Raises NotFound, NotAllowed, AuthorizationFailed."""
        self._entitled(identity, READ, app_id)
        token = self._provider.app_token(self._apps.named(app_id), kind)
        self._note(identity, app_id, None, f"{kind}_token")
        self._metrics.token_used()
        log.info("authorizations.app_token_used", app=app_id, kind=kind, by=identity.name)
        return token

    def revoke(self, identity: Identity, app_id: str, user: str) -> bool:
        """Forget the user's tokens; False if there were none. (The platform has no call to end them there.)"""
        self._entitled(identity, WRITE, app_id)

        def command(transaction: Transaction) -> bool:
            row = session_with_tokens(transaction.connection, app_id, user)
            if row is None:
                return False
            drop_tokens(transaction.connection, app_id, user)
            change_session(transaction.connection, row.session_id, reason=None)
            insert_use(transaction.connection, self._use(identity, app_id, user, "revoke"))
            tell(transaction, AUTHORIZATION_REVOKED, row, row.state, "revoked")
            log.info("authorizations.revoked", authorization=row.session_id, by=identity.name)
            return True

        return self._submit(command)

    def uses(self, app_id: str | None, user: str | None, limit: int) -> list[UseRow]:
        """The audit log, the newest first."""
        return self._database.read(lambda connection: list_uses(connection, app_id, user, limit))

    def renew_ending(self) -> int:
        """Renew what ends soon before anybody asks for it; how many were tried."""
        rows = self._database.read(lambda connection: tokens_due(connection, utc_text(self._clock()), BATCH))
        for count, row in enumerate(rows, 1):
            with structlog.contextvars.bound_contextvars(authorization=row.session_id):
                try:
                    self._renewal.renewed(row)
                except (AuthorizationFailed, NotFound) as error:
                    log.warning("authorizations.not_renewed", code=error.code)
                    if isinstance(error, ProviderUnavailable):  # nor would it answer for the next one
                        return count
        return len(rows)

    def sync_people(self) -> int:
        """Ask the platform again who the users with a token are; how many were brought up to date."""
        after, count = "", 0
        while rows := self._database.read(partial(tokens_after, session_id=after, limit=BATCH)):
            for row in rows:
                try:
                    count += self._sync(row)
                except ProviderUnavailable:
                    log.warning("authorizations.sync_ended_early", synced=count)
                    return count
            after = rows[-1].session_id
        self._metrics.people_synced()
        return count

    def _sync(self, row: SessionRow) -> bool:
        """Raises ProviderUnavailable."""
        with structlog.contextvars.bound_contextvars(authorization=row.session_id):
            try:
                if self._renewal.ends_soon(row):
                    row = self._renewal.renewed_if_possible(row)
                if self._renewal.left(row) <= 0:
                    return False
                person = self._provider.person(self._renewal.open(row, "access", row.user_access_token))
                if person.open_id == row.open_id:
                    self._submit(partial(_update_person, row.session_id, person))
                    return True
            except ProviderUnavailable:
                raise
            except (AuthorizationFailed, NotFound) as error:
                log.warning("authorizations.not_synced", code=error.code)
            return False

    def _entitled(self, identity: Identity, scope: str, app_id: str) -> None:
        self._apps.named(None)
        require(identity, scope)
        if not may_have_tokens(identity):
            raise NotAllowed("Tokens of the platform are for back ends with an API token.")
        self._apps.reached(app_id, identity)

    def _note(self, identity: Identity, app_id: str, user: str | None, use: str) -> None:
        self._submit(lambda transaction: insert_use(transaction.connection, self._use(identity, app_id, user, use)))

    def _use(self, identity: Identity, app_id: str, user: str | None, use: str) -> UseRow:
        return UseRow(utc_text(self._clock()), app_id, user, use, identity.name, identity.token_id)


def fingerprint(token: str) -> str:
    """Names a token without telling it."""
    return hashlib.sha256(token.encode()).hexdigest()


def _update_person(session_id: str, person: Person, transaction: Transaction) -> None:
    change_session(
        transaction.connection,
        session_id,
        union_id=person.union_id,
        user_name=person.name,
        mobile=person.mobile,
        email=person.email,
    )
