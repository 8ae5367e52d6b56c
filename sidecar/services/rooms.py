"""Who is in the free rooms, over all processes: at this one now, at the others as they have told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.domain import rooms
from sidecar.domain.access import Identity, may_watch_room
from sidecar.domain.errors import NotAllowed
from sidecar.services.access import require
from sidecar.services.presences import Presences
from sidecar.store.database import Database
from sidecar.store.presences import present

SCOPE = "rooms:read"


@dataclass(frozen=True, slots=True)
class Presence:
    """`users`: how many connections each has in the room, 0 who has just left and may come back; "" stands for those
    without a user."""

    room: str
    users: Mapping[str, int]


class Rooms:
    """`node` is this process; `presences` knows who is in its rooms."""

    def __init__(self, database: Database, node: str, presences: Presences):
        self._database = database
        self._node = node
        self._presences = presences

    def list(self, identity: Identity) -> list[Presence]:
        """The rooms with somebody in them that it may watch, by name. Raises Unauthenticated, NotAllowed."""
        require(identity, SCOPE)
        found = self._database.read(lambda connection: present(connection, but=self._node))
        for room, users in self._presences.here().items():
            _add(found.setdefault(room, {}), users)
        return [
            Presence(name, users)
            for name, users in sorted(found.items())
            if (users.get("") or users.keys() - {""}) and may_watch_room(identity, rooms.free(name))
        ]

    def presence(self, identity: Identity, name: object) -> Presence:
        """Of one room, which may be empty. Raises Unauthenticated, NotAllowed, BadName."""
        require(identity, SCOPE)
        room = rooms.clean_name(name, "the room")
        if not may_watch_room(identity, rooms.free(room)):
            raise NotAllowed("The token does not give the right to this room.")
        found = self._database.read(lambda connection: present(connection, room, self._node)).get(room, {})
        _add(found, self._presences.here().get(room, {}))
        return Presence(room, found)

    def told(self, room: str) -> Presence:
        """As all processes have told, this one too: what the news of who comes and leaves goes on from. Raises
        Unavailable."""
        return Presence(room, self._database.read(lambda connection: present(connection, room)).get(room, {}))


def _add(found: dict[str, int], users: Mapping[str, int]) -> None:
    for user, count in users.items():
        found[user] = found.get(user, 0) + count
