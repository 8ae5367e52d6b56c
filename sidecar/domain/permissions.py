"""What users may do in the application behind the sidecar: roles, their grants, and who inherits from whom.

(What a token may do here is domain/access.py.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from sidecar.domain.errors import FieldError
from sidecar.domain.patterns import fits

ANONYMOUS = "anonymous"
"""The role of who is not signed in."""
AUTHENTICATED = "authenticated"
"""The role that everybody has who is signed in, beside those given."""
IMPLIED = frozenset({ANONYMOUS, AUTHENTICATED})
"""Roles that nobody is given."""

VIEW = "view"
MAX_ROLES = 1_000
MAX_GRANTS = 500
"""Of one role; so many menus too."""


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """`resource` and `action` may hold stars. A denial wins over whatever allows."""

    resource: str
    action: str
    effect: str = "allow"

    @property
    def allows(self) -> bool:
        return self.effect == "allow"

    def about(self, resource: str, action: str) -> bool:
        return fits(resource, self.resource) and fits(action, self.action)


@dataclass(frozen=True, slots=True)
class Role:
    """`menus` are the keys (with stars) of the menu's items that it lets see."""

    name: str
    inherits: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    menus: tuple[str, ...] = ()

    @property
    def all_grants(self) -> tuple[Grant, ...]:
        return (*self.grants, *(Grant(menu_resource(key), VIEW) for key in self.menus))


Roles = Mapping[str, Role]
"""By name."""

UNGOVERNED: Roles = {AUTHENTICATED: Role(AUTHENTICATED, menus=("*",))}
"""The roles of an installation in which none was ever written: whoever is signed in sees the whole menu."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may: the `roles` that they have with those inherited, and the grants of all of them; both in
    order, so that equal rights are equal."""

    roles: tuple[str, ...]
    grants: tuple[Grant, ...]

    def verdict(self, resource: str, action: str) -> bool | None:
        """Allowed, denied, or nothing is said about it."""
        return _joined(grant.allows for grant in self.grants if grant.about(resource, action))

    def may(self, resource: str, action: str) -> bool:
        """Nothing said is no."""
        return self.verdict(resource, action) is True

    def menu_verdict(self) -> Callable[[str], bool | None]:
        """A function that gives the verdict about seeing an item of the menu by its key, cheap for many of them."""
        named: dict[str, list[bool]] = {}
        starred = []
        for grant in self.grants:
            if not fits(VIEW, grant.action):
                continue
            if "*" in grant.resource:
                starred.append(grant)
            else:
                named.setdefault(grant.resource, []).append(grant.allows)

        def verdict(key: str) -> bool | None:
            resource = menu_resource(key)
            said = [grant.allows for grant in starred if fits(resource, grant.resource)]
            return _joined([*said, *named.get(resource, ())])

        return verdict

    @property
    def allowed(self) -> list[str]:
        """`resource:action` of each allowance that no denial covers whole."""
        denied = [grant for grant in self.grants if not grant.allows]
        return [
            f"{grant.resource}:{grant.action}"
            for grant in self.grants
            if grant.allows and not any(other.about(grant.resource, grant.action) for other in denied)
        ]

    @property
    def checksum(self) -> str:
        """MD5 over roles and grants: equal rights have equal ones."""
        said = [self.roles, [(grant.resource, grant.action, grant.effect) for grant in self.grants]]
        return hashlib.md5(json.dumps(said).encode(), usedforsecurity=False).hexdigest()


EVERYTHING = Rights(("admin",), (Grant("*", "*"),))


def _joined(said: Iterable[bool]) -> bool | None:
    found = set(said)
    return None if not found else False not in found


def menu_resource(key: str) -> str:
    return f"menu:{key}"


def inherited(held: Iterable[str], roles: Roles) -> frozenset[str]:
    """These roles and all that they inherit, as far as they exist."""
    found: set[str] = set()
    waiting = [name for name in held if name in roles]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [parent for parent in roles[name].inherits if parent in roles]
    return frozenset(found)


def heirs(names: Iterable[str], roles: Roles) -> frozenset[str]:
    """These roles and all that inherit from them, as far as they exist."""
    children = _children(roles)
    found: set[str] = set()
    waiting = [name for name in names if name in roles]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += children[name]
    return frozenset(found)


def rights_of(held: Iterable[str], roles: Roles) -> Rights:
    """The rights of who holds these roles."""
    names = sorted(inherited(held, roles))
    grants = {grant for name in names for grant in roles[name].all_grants}
    return Rights(tuple(names), tuple(sorted(grants)))


def rights_of_all(roles: Roles) -> Rights:
    """What everybody may who is signed in, whichever roles they have: AUTHENTICATED allows it and no role denies it."""
    shared = rights_of((AUTHENTICATED,), roles)
    others = rights_of((name for name in roles if name != ANONYMOUS), roles)
    denials = {grant for grant in others.grants if not grant.allows}
    return Rights(shared.roles, tuple(sorted({*shared.grants, *denials})))


def problems(roles: Roles, path: Callable[[str], str]) -> list[FieldError]:
    """What is wrong with the whole; `path` says where in the request a role tells what it inherits."""
    found = []
    up, down = _parents(roles), _children(roles)
    circling = _endless(up, down) & _endless(down, up)  # in circles, or between two of them
    if len(roles) > MAX_ROLES:
        found.append(FieldError("roles", f"are {len(roles)}; at most {MAX_ROLES} fit"))
    for role in roles.values():
        unknown = [name for name in role.inherits if name not in roles]
        if unknown:
            found.append(FieldError(path(role.name), "names a role that does not exist"))
        elif role.name in circling:
            found.append(FieldError(path(role.name), "leads in a circle"))
    return found


def _endless(edges: Mapping[str, Collection[str]], back: Mapping[str, Collection[str]]) -> set[str]:
    """From where one can go on for ever along the edges; `back` are the same edges turned round."""
    left = {name: len(edges[name]) for name in edges}
    ends = [name for name, count in left.items() if not count]
    while ends:
        for name in back[ends.pop()]:
            left[name] -= 1
            if not left[name]:
                ends.append(name)
    return {name for name, count in left.items() if count}


def _parents(roles: Roles) -> dict[str, set[str]]:
    return {name: {parent for parent in role.inherits if parent in roles} for name, role in roles.items()}


def _children(roles: Roles) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in roles}
    for name, parents in _parents(roles).items():
        for parent in parents:
            found[parent].add(name)
    return found
