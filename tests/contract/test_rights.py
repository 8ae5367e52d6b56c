"""The scopes that the document names are those that are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.domain.access import SCOPES
from tests.lark.stage import APP_ID
from tests.servers import RunningSidecar

WRONG = f"sct_{'0' * 12}_{'a' * 43}"
VARIABLES = {"app_id": APP_ID}


@pytest.fixture
def sidecar(furnished) -> RunningSidecar:
    """With an app at Lark: without one there is nothing at the addresses of authorizations."""
    server: RunningSidecar = furnished.server
    return server


@pytest.fixture
def operations(sidecar) -> list[tuple[str, str, dict[str, Any]]]:
    paths = sidecar.get("/api/openapi.json").json()["paths"]
    return [(method.upper(), path, found) for path, methods in paths.items() for method, found in methods.items()]


def asked(server: RunningSidecar, method: str, path: str, found: dict[str, Any], token: str) -> int:
    """The status of an empty request, told apart from others by nothing but the token."""
    parameters = found.get("parameters", [])
    for parameter in parameters:
        if parameter["in"] == "path":
            value = "1" if parameter["schema"]["type"] == "integer" else VARIABLES.get(parameter["name"], "nothing")
            path = path.replace(f"{{{parameter['name']}}}", value)
    query = {item["name"]: "x" for item in parameters if item["in"] == "query" and item.get("required")}
    body = {"json": {}} if "requestBody" in found else {}
    return server.request(method, path, token, params=query, **body).status_code


def scope_of(found: dict[str, Any]) -> str | None:
    scopes = {scope for way in found["security"] for needed in way.values() for scope in needed}
    assert len(scopes) <= 1
    return next(iter(scopes), None)


def test_a_scope_is_asked_for_where_the_document_says_so(sidecar, operations):
    """A token without it gets 403, and nobody else does."""
    scoped = [(method, path, found, scope) for method, path, found in operations if (scope := scope_of(found))]
    assert {scope for *_, scope in scoped} <= SCOPES
    right, wrong = {}, {}
    for scope in {scope for *_, scope in scoped}:
        right[scope] = sidecar.new_token(scope)
        wrong[scope] = sidecar.new_token(*sorted(SCOPES - {scope, "admin"}))
    for method, path, found, scope in scoped:
        assert asked(sidecar, method, path, found, "") == 401, (method, path)
        assert asked(sidecar, method, path, found, wrong[scope]) == 403, (method, path)
        assert asked(sidecar, method, path, found, right[scope]) not in (401, 403), (method, path)


def test_strangers_are_let_in_where_the_document_says_so(sidecar, operations):
    """`{}` in `security` is what needs no credential; where there is no `security` at all none is looked at."""
    for method, path, found in operations:
        status = asked(sidecar, method, path, found, WRONG)
        assert (status == 401) == bool(found["security"]), (method, path, status)
        if found["security"] and {} not in found["security"]:
            assert asked(sidecar, method, path, found, "") == 401, (method, path)
