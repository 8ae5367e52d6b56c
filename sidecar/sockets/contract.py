"""The document of all sockets, AsyncAPI 3.0, made of what declares itself: the commands that are handled, the frames
and messages of plain WebSockets, the types of events, the frames of bots.

The payload of a Socket.IO message is the list of the event's arguments, as it goes over the wire; that of an answer is
the list of the acknowledgement's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.domain.rooms import NAME_MAX_CHARACTERS
from sidecar.services.access import LOGIN_COOKIE
from sidecar.sockets.errors import REFUSALS
from sidecar.sockets.gate import ENGINE_PATH, ENGINE_PATHS, PROTOCOL
from sidecar.sockets.plain import PlainEndpoint
from sidecar.wire.asyncapi import Schemas, arguments, array, key, ref, referred, with_type
from sidecar.wire.bots import BARE_MESSAGE, BOT_FRAMES, BOT_MESSAGES
from sidecar.wire.news import API_MESSAGE, EVENT_TYPES, VOLATILE_TYPES
from sidecar.wire.spoken import Command, EventType, Frame, Message, Refused
from sidecar.wire.told import REFERRED, SESSION, SOCKETIO_FRAMES

Json = dict[str, Any]

ABOUT = """\
What the sidecar tells browsers and bots over sockets, and what they may say: Socket.IO 3 and later (protocol 5, \
EIO=4) in two namespaces that offer the same, and plain WebSockets with one JSON object a frame.

