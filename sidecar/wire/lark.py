"""What Lark sends to us: callbacks over HTTP (their signature, their encryption) and events, and the clicks on cards of
ours among them. Decides nothing about authorizations.

Sources (open.feishu.cn/document): "Send callbacks to developer's server" (encryption, address check), "Receive
callbacks" (signature), "Event structure" (schemas 1.0 and 2.0), "Card callback communication" (card.action.trigger).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeGuard

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from sidecar.domain.authorizations import App, Callback, CardClick
from sidecar.domain.errors import (
    FieldError,
    Invalid,
    SignatureMismatch,
    StaleRequest,
    TooLarge,
    Unauthenticated,
    Unparsable,
)
from sidecar.wire.bodies import parse_message

FRESH_SECONDS = 300
MAX_BYTES = 1024 * 1024
MAX_NAME_CHARACTERS = 128
BLOCK_BYTES = 16

ACTIONS: dict[str, Literal["authorize", "reject"]] = {
    "authorize": "authorize",
    "reject": "reject",
    "user_auth": "authorize",
    "user_auth_cancel": "reject",
}
"""The last two in `action_type`, as the cards of older services say it."""

_CHALLENGE = re.compile(r"[\w.~+/=-]{1,256}", re.ASCII)
"""Lark's are UUIDs. It is given back as it came, so it must not be able to hold any other text that was encrypted."""
_TIMESTAMP = re.compile(r"\d{10}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OLD_SIGNATURE = re.compile(r"[0-9a-fA-F]{40}", re.ASCII)


def signature(timestamp: str, nonce: str, encrypt_key: str, raw: bytes) -> str:
    """What `X-Lark-Signature` holds: SHA-256 over all four, in hex."""
    return hashlib.sha256(f"{timestamp}{nonce}{encrypt_key}".encode() + raw).hexdigest()


def decrypt(text: str, encrypt_key: str) -> bytes:
    """What the field `encrypt` of a body holds: base64 of an IV and AES-256-CBC with PKCS #7, the key being SHA-256 of
    the encrypt key. Raises Invalid."""
    try:
        data = base64.b64decode(text, validate=True)
        iv, encrypted = data[:BLOCK_BYTES], data[BLOCK_BYTES:]
        if not encrypted:
            raise ValueError("nothing is encrypted")
        decryptor = Cipher(AES256(hashlib.sha256(encrypt_key.encode()).digest()), CBC(iv)).decryptor()
        padded = decryptor.update(encrypted) + decryptor.finalize()
        unpadder = PKCS7(8 * BLOCK_BYTES).unpadder()
        return unpadder.update(padded) + unpadder.finalize()
    except (ValueError, binascii.Error):
        raise Invalid("The body can't be decrypted: is the app's encrypt key the one in Lark's console?") from None


def callback(app: App, headers: Mapping[str, str], raw: bytes, now: float) -> Callback:
    """What a request says, proved to come from Lark for this app. With an encrypt key the signature proves it and that
    it is fresh (five minutes either way); without one the verification token does, and nothing proves that it is new.
    The check of a new address (`url_verification`) is proved by its token, as Lark does not sign it. Raises
    Unauthenticated, Unparsable, Invalid, TooLarge.

    What bears no valid signature is refused in the same words whatever is wrong with it, so that nobody learns from our
    answers how something decrypts."""
    if not app.encrypt_key and not app.verification_token:
        raise Unauthenticated(
            "The app has neither an encrypt key nor a verification token, so nothing proves that a callback comes from "
            "Lark: set SIDECAR_LARK_ENCRYPT_KEY (or SIDECAR_LARK_VERIFICATION_TOKEN) as the console shows it."
        )
    if len(raw) > MAX_BYTES:
        raise TooLarge(f"A callback may hold {MAX_BYTES} bytes.")
    if not app.encrypt_key:
        return _proved_by_token(app, _plain(raw))
    try:
        nonce = _check_signature(app, headers, raw, now)
    except Unauthenticated as refused:
        return _address_check(app, raw, refused)
    body = _read(app, raw)
    token = _token(body)
    if token is not None and app.verification_token:
        _check_token(app, token)
    return _told(app, body, nonce)


def event(body: Mapping[str, Any]) -> Callback:
    """What an event says, in schema 2.0 or 1.0. Raises Invalid, naming the field."""
    if "schema" in body or "header" in body:
        header = _object(body.get("header"), "header")
        type = _name(header.get("event_type"), "header.event_type")
        return Callback(type, _name(header.get("event_id"), "header.event_id"), _object(body.get("event"), "event"))
    if body.get("type") == "event_callback":
        inner = _object(body.get("event"), "event")
        return Callback(_name(inner.get("type"), "event.type"), _name(body.get("uuid"), "uuid"), inner)
    if "open_message_id" in body and "action" in body:
        raise _bad("", "is an old card callback; subscribe to card.action.trigger in the console")
    raise _bad("schema", "must be there (an event of schema 2.0 or 1.0)")


def click(event: Mapping[str, Any]) -> CardClick | None:
    """The click on a card of ours that an event `card.action.trigger` tells of; None if it is on another card, or not
    told by whom."""
    value = _inner(event, "action", "value")
    open_id = _inner(event, "operator", "open_id")
    if not isinstance(value, Mapping) or not _is_name(open_id):
        return None
    session_id = value.get("session_id")
    word = value.get("action", value.get("action_type"))
    if not _is_name(session_id) or not isinstance(word, str) or word not in ACTIONS:
        return None
    message_id = _inner(event, "context", "open_message_id")
    return CardClick(session_id, ACTIONS[word], open_id, message_id if _is_name(message_id) else None)


def _check_signature(app: App, headers: Mapping[str, str], raw: bytes, now: float) -> str:
    """The name of this one request. The signature covers timestamp and nonce together, and the timestamp has ten
    digits: so both are what Lark wrote, and together they are never used twice."""
    found = {name.lower(): value for name, value in headers.items()}
    given = found.get("x-lark-signature", "")
    if _OLD_SIGNATURE.fullmatch(given):
        raise SignatureMismatch(
            "The callback is signed in the old way (SHA-1, card.action.trigger_v1), which proves too little: subscribe "
            "to card.action.trigger in Lark's console."
        )
    timestamp, nonce = found.get("x-lark-request-timestamp", ""), found.get("x-lark-request-nonce", "")
    signed = _SIGNATURE.fullmatch(given) and _TIMESTAMP.fullmatch(timestamp) and _is_name(nonce)
    if not signed or not hmac.compare_digest(given, signature(timestamp, nonce, app.encrypt_key, raw)):
        raise SignatureMismatch(
            "The callback is not signed by Lark for this app. Is the app's encrypt key the one in Lark's console? "
            "(Lark does not sign its check of a new address: that one needs the app's verification token.)"
        )
    if abs(now - int(timestamp)) > FRESH_SECONDS:
        raise StaleRequest(
            f"The callback is not of the last {FRESH_SECONDS // 60} minutes: it was sent again by somebody else, or "
            "this computer's clock is wrong."
        )
    return f"{timestamp}.{nonce}"


def _address_check(app: App, raw: bytes, refused: Unauthenticated) -> Callback:
    """The address check in a request without a valid signature. Raises `refused` for everything else."""
    try:
        body = _read(app, raw)
        if body.get("type") == "url_verification" and app.verification_token:
            _check_token(app, _token(body))
            return _told(app, body, None)
    except (Invalid, Unauthenticated):
        raise refused from None
    raise refused


def _proved_by_token(app: App, body: Mapping[str, Any]) -> Callback:
    if "encrypt" in body:
        raise SignatureMismatch(
            "The callback is encrypted, but the app has no encrypt key: set SIDECAR_LARK_ENCRYPT_KEY as Lark's console "
            "shows it."
        )
    _check_token(app, _token(body))
    return _told(app, body, None)


def _check_token(app: App, token: Any) -> None:
    given = token if isinstance(token, str) else ""
    if not hmac.compare_digest(given.encode(), app.verification_token.encode()):
        raise SignatureMismatch("The callback doesn't hold this app's verification token.")


def _told(app: App, body: Mapping[str, Any], nonce: str | None) -> Callback:
    if body.get("type") == "url_verification":
        challenge = body.get("challenge")
        if not isinstance(challenge, str) or not _CHALLENGE.fullmatch(challenge):
            raise _bad("challenge", "must be a string of 1 to 256 letters, digits and -._~+/=")
        return Callback("url_verification", nonce=nonce, challenge=challenge)
    told = event(body)
    sender = _inner(body, "header", "app_id")
    if sender is not None and sender != app.id:
        raise Unauthenticated("The callback is for another app.")
    return Callback(told.type, told.event_id, told.event, nonce)


def _read(app: App, raw: bytes) -> Mapping[str, Any]:
    body = _plain(raw)
    if "encrypt" not in body:
        return body
    if not isinstance(body["encrypt"], str):
        raise _bad("encrypt", "must be a string")
    return _plain(decrypt(body["encrypt"], app.encrypt_key))


def _plain(raw: bytes) -> Mapping[str, Any]:
    try:
        body = parse_message(raw.decode())
    except UnicodeDecodeError:
        raise Unparsable("The body is not UTF-8.") from None
    return _object(body, "")


def _token(body: Mapping[str, Any]) -> Any:
    """The verification token that a body holds, in schema 2.0 or 1.0; None if it holds none."""
    return _inner(body, "header", "token") if "header" in body else body.get("token")


def _inner(body: Mapping[str, Any], outer: str, name: str) -> Any:
    inner = body.get(outer)
    return inner.get(name) if isinstance(inner, Mapping) else None


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _bad(path, "must be an object")
    return value


def _name(value: Any, path: str) -> str:
    if not _is_name(value):
        raise _bad(path, f"must be a string of 1 to {MAX_NAME_CHARACTERS} printable characters")
    return value


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 1 <= len(value) <= MAX_NAME_CHARACTERS and value.isprintable()


def _bad(path: str, message: str) -> Invalid:
    return Invalid(f"The callback can't be used: {path or 'it'} {message}.", (FieldError(path, message),))
