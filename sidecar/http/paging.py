"""Query parameters of the read API: read one by one, every bad one told in a single error; and opaque cursors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from flask import Blueprint, request
from werkzeug.datastructures import MultiDict

from sidecar.domain.errors import FieldError, Invalid
from sidecar.domain.rooms import clean_name

T = TypeVar("T")

MAX_CHOICES = 50
MAX_NUMBER = 2**63 - 1


class Query:
    """The parameters of one request. Each method gives a value or notes a problem; `finish` raises them all."""

    def __init__(self, args: MultiDict[str, str]):
        self._args = args
        self._problems: list[FieldError] = []

    def number(self, name: str, default: int, least: int, most: int) -> int:
        text = self._args.get(name)
        if text is None:
            return default
        if text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most:
            return int(text)
        self._problems.append(FieldError(name, f"must be a whole number from {least} to {most}"))
        return default

    def text(self, name: str, most: int) -> str | None:
        text = self._args.get(name)
        if text is not None and len(text) > most:
            self._problems.append(FieldError(name, f"is longer than {most} characters"))
        if text is not None and "\x00" in text:  # SQLite's LIKE would stop reading there and match everything
            self._problems.append(FieldError(name, "holds a NUL character"))
        return text or None

    def read(self, name: str, parse: Callable[[str], T]) -> T | None:
        """What `parse` makes of the text; its ValueError or Invalid is a problem."""
        text = self._args.get(name)
        if not text:
            return None
        try:
            return parse(text)
        except (ValueError, Invalid) as error:
            self._problems.append(FieldError(name, str(error)))
            return None

    def names(self, name: str) -> tuple[str, ...] | None:
        """Names given by repeating the parameter; None when it is absent."""
        values = self._args.getlist(name)
        if not values:
            return None
        if len(values) > MAX_CHOICES:
            self._problems.append(FieldError(name, f"is given more than {MAX_CHOICES} times"))
        found = []
        for value in values[:MAX_CHOICES]:
            try:
                found.append(clean_name(value, name))
            except Invalid as error:
                self._problems.append(FieldError(name, error.detail))
        return tuple(found)

    def choices(self, name: str, known: Sequence[str]) -> tuple[str, ...]:
        """Words of `known`, repeated or separated by commas."""
        values = [item for value in self._args.getlist(name) for item in value.split(",") if item]
        if any(value not in known for value in values):
            self._problems.append(FieldError(name, f"must be of {' '.join(known)}"))
        return tuple(dict.fromkeys(values))

    def finish(self) -> None:
        if self._problems:
            told = "; ".join(f"{problem.path} {problem.message}" for problem in self._problems)
            raise Invalid(f"The query can't be used: {told}.", tuple(self._problems))


def only_parameters(routes: Blueprint, known: Mapping[str, Collection[str] | None]) -> None:
    """Refuse other parameters than these: one that was misspelt would do something else than was meant. `known` are
    those of each view by its name, none for a view that is not named, None for one that takes any."""

    @routes.before_request
    def check() -> None:
        names = known.get((request.endpoint or "").rpartition(".")[2], ())
        if names is not None:
            problems = tuple(FieldError(name, "is no parameter here") for name in request.args if name not in names)
            if problems:
                told = "; ".join(f"{problem.path} {problem.message}" for problem in problems)
                raise Invalid(f"The query can't be used: {told}.", problems)


def encode_cursor(number: int) -> str:
    return base64.urlsafe_b64encode(f"d{number}".encode()).decode().rstrip("=")


def decode_cursor(text: str) -> int:
    """Raises ValueError for a cursor that we did not make."""
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        plain = ""
    if plain[:1] != "d" or not plain[1:].isdigit() or len(plain) > 20 or int(plain[1:]) > MAX_NUMBER:
        raise ValueError("is not a cursor of this server")
    return int(plain[1:])