`send` is what the sidecar sends, `receive` what it takes. The payload of a Socket.IO message is the list of the \
event's arguments, that of an answer the list of its acknowledgement's. New types of events will come: ignore those \
that you don't know. In words, with examples: docs/protocol.md, docs/messages.md, docs/menu.md and docs/maim.md.
"""
SOCKETIO, PLAIN = "socketio", "plain"
"""The servers: one address of the sidecar, spoken to in two ways."""

SECURITY: Json = {
    "authToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token or a connection token: `auth.token` of the CONNECT packet, or this header (also "
        "`Token <token>`).",
    },
    "urlToken": {
        "type": "httpApiKey",
        "in": "query",
        "name": "token",
        "description": "A connection token of five minutes at most.",
    },
    "offeredToken": {
        "type": "httpApiKey",
        "in": "header",
        "name": "Sec-WebSocket-Protocol",
        "description": f"`{PROTOCOL}, bearer.<token>`: what a browser can give with a plain WebSocket.",
    },
    "login": {
        "type": "httpApiKey",
        "in": "cookie",
        "name": LOGIN_COOKIE,
        "description": "The session of the sidecar's own pages.",
    },
    "botKey": {"type": "httpApiKey", "in": "header", "name": "x-apikey", "description": "A bot's key."},
    "botKeyInUrl": {"type": "httpApiKey", "in": "query", "name": "api_key", "description": "A bot's key."},
}
TIME = {"type": "string", "format": "date-time"}
OFFSET = {"type": "string", "description": "Opaque; socket.io-client alone is sent it."}
SINCE = {
    "type": "object",
    "properties": {"since": {"type": "string", "description": "An offset or a seq: what came after it comes first."}},
}
FORMS: Json = {
    "Envelope": {
        "type": "object",
        "description": "An event. `timestamp` is when it was stored, `offset` what `since` takes.",
        "properties": {
            "type": {"type": "string"},
            "payload": {"type": "object"},
            "timestamp": TIME,
            "seq": {"type": "integer", "minimum": 1},
            "epoch": {"type": "string"},
            "offset": {"type": "string"},
        },
        "required": ["type", "payload", "timestamp", "seq", "epoch", "offset"],
        "additionalProperties": False,
    },
    "VolatileEnvelope": {
        "type": "object",
        "description": "Something that holds only now: it is not stored, and whoever is away misses it.",
        "properties": {
            "type": {"type": "string"},
            "payload": {"type": "object"},
            "timestamp": TIME,
            "volatile": {"const": True},
        },
        "required": ["type", "payload", "timestamp", "volatile"],
        "additionalProperties": False,
    },
}
"""What no model describes."""

CLOSE_CODES = {
    "1003": "A binary frame.",
    "1009": "A frame over SIDECAR_MAX_BODY_BYTES.",
    "1012": "The server stops: come again.",
    "1013": "The server can't go on serving it as it is: come again.",
}
TOKEN_CODES = {"4401": "The token has ended, or is none.", "4403": "Sent away, or not allowed here."}
BOT_CODES = {"1000": "Replaced by a newer connection of the same name.", "4401": "The key was revoked."}
BOT_QUERY = {
    "type": "object",
    "properties": {
        "api_key": {"type": "string", "description": "The key; or the header x-apikey."},
        "platform": {"type": "string", "description": "Where the bot is; or x-platform; else `unknown`."},
        "uuid": {"type": "string", "description": "The connection's name; or x-uuid; else one is made."},
    },
}
PLACES = {
    "room": {"description": f"A free room's name, of 1 to {NAME_MAX_CHARACTERS} characters."},
    "user": {"description": "The token's user (its `sub`); empty or `anonymous` for whoever comes."},
}
CONNECT = {
    "auth": {
        "type": "object",
        "description": "Of the CONNECT packet. `pid` and `offset` are socket.io-client's own.",
        "properties": {"token": {"type": "string"}, "pid": {"type": "string"}, "offset": {"type": "string"}},
    },
    "refusal": {
        "type": "object",
        "description": "Of CONNECT_ERROR; socket.io-client does not try again by itself.",
        "properties": {
            "message": {"type": "string"},
            "data": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
        },
        "required": ["message"],
    },
}


def security(*names: str) -> list[Json]:
    return [{"$ref": f"#/components/securitySchemes/{name}"} for name in names]


BROWSERS = security("authToken", "urlToken", "login")
PAGES = security("authToken", "urlToken", "offeredToken", "login")
BOTS = security("botKey", "botKeyInUrl")


def servers(scheme: str, host: str, prefix: str) -> Json:
    """Where the sockets are, for who has asked by this address."""
    protocol = "wss" if scheme == "https" else "ws"
    return {
        SOCKETIO: {
            "host": host,
            "pathname": f"{prefix}/ws/" if prefix else ENGINE_PATH,
            "protocol": protocol,
            "description": "Engine.IO's path; the namespaces below are the same at each.",
        },
        PLAIN: {"host": host, "pathname": prefix or "/", "protocol": protocol, "description": "Plain WebSockets."},
    }


def sockets_document(
    version: str, namespaces: Iterable[str], commands: Iterable[Command], endpoints: Mapping[str, PlainEndpoint]
) -> Json:
    """All but its `servers`. `endpoints` are the plain WebSockets' by the word of their path."""
    document = _Document([*commands], {type(endpoint) for endpoint in endpoints.values()})
    document.socketio(list(namespaces))
    for word, endpoint in endpoints.items():
        document.plain(word, endpoint)
    document.bots()
    whole = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "sidecar: sockets",
            "version": version,
            "description": ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": document.channels,
        "operations": document.operations,
        "components": {"messages": document.messages, "schemas": document.forms, "securitySchemes": SECURITY},
    }
    whole["components"]["schemas"] = referred(whole)  # type: ignore[index]
    return whole


