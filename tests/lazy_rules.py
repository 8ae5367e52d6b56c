"""Werkzeug compiles two functions for each of the sidecar's rules, by which its address could be built. That is most of
the time in which an application is made, the tests make thousands, and the sidecar builds no addresses so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from werkzeug.routing import Rule

Builder = Callable[..., tuple[str, str]]


def build_late() -> None:
    """From now on a rule's builder is compiled when it is first used."""
    compiled: Callable[[Rule, bool], Builder] = Rule._compile_builder

    def compile_late(self: Rule, append_unknown: bool = True) -> Builder:
        made: list[Builder] = []

        def build(rule: Rule, **values: Any) -> tuple[str, str]:
            if not made:
                made.append(compiled(self, append_unknown))
            return made[0](rule, **values)

        return build

    Rule._compile_builder = compile_late  # type: ignore[method-assign]
