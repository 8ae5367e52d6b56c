"""How rooms are spelled, in this one place. A name from outside is a part of a room's name, never the whole."""

from __future__ import annotations

from sidecar.domain.errors import BadName

MENU = "menu"
PERMISSIONS = "permissions"
"""News of what everybody may who is signed in."""
ANONYMOUS = "anonymous"
"""The same for who is not."""
EVERYONE = "everyone"
PROJECTS = "projects"
"""News of projects seen for the first time, for those who may watch all of them."""

NAME_MAX_CHARACTERS = 200


def clean_name(name: object, what: str = "name") -> str:
    """A project's, deployment's, user's or room's name as text: strings and whole numbers are taken, surrounding
    white space is cut. Raises BadName for anything else, empty or long names and control characters."""
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise BadName(f"{what} must be a string or a whole number")
    if isinstance(name, int) and abs(name) >= 10**NAME_MAX_CHARACTERS:
        raise BadName(f"{what} is longer than {NAME_MAX_CHARACTERS} characters")
    text = str(name).strip()
    if not text:
        raise BadName(f"{what} is empty")
    if len(text) > NAME_MAX_CHARACTERS:
        raise BadName(f"{what} is longer than {NAME_MAX_CHARACTERS} characters")
    if not text.isprintable():
        raise BadName(f"{what} holds a control character or a lone surrogate")
    return text


PROJECT = "project:"
DEPLOYMENT = "deployment:"
FREE = "room:"
PRESENCE = "presence:"
"""What the rooms of a kind begin with."""


def project(name: str) -> str:
    return f"{PROJECT}{name}"


def deployment(deployment_id: str) -> str:
    return f"{DEPLOYMENT}{deployment_id}"


def user(user_id: str) -> str:
    return f"user:{user_id}"


def permissions(user_id: str) -> str:
    return f"permissions:{user_id}"


def free(name: str) -> str:
    """A free room of the REST push API."""
    return f"{FREE}{name}"


def presence(name: str) -> str:
    """News of who comes into the free room of this name, and who leaves it."""
    return f"{PRESENCE}{name}"
