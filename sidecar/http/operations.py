"""What each route takes and answers, declared on its view. openapi.py makes the document of the API from these and from
the URL map; a test fails for a route without one.

    @routes.get("/api/projects")
    @operation("deployments", "Projects, those with the latest news first", scope=SCOPE, answer=ProjectList)
    def list_projects() -> Response: ...

A declaration does nothing in a request but read the query: a view that declares `query` is given it as `query`, and all
others refuse every parameter. Rights, bodies and headers are the view's own work; that it does as it says is what tests
find out (tests/contract/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import wraps
from typing import Any, TypeVar, cast

from flask import request
from werkzeug.datastructures import MultiDict

from sidecar.domain.errors import SidecarError
from sidecar.http.parameters import Nothing, Parameters

View = TypeVar("View", bound=Callable[..., Any])

_NONE: MultiDict[str, str] = MultiDict()

DECLARED = "operation"
"""The attribute of a view that holds its Operation."""


class Who(Enum):
    """Who may call, where no scope is asked for."""

    ALL = "no credential is looked at"
    ANYBODY = "strangers too, but a credential that is given must hold"
    KNOWN = "whoever has a credential"
    PLATFORM = "the platform, by its signature"


@dataclass(frozen=True, slots=True)
class Media:
    """An answer or a body that is no JSON: its media type, and the type or JSON Schema of what it holds."""

    type: str
    kind: Any = str


HTML = Media("text/html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`answer` is what 200 brings: the type of its JSON, a Media, a tuple of these where there are several, None where
    there is no 200; `answers` the same for other statuses (None: nothing in it). `refusals` are the errors that this
    route adds to those that follow from the rest of the declaration (openapi.py)."""

    tag: str
    summary: str
    notes: str
    scope: str | Who
    signed: bool
    query: type[Parameters]
    path: Mapping[str, str]
    body: Any
    body_optional: bool
    keyed: bool
    tagged: bool
    conditional: bool
    answer: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[int, Any] = field(default_factory=dict)
    refusals: tuple[type[SidecarError], ...] = ()


def operation(
    tag: str,
    summary: str,
    *,
    scope: str | Who,
    answer: Any = None,
    notes: str = "",
    signed: bool = False,
    query: type[Parameters] = Nothing,
    path: Mapping[str, str] | None = None,
    body: Any = None,
    body_optional: bool = False,
    keyed: bool = False,
    tagged: bool = False,
    conditional: bool = False,
    headers: Mapping[str, str] | None = None,
    answers: Mapping[int, Any] | None = None,
    refusals: tuple[type[SidecarError], ...] = (),
) -> Callable[[View], View]:
    """Declare a view. `signed`: a signature counts as a credential here; `path`: what the variables of the address are;
    `keyed`: an Idempotency-Key is obeyed; `tagged`: the answer has an ETag, and If-None-Match gets 304; `conditional`:
    a write that If-Match and If-None-Match can forbid; `headers`: what other headers of a good answer say."""
    declared = Operation(
        tag=tag,
        summary=summary,
        notes=notes,
        scope=scope,
        signed=signed,
        query=query,
        path=path or {},
        body=body,
        body_optional=body_optional,
        keyed=keyed,
        tagged=tagged,
        conditional=conditional,
        answer=answer,
        headers=headers or {},
        answers=answers or {},
        refusals=refusals,
    )

    def declare(view: View) -> View:
        found = _with_query(view, query)
        if hasattr(found, DECLARED) and found is view:
            raise TypeError(f"{view.__name__} is declared already")
        setattr(found, DECLARED, declared)
        return found

    return declare


def _with_query(view: View, query: type[Parameters]) -> View:
    if query.others and not query.declared:
        return view
    if not query.declared:

        @wraps(view)
        def without(**path: Any) -> Any:
            if request.query_string:
                query.read(request.args)
            return view(**path)

        return cast(View, without)

    @wraps(view)
    def given(**path: Any) -> Any:
        return view(query=query.read(request.args if request.query_string else _NONE), **path)

    return cast(View, given)
