"""What costs far more than all that the tests do with it, made later or once."""

from __future__ import annotations

import os
from collections.abc import Callable
from ssl import SSLContext
from typing import Any

import httpx._transports.default as transports
from werkzeug.routing import Rule

Builder = Callable[..., tuple[str, str]]


def save() -> None:
    """From now on, in this process."""
    _build_late()
    _trust_once()


def _trust_once() -> None:
    """httpx reads the world's certificates for each client, and so for each request by `httpx.get`: it takes twenty
    times as long as the request. From now on they are read when they are first needed."""
    make = transports.create_ssl_context  # type: ignore[attr-defined]
    made: dict[Any, SSLContext] = {}

    def create(verify: Any = True, cert: Any = None, trust_env: bool = True) -> SSLContext:
        if verify is not True or cert is not None:
            return make(verify, cert, trust_env)
        source = trust_env and (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        if source not in made:
            made[source] = make(verify, cert, trust_env)
        return made[source]

    transports.create_ssl_context = create  # type: ignore[attr-defined]


def _build_late() -> None:
    """Werkzeug compiles two functions for each of the sidecar's rules, by which its address could be built. That is
    most of the time in which an application is made, the tests make thousands, and the sidecar builds no addresses so.
    From now on a rule's builder is compiled when it is first used."""
    compiled: Callable[[Rule, bool], Builder] = Rule._compile_builder

    def compile_late(self: Rule, append_unknown: bool = True) -> Builder:
        made: list[Builder] = []

        def build(rule: Rule, **values: Any) -> tuple[str, str]:
            if not made:
                made.append(compiled(self, append_unknown))
            return made[0](rule, **values)

        return build

    Rule._compile_builder = compile_late  # type: ignore[method-assign]
