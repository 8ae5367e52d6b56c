#!/usr/bin/env python3
"""A Lark (Feishu) open platform on this machine: users authorize, cards are sent and clicked, nothing leaves it.

    .venv/bin/python examples/fake_lark.py --app-id cli_demo --app-secret s --redirect-uri http://127.0.0.1:8091/callback

It prints its address; `/chat` there is what the users of the platform see. It is as strict as what is published of the
real one: redirect URLs must be listed, codes and refresh tokens hold once, PKCE is checked, callbacks are signed and
encrypted and must be answered within 3 s. The official SDK (lark-oapi) works with it, over its long connection too.

`/control` is for tests. It has no counterpart at Lark and asks for no password: bind this to loopback only. GET it for
all that has happened, secrets included; POST one order as JSON, {"do": one of ORDERS, …its fields}.
Not here: other kinds of apps, other APIs, more than one app or tenant, anything that lasts beyond the process.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import hmac
import html
import http.client
import json
import os
import random
import re
import secrets
import signal
import string
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from typing import Any, Self

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

Json = dict[str, Any]

MAX_BODY_BYTES = 200_000
MAX_CARD_BYTES = 30_000
MAX_CONNECTIONS = 50
UPDATE_DAYS = 14
GRACE_SECONDS = 60.0
"""How long an access token still holds after it was renewed."""
SHARED_TOKEN_SECONDS = 1800.0
"""An app's token is given again until less than this is left of it."""
TENANT = "tenant_fake"
SERVICE_ID = 33554678
COLORS = {"blue", "wathet", "turquoise", "green", "yellow", "orange", "red", "carmine", "violet", "purple", "indigo"}
COLORS |= {"grey", "default"}
ELEMENTS = ("div", "action", "note", "hr", "img", "markdown", "column_set")
PERMISSIONS = (
    "offline_access contact:user.base:readonly contact:user.email:readonly contact:user.phone:readonly "
    "contact:user.employee_id:readonly"
)


# What goes wrong, in the platform's numbers ------------------------------------------------------------------------


class Refusal(Exception):
    """`code` is the platform's number, `status` that of HTTP."""

    def __init__(self, code: int, message: str, status: int = 200):
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


OAUTH_ERRORS = {
    20001: (400, "invalid_request", "A parameter is missing."),
    20002: (400, "invalid_client", "The client secret is invalid."),
    20003: (400, "invalid_grant", "The authorization code is not found."),
    20004: (400, "invalid_grant", "The authorization code has expired."),
    20008: (400, "invalid_grant", "The user does not exist."),
    20009: (400, "invalid_client", "The tenant has not installed the app."),
    20010: (400, "access_denied", "The user may not use the app."),
    20024: (400, "invalid_grant", "The code or refresh token is another client's."),
    20026: (400, "invalid_grant", "The refresh token is invalid."),
    20036: (400, "unsupported_grant_type", "The grant type is not supported."),
    20037: (400, "invalid_grant", "The refresh token has expired."),
    20048: (400, "invalid_client", "The app does not exist."),
    20049: (400, "invalid_grant", "The PKCE code challenge failed."),
    20050: (500, "server_error", "An internal error."),
    20063: (400, "invalid_request", "The request is malformed."),
    20064: (400, "invalid_grant", "The refresh token has been revoked."),
    20065: (400, "invalid_grant", "The authorization code has been used."),
    20066: (400, "invalid_grant", "The user's status is invalid."),
    20067: (400, "invalid_scope", "A scope is named twice."),
    20068: (400, "invalid_scope", "A scope is not permitted."),
    20069: (400, "unauthorized_client", "The app is disabled."),
    20070: (400, "invalid_request", "Several ways of client authentication."),
    20071: (400, "invalid_grant", "The redirect URI is not that of the authorization."),
    20072: (503, "temporarily_unavailable", "Try again later."),
    20073: (400, "invalid_grant", "The refresh token has been used."),
    20074: (400, "unauthorized_client", "The app may not refresh tokens."),
}
"""Of the v2 token endpoint: HTTP status, error, description."""


def oauth_refusal(code: int) -> Refusal:
    status, _, description = OAUTH_ERRORS.get(code, (400, "", "Refused."))
    return Refusal(code, description, status)


# How callbacks are proved and hidden -------------------------------------------------------------------------------


def signature(timestamp: str, nonce: str, encrypt_key: str, body: bytes) -> str:
    """The header X-Lark-Signature."""
    return hashlib.sha256((timestamp + nonce + encrypt_key).encode() + body).hexdigest()


def encrypt(text: str, encrypt_key: str) -> str:
    """AES-256-CBC under the key's SHA-256, base64 of the IV and the text."""
    iv = os.urandom(16)
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(hashlib.sha256(encrypt_key.encode()).digest()), modes.CBC(iv)).encryptor()
    padded = padder.update(text.encode()) + padder.finalize()
    return base64.b64encode(iv + encryptor.update(padded) + encryptor.finalize()).decode()


def callback_request(payload: Json, encrypt_key: str, signed: bool = True) -> tuple[dict[str, str], bytes]:
    """Headers and body as the platform sends them, now. Without a key: in plain text and without a signature."""
    headers = {"Content-Type": "application/json; charset=utf-8", "X-Request-Id": str(uuid.uuid4())}
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    if not encrypt_key:
        return headers, text.encode()
    body = json.dumps({"encrypt": encrypt(text, encrypt_key)}).encode()
    if signed:
        timestamp, nonce = str(int(time.time())), str(random.randint(10**8, 10**9))
        headers |= {
            "X-Lark-Request-Timestamp": timestamp,
            "X-Lark-Request-Nonce": nonce,
            "X-Lark-Signature": signature(timestamp, nonce, encrypt_key, body),
        }
    return headers, body


# Frames of the long connection (protobuf, pbbp2.Frame) ---------------------------------------------------------------

CONTROL, DATA = 0, 1


