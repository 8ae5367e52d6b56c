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
from sidecar.domain.errors import Invalid, TooLarge, Unauthenticated, Unparsable
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

ADDRESS_CHECK = {"type": "url_verification", "token": "verify-me", "challenge": "1b6aef1a-401f-406a-be41"}


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


def test_names_of_headers_come_in_any_case():
    body = encrypted(raw(EVENT))
    headers = {name.lower(): value for name, value in signed(body).items()}
    assert lark.callback(APP, headers, body, NOW).event_id == "ev-1"


def test_a_signature_covers_the_bytes_as_they_came():
    """JSON written anew (other spaces) is other bytes: signing what was parsed refuses Lark's own callbacks."""
    body = b'{"schema" :  "2.0",' + raw(EVENT)[len('{"schema": "2.0",') :]
    assert lark.callback(APP, signed(body), body, NOW).event_id == "ev-1"


def test_an_event_of_schema_1_is_read():
    body = raw({"uuid": "u-1", "token": "verify-me", "ts": "1", "type": "event_callback", "event": {"type": "message"}})
    told = lark.callback(APP, signed(body), body, NOW)
    assert (told.type, told.event_id, told.event) == ("message", "u-1", {"type": "message"})


class TestForged:
    """What does not prove to come from Lark, for this app, now."""

    def refused(self, headers: dict[str, str], body: bytes, app: App = APP, now: float = NOW) -> str:
        with pytest.raises(Unauthenticated) as caught:
            lark.callback(app, headers, body, now)
        for secret in (app.secret, app.encrypt_key, app.verification_token):
            assert not secret or secret not in caught.value.detail
        return caught.value.detail

    def test_no_signature(self):
        self.refused({}, raw(EVENT))

    @pytest.mark.parametrize("name", ["X-Lark-Request-Timestamp", "X-Lark-Request-Nonce", "X-Lark-Signature"])
    @pytest.mark.parametrize("value", [None, "", "x" * 100_000, "é", "\n", "0" * 64, "1700000001"])
    def test_a_header_missing_or_wrong(self, name, value):
        headers = signed(raw(EVENT))
        headers.pop(name)
        if value is not None:
            headers[name] = value
        self.refused(headers, raw(EVENT))

    def test_another_body(self):
        self.refused(signed(raw(EVENT)), raw(EVENT) + b" ")

    def test_another_key(self):
        self.refused(signed(raw(EVENT), key="other"), raw(EVENT))

    def test_moving_a_digit_from_timestamp_to_nonce(self):
        """Timestamp and nonce are signed without a border between them; a shorter timestamp would be a new nonce."""
        headers = signed(raw(EVENT), nonce="123")
        moved = headers | {"X-Lark-Request-Timestamp": "170000000", "X-Lark-Request-Nonce": "0123"}
        self.refused(moved, raw(EVENT), now=170000000)

    @pytest.mark.parametrize("age", [301, -301, 86_400, -86_400, 1e9])
    def test_stale_or_from_the_future(self, age):
        assert "clock" in self.refused(signed(raw(EVENT)), raw(EVENT), now=NOW + age)

    @pytest.mark.parametrize("age", [300, -300])
    def test_five_minutes_are_fresh(self, age):
        assert lark.callback(APP, signed(raw(EVENT)), raw(EVENT), NOW + age).event_id == "ev-1"

    @pytest.mark.parametrize(
        "timestamp", ["1700000000.0", " 1700000000", "+170000000", "１７００００００００", "1e9", "-1"]
    )
    def test_a_timestamp_of_another_form(self, timestamp):
        self.refused(signed(raw(EVENT), timestamp=timestamp), raw(EVENT))

    def test_the_old_signature_is_told_apart(self):
        body = raw({"open_message_id": "om_1", "action": {"value": {}}, "token": "c-1"})
        old = hashlib.sha1(f"{NOW}n1{APP.verification_token}".encode() + body).hexdigest()
        detail = self.refused(signed(body) | {"X-Lark-Signature": old}, body)
        assert "card.action.trigger" in detail

    def test_a_signed_callback_with_another_token(self):
        body = raw({**EVENT, "header": {**EVENT["header"], "token": "other"}})
        self.refused(signed(body), body)

    def test_a_callback_for_another_app(self):
        body = raw({**EVENT, "header": {**EVENT["header"], "app_id": "cli_b"}})
        self.refused(signed(body), body)

    @pytest.mark.parametrize("token", [None, "", "other", 1, ["verify-me"], {}, "vérify-me", "\ud800"])
    def test_without_encrypt_key_the_token_counts(self, token):
        app = replace(APP, encrypt_key="")
        self.refused({}, raw({**EVENT, "header": {**EVENT["header"], "token": token}}), app)
        self.refused({}, raw({"uuid": "u", "token": token, "type": "event_callback", "event": {"type": "m"}}), app)

    def test_without_encrypt_key_nothing_proves_freshness(self):
        told = lark.callback(replace(APP, encrypt_key=""), {}, raw(EVENT), NOW)
        assert (told.event_id, told.nonce) == ("ev-1", None)

    def test_an_encrypted_body_without_encrypt_key_says_what_to_set(self):
        app = replace(APP, encrypt_key="")
        assert "SIDECAR_LARK_ENCRYPT_KEY" in self.refused({}, encrypted(raw(EVENT)), app)

    def test_an_app_that_can_prove_nothing_says_what_to_set(self):
        app = replace(APP, encrypt_key="", verification_token="")
        assert "SIDECAR_LARK_ENCRYPT_KEY" in self.refused({}, raw(EVENT), app)

    def test_an_empty_token_does_not_prove_an_event_without_one(self):
        app = replace(APP, verification_token="")
        body = raw({"type": "url_verification", "challenge": "c", "token": ""})
        self.refused({}, body, app)

    @given(st.binary(max_size=300))
    def test_unsigned_bytes_are_always_refused_in_the_same_words(self, body):
        """So that our answers are no oracle for what was encrypted."""
        assert self.refused({}, body) == self.refused({}, b"")

    @given(st.binary(max_size=100))
    def test_an_unsigned_ciphertext_is_refused_in_the_same_words(self, data):
        body = raw({"encrypt": base64.b64encode(data).decode()})
        assert self.refused({}, body) == self.refused({}, b"")


