"""What a test's server answers, compared with the document of the API: the status, the media type, every field.
(Without jsonschema-rs, which tests/requirements.txt names, nothing is compared.)"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import httpx
from werkzeug.exceptions import MethodNotAllowed, NotFound

from config.settings import load_settings
from sidecar.factory import create_app
from sidecar.http.openapi import VARIABLE, document

try:
    import jsonschema_rs
except ImportError:
    jsonschema_rs = None

SOCKETS = ("/ws", "/socket.io")
"""What is below these is answered before there are routes."""
BEFORE_ROUTES = frozenset({400, 408, 429, 503})
"""Statuses that a request may get before it is known what it asks for."""


def check(answer: httpx.Response, prefix: str) -> None:
    """Raises AssertionError for an answer that the document doesn't tell; `prefix` is the server's."""
    if jsonschema_rs is not None:
        with _MAKING:  # tests ask from threads, too
            contract = _contract()
        contract.check(answer, prefix)


class Contract:
    """The document, made of the code that is here."""

    def __init__(self) -> None:
        with TemporaryDirectory() as folder:
            sidecar = create_app(load_settings(instance_dir=Path(folder)))
            sidecar.core.database.close()
        self._document = document(sidecar.app.url_map.iter_rules(), sidecar.app.view_functions)
        self._routes = sidecar.app.url_map.bind("localhost")
        self._validators: dict[tuple[str, int, str], Any] = {}

    def check(self, answer: httpx.Response, prefix: str) -> None:
        request, status = answer.request, answer.status_code
        path = unquote(request.url.raw_path.decode().partition("?")[0])
        path = (path.removeprefix(prefix) if f"{path}/".startswith(f"{prefix}/") else path).removesuffix("/") or "/"
        if path.startswith(SOCKETS):
            return
        try:
            rule, _ = self._routes.match(path, request.method, return_rule=True)
        except NotFound:
            assert status in BEFORE_ROUTES | {404}, _told(answer)
            return
        except MethodNotAllowed:
            assert status in BEFORE_ROUTES | {405}, _told(answer)
            return
        methods = self._document["paths"].get(VARIABLE.sub(r"{\g<name>}", rule.rule), {})
        found = methods.get("get" if request.method == "HEAD" else request.method.lower())
        if found is not None and status != 408 and (request.method, status) != ("HEAD", 405):  # None: OPTIONS
            self._compare(found, answer)

    def _compare(self, operation: dict[str, Any], answer: httpx.Response) -> None:
        told = operation["responses"].get(str(answer.status_code))
        assert told is not None, f"{operation['operationId']} tells no such status: {_told(answer)}"
        if "$ref" in told:
            told = self._document["components"]["responses"][told["$ref"].rpartition("/")[2]]
        content = told.get("content", {})
        if not answer.content and (not content or answer.request.method == "HEAD"):
            return
        media = answer.headers.get("Content-Type", "").partition(";")[0]
        assert media in content, f"{operation['operationId']} tells no such media type: {_told(answer)}"
        if media.endswith("json"):
            key = (operation["operationId"], answer.status_code, media)
            if key not in self._validators:
                self._validators[key] = self._validator(content[media]["schema"])
            wrong = next(self._validators[key].iter_errors(answer.json()), None)
            if wrong is not None:
                where = "/".join(map(str, wrong.instance_path))
                raise AssertionError(f"{operation['operationId']}: {where}: {wrong.message[:500]}: {_told(answer)}")

    def _validator(self, schema: dict[str, Any]) -> Any:
        whole = {"allOf": [schema], "components": {"schemas": self._document["components"]["schemas"]}}
        return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


_contract = cache(Contract)
_MAKING = threading.Lock()


def _told(answer: httpx.Response) -> str:
    return f"{answer.request.method} {answer.request.url} {answer.status_code} {answer.text[:500]}"