class _Document:
    """Collects channels, operations and messages."""

    def __init__(self, commands: list[Command], endpoints: Iterable[type[PlainEndpoint]]) -> None:
        self.channels: Json = {}
        self.operations: Json = {}
        self.messages: Json = {}
        self._commands = commands
        schemas = Schemas()
        schemas.add(
            (type.body for type in (*EVENT_TYPES, *VOLATILE_TYPES, *SOCKETIO_FRAMES, *BOT_FRAMES)), "serialization"
        )
        schemas.add((frame.body for kind in endpoints for frame in kind.frames), "serialization")
        schemas.add((Refused, *(command.answer for command in commands)), "serialization")
        schemas.add((said.body for said in BOT_MESSAGES), "validation")
        schemas.add((said.body for kind in endpoints for said in kind.messages), "validation")
        schemas.add(
            (item.schema for command in commands for item in command.arguments if not isinstance(item.schema, dict)),
            "validation",
        )
        schemas.add(REFERRED, "validation")
        self.forms = schemas.made() | FORMS
        self.forms["Refused"]["properties"]["code"]["enum"] = sorted({refusal.code for refusal in REFUSALS.values()})

    def socketio(self, namespaces: list[str]) -> None:
        name = SOCKETIO
        self._channel(
            name,
            SOCKETIO,
            address="{namespace}",
            title="Socket.IO",
            description="The address is the namespace: io('https://HOST<namespace>', {path: '/socket.io'}). From "
            "CONNECT on a socket is in `everyone`, and if its token has a `sub` in `user:<sub>`, `permissions:<sub>`.",
            parameters={"namespace": {"enum": namespaces, "default": namespaces[-1]}},
            **{"x-socketio": {"protocol": 5, "enginePaths": sorted(ENGINE_PATHS), "connect": CONNECT}},
        )
        told = [self._event(name, type) for type in EVENT_TYPES]
        told += [self._volatile(name, type) for type in VOLATILE_TYPES]
        self._operation(name, "events", "send", told, "Events of the socket's rooms, each once and in order", BROWSERS)
        for frame in SOCKETIO_FRAMES:
            found = self._frame_of_socketio(name, frame)
            self._operation(name, f"told.{key(frame)}", "send", [found], frame.summary, BROWSERS)
        refused = self._message(
            name,
            "answer.refused",
            name="refused",
            summary="The answer to what could not be done.",
            payload=array([ref(Refused)], 1),
        )
        for command in self._commands:
            self._command(name, command, refused)

    def plain(self, word: str, endpoint: PlainEndpoint) -> None:
        self._channel(
            word,
            PLAIN,
            address=f"/ws/{word}/{{{endpoint.place}}}",
            title=f"/ws/{word}/",
            description=(type(endpoint).__doc__ or "").partition("\n")[0],
            parameters={endpoint.place: PLACES[endpoint.place]},
            bindings={"ws": {"method": "GET", "query": SINCE, "bindingVersion": "0.1.0"}},
            **{"x-closeCodes": CLOSE_CODES | TOKEN_CODES, "x-subprotocols": [PROTOCOL, *endpoint.protocols]},
        )
        kind = endpoint.kind
        frames = {frame: self._plain(word, f"{kind}.{key(frame)}", frame) for frame in endpoint.frames}
        pushed = [self._push(word, f"{kind}.{key(type)}", type) for type in endpoint.pushed]
        told = [*frames.values(), *pushed]
        self._operation(word, f"{word}.told", "send", told, f"What a socket at /ws/{word}/ is told", PAGES)
        for said in endpoint.messages:
            message = self._plain(word, f"{kind}.say.{key(said)}", said, endpoint.word)
            answers = [frames[frame] for frame in said.answers]
            self._operation(word, f"{word}.{key(said)}", "receive", [message], said.summary, PAGES, answers)

    def bots(self) -> None:
        for frame in (*BOT_FRAMES, *BOT_MESSAGES):
            form = self.forms[frame.body.__name__]
            if "type" not in form["properties"] and frame != BARE_MESSAGE:
                self.forms[frame.body.__name__] = with_type(form, frame)
        self._channel(
            "bots",
            PLAIN,
            address="/ws",
            title="Bots: plain WebSocket",
            description="maim_message 0.6: a handshake with a key and without EIO in the query.",
            bindings={"ws": {"method": "GET", "query": BOT_QUERY, "bindingVersion": "0.1.0"}},
            **{"x-closeCodes": CLOSE_CODES | BOT_CODES},
        )
        self._channel(
            "bots_socketio",
            SOCKETIO,
            address="/",
            title="Bots: Socket.IO",
            description="maim_message 0.7: a handshake with a key. Every frame is the argument of the event `message`.",
            bindings={"ws": {"method": "GET", "query": BOT_QUERY, "bindingVersion": "0.1.0"}},
        )
        for channel, wrapped in (("bots", False), ("bots_socketio", True)):

            def message(frame: Frame | Message, way: str, channel: str = channel, wrapped: bool = wrapped) -> Json:
                form = ref(frame.body)
                return self._message(
                    channel,
                    f"{channel}.{way}{key(frame)}",
                    name="message" if wrapped else str(frame),
                    title=str(frame),
                    summary=frame.summary,
                    payload=array([form], 1) if wrapped else form,
                )

            told = {frame: message(frame, "") for frame in BOT_FRAMES}
            self._operation(channel, f"{channel}.told", "send", list(told.values()), "What a bot is sent", BOTS)
            for said in BOT_MESSAGES:
                self._operation(
                    channel,
                    f"{channel}.{key(said)}",
                    "receive",
                    [message(said, "say.")],
                    said.summary,
                    BOTS,
                    [told[frame] for frame in said.answers],
                )

    def _channel(self, name: str, server: str, **fields: Any) -> None:
        self.channels[name] = {**fields, "servers": [{"$ref": f"#/servers/{server}"}], "messages": {}}

    def _message(self, channel: str, key: str, /, **fields: Any) -> Json:
        """Put it on the channel; what refers to it there."""
        self.messages[key] = fields
        self.channels[channel]["messages"][key] = {"$ref": f"#/components/messages/{key}"}
        return {"$ref": f"#/channels/{channel}/messages/{key}"}

    def _operation(
        self,
        channel: str,
        name: str,
        action: str,
        messages: list[Json],
        summary: str,
        security: list[Json],
        answers: Iterable[Json] = (),
    ) -> None:
        found: Json = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": messages,
            "security": security,
        }
        replies = list(answers)
        if replies:
            found["reply"] = {"channel": {"$ref": f"#/channels/{channel}"}, "messages": replies}
        self.operations[name] = found

    def _event(self, channel: str, type: EventType) -> Json:
        form = {
            "allOf": [
                {"$ref": "#/components/schemas/Envelope"},
                {"properties": {"type": {"const": str(type)}, "payload": ref(type.body)}},
            ]
        }
        return self._message(
            channel,
            f"event.{key(type)}",
            name="event",
            title=str(type),
            summary=type.summary,
            payload=array([form, OFFSET], 1),
        )

    def _volatile(self, channel: str, type: EventType) -> Json:
        form = {
            "allOf": [
                {"$ref": "#/components/schemas/VolatileEnvelope"},
                {"properties": {"type": {"const": str(type)}, "payload": ref(type.body)}},
            ]
        }
        return self._message(
            channel,
            f"event.{key(type)}.volatile",
            name="event",
            title=f"{type} (volatile)",
            summary="What a live push tells. Room `room:<name>`." if type == API_MESSAGE else type.summary,
            payload=array([form], 1),
        )

    def _frame_of_socketio(self, channel: str, frame: Frame) -> Json:
        more = [OFFSET] if frame == SESSION else []
        return self._message(
            channel,
            f"told.{key(frame)}",
            name=str(frame),
            summary=frame.summary,
            payload=array([ref(frame.body), *more], 1),
        )

    def _command(self, channel: str, command: Command, refused: Json) -> None:
        names = {"event": command.name} | ({"also": command.other_name} if command.other_name else {})
        emitted = self._message(
            channel,
            f"emit.{command.name}",
            name=command.name,
            summary=command.summary,
            payload=arguments(command.arguments),
            **{"x-socketio": names},
        )
        answer = self._message(
            channel,
            f"answer.{command.name}",
            name=f"answer to {command.name}",
            payload=array([ref(command.answer)], 1),
        )
        told = " or ".join(f"`{frame}`" for frame in command.tells)
        summary = f"{command.summary} The socket is also told {told}." if told else command.summary
        self._operation(channel, command.name, "receive", [emitted], summary, BROWSERS, [answer, refused])

    def _plain(self, channel: str, name: str, said: Frame | Message, word: str = "type") -> Json:
        form = self.forms[said.body.__name__]
        return self._message(
            channel,
            name,
            name=str(said),
            summary=said.summary,
            payload=form if word in form["properties"] and word != "type" else with_type(form, said, word),
        )

    def _push(self, channel: str, name: str, type: EventType) -> Json:
        fields = {
            "type": {"const": str(type)},
            "data": ref(type.body),
            "timestamp": TIME,
            "seq": {"type": "integer", "minimum": 1},
            "offset": {"type": "string"},
        }
        form = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
        return self._message(channel, name, name=str(type), summary=type.summary, payload=form)
