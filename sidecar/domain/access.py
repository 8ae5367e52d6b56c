"""Who may do what. Pure rules over an identity; finding out who somebody is happens in services/."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sidecar.domain import rooms
from sidecar.domain.patterns import fits

SCOPES = frozenset(
    {
        "webhooks:write",
        "deployments:read",
        "messages:send",
        "rooms:read",
        "push:manage",
        "menu:write",
        "permissions:read",
        "permissions:write",
        "authorizations:write",
        "authorizations:read",
        "maim:send",
        "maim:manage",
        "tokens:issue",
        "admin",
    }
)

ROOM_KINDS = ("project", "deployment", "room", "menu", "everyone")
"""Kinds of rooms that a connection token's patterns may name."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. `projects` None means all; `patterns` None means that rooms follow from scopes and projects,
    otherwise only rooms matching one of them (`project:axi-*`) may be watched."""

    kind: str
    """token | connection | cookie | signature | process | list | anonymous"""
    name: str
    scopes: frozenset[str] = field(default_factory=frozenset)
    projects: tuple[str, ...] | None = ()
    patterns: tuple[str, ...] | None = None
    user: str | None = None
    token_id: str | None = None
    number: int = 0
    expires_at: float | None = None
    """Unix seconds; None never ends."""

    @property
    def authenticated(self) -> bool:
        return self.kind in ("token", "connection", "cookie", "signature")

    @property
    def admin(self) -> bool:
        return "admin" in self.scopes


def stranger(open: str, anonymous_read: bool, in_webhook_networks: bool) -> Identity:
    """Who somebody without any credential is. `open` is SIDECAR_OPEN: `true` lets strangers post deployment
    webhooks and watch projects, `webhooks` only post; posting also needs `in_webhook_networks`. Nothing else is
    ever open."""
    scopes: set[str] = set()
    if open in ("true", "webhooks") and in_webhook_networks:
        scopes.add("webhooks:write")
    if open == "true":
        scopes.add("deployments:read")
    if anonymous_read:
        scopes |= {"deployments:read", "rooms:read"}
    return Identity(kind="anonymous", name="anonymous", scopes=frozenset(scopes), projects=None)


def within_both(identity: Identity, other: Identity) -> Identity:
    """The identity, for those of its projects alone that are the other's too."""
    if other.projects is None:
        return identity
    return replace(identity, projects=tuple(name for name in other.projects if touches(identity, name)))


def may(identity: Identity, scope: str) -> bool:
    """Has it this scope? `admin` holds every scope."""
    return scope in identity.scopes or identity.admin


def touches(identity: Identity, project: str) -> bool:
    """Is this project among those of the identity?"""
    return identity.projects is None or project in identity.projects


def may_write(identity: Identity, project: str) -> bool:
    if not may(identity, "webhooks:write") or not touches(identity, project):
        return False
    return _matches(identity, rooms.project(project))


def may_read(identity: Identity, project: str) -> bool:
    """May it read this project's deployments over HTTP?"""
    if not may(identity, "deployments:read") or not touches(identity, project):
        return False
    return _matches(identity, rooms.project(project))


def may_watch_project(identity: Identity, project: str) -> bool:
    return may_read(identity, project)


def may_watch_deployment(identity: Identity, deployment_id: str, project: str) -> bool:
    """A deployment is watched with the right to its project, or by a pattern that names the deployment itself
    together with a right to read that project."""
    if not may(identity, "deployments:read") or not touches(identity, project):
        return False
    return _matches(identity, rooms.project(project)) or _matches(identity, rooms.deployment(deployment_id))


def may_hold_deployment(identity: Identity, deployment_id: str) -> bool:
    """May it wait for a deployment that nobody has seen yet? The right is checked when its first event comes."""
    if not may(identity, "deployments:read"):
        return False
    if identity.patterns is None:
        return True
    return any(
        pattern.startswith(rooms.PROJECT) or fits(rooms.deployment(deployment_id), pattern)
        for pattern in identity.patterns
    )


def may_watch_room(identity: Identity, room: str) -> bool:
    """For the free rooms, the menu and everyone: `room` is the whole room name."""
    if room == rooms.EVERYONE:
        return identity.authenticated
    if room == rooms.PROJECTS:
        return may(identity, "deployments:read") and identity.projects is None and identity.patterns is None
    if room == rooms.MENU:
        return identity.authenticated and _matches(identity, room)
    return may(identity, "rooms:read") and _matches(identity, room)


def may_watch_presence(identity: Identity, name: str) -> bool:
    """May it know who is in the free room of this name? Who is there is not for strangers."""
    return identity.authenticated and may_watch_room(identity, rooms.free(name))


def may_send(identity: Identity, room: str) -> bool:
    """May it publish a message to this room (the whole room name)? A browser's token only where its patterns say so."""
    return may(identity, "messages:send") and _matches(identity, room)


def may_push(identity: Identity, room: str) -> bool:
    """May it start and stop the live push of this room?"""
    return may(identity, "push:manage") and _matches(identity, room)


def may_disconnect(identity: Identity, user: str) -> bool:
    """May it end this user's connections, as far as its scopes go? A browser's token only those of its own user."""
    return identity.kind != "connection" or identity.user == user


def may_reach_tenant(identity: Identity, tenant: str) -> bool:
    """May it manage this tenant's bots and send to them, as far as its scopes go? A token's projects name tenants."""
    return touches(identity, tenant) and identity.patterns is None


def may_reach_app(identity: Identity, app_id: str) -> bool:
    """May it have users authorize this app, as far as its scopes go? A token's projects name apps. (A browser's token
    only for its own user: `may_authorize`.)"""
    return touches(identity, app_id)


def may_authorize(identity: Identity, user: str) -> bool:
    """May it begin and see authorizations of this user? A browser's token only its own."""
    return identity.kind != "connection" or identity.user == user


def may_send_cards(identity: Identity) -> bool:
    """May it have the app ask somebody to authorize, as far as its scopes go? Never a browser: it would choose whom."""
    return identity.kind != "connection"


def may_feed_events(identity: Identity) -> bool:
    """May it say what the platform has told, as far as its scopes go? Never a browser: it could click as anybody."""
    return identity.kind != "connection"


def may_have_tokens(identity: Identity) -> bool:
    """May tokens of other platforms be handed to it? Never to a browser."""
    return identity.kind in ("token", "process")


def _matches(identity: Identity, room: str) -> bool:
    if identity.patterns is None:
        return True
    return any(fits(room, pattern) for pattern in identity.patterns)


def narrower(scopes: frozenset[str], issuer: Identity) -> frozenset[str]:
    """Of the scopes asked for, those that the issuer may pass on."""
    if issuer.admin:
        return scopes
    return scopes & issuer.scopes