@dataclass(slots=True)
class Frame:
    """What one binary message holds."""

    service: int = SERVICE_ID
    method: int = DATA
    headers: dict[str, str] = field(default_factory=dict)
    payload: bytes = b""
    seq_id: int = 0
    log_id: int = 0


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def chunk(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def encode_frame(frame: Frame) -> bytes:
    numbers = enumerate((frame.seq_id, frame.log_id, frame.service, frame.method), 1)
    out = b"".join(varint(number << 3) + varint(value) for number, value in numbers)
    for key, value in frame.headers.items():
        out += chunk(5, chunk(1, key.encode()) + chunk(2, value.encode()))
    return out + chunk(8, frame.payload)


def fields_of(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: numbers, and runs of bytes. Raises ValueError."""
    position = 0

    def next_varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            if position >= len(data) or shift > 63:
                raise ValueError("cut off")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        key = next_varint()
        if key & 7 == 0:
            yield key >> 3, next_varint()
        elif key & 7 == 2:
            length = next_varint()
            if position + length > len(data):
                raise ValueError("cut off")
            yield key >> 3, data[position : position + length]
            position += length
        else:
            raise ValueError("a wire type that no frame has")


def decode_frame(data: bytes) -> Frame:
    """Raises ValueError, too, if one of the four required numbers is missing."""
    frame = Frame()
    names = {1: "seq_id", 2: "log_id", 3: "service", 4: "method"}
    seen = set()
    for number, value in fields_of(data):
        if number in names and isinstance(value, int):
            setattr(frame, names[number], value)
            seen.add(number)
        elif number == 5 and isinstance(value, bytes):
            pair = {key: part.decode() for key, part in fields_of(value) if isinstance(part, bytes)}
            frame.headers[pair[1]] = pair[2]
        elif number == 8 and isinstance(value, bytes):
            frame.payload = value
    if seen != set(names):
        raise ValueError("a required field is missing")
    return frame


# What the platform keeps ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class User:
    open_id: str
    union_id: str
    user_id: str
    name: str
    en_name: str
    email: str
    mobile: str


USERS = [
    User("ou_ada", "on_ada", "ada1815", "李爱达 Ada Li", "Ada Li", "ada@example.com", "+8613800001815"),
    User("ou_bob", "on_bob", "bob1916", "Bob <b>Bold</b>", "Bob", "bob@example.com", "+8613800001916"),
    User("ou_eve", "on_eve", "eve2001", "夏娃 “Eve”", "Eve", "eve@example.com", "+8613800002001"),
]


@dataclass(slots=True)
class Console:
    """What is set in the developers' console of the app, and the platform's own lifetimes in seconds."""

    app_id: str
    app_secret: str
    redirect_uris: list[str] = field(default_factory=list)
    callback_url: str | None = None
    delivery: str = "http"
    """`http` or `websocket`: where callbacks and events go."""
    verification_token: str = ""
    encrypt_key: str = ""
    permissions: str = PERMISSIONS
    code_seconds: float = 300
    access_seconds: float = 7200
    refresh_seconds: float = 604_800
    app_token_seconds: float = 7200
    answer_seconds: float = 3
    retry_seconds: tuple[float, ...] = (15, 300, 3600, 21_600)
    """When an event (not a click) that was not answered comes again."""
    messages_a_second: int = 5
    """To one chat; and changes of one message."""
    ping_seconds: int = 120
    reconnect_seconds: int = 120
    jitter_seconds: int = 30
    part_bytes: int = 100_000
    """Longer payloads come in several frames."""


@dataclass(slots=True)
class Code:
    text: str
    open_id: str
    redirect_uri: str
    scope: str
    challenge: str | None
    method: str
    ends: float
    used: bool = False


@dataclass(slots=True)
class Grant:
    """A user's tokens: one access token, and the refresh token that came with it."""

    open_id: str
    scope: str
    access: str
    access_ends: float
    refresh: str | None
    refresh_ends: float
    version: int
    used: bool = False
    revoked: bool = False


@dataclass(slots=True)
class Message:
    message_id: str
    chat_id: str
    receivers: list[str]
    sent: float
    versions: list[Json]
    """The card as it was sent, and after each change."""
    changes: list[str] = field(default_factory=list)
    """By what each change came: `patch` or `callback`."""
    times: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Delivery:
    """A callback or an event on its way to the app, and how each attempt went."""

    event_id: str
    type: str
    payload: Json
    attempts: list[Json] = field(default_factory=list)
    request: tuple[dict[str, str], bytes] | None = None


@dataclass(slots=True)
class Fault:
    """An endpoint (its name in ROUTES, `ws_handshake`, or `*`) that refuses with `code`, is `slow` for so many seconds,
    `down` (cuts the connection) or answers a `text`, as a gateway in between would; `times` is how often, None for
    always."""

    endpoint: str
    code: int | None = None
    status: int | None = None
    slow: float = 0
    down: bool = False
    text: str | None = None
    times: int | None = None


def token_text(kind: str, length: int) -> str:
    return kind + secrets.token_hex(length)[:length]


class Platform:
    """The rules, without HTTP. Every method may be called from any thread; refuses by Refusal."""

    def __init__(self, console: Console, users: list[User]):
        self.console = console
        self.users = {user.open_id: user for user in users}
        self.chats = {"oc_everyone": list(self.users)}
        self.codes: dict[str, Code] = {}
        self.grants: list[Grant] = []
        self.app_tokens: dict[str, float] = {}
        self.messages: dict[str, Message] = {}
        self.sent_as: dict[str, str] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.requests: list[Json] = []
        self.toasts: list[Json] = []
        self.faults: list[Fault] = []
        self.records: dict[str, list[Json]] = {}
        self.lock = threading.RLock()

    # Faults

    def fault(self, endpoint: str) -> Fault | None:
        """The fault that this request meets, counted."""
        with self.lock:
            for fault in self.faults:
                if fault.endpoint in (endpoint, "*") and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    # OAuth

    def check_authorize(self, query: Mapping[str, str]) -> list[str]:
        """The scopes that are asked for."""
        console = self.console
        if (query.get("client_id") or query.get("app_id")) != console.app_id:
            raise Refusal(20048, "应用不存在 The app does not exist.", 400)
        if query.get("redirect_uri") not in console.redirect_uris:
            raise Refusal(20029, "重定向 URL 有误 The redirect URL is not in the app's security settings.", 400)
        if query.get("response_type", "code" if "app_id" in query else "") != "code":
            raise Refusal(20001, "response_type must be code.", 400)
        if query.get("code_challenge") is not None and not re.fullmatch(r"[\w.~-]{43,128}", query["code_challenge"]):
            raise Refusal(20001, "code_challenge must have 43 to 128 characters.", 400)
        if query.get("code_challenge_method", "plain") not in ("plain", "S256"):
            raise Refusal(20001, "code_challenge_method must be S256 or plain.", 400)
        scopes = query.get("scope", "").split()
        if unknown := set(scopes) - set(console.permissions.split()):
            raise Refusal(20027, f"应用未申请权限 The app has no permission for: {' '.join(sorted(unknown))}", 400)
        return scopes

    def decide(self, query: Mapping[str, str], open_id: str, allowed: bool) -> str:
        """Where the user's browser is sent."""
        scopes = self.check_authorize(query)
        if open_id not in self.users:
            raise Refusal(20008, "用户不存在 The user does not exist.", 400)
        if not allowed:
            return self._redirect(query, error="access_denied")
        with self.lock:
            before = {word for grant in self.grants if grant.open_id == open_id for word in grant.scope.split()}
            code = Code(
                text=token_text("", 43),
                open_id=open_id,
                redirect_uri=query["redirect_uri"],
                scope=" ".join(sorted(before | set(scopes))),  # what a user has granted adds up
                challenge=query.get("code_challenge"),
                method=query.get("code_challenge_method", "plain"),
                ends=time.time() + self.console.code_seconds,
            )
            self.codes[code.text] = code
        return self._redirect(query, code=code.text)

    def _redirect(self, query: Mapping[str, str], **more: str) -> str:
        if "state" in query:
            more["state"] = query["state"]
        uri = query["redirect_uri"]
        return uri + ("&" if "?" in uri else "?") + urllib.parse.urlencode(more)

    def token(self, body: Json) -> Json:
        """The v2 endpoint."""
        kind = body.get("grant_type")
        if kind not in ("authorization_code", "refresh_token"):
            raise oauth_refusal(20036)
        self._check_client(body)
        with self.lock:
            spent = self._checked_code(body) if kind == "authorization_code" else self._checked_refresh(body)
            scope = self._narrowed(body, spent.scope)
            spent.used = True
            if isinstance(spent, Grant):
                spent.access_ends = min(spent.access_ends, time.time() + GRACE_SECONDS)
            grant = self._grant(spent.open_id, scope, 2)
        answer = {"code": 0, "access_token": grant.access, "token_type": "Bearer", "scope": grant.scope}
        answer["expires_in"] = int(self.console.access_seconds)
        if grant.refresh is not None:
            answer |= {
                "refresh_token": grant.refresh,
                "refresh_token_expires_in": int(self.console.refresh_seconds),
            }
        return answer

    def _check_client(self, body: Json) -> None:
        for name in ("client_id", "client_secret"):
            if not isinstance(body.get(name), str) or not body[name]:
                raise oauth_refusal(20001)
        if body["client_id"] != self.console.app_id:
            raise oauth_refusal(20048)
        if not hmac.compare_digest(body["client_secret"].encode(), self.console.app_secret.encode()):
            raise oauth_refusal(20002)

    def _checked_code(self, body: Json) -> Code:
        text = body.get("code")
        if not isinstance(text, str) or not text:
            raise oauth_refusal(20001)
        code = self.codes.get(text)
        if code is None:
            raise oauth_refusal(20003)
        if code.used:
            raise oauth_refusal(20065)
        if code.ends < time.time():
            raise oauth_refusal(20004)
        if body.get("redirect_uri") != code.redirect_uri:
            raise oauth_refusal(20071)
        if not proves(code, body.get("code_verifier")):
            raise oauth_refusal(20049)
        return code

    def _checked_refresh(self, body: Json) -> Grant:
        text = body.get("refresh_token")
        if not isinstance(text, str) or not text:
            raise oauth_refusal(20001)
        grant = next((grant for grant in self.grants if grant.refresh == text and grant.version == 2), None)
        if grant is None:
            raise oauth_refusal(20026)
        if grant.revoked:
            raise oauth_refusal(20064)
        if grant.used:
            raise oauth_refusal(20073)
        if grant.refresh_ends < time.time():
            raise oauth_refusal(20037)
        return grant

    @staticmethod
    def _narrowed(body: Json, scope: str) -> str:
        asked = str(body.get("scope") or "").split()
        if len(asked) != len(set(asked)):
            raise oauth_refusal(20067)
        if set(asked) - set(scope.split()):
            raise oauth_refusal(20068)
        return " ".join(asked) or scope

    def _grant(self, open_id: str, scope: str, version: int) -> Grant:
        now = time.time()
        renewable = version == 1 or "offline_access" in scope.split()
        grant = Grant(
            open_id=open_id,
            scope=scope,
            access=token_text("eyJhbGciOiJFUzI1NiIs", 1200),  # as long as they are today
            access_ends=now + self.console.access_seconds,
            refresh=token_text("eyJhbGciOiJFUzI1NiIs", 1200) if renewable else None,
            refresh_ends=now + self.console.refresh_seconds,
            version=version,
        )
        self.grants.append(grant)
        return grant

    def token_v1(self, app_token: str, body: Json, kind: str) -> Json:
        """The older endpoints, which take an app's token and answer 200 also when they refuse."""
        self._check_app_token(app_token)
        if body.get("grant_type") != kind:
            raise Refusal(20036, "grant_type is not supported")
        with self.lock:
            if kind == "authorization_code":
                code = self.codes.get(str(body.get("code")))
                if code is None or code.used or code.ends < time.time() or code.challenge is not None:
                    raise Refusal(20007, "the code is invalid, expired or used")
                code.used = True
                grant = self._grant(code.open_id, code.scope, 1)
            else:
                text = body.get("refresh_token")
                old = next((one for one in self.grants if one.refresh == text and one.version == 1), None)
                if old is None or old.used or old.revoked:
                    raise Refusal(20026, "the refresh token is invalid")
                if old.refresh_ends < time.time():
                    raise Refusal(20037, "the refresh token has expired")
                old.used = True
                old.access_ends = min(old.access_ends, time.time() + GRACE_SECONDS)
                grant = self._grant(old.open_id, old.scope, 1)
        return {
            "access_token": grant.access,
            "refresh_token": grant.refresh,
            "token_type": "Bearer",
            "expires_in": int(self.console.access_seconds) - 1,
            "refresh_expires_in": 2_591_999,
            "scope": grant.scope,
        }

    def app_token(self, body: Json) -> tuple[str, int]:
        """The token of the app, which for one built by its own tenant is the tenant's token as well."""
        if not body.get("app_id") or not body.get("app_secret") or body["app_id"] != self.console.app_id:
            raise Refusal(10003, "invalid param")
        if body["app_secret"] != self.console.app_secret:
            raise Refusal(10014, "app secret invalid")
        now = time.time()
        with self.lock:
            for text, ends in self.app_tokens.items():
                if ends - now > SHARED_TOKEN_SECONDS:
                    return text, int(ends - now)
            text = token_text("t-", 40)
            self.app_tokens[text] = now + self.console.app_token_seconds
            return text, int(self.console.app_token_seconds)

    def _check_app_token(self, text: str) -> None:
        if not text:
            raise Refusal(99991661, "Missing access token for authorization.", 400)
        if self.app_tokens.get(text, 0) < time.time():
            raise Refusal(99991663, "Invalid access token for authorization.", 400)

    def holder(self, text: str) -> Grant:
        """Whose user_access_token this is."""
        if not text:
            raise Refusal(99991661, "Missing access token for authorization.", 400)
        with self.lock:
            grant = next((grant for grant in self.grants if grant.access == text), None)
        if grant is None or grant.revoked:
            raise Refusal(99991668, "Invalid access token for authorization.", 401)
        if grant.access_ends < time.time():
            raise Refusal(99991677, "Authentication token expired.", 401)
        return grant

    def user_info(self, access_token: str) -> Json:
        grant = self.holder(access_token)
        user = self.users[grant.open_id]
        told: Json = {name: getattr(user, name) for name in ("name", "en_name", "open_id", "union_id")}
        told |= {"tenant_key": TENANT, "avatar_url": "https://example.com/avatar.png"}
        granted = set(grant.scope.split())
        if "contact:user.email:readonly" in granted:
            told |= {"email": user.email, "enterprise_email": user.email}
        if "contact:user.phone:readonly" in granted:
            told["mobile"] = user.mobile
        if "contact:user.employee_id:readonly" in granted:
            told["user_id"] = user.user_id
        return told

    # The table of records

    def read_records(self, access_token: str, table: str) -> Json:
        self.holder(access_token)
        rows = self.records.get(table, [])
        return {"total": len(rows), "has_more": False, "items": json.dumps(rows, ensure_ascii=False)}

    def add_records(self, access_token: str, table: str, body: Json) -> Json:
        grant = self.holder(access_token)
        try:
            rows = json.loads(body["records"])
        except (KeyError, TypeError, ValueError):
            raise Refusal(99992402, "field validation failed", 400) from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Refusal(99992402, "field validation failed", 400)
        made = [{**row, "_id": str(uuid.uuid4()), "_created_by": grant.open_id} for row in rows]
        with self.lock:
            self.records.setdefault(table, []).extend(made)
        return {"record_ids": [row["_id"] for row in made]}

    # Messages

    def send(self, app_token: str, kind: str, body: Json) -> Message:
        self._check_app_token(app_token)
        if body.get("msg_type") != "interactive":
            raise Refusal(230001, "Your request contains an invalid request parameter, ext=invalid msg_type.", 400)
        card = read_card(body.get("content"))
        chat_id, receivers = self._receivers(kind, body.get("receive_id"))
        now = time.time()
        key = str(body.get("uuid") or "")
        if len(key) > 50:
            raise Refusal(230001, "Your request contains an invalid request parameter, ext=invalid uuid.", 400)
        with self.lock:
            if key in self.sent_as and key:
                return self.messages[self.sent_as[key]]
            latest = [one.sent for one in self.messages.values() if one.chat_id == chat_id]
            if sum(sent > now - 1 for sent in latest) >= self.console.messages_a_second:
                raise Refusal(230020, "This operation triggers the frequency limit.", 400)
            message = Message(f"om_{secrets.token_hex(16)}", chat_id, receivers, now, [card])
            self.messages[message.message_id] = message
            if key:
                self.sent_as[key] = message.message_id
        return message

    def _receivers(self, kind: str, receiver: object) -> tuple[str, list[str]]:
        if kind == "chat_id" and receiver in self.chats:
            return str(receiver), self.chats[str(receiver)]
        if kind in ("open_id", "user_id", "union_id", "email"):
            for user in self.users.values():
                if getattr(user, kind) == receiver:
                    return f"oc_{hashlib.sha256(user.open_id.encode()).hexdigest()[:32]}", [user.open_id]
        raise Refusal(230001, "Your request contains an invalid request parameter, ext=invalid receive_id", 400)

    def update(self, app_token: str, message_id: str, body: Json) -> None:
        self._check_app_token(app_token)
        card = read_card(body.get("content"))
        now = time.time()
        with self.lock:
            message = self.messages.get(message_id)
            if message is None:
                raise Refusal(230001, "Your request contains an invalid request parameter, ext=invalid message_id", 400)
            if message.sent < now - UPDATE_DAYS * 86_400:
                raise Refusal(230031, "Message can only be modified within 14 days after sending.", 400)
            if sum(when > now - 1 for when in message.times) >= self.console.messages_a_second:
                raise Refusal(230020, "This operation triggers the frequency limit.", 400)
            if not (is_shared(message.versions[-1]) and is_shared(card)):
                raise Refusal(230099, "Failed to create card content, ext=update_multi is not declared", 400)
            message.times.append(now)
            self._change(message, card, "patch")

    def _change(self, message: Message, card: Json, by: str) -> None:
        if version_of(message.versions[-1]) == "2.0" and version_of(card) == "1.0":
            raise Refusal(200830, "a card 2.0 can't become a card 1.0", 400)
        message.versions.append(card)
        message.changes.append(by)

    # Callbacks and events

    def new_delivery(self, kind: str, event: Json, event_id: str | None = None) -> Delivery:
        header = {
            "event_id": event_id or secrets.token_hex(16),
            "event_type": kind,
            "create_time": str(int(time.time() * 1000)),
            "token": self.console.verification_token,
            "app_id": self.console.app_id,
            "tenant_key": TENANT,
        }
        delivery = Delivery(header["event_id"], kind, {"schema": "2.0", "header": header, "event": event})
        with self.lock:
            self.deliveries[delivery.event_id] = delivery
        return delivery

    def click_event(self, message_id: str, open_id: str, button: int, value: object) -> Json:
        """What a click on a button of a message tells. Raises Refusal where the client shows an error of its own."""
        message = self.messages.get(message_id)
        if message is None or open_id not in message.receivers:
            raise Refusal(230001, "no such message")
        if value is None:
            buttons = buttons_of(message.versions[-1])
            if button >= len(buttons):
                raise Refusal(230001, "the card has no such button")
            value = buttons[button].get("value")
        if not isinstance(value, dict):
            raise Refusal(200671, "the value of a button must be an object")
        user = self.users[open_id]
        operator = {name: getattr(user, name) for name in ("open_id", "user_id", "union_id")}
        return {
            "operator": operator | {"tenant_key": TENANT},
            "token": token_text("c-", 40),
            "action": {"value": value, "tag": "button", "timezone": "Asia/Shanghai"},
            "host": "im_message",
            "context": {"open_message_id": message_id, "open_chat_id": message.chat_id},
        }

    def take_answer(self, message_id: str, answer: Json) -> Json | None:
        """Do what a click was answered with: the toast, if it has one; the card changes. Raises Refusal."""
        toast, card = read_answer(answer)
        if card is not None:
            with self.lock:
                self._change(self.messages[message_id], card, "callback")
        return toast


def proves(code: Code, verifier: object) -> bool:
    """PKCE (RFC 7636)."""
    if code.challenge is None:
        return True
    if not isinstance(verifier, str) or not re.fullmatch(r"[\w.~-]{43,128}", verifier):
        return False
    if code.method == "S256":
        verifier = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    return hmac.compare_digest(verifier, code.challenge)


# Cards ---------------------------------------------------------------------------------------------------------------


def bad_card(why: str) -> Refusal:
    return Refusal(230099, f"Failed to create card content, ext={why}", 400)


def read_card(content: object) -> Json:
    """The card in a message's `content`, which is a string of JSON. Raises Refusal."""
    if not isinstance(content, str):
        raise Refusal(230001, "Your request contains an invalid request parameter, ext=content is not a string", 400)
    if len(content.encode()) > MAX_CARD_BYTES:
        raise Refusal(230025, "The length of the message content reaches its limit.", 400)
    try:
        card = json.loads(content)
    except ValueError:
        raise Refusal(230001, "content is not a string in json format", 400) from None
    if not isinstance(card, dict):
        raise bad_card("not an object")
    check_card(card)
    return card


def check_card(card: Json) -> None:
    if card.get("type") == "template":
        data = card.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("template_id"), str) or not data["template_id"]:
            raise bad_card("template_id is empty")
        if not isinstance(data.get("template_variable", {}), dict):
            raise bad_card("template_variable is no object")
        return
    body = card.get("body") if version_of(card) == "2.0" else card
    elements = body.get("elements") if isinstance(body, dict) else None
    if not isinstance(elements, list) or not elements:
        raise bad_card("elements is empty")
    header = card.get("header", {"title": {"tag": "plain_text", "content": ""}})
    check_text(header.get("title") if isinstance(header, dict) else None, ("plain_text", "lark_md"))
    if header.get("template", "default") not in COLORS:
        raise bad_card("header.template is no color")
    for element in elements:
        check_element(element)


def check_element(element: object) -> None:
    if not isinstance(element, dict) or element.get("tag") not in (*ELEMENTS, "button"):
        raise bad_card("unknown tag of an element")
    if element["tag"] == "div":
        check_text(element.get("text"), ("plain_text", "lark_md"))
    if element["tag"] == "note":
        for part in element.get("elements") or [None]:
            check_text(part, ("plain_text", "lark_md", "img"))
    for button in element.get("actions", []) if element["tag"] == "action" else []:
        if not isinstance(button, dict) or button.get("tag") != "button":
            raise bad_card("an action that is no button")
        check_text(button.get("text"), ("plain_text", "lark_md"))
        if button.get("type", "default") not in ("default", "primary", "danger"):
            raise bad_card("type of a button")
        if not re.match(r"https?://", str(button.get("url", "https://"))):
            raise bad_card("url of a button")


def check_text(text: object, tags: tuple[str, ...]) -> None:
    if not isinstance(text, dict) or text.get("tag") not in tags or not isinstance(text.get("content"), str):
        raise bad_card("a text without tag and content")


def buttons_of(card: Json) -> list[Json]:
    """In the order in which they stand. A template's are drawn from its variables, as docs/lark.md has it built."""
    if version_of(card) == "template":
        told = card["data"].get("template_variable", {})
        texts = {"authorize": "授权 Authorize", "reject": "取消 Cancel"} if told.get("authorize_url") else {}
        made = [
            {
                "text": {"tag": "plain_text", "content": text},
                "value": {"session_id": told.get("session_id"), "action": action},
            }
            for action, text in texts.items()
        ]
        return [{**one, "url": told["authorize_url"]} if not number else one for number, one in enumerate(made)]
    elements = card["body"]["elements"] if version_of(card) == "2.0" else card["elements"]
    return [
        button
        for element in elements
        for button in (element.get("actions", []) if element["tag"] == "action" else [element])
        if button["tag"] == "button"
    ]


def version_of(card: Json) -> str:
    return "2.0" if card.get("schema") == "2.0" else "template" if card.get("type") == "template" else "1.0"


def is_shared(card: Json) -> bool:
    """A template says so where it is built."""
    return version_of(card) == "template" or (card.get("config") or {}).get("update_multi") is True


def read_answer(answer: object) -> tuple[Json | None, Json | None]:
    """Toast and card of the answer to a click. Raises Refusal where Lark's client shows an error."""
    if not isinstance(answer, dict) or set(answer) - {"toast", "card"}:
        raise Refusal(200672, "the answer is neither empty nor a toast or a card")
    toast, card = answer.get("toast"), answer.get("card")
    if toast is not None:
        known = isinstance(toast, dict) and toast.get("type", "info") in ("info", "success", "warning", "error")
        if not known or not isinstance(toast.get("content"), str):
            raise Refusal(200672, "the toast has no known type or no content")
    if card is None:
        return toast, None
    if not isinstance(card, dict) or card.get("type") not in ("raw", "template") or not isinstance(card["data"], dict):
        raise Refusal(200673, "the card is neither raw nor a template")
    card = card["data"] if card["type"] == "raw" else card
    try:
        check_card(card)
    except Refusal as refusal:
        raise Refusal(200673, refusal.message) from None
    return toast, card


# The long connection -------------------------------------------------------------------------------------------------


class LongConnections:
    """WebSockets that apps hold open. An event goes to one of them, chosen at random."""

    def __init__(self, platform: Platform, host: str):
        self._platform = platform
        self._tickets: set[str] = set()
        self._open: list[ServerConnection] = []
        self._answers: dict[str, SimpleQueue[Json]] = {}
        self._lock = threading.Lock()
        self.opened = 0
        self.pings = 0
        self.issued: list[str] = []
        """What addresses of connections have held that is secret."""
        self._server: Server = serve(self._serve, host, 0, process_request=self._admit, ping_interval=None)
        self._address = f"ws://{host}:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="long-connections")

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self.drop()

    def drop(self) -> None:
        """End all connections, as a restart of the platform does."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.close(1001)

    def endpoint(self, body: Json) -> Json:
        """Where to connect to. Raises Refusal."""
        console = self._platform.console
        if not body.get("AppID") or not body.get("AppSecret"):
            raise Refusal(1000040344, "no credential")
        if body["AppID"] != console.app_id or body["AppSecret"] != console.app_secret:
            raise Refusal(514, "app id or secret is wrong")
        if len(self) >= MAX_CONNECTIONS:
            raise Refusal(1000040350, "the number of connections exceeded the limit")
        ticket, key = str(uuid.uuid4()), secrets.token_hex(16)
        with self._lock:
            self._tickets.add(ticket)
            self.issued += [ticket, key]
        query = {
            "fpid": 493,
            "aid": 552564,
            "device_id": random.randint(10**18, 10**19),
            "access_key": key,
            "service_id": SERVICE_ID,
            "ticket": ticket,
        }
        return {"URL": f"{self._address}/ws/v2?{urllib.parse.urlencode(query)}", "ClientConfig": self._config()}

    def _config(self) -> Json:
        console = self._platform.console
        return {
            "ReconnectCount": -1,
            "ReconnectInterval": console.reconnect_seconds,
            "ReconnectNonce": console.jitter_seconds,
            "PingInterval": console.ping_seconds,
        }

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        ticket = dict(urllib.parse.parse_qsl(query)).get("ticket", "")
        fault = self._platform.fault("ws_handshake")
        with self._lock:
            known = path == "/ws/v2" and ticket in self._tickets
            self._tickets.discard(ticket)
        if known and fault is None:
            return None
        response = connection.respond(http.HTTPStatus.FORBIDDEN, "refused\n")
        response.headers["handshake-status"] = str(fault.code if fault and fault.code else 514)
        response.headers["handshake-msg"] = "refused" if fault else "the ticket is unknown"
        response.headers["handshake-autherrcode"] = str(fault.status if fault and fault.status else 1000040343)
        return response

    def _serve(self, connection: ServerConnection) -> None:
        with self._lock:
            self._open.append(connection)
            self.opened += 1
        try:
            for data in connection:
                if isinstance(data, bytes):
                    self._take(connection, decode_frame(data))
        except (ConnectionClosed, ValueError):
            connection.close(1002)
        finally:
            with self._lock:
                self._open.remove(connection)

    def _take(self, connection: ServerConnection, frame: Frame) -> None:
        if frame.method == CONTROL and frame.headers.get("type") == "ping":
            self.pings += 1
            config = json.dumps(self._config()).encode()
            connection.send(encode_frame(Frame(frame.service, CONTROL, {"type": "pong"}, config)))
        elif frame.method == DATA and (waiting := self._answers.get(frame.headers.get("message_id", ""))):
            waiting.put(json.loads(frame.payload))

    def ask(self, payload: Json) -> Json:
        """Send an event to one connection; what it answers. Raises Refusal."""
        with self._lock:
            if not self._open:
                raise Refusal(200342, "no long connection is open")
            connection = random.choice(self._open)
        text = json.dumps({**payload, "header": {**payload["header"], "token": ""}}, ensure_ascii=False).encode()
        size = self._platform.console.part_bytes
        parts = [text[start : start + size] for start in range(0, len(text), size)]
        message_id = str(uuid.uuid4())
        answers = self._answers[message_id] = SimpleQueue[Json]()
        try:
            for number, part in enumerate(parts):
                headers = {
                    "type": "event",
                    "message_id": message_id,
                    "sum": str(len(parts)),
                    "seq": str(number),
                    "trace_id": secrets.token_hex(16),
                }
                frame = Frame(SERVICE_ID, DATA, headers, part, random.randint(1, 2**31), random.randint(1, 2**62))
                connection.send(encode_frame(frame))
            answer = answers.get(timeout=self._platform.console.answer_seconds)
        except (ConnectionClosed, OSError):
            raise Refusal(200342, "the long connection has ended") from None
        except Empty:
            raise Refusal(200341, "not answered in time") from None
        finally:
            del self._answers[message_id]
        if answer.get("code") != 200:
            raise Refusal(200671, f"answered with code {answer.get('code')}")
        read: Json = json.loads(base64.b64decode(answer["data"])) if answer.get("data") else {}
        return read


# All of it -----------------------------------------------------------------------------------------------------------


class FakeLark:
    """The platform, listening: `with FakeLark(Console("cli_x", "secret")) as lark: lark.url`."""

    def __init__(self, console: Console, host: str = "127.0.0.1", port: int = 0, users: list[User] | None = None):
        self.console = console
        self.platform = Platform(console, USERS if users is None else users)
        self.connections = LongConnections(self.platform, host)
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.lark = self  # type: ignore[attr-defined]
        self.url = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._resending: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.connections.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self.connections.close()
        for thread in self._resending:
            thread.join()
        self._server.server_close()

    # What users and the platform do

    def click(self, message_id: str, open_id: str, button: int = 0, value: object = None) -> Json:
        """A click on the n-th button of a card, or on one with this value that it showed before: {"toast"} or {"error":
        {"code", "message"}}, as the client shows it."""
        try:
            event = self.platform.click_event(message_id, open_id, button, value)
            delivery = self.platform.new_delivery("card.action.trigger", event)
            shown: Json = {"toast": self.platform.take_answer(message_id, self.deliver(delivery))}
        except Refusal as refusal:
            shown = {"toast": None, "error": {"code": refusal.code, "message": refusal.message}}
        with self.platform.lock:
            self.platform.toasts.append({"message_id": message_id, "open_id": open_id, **shown})
        return shown

    def push(self, kind: str, event: Json, event_id: str | None = None) -> str:
        """Tell the app of an event, again and again until it answers; the event's id."""
        delivery = self.platform.new_delivery(kind, event, event_id)
        thread = threading.Thread(target=self._push, args=(delivery,), name="push")
        self._resending.append(thread)
        thread.start()
        return delivery.event_id

    def _push(self, delivery: Delivery) -> None:
        for pause in (0.0, *self.console.retry_seconds):
            if self.closing.wait(pause):
                return
            with contextlib.suppress(Refusal):
                self.deliver(delivery)
                return

    def deliver(self, delivery: Delivery) -> Json:
        """One attempt, the way the console says; the answer. Raises Refusal."""
        attempt: Json = {"via": self.console.delivery, "at": time.time()}
        started = time.monotonic()
        try:
            if self.console.delivery == "websocket":
                answer = self.connections.ask(delivery.payload)
            else:
                delivery.request = callback_request(delivery.payload, self.console.encrypt_key)
                answer = self.post(delivery.request, attempt)
            attempt["answer"] = answer
        except Refusal as refusal:
            attempt["error"] = {"code": refusal.code, "message": refusal.message}
            raise
        finally:
            attempt["seconds"] = time.monotonic() - started
            with self.platform.lock:
                delivery.attempts.append(attempt)
        return answer

    def post(self, request: tuple[dict[str, str], bytes], attempt: Json) -> Json:
        """Send a callback; its answer, which must be 200 with an object. Raises Refusal."""
        if self.console.callback_url is None:
            raise Refusal(200340, "no callback address is set in the console")
        address = urllib.parse.urlsplit(self.console.callback_url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        connection = kind(address.hostname or "", address.port, timeout=self.console.answer_seconds)
        headers, body = request
        try:
            connection.request("POST", address.path or "/", body, headers)
            response = connection.getresponse()
            attempt["status"] = response.status
            text = response.read(MAX_BODY_BYTES)
        except TimeoutError:
            raise Refusal(200341, "not answered in time") from None
        except (OSError, http.client.HTTPException):
            raise Refusal(200342, "the callback address can't be reached") from None
        finally:
            connection.close()
        attempt["text"] = text.decode(errors="replace")
        if response.status != 200:
            raise Refusal(200671, f"answered with HTTP {response.status}")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Refusal(200672, "the answer is not a JSON object")
        return answer

    def verify(self) -> bool:
        """What the console does when a callback address is saved: is the challenge given back?"""
        challenge = str(uuid.uuid4())
        asked = {"challenge": challenge, "token": self.console.verification_token, "type": "url_verification"}
        return self.post(callback_request(asked, self.console.encrypt_key, signed=False), {}) == {
            "challenge": challenge
        }

    # Orders of tests

    def order(self, body: Json) -> Json:
        """One of ORDERS."""
        rest = {name: value for name, value in body.items() if name != "do"}
        return ORDERS[body["do"]](self, **rest)

    def state(self) -> Json:
        """All that has happened."""
        platform = self.platform
        with platform.lock:
            return {
                "console": asdict(self.console),
                "users": [asdict(user) for user in platform.users.values()],
                "codes": [asdict(code) for code in platform.codes.values()],
                "grants": [asdict(grant) for grant in platform.grants],
                "app_tokens": platform.app_tokens,
                "messages": [asdict(message) for message in platform.messages.values()],
                "deliveries": [
                    {"event_id": one.event_id, "type": one.type, "attempts": one.attempts}
                    for one in platform.deliveries.values()
                ],
                "toasts": platform.toasts,
                "requests": platform.requests,
                "faults": [asdict(fault) for fault in platform.faults],
                "connections": len(self.connections),
                "connections_opened": self.connections.opened,
                "pings": self.connections.pings,
            }

    def set(self, **values: Any) -> Json:
        """Change what the console says."""
        for name, value in values.items():
            if name not in Console.__dataclass_fields__:
                raise KeyError(name)
            setattr(self.console, name, value)
        return {}

    def break_(self, **fault: Any) -> Json:
        """Have an endpoint fail, as Fault says."""
        made = Fault(**fault)
        with self.platform.lock:
            self.platform.faults.append(made)
        return {}

    def mend(self) -> Json:
        with self.platform.lock:
            self.platform.faults.clear()
        return {}

    def expire(self, what: str) -> Json:
        """`codes`, `access`, `refresh` or `app`: all of them are too old now."""
        with self.platform.lock:
            for code in self.platform.codes.values():
                code.ends = 0 if what == "codes" else code.ends
            for grant in self.platform.grants:
                grant.access_ends = 0 if what == "access" else grant.access_ends
                grant.refresh_ends = 0 if what == "refresh" else grant.refresh_ends
            if what == "app":
                self.platform.app_tokens = dict.fromkeys(self.platform.app_tokens, 0.0)
        return {}

    def revoke(self, open_id: str) -> Json:
        """The user takes back what they have granted."""
        with self.platform.lock:
            for grant in self.platform.grants:
                grant.revoked = grant.revoked or grant.open_id == open_id
        return {}

    def resend(self, event_id: str, replay: bool = False) -> Json:
        """The same event again: freshly signed, as the platform does; or, `replay`, the very request once more."""
        delivery = self.platform.deliveries[event_id]
        try:
            if replay:
                assert delivery.request is not None
                attempt: Json = {"via": "replay"}
                delivery.attempts.append(attempt)
                return {"answer": self.post(delivery.request, attempt)}
            return {"answer": self.deliver(delivery)}
        except Refusal as refusal:
            return {"error": {"code": refusal.code, "message": refusal.message}}

    def grant_now(self, url: str, open_id: str, allow: bool = True) -> Json:
        """What the consent page of an authorize URL leads to, without a browser: {"location"} or {"error"}."""
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, keep_blank_values=True))
        try:
            return {"location": self.platform.decide(query, open_id, allow)}
        except Refusal as refusal:
            return {"error": {"code": refusal.code, "message": refusal.message}}


