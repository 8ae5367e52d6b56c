"""The apps at Lark that users authorize: one from the settings, others from the table, their secrets encrypted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from sidecar.domain.access import Identity, may_reach_app
from sidecar.domain.authorizations import App
from sidecar.domain.errors import Conflict, NotAllowed, NotFound
from sidecar.domain.times import utc_text
from sidecar.services.vault import Unreadable, Vault
from sidecar.store.authorizations import AppRow, delete_app, find_app, insert_app, list_apps
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.writer import Submit

log = structlog.get_logger("sidecar.authorizations")

NO_APP = "There is nothing at this address."


@dataclass(frozen=True, slots=True)
class KnownApp:
    """An app without its secrets. `proves` names what it checks callbacks by."""

    id: str
    name: str
    proves: str
    created_at: str | None


class Apps:
    """`first` is that of the settings. Every method may raise Unavailable."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        vault: Vault,
        first: App | None,
        clock: Callable[[], float] = time.time,
    ):
        self._database = database
        self._submit = submit
        self._vault = vault
        self._first = first
        self._clock = clock

    def all(self) -> list[App]:
        """Those whose secrets can be read; the default one first."""
        found = [] if self._first is None else [self._first]
        for row in self._database.read(list_apps):
            app = self._opened(row)
            if app is not None and (self._first is None or app.id != self._first.id):
                found.append(app)
        return found

    def named(self, app_id: str | None) -> App:
        """The app of this id; for None the default one. Raises NotFound, also while there is no app at all."""
        if app_id is None or (self._first is not None and app_id == self._first.id):
            found = self._first if self._first is not None else next(iter(self.all()), None)
        else:
            row = self._database.read(lambda connection: find_app(connection, app_id))
            found = None if row is None else self._opened(row)
        if found is None:
            raise NotFound(NO_APP if app_id is None else "There is no such app.")
        return found

    def reached(self, app_id: str | None, identity: Identity) -> App:
        """The same, for somebody who may use it. Raises NotFound, NotAllowed."""
        app = self.named(app_id)
        if not may_reach_app(identity, app.id):
            raise NotAllowed("The token does not give the right to this app.")
        return app

    def listed(self) -> list[KnownApp]:
        known = [_known(self._first, "from the settings", None)] if self._first is not None else []
        for row in self._database.read(list_apps):
            app = self._opened(row)
            if app is None:
                known.append(KnownApp(row.app_id, row.name, "unreadable", row.created_at))
            else:
                known.append(_known(app, row.name, row.created_at))
        return known

    def add(self, app: App, name: str) -> None:
        """Raises Conflict if there is one of this id."""
        secrets = json.dumps([app.secret, app.verification_token, app.encrypt_key])
        row = AppRow(app.id, name, self._vault.seal(secrets, "app", app.id), utc_text(self._clock()))

        def command(transaction: Transaction) -> bool:
            return insert_app(transaction.connection, row)

        if (self._first is not None and app.id == self._first.id) or not self._submit(command):
            raise Conflict("There is an app of this id already.")

    def remove(self, app_id: str) -> None:
        """Its users' tokens stay, and can be used again if it is added again. Raises NotFound."""
        if not self._submit(lambda transaction: delete_app(transaction.connection, app_id)):
            raise NotFound("There is no such app in the table.")

    def _opened(self, row: AppRow) -> App | None:
        try:
            return App(row.app_id, *json.loads(self._vault.open(row.sealed, "app", row.app_id)))
        except Unreadable:
            log.warning("authorizations.app_unreadable", app=row.app_id)
            return None


def _known(app: App, name: str, created_at: str | None) -> KnownApp:
    proves = "signature" if app.encrypt_key else "verification token" if app.verification_token else "nothing"
    return KnownApp(app.id, name, proves, created_at)
