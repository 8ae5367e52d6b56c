"""What goes over sockets, compared with the document at /api/asyncapi.json: each message must be in it and have its
form. (Without jsonschema-rs, which tests/requirements.txt names, the clients of the tests compare nothing.)"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import sidecar as package
from config.settings import load_settings
from sidecar.factory import create_app
from sidecar.wire.spoken import Command, EventType, Frame, Message
from tests.servers import RunningSidecar

try:
    import jsonschema_rs
except ImportError:
    jsonschema_rs = None

Json = dict[str, Any]
SOCKETIO = "socketio"


LAYERS = ("domain", "wire", "store", "fanout", "services", "http", "sockets", "jobs")


def declared() -> Iterator[EventType | Frame | Message | Command]:
    """All that any module of the sidecar declares."""
    for module in pkgutil.walk_packages(package.__path__, "sidecar."):
        if module.name.split(".")[1] not in LAYERS or ".migrations" in module.name:
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, (EventType, Frame, Message, Command)):
                yield value


class Spoken:
    """`document` as it was served. `seen` are the messages that were compared, by their keys in it."""

    def __init__(self, document: Json):
        self.document = document
        self.seen: set[str] = set()
        self._messages: Json = document["components"]["messages"]
        self._validator = cache(self._make_validator)

    def keys(self, channel: str, action: str) -> list[str]:
        """The messages of this channel that the sidecar sends or takes ("receive")."""
        ref = f"#/channels/{channel}"
        return [
            message["$ref"].rpartition("/")[2]
            for operation in self.document["operations"].values()
            if operation["channel"]["$ref"] == ref and operation["action"] == action
            for message in operation["messages"]
        ]

    def told(self, name: str, arguments: list[Any]) -> None:
        """By a Socket.IO event."""
        type = arguments[0].get("type") if name == "event" and arguments else None
        title = f"{type} (volatile)" if type is not None and "volatile" in arguments[0] else type
        found = [
            key
            for key in self.keys(SOCKETIO, "send")
            if self._messages[key]["name"] == name and self._messages[key].get("title") == title
        ]
        self._check(found, arguments, f"the event {name} {title or ''}")

    def asked(self, name: str, arguments: list[Any], answer: list[Any]) -> None:
        """A client has emitted this, as it should, and was answered so."""
        command = self.answered(name, answer)
        if answer[0]["ok"]:
            emitted = command["messages"][0]["$ref"].rpartition("/")[2]
            self._check([emitted], arguments, f"the arguments of {name}")

    def answered(self, name: str, answer: list[Any]) -> Json:
        """The operation by which a client asked, and was answered so."""
        found: list[Json] = [
            operation
            for operation in self.document["operations"].values()
            if operation["channel"]["$ref"] == f"#/channels/{SOCKETIO}"
            and name in self._names(operation["messages"][0]["$ref"].rpartition("/")[2])
        ]
        assert found, f"{name} is not in the document"
        replies = [message["$ref"].rpartition("/")[2] for message in found[0]["reply"]["messages"]]
        self._check(replies, answer, f"the answer to {name}")
        return found[0]

    def plain(self, channel: str, frame: Json) -> None:
        """By a plain WebSocket at /ws/<channel>/, or a bot's."""
        type = frame["type"]
        wanted = "custom_<name>" if str(type).startswith("custom_") else type
        found = [key for key in self.keys(channel, "send") if self._title(key) == wanted]
        self._check(found, [frame] if channel == "bots_socketio" else frame, f"the frame {type} of {channel}")

    def said(self, channel: str, name: str, frame: Json) -> None:
        """A client says this; `name` is the message's."""
        found = [key for key in self.keys(channel, "receive") if self._title(key) == name]
        self._check(found, [frame] if channel == "bots_socketio" else frame, f"the message {name} to {channel}")

    def _title(self, key: str) -> str:
        message = self._messages[key]
        title: str = message.get("title", message["name"])
        return title

    def _names(self, key: str) -> set[str]:
        message = self._messages[key]
        return set(message.get("x-socketio", {}).values()) or {message["name"]}

    def _check(self, keys: list[str], value: Any, what: str) -> None:
        """It has the form of one of these."""
        assert keys, f"{what} is not in the document"
        fits = [key for key in keys if self._validator(key).is_valid(value)]
        if not fits:
            errors = self._validator(keys[0]).iter_errors(value)
            problems = [f"{error.message} at {error.instance_path}" for error in errors]
            pytest.fail(f"{what} has not the form of the document: {problems}; {value}")
        self.seen.update(fits)

    def _make_validator(self, key: str) -> Any:
        schema = {
            "components": self.document["components"],
            "allOf": [{"$ref": f"#/components/messages/{key}/payload"}],
        }
        return jsonschema_rs.Draft7Validator(schema, validate_formats=True)


def spoken(server: RunningSidecar) -> Spoken:
    """By the document that this server gives. Skips where nothing can be compared."""
    pytest.importorskip("jsonschema_rs", reason="jsonschema-rs is not installed (tests/requirements.txt)")
    answer = server.get("/project-dashboard/api/asyncapi.json", token="")
    assert answer.status_code == 200, answer.text
    return Spoken(answer.json())


@cache
def heard() -> Spoken | None:
    """By the document of the code that is here, for all clients of the tests."""
    if jsonschema_rs is None:
        return None
    with TemporaryDirectory() as folder:
        sidecar = create_app(load_settings(instance_dir=Path(folder)))
        document = sidecar.app.test_client().get("/api/asyncapi.json").get_json()
        sidecar.core.database.close()
    return Spoken(document)