ORDERS: dict[str, Callable[..., Json]] = {
    "set": FakeLark.set,
    "break": FakeLark.break_,
    "mend": FakeLark.mend,
    "expire": FakeLark.expire,
    "revoke": FakeLark.revoke,
    "grant": FakeLark.grant_now,
    "click": FakeLark.click,
    "push": lambda lark, **event: {"event_id": lark.push(**event)},
    "resend": FakeLark.resend,
    "verify": lambda lark: {"verified": lark.verify()},
    "drop": lambda lark: lark.connections.drop() or {},
}


# HTTP ----------------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Finds the route, reads the body, writes the answer."""

    protocol_version = "HTTP/1.1"
    server_version = "fake-lark"
    timeout = 30
    lark: FakeLark

    def setup(self) -> None:
        super().setup()
        self.lark = self.server.lark  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: paths hold codes."""

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.noted: Json = {"method": self.command, "path": path, "endpoint": None, "at": time.time()}
        for method, pattern, endpoint, handle in ROUTES:
            found = re.fullmatch(pattern, path)
            if method == self.command and found is not None:
                self.noted["endpoint"] = endpoint
                self.serve(endpoint, handle, found)
                return
        self.send(404, {"code": 404, "msg": "404 page not found"})

    do_GET = do_POST = do_PATCH = answer

    def serve(self, endpoint: str, handle: Callable[[Handler, re.Match[str]], None], found: re.Match[str]) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self.send(413, {"code": 413, "msg": "request body too large"})
            return
        self.raw = self.rfile.read(length)
        fault = None if endpoint in OWN else self.lark.platform.fault(endpoint)
        try:
            if fault is not None:
                self.fail(fault, endpoint)
                if self.close_connection:
                    return
            handle(self, found)
        except Refusal as refusal:
            self.refuse(refusal, endpoint)

    def fail(self, fault: Fault, endpoint: str) -> None:
        """What a fault does. Raises Refusal."""
        if fault.slow:
            self.lark.closing.wait(fault.slow)
        if fault.down:
            self.note(None)
            self.close_connection = True
        elif fault.text is not None:
            self.write(fault.status or 502, "text/html; charset=utf-8", fault.text)
            self.close_connection = True
        elif fault.code is not None:
            refusal = oauth_refusal(fault.code) if endpoint in OAUTH else Refusal(fault.code, "refused", 400)
            raise Refusal(refusal.code, refusal.message, fault.status or refusal.status)

    def refuse(self, refusal: Refusal, endpoint: str) -> None:
        self.noted["code"] = refusal.code
        if endpoint == "authorize":
            self.page(400, CONSENT_ERROR, code=str(refusal.code), message=refusal.message)
        elif endpoint in OAUTH:
            error = OAUTH_ERRORS.get(refusal.code, (400, "invalid_request", ""))[1]
            body = {"code": refusal.code, "error": error, "error_description": refusal.message}
            self.send(refusal.status, body)
        else:
            more = {"log_id": secrets.token_hex(16), "troubleshooter": "https://open.feishu.cn/search?from=openapi"}
            self.send(refusal.status, {"code": refusal.code, "msg": refusal.message, "error": more})

    def send(self, status: int, body: Any) -> None:
        self.write(status, "application/json; charset=utf-8", json.dumps(body, ensure_ascii=False))

    def page(self, status: int, template: string.Template, **values: str) -> None:
        """Values are escaped, but for those named `html_…`."""
        safe = {key: value if key.startswith("html_") else html.escape(value) for key, value in values.items()}
        self.write(status, "text/html; charset=utf-8", template.substitute(safe, html_style=STYLE))

    def redirect(self, location: str) -> None:
        self.note(302)
        self.send_response(302)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def write(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.note(status)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Tt-Logid", secrets.token_hex(16))
        self.end_headers()
        self.wfile.write(data)

    def note(self, status: int | None) -> None:
        if self.noted["endpoint"] not in OWN:
            self.noted |= {"status": status, "seconds": time.time() - self.noted["at"]}
            with self.lark.platform.lock:
                self.lark.platform.requests.append(self.noted)

    def json(self, refusal: Refusal, untold: bool = False) -> Json:
        """The body, which must be an object and say that it is JSON; `untold`: or say nothing, as the SDK does."""
        kind = self.headers.get_content_type() if "Content-Type" in self.headers or not untold else "application/json"
        if kind != "application/json":
            raise refusal
        try:
            body = json.loads(self.raw)
        except ValueError:
            raise refusal from None
        if not isinstance(body, dict):
            raise refusal
        return body

    def bearer(self) -> str:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if kind == "Bearer" else ""


INVALID = Refusal(9499, "Bad Request", 400)


def ask_consent(request: Handler, _: re.Match[str]) -> None:
    platform = request.lark.platform
    scopes = platform.check_authorize(request.query)
    users = "".join(
        f'<label><input type=radio name=open_id value="{html.escape(user.open_id)}"{" checked" if not number else ""}>'
        f" {html.escape(user.name)} <small>{html.escape(user.open_id)}</small></label>"
        for number, user in enumerate(platform.users.values())
    )
    wanted = "".join(f"<li>{html.escape(scope)}</li>" for scope in scopes) or "<li>user_info</li>"
    request.page(200, CONSENT, app=platform.console.app_id, html_users=users, html_scopes=wanted, action=request.path)


def take_consent(request: Handler, _: re.Match[str]) -> None:
    form = dict(urllib.parse.parse_qsl(request.raw.decode()))
    allowed = form.get("decision") == "allow"
    request.redirect(request.lark.platform.decide(request.query, form.get("open_id", ""), allowed))


def give_token(request: Handler, _: re.Match[str]) -> None:
    request.send(200, request.lark.platform.token(request.json(oauth_refusal(20063))))


def give_token_v1(request: Handler, found: re.Match[str]) -> None:
    kind = "refresh_token" if "refresh" in found[0] else "authorization_code"
    data = request.lark.platform.token_v1(request.bearer(), request.json(INVALID), kind)
    request.send(200, {"code": 0, "msg": "success", "data": data})


def give_app_token(request: Handler, found: re.Match[str]) -> None:
    text, seconds = request.lark.platform.app_token(request.json(Refusal(10003, "invalid param"), untold=True))
    told: Json = {"code": 0, "msg": "ok", "tenant_access_token": text, "expire": seconds}
    request.send(200, told | ({"app_access_token": text} if found[1] == "app" else {}))


def give_user_info(request: Handler, _: re.Match[str]) -> None:
    data = request.lark.platform.user_info(request.bearer())
    request.send(200, {"code": 0, "msg": "success", "data": data})


def take_message(request: Handler, _: re.Match[str]) -> None:
    kind = request.query.get("receive_id_type", "")
    message = request.lark.platform.send(request.bearer(), kind, request.json(INVALID))
    data = {
        "message_id": message.message_id,
        "chat_id": message.chat_id,
        "msg_type": "interactive",
        "create_time": str(int(message.sent * 1000)),
        "sender": {"id": request.lark.console.app_id, "id_type": "app_id", "sender_type": "app", "tenant_key": TENANT},
    }
    request.send(200, {"code": 0, "msg": "success", "data": data})


def change_message(request: Handler, found: re.Match[str]) -> None:
    request.lark.platform.update(request.bearer(), found[1], request.json(INVALID))
    request.send(200, {"code": 0, "msg": "success", "data": {}})


def give_records(request: Handler, found: re.Match[str]) -> None:
    data = request.lark.platform.read_records(request.bearer(), found[1])
    request.send(200, {"code": 0, "msg": "success", "data": data})


def take_records(request: Handler, found: re.Match[str]) -> None:
    data = request.lark.platform.add_records(request.bearer(), found[1], request.json(INVALID))
    request.send(200, {"code": 0, "msg": "success", "data": data})


def give_endpoint(request: Handler, _: re.Match[str]) -> None:
    data = request.lark.connections.endpoint(request.json(Refusal(1000040344, "no credential")))
    request.send(200, {"code": 0, "msg": "", "data": data})


def show_chat(request: Handler, _: re.Match[str]) -> None:
    users = [[user.open_id, user.name] for user in request.lark.platform.users.values()]
    request.page(200, CHAT, html_users=json.dumps(users).replace("<", "\\u003c"))


def list_chat(request: Handler, _: re.Match[str]) -> None:
    platform = request.lark.platform
    with platform.lock:
        shown = [
            {
                "message_id": one.message_id,
                "card": one.versions[-1],
                "version": len(one.versions),
                "buttons": buttons_of(one.versions[-1]),
            }
            for one in platform.messages.values()
            if request.query.get("user") in one.receivers
        ]
    request.send(200, shown)


def click_chat(request: Handler, _: re.Match[str]) -> None:
    body = request.json(INVALID)
    request.send(200, request.lark.click(body["message_id"], body["open_id"], body["button"]))


def give_state(request: Handler, _: re.Match[str]) -> None:
    request.send(200, request.lark.state())


def take_order(request: Handler, _: re.Match[str]) -> None:
    try:
        request.send(200, request.lark.order(request.json(INVALID)))
    except (KeyError, TypeError) as error:
        request.send(400, {"error": f"no such order, field or thing: {error}"})


RECORDS = r"/open-apis/apaas/v1/workspaces/[\w-]+/tables/([\w-]+)/records"
AUTHORIZE = r"/open-apis/authen/v1/(?:authorize|index)"
ROUTES: list[tuple[str, str, str, Callable[[Handler, re.Match[str]], None]]] = [
    ("GET", AUTHORIZE, "authorize", ask_consent),
    ("POST", AUTHORIZE, "authorize", take_consent),
    ("POST", r"/open-apis/authen/v2/oauth/token", "token", give_token),
    ("POST", r"/open-apis/authen/v1/oidc/(?:refresh_)?access_token", "token_v1", give_token_v1),
    ("POST", r"/open-apis/auth/v3/(app|tenant)_access_token/internal", "app_token", give_app_token),
    ("GET", r"/open-apis/authen/v1/user_info", "user_info", give_user_info),
    ("POST", r"/open-apis/im/v1/messages", "send", take_message),
    ("PATCH", r"/open-apis/im/v1/messages/([\w-]+)", "update", change_message),
    ("GET", RECORDS, "records", give_records),
    ("POST", RECORDS, "records", take_records),
    ("POST", r"/callback/ws/endpoint", "ws_endpoint", give_endpoint),
    ("GET", r"/(?:chat)?", "chat", show_chat),
    ("GET", r"/chat/messages", "chat", list_chat),
    ("POST", r"/chat/click", "chat", click_chat),
    ("GET", r"/control", "control", give_state),
    ("POST", r"/control", "control", take_order),
]
OWN = ("chat", "control", None)
OAUTH = ("token",)


# Pages ---------------------------------------------------------------------------------------------------------------

STYLE = """<meta charset=utf-8><meta name=viewport content="width=device-width"><link rel=icon href="data:,"><style>
body { margin: 0 auto; max-width: 34rem; padding: 1.5rem; font: 15px/1.5 system-ui, sans-serif; background: #f2f3f5;
  color: #1f2329 }
main, article { background: #fff; border-radius: 8px; box-shadow: 0 1px 4px #0002; padding: 1.25rem; margin: 1rem 0 }
label { display: block; padding: .3rem 0 } small, .note { color: #646a73 } h1 { font-size: 1.2rem }
button, a.button { font: inherit; padding: .35rem 1.1rem; border: 1px solid #bbbfc4; border-radius: 6px;
  background: #fff; color: inherit; cursor: pointer; text-decoration: none; display: inline-block; margin-right: .5rem }
.primary { background: #3370ff !important; border-color: #3370ff; color: #fff !important } .danger { color: #d83931 }
article { padding: 0; overflow: hidden } article > * { padding: .5rem 1rem; margin: 0 } article h2 { font-size: 1rem }
.blue { background: #e1eaff; color: #0c296e } .green { background: #d9f5d6; color: #124b0c }
.red { background: #fde2e2; color: #621c18 } .grey, .default { background: #eff0f1; color: #373c43 }
.orange, .yellow { background: #feead2; color: #6b3900 }
article small { display: block }
#toast { position: fixed; bottom: 2rem; left: 50%; transform: translateX(-50%); background: #1f2329; color: #fff;
  border-radius: 6px; padding: .5rem 1.2rem } #toast:empty { display: none }
</style>"""

CONSENT = string.Template("""<!doctype html><html lang=zh>$html_style<title>授权 Authorize</title>
<main><h1>$app 请求获取以下权限 <small>asks for</small></h1><ul>$html_scopes</ul>
<form method=post action="$action"><p>你是 <small>You are</small></p>$html_users
<p><button class=primary name=decision value=allow>授权 Allow</button>
<button name=decision value=deny>拒绝 Deny</button></p></form></main>
<p class=note>examples/fake_lark.py</p></html>""")

CONSENT_ERROR = string.Template("""<!doctype html><html lang=zh>$html_style<title>$code</title>
<main><h1>请求失败 <small>The request has failed</small></h1><p>错误码 <b id=code>$code</b></p><p>$message</p></main>
</html>""")

CHAT = string.Template("""<!doctype html><html lang=zh>$html_style<title>消息 Messages</title>
<h1>消息 <small>Messages of</small> <select id=user></select></h1>
<div id=messages></div><div id=toast role=status></div>
<p class=note>examples/fake_lark.py</p>
<script>
const users = $html_users, chosen = new URLSearchParams(location.search), shown = new Map();
const user = chosen.get('user') || users[0][0];
const byId = (id) => document.getElementById(id);
const make = (tag, text, name) => {
  const made = document.createElement(tag);
  made.textContent = text || '';
  made.className = name || '';
  return made;
};
for (const [id, name] of users) byId('user').append(new Option(name, id, id === user, id === user));
byId('user').onchange = (event) => { chosen.set('user', event.target.value); location.search = chosen; };

const plain = (text) => text.replace(/&#(\\d+);/g, (_, code) => String.fromCodePoint(code));
function marked(text, tag) {
  const made = make(tag || 'div');
  for (const part of text.split(/(\\*\\*[^*]+\\*\\*|\\n)/)) {
    if (part === '\\n') made.append(make('br'));
    else if (part.startsWith('**') && part.length > 4) made.append(make('b', plain(part.slice(2, -2))));
    else made.append(plain(part));
  }
  return made;
}
function drawButton(message, button, number) {
  const made = make(button.url ? 'a' : 'button', button.text.content, `button $${button.type || 'default'}`);
  if (button.url) Object.assign(made, { href: button.url, target: '_blank', rel: 'noopener' });
  if (button.value) made.addEventListener('click', () => click(message.message_id, number));
  return made;
}
function draw(message) {
  const made = make('article'), { card } = message;
  made.id = message.message_id;
  const told = card.type === 'template' ? card.data.template_variable || {} : null;
  const title = told ? told.title : card.header ? card.header.title.content : '';
  made.append(make('h2', title, (told ? told.color : card.header && card.header.template) || 'default'));
  const elements = told ? [{ tag: 'div', text: { content: told.text || '' } }] : (card.body || card).elements;
  let drawn = 0;
  const drawButtons = (count) => {
    const row = make('div');
    for (; count > 0; count -= 1, drawn += 1) row.append(drawButton(message, message.buttons[drawn], drawn));
    made.append(row);
  };
  for (const element of elements) {
    if (element.tag === 'div') made.append(marked(element.text.content));
    if (element.tag === 'markdown') made.append(marked(element.content));
    if (element.tag === 'hr') made.append(make('hr'));
    if (element.tag === 'action') drawButtons(element.actions.length);
    if (element.tag === 'button') drawButtons(1);
    if (element.tag === 'note') made.append(marked(element.elements.map((one) => one.content).join(' '), 'small'));
  }
  if (told) drawButtons(message.buttons.length);
  made.append(make('div', `$${message.message_id.slice(0, 11)}… · 版本 version $${message.version}`, 'note'));
  return made;
}
async function refresh() {
  const messages = await (await fetch(`/chat/messages?user=$${encodeURIComponent(user)}`)).json();
  for (const message of messages) {
    const text = JSON.stringify(message), old = byId(message.message_id);
    if (shown.get(message.message_id) === text) continue;
    shown.set(message.message_id, text);
    if (old) old.replaceWith(draw(message)); else byId('messages').append(draw(message));
  }
}
async function click(message_id, button) {
  const body = JSON.stringify({ message_id, open_id: user, button });
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch('/chat/click', { method: 'POST', keepalive: true, headers, body });
  const { toast, error } = await answer.json();
  byId('toast').textContent = error ? `出错了 code: $${error.code}` : toast ? toast.content : '';
  setTimeout(() => { byId('toast').textContent = ''; }, 4000);
  await refresh();
}
(async () => { for (;;) {
  await refresh().catch(() => null);
  await new Promise((done) => setTimeout(done, 300));
} })();
</script></html>""")


# The command line ----------------------------------------------------------------------------------------------------


def read_fault(text: str) -> Fault:
    """`token=20050`, `user_info=down`, `send=slow:10`; `,3` at the end is how often."""
    endpoint, _, what = text.partition("=")
    what, _, times = what.partition(",")
    fault = Fault(endpoint, times=int(times) if times else None)
    if what == "down":
        fault.down = True
    elif what.startswith("slow:"):
        fault.slow = float(what.removeprefix("slow:"))
    else:
        fault.code = int(what)
    return fault


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--app-id", required=True)
    parser.add_argument("--app-secret", required=True)
    parser.add_argument("--redirect-uri", action="append", default=[], help="as in the app's security settings")
    parser.add_argument("--callback-url", help="where clicks and events are posted to")
    parser.add_argument("--long-connection", action="store_true", help="clicks and events go over it instead")
    parser.add_argument("--verification-token", default="")
    parser.add_argument("--encrypt-key", default="")
    parser.add_argument("--fault", action="append", default=[], type=read_fault, help=read_fault.__doc__)
    given = parser.parse_args()
    console = Console(
        given.app_id,
        given.app_secret,
        redirect_uris=given.redirect_uri,
        callback_url=given.callback_url,
        delivery="websocket" if given.long_connection else "http",
        verification_token=given.verification_token,
        encrypt_key=given.encrypt_key,
    )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with FakeLark(console, given.host, given.port) as lark:
        lark.platform.faults.extend(given.fault)
        print(lark.url, flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
