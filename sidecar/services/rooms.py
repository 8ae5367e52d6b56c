"""Who is in the free rooms, over all processes: this one's now, the others' as they last said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.domain import rooms
from sidecar.domain.access import Identity, may_watch_room
from sidecar.domain.errors import NotAllowed
from sidecar.fanout.hub import Hub
from sidecar.services.access import require
from sidecar.store.database import Database
from sidecar.store.nodes import rooms_of_others

SCOPE = "rooms:read"
MAX_ROOMS = 1_000
MAX_USERS = 5_000
"""Of one process: so many are told to the others at most."""


@dataclass(frozen=True, slots=True)
class Presence:
    """`users`: how many connections each has in the room; "" stands for those without a user."""

    room: str
    users: Mapping[str, int]


class Rooms:
    """`node` is this process, whose rooms the `hub` knows."""

    def __init__(self, database: Database, node: str, hub: Hub):
        self._database = database
        self._node = node
        self._hub = hub

    def list(self, identity: Identity) -> list[Presence]:
        """The rooms with somebody in them that it may watch, by name. Raises Unauthenticated, NotAllowed."""
        require(identity, SCOPE)
        found = self._everywhere()
        return [Presence(name, found[name]) for name in sorted(found) if may_watch_room(identity, rooms.free(name))]

    def presence(self, identity: Identity, name: object) -> Presence:
        """Of one room, which may be empty. Raises Unauthenticated, NotAllowed, BadName."""
        require(identity, SCOPE)
        room = rooms.clean_name(name, "the room")
        if not may_watch_room(identity, rooms.free(room)):
            raise NotAllowed("The token does not give the right to this room.")
        return Presence(room, self._everywhere().get(room, {}))

    def here(self) -> dict[str, Counter[str]]:
        """The free rooms of this process: how many connections each user has in each, "" for those without one."""
        return {room.removeprefix(rooms.FREE): users for room, users in self._hub.users(rooms.FREE).items()}

    def _everywhere(self) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {}
        others = [json.loads(text) for text in self._database.read(lambda c: rooms_of_others(c, self._node))]
        for said in [self.here(), *others]:
            for room, users in said.items():
                found.setdefault(room, Counter()).update(users)
        return found


def told(here: Mapping[str, Mapping[str, int]]) -> str:
    """What a process tells the others of its rooms, as JSON text; of very many only some."""
    kept: dict[str, Mapping[str, int]] = {}
    left = MAX_USERS
    for room, users in here.items():
        if len(kept) == MAX_ROOMS or left <= 0:
            break
        kept[room] = dict(list(users.items())[:left])
        left -= len(users)
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
