"""What Lark sends: signatures, encryption, callbacks, events, clicks; and everything that may be wrong with them."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.authorizations import App, CardClick
from sidecar.domain.errors import Invalid, SidecarError, TooLarge, Unauthenticated, Unparsable
from sidecar.wire import lark

NOW = 1_700_000_000
APP = App("cli_a", "secret-of-app", "verify-me", "test key")
CLICK = {
    "operator": {"open_id": "ou_1", "union_id": "on_1", "user_id": "u1", "tenant_key": "t"},
    "token": "c-1",
    "action": {"tag": "button", "value": {"session_id": "s-1", "action": "authorize"}},
    "host": "im_message",
    "context": {"open_message_id": "om_1", "open_chat_id": "oc_1"},
}
EVENT = {
    "schema": "2.0",
    "header": {
        "event_id": "ev-1",
        "token": "verify-me",
        "create_time": "1700000000000000",
        "event_type": "card.action.trigger",
        "tenant_key": "t",
        "app_id": "cli_a",
    },
    "event": CLICK,
}


def raw(body: Any) -> bytes:
    return json.dumps(body).encode()


def encrypted(plain: bytes, key: str = APP.encrypt_key, iv: bytes = bytes(range(16))) -> bytes:
    """A body as Lark encrypts it."""
    padder = PKCS7(128).padder()
    encryptor = Cipher(AES256(hashlib.sha256(key.encode()).digest()), CBC(iv)).encryptor()
    data = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    return raw({"encrypt": base64.b64encode(iv + data).decode()})


def signed(body: bytes, timestamp: str = str(NOW), nonce: str = "n1", key: str = APP.encrypt_key) -> dict[str, str]:
    return {
        "X-Lark-Request-Timestamp": timestamp,
        "X-Lark-Request-Nonce": nonce,
        "X-Lark-Signature": hashlib.sha256(f"{timestamp}{nonce}{key}".encode() + body).hexdigest(),
    }


def test_the_signature_is_that_of_the_sdk():
    expected = "ef7fa497f697e1e16ef7c26d9112ce6610912d4c4db384661eb0113543e97cde"
    assert lark.signature("1700000000", "n1", "test key", b'{"a":1}') == expected


def test_the_encryption_is_that_of_the_sdk():
    assert lark.decrypt("AAECAwQFBgcICQoLDA0ODx9boKUoUEfLsblbVEKm75s=", "test key") == b"hello world"


def test_a_signed_and_encrypted_event_is_read():
    body = encrypted(raw(EVENT))
    told = lark.callback(APP, signed(body), body, NOW + 1)
    assert (told.type, told.event_id, told.challenge) == ("card.action.trigger", "ev-1", None)
    assert told.event == CLICK
    assert told.nonce == "1700000000.n1"
    assert lark.click(told.event) == CardClick("s-1", "authorize", "ou_1", "om_1")
