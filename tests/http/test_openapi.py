"""The document of the HTTP API: made from the code, whole, valid, and right under the prefix."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

from config.settings import load_settings
from sidecar.factory import create_app
from sidecar.http.openapi import TAGS, document
from sidecar.http.operations import DECLARED

validator = pytest.importorskip("openapi_spec_validator")

PREFIX = "/project-dashboard"


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Flask:
    return create_app(load_settings(instance_dir=tmp_path_factory.mktemp("instance"))).app


@pytest.fixture(scope="module")
def made(app) -> dict[str, Any]:
    return document(app.url_map.iter_rules(), app.view_functions)


def operations(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for methods in made["paths"].values() for found in methods.values()]


def test_every_route_is_declared(app):
    """A route that the document doesn't tell is one that nobody may rely on."""
    views = app.view_functions
    assert not [rule for rule in app.url_map.iter_rules() if not hasattr(views[rule.endpoint], DECLARED)]


def test_the_document_is_valid(made):
    validator.OpenAPIV31SpecValidator(made).validate()


def test_names_are_plain_and_stay(made):
    """A client made from the document is named by them."""
    for name in made["components"]["schemas"]:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", name), name
    ids = [found["operationId"] for found in operations(made)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", id) for id in ids), ids


def test_every_operation_says_what_it_is_about(made):
    for found in operations(made):
        assert set(found["tags"]) <= set(TAGS)
        assert found["summary"][0].isupper(), found["operationId"]
        assert not found["summary"].endswith("."), found["operationId"]


def test_every_parameter_is_described(made):
    for found in operations(made):
        for parameter in found.get("parameters", []):
            assert parameter.get("description"), (found["operationId"], parameter["name"])


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_the_document_names_the_prefix_it_was_asked_under(sidecar, made, prefix):
    answer = sidecar.get(f"{prefix}/api/openapi.json", token="")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json() == made | {"servers": [{"url": prefix or "/"}]}
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_kept_copy_is_good_until_the_document_changes(sidecar):
    tag = sidecar.get("/api/openapi.json").headers["ETag"]
    under = sidecar.get(f"{PREFIX}/api/openapi.json").headers["ETag"]
    assert tag != under
    again = sidecar.get("/api/openapi.json", headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert sidecar.get("/api/openapi.json", headers={"If-None-Match": under}).status_code == 200


def test_other_parameters_are_refused_and_named(sidecar):
    answer = sidecar.get("/api/deployments?limit=0&colour=red&status=odd,success&since=then")
    assert answer.status_code == 400
    told = {item["path"]: item["message"] for item in answer.json()["errors"]}
    assert told == {
        "colour": "is no parameter here",
        "limit": "must be a whole number from 1 to 200",
        "status": "must be of queued waiting running success failed cancelled skipped timed_out unknown",
        "since": "is not a time (write it like 2026-11-21T12:00:00Z)",
    }
    assert sidecar.get("/api/projects?colour=red").json()["errors"] == [
        {"path": "colour", "message": "is no parameter here"}
    ]
