"""Users as the sidecar knows them: the `sub` of connection tokens. It keeps no list of them."""

from __future__ import annotations

from sidecar.domain.access import Identity, may_disconnect
from sidecar.domain.errors import NotAllowed
from sidecar.domain.events import Control
from sidecar.domain.rooms import clean_name
from sidecar.store.journal import Transaction
from sidecar.store.writer import Submit

DISCONNECTED = Control("control.user_disconnected")
"""Type of the control event whose payload `{"user"}` names a user whose connections end now, in every process."""


class Users:
    """`submit` runs a command in the writer."""

    def __init__(self, submit: Submit):
        self._submit = submit

    def disconnect(self, user: object, by: Identity | None = None) -> int:
        """End the user's connections as the event passes each process's tail; its seq. Nothing is revoked: whoever
        holds a token may connect again. `by` None is the operator of this installation. Raises BadName, NotAllowed."""
        name = clean_name(user, "the user's id")
        if by is not None and not may_disconnect(by, name):
            raise NotAllowed("A connection token may disconnect its own user only.")

        def command(transaction: Transaction) -> int:
            return transaction.append(DISCONNECTED, {"user": name}, ()).seq

        return self._submit(command)