class TestAddressCheck:
    """Lark asks for a challenge when an address is saved in its console, and does not sign that."""

    @pytest.mark.parametrize("app", [APP, replace(APP, encrypt_key="")])
    def test_the_challenge_is_read(self, app):
        told = lark.callback(app, {}, raw(ADDRESS_CHECK), NOW)
        assert (told.type, told.challenge, told.event) == ("url_verification", "1b6aef1a-401f-406a-be41", {})

    def test_encrypted(self):
        assert lark.callback(APP, {}, encrypted(raw(ADDRESS_CHECK)), NOW).challenge == "1b6aef1a-401f-406a-be41"

    def test_signed(self):
        body = encrypted(raw(ADDRESS_CHECK))
        assert lark.callback(APP, signed(body), body, NOW).challenge == "1b6aef1a-401f-406a-be41"

    @pytest.mark.parametrize("token", [None, "", "other", 1, ["verify-me"]])
    @pytest.mark.parametrize("app", [APP, replace(APP, encrypt_key="")])
    def test_another_token(self, app, token):
        with pytest.raises(Unauthenticated):
            lark.callback(app, {}, raw({**ADDRESS_CHECK, "token": token}), NOW)

    @pytest.mark.parametrize("challenge", [None, "", 1, "x" * 257, "a b", '{"token":"t"}', "é", "a\nb", ["c"]])
    def test_a_challenge_that_is_none(self, challenge):
        """It is given back: what was encrypted for us must not come out that way."""
        body = raw({**ADDRESS_CHECK, "challenge": challenge})
        with pytest.raises(Unauthenticated):
            lark.callback(APP, {}, body, NOW)
        with pytest.raises(Invalid):
            lark.callback(APP, signed(body), body, NOW)

    def test_an_event_does_not_pass_as_one(self):
        with pytest.raises(Unauthenticated):
            lark.callback(APP, {}, raw({**EVENT, "type": "event_callback", "token": "verify-me"}), NOW)


class TestUnreadable:
    """Signed, and yet of no use."""

    def callback(self, body: bytes) -> lark.Callback:
        return lark.callback(APP, signed(body), body, NOW)

    @pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[1", b"NaN", b"[" * 100_000, b'{"a":1e999}'])
    def test_not_json(self, body):
        with pytest.raises(Unparsable):
            self.callback(body)

    @pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"1", b"{}", b'{"type":"other"}', b'{"schema":"2.0"}'])
    def test_not_an_event(self, body):
        with pytest.raises(Invalid):
            self.callback(body)

    def test_too_large(self):
        with pytest.raises(TooLarge):
            lark.callback(APP, {}, b" " * (lark.MAX_BYTES + 1), NOW)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "?",
            "AAAA",
            base64.b64encode(bytes(16)).decode(),
            base64.b64encode(bytes(17)).decode(),
            base64.b64encode(bytes(32)).decode(),
            base64.b64encode(bytes(1000)).decode(),
            "é" * 44,
            None,
            1,
            [],
        ],
    )
    def test_undecryptable(self, text):
        with pytest.raises(Invalid):
            self.callback(raw({"encrypt": text}))

    def test_encrypted_with_another_key(self):
        with pytest.raises(Invalid):
            self.callback(encrypted(raw(EVENT), key="another"))

    @pytest.mark.parametrize("plain", [b"", b"x", b"\xff\xfe", b"[]", encrypted(raw(EVENT))])
    def test_decrypted_to_nothing_of_use(self, plain):
        with pytest.raises(Invalid):
            self.callback(encrypted(plain))

    @pytest.mark.parametrize(
        ("path", "bad"),
        [
            (("header",), 1),
            (("header",), None),
            (("header", "event_type"), None),
            (("header", "event_type"), 1),
            (("header", "event_type"), ""),
            (("header", "event_type"), "x" * 129),
            (("header", "event_type"), "a\nb"),
            (("header", "event_id"), None),
            (("header", "event_id"), {}),
            (("header", "event_id"), "x" * 129),
            (("header", "event_id"), "\u202e"),
            (("event",), None),
            (("event",), "text"),
            (("event",), []),
        ],
    )
    def test_a_field_of_the_wrong_type_is_named(self, path, bad):
        body = json.loads(raw(EVENT))
        inner = body
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = bad
        with pytest.raises(Invalid) as caught:
            lark.event(body)
        assert [error.path for error in caught.value.fields] == [".".join(path)]

    def test_an_old_card_callback_says_what_to_subscribe_to(self):
        with pytest.raises(Invalid, match=r"card\.action\.trigger"):
            lark.event({"open_message_id": "om_1", "action": {"value": {}}, "open_id": "ou_1"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "schema": json_values,
            "type": st.sampled_from(["event_callback", "url_verification"]) | json_values,
            "uuid": json_values,
            "token": st.just("verify-me") | json_values,
            "challenge": json_values,
            "encrypt": json_values,
            "header": st.fixed_dictionaries(
                {}, optional=dict.fromkeys(("event_type", "event_id", "token", "app_id"), json_values)
            )
            | json_values,
            "event": json_values,
        },
    )
)
def test_whatever_is_signed_is_read_or_refused(value):
    body = raw(value)
    for app in (APP, replace(APP, encrypt_key="")):
        try:
            told = lark.callback(app, signed(body), body, NOW)
        except (Invalid, Unauthenticated):
            continue
        assert told.challenge is not None or (told.type and told.event_id)


class TestClicks:
    @pytest.mark.parametrize(
        ("value", "action"),
        [
            ({"session_id": "s-1", "action": "authorize"}, "authorize"),
            ({"session_id": "s-1", "action": "reject"}, "reject"),
            ({"session_id": "s-1", "action_type": "user_auth"}, "authorize"),
            ({"session_id": "s-1", "action_type": "user_auth_cancel", "timestamp": 1}, "reject"),
        ],
    )
    def test_ours(self, value, action):
        told = lark.click({**CLICK, "action": {"value": value}})
        assert told == CardClick("s-1", action, "ou_1", "om_1")

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "authorize",
            '{"session_id":"s-1","action":"authorize"}',
            [],
            {},
            {"action": "authorize"},
            {"session_id": "s-1"},
            {"session_id": "", "action": "authorize"},
            {"session_id": "x" * 129, "action": "authorize"},
            {"session_id": "a\nb", "action": "authorize"},
            {"session_id": 1, "action": "authorize"},
            {"session_id": "s-1", "action": "vote"},
            {"session_id": "s-1", "action": ["authorize"]},
            {"session_id": "s-1", "action": {}},
        ],
    )
    def test_of_others(self, value):
        assert lark.click({**CLICK, "action": {"value": value}}) is None

    @pytest.mark.parametrize("operator", [None, 1, [], {}, {"open_id": ""}, {"open_id": None}, {"open_id": "x" * 129}])
    def test_nobody_has_clicked(self, operator):
        assert lark.click({**CLICK, "operator": operator}) is None

    @pytest.mark.parametrize("context", [None, 1, {}, {"open_message_id": 1}, {"open_message_id": "x" * 129}])
    def test_without_a_message(self, context):
        told = lark.click({**CLICK, "context": context})
        assert told is not None
        assert told.message_id is None

    @given(st.dictionaries(st.sampled_from(["operator", "action", "context", "token"]), json_values))
    def test_anything_is_ours_or_not(self, event):
        assert lark.click(event) is None
