"""Frames of bots and the bodies of /api/maim/…, as hostile as they come."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from sidecar.domain.errors import Invalid
from sidecar.domain.maim import PARTS, is_message
from sidecar.wire.checks import read
from sidecar.wire.maim import (
    MAX_ID_CHARACTERS,
    MAX_TTL_SECONDS,
    MaimBroadcastBody,
    MaimKeyBody,
    MaimRouteBody,
    MaimSendBody,
    as_text,
    clean_platform,
    clean_uuid,
    is_key,
    read_custom,
    read_frame,
    read_text,
    read_value,
    with_message,
)

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import example, given
from hypothesis import strategies as st

MESSAGE: dict[str, Any] = {
    "message_info": {"platform": "qq", "message_id": "m", "time": 1},
    "message_segment": {"type": "text", "data": "hello"},
    "message_dim": {"api_key": "key-b", "platform": "qq"},
}

NAMES = st.sampled_from(
    ["type", "msg_id", "meta", "payload", "queue", "ttl_seconds", "target_platform", "acked_msg_id", "platform", *PARTS]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text()
    | st.sampled_from(["sys_std", "sys_ack", "custom_x", "\ud800", "\x00", 10**400, "x" * 2_000])
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=6)
)


@given(ANYTHING)
@example({"meta": {"queue": {"ttl_seconds": 10**400}}})
@example({"msg_id": 10**4000})
def test_any_value_is_a_frame_or_refused(value: Any):
    """Nothing else may come out: it would end the connection."""
    try:
        found = read_value(value)
    except Invalid:
        return
    if found is None:
        assert not isinstance(value, dict)
        return
    assert found.ttl_seconds is None or 0 <= found.ttl_seconds <= MAX_TTL_SECONDS
    assert found.msg_id is None or 0 < len(str(found.msg_id)) <= MAX_ID_CHARACTERS
    as_text([found.type, found.msg_id, found.payload, found.target_platform, found.acked]).encode()
    is_message(found.payload)


@given(st.text() | ANYTHING.map(lambda value: json.dumps(value)))
@example("[" * 100_000)
@example('{"a":' * 40 + "1" + "}" * 40)
@example("1" * 5_000)
@example('{"type":"sys_std","type":"x"}')
def test_any_text_is_a_frame_or_refused(text: str):
    try:
        found = read_text(text)
    except Invalid:
        return
    if found is not None:
        as_text([found.type, found.msg_id, found.payload, found.target_platform, found.acked]).encode()


@given(ANYTHING)
@example({"connection_uuid": "u", "target_user": "v", "message_type": "x", "payload": 1})
def test_any_body_is_read_or_refused(body: Any):
    if not isinstance(body, dict):
        return
    for kind in (MaimSendBody, MaimBroadcastBody, MaimRouteBody, MaimKeyBody):
        for given_body in (body, with_message(body)):
            with contextlib.suppress(Invalid):
                read(kind, given_body)
    with contextlib.suppress(Invalid):
        read_custom(body)


def test_both_lines_read_the_same():
    said = {"type": "sys_std", "msg_id": "m", "meta": {"target_platform": "qq", "queue": True}, "payload": MESSAGE}
    assert read_value(said) == read_value(json.dumps(said)) == read_text(json.dumps(said))


def test_the_three_parts_without_an_envelope_are_a_message():
    found = read_frame({**MESSAGE, "msg_id": "m", "more": 1})
    assert found is not None
    assert (found.type, found.msg_id, found.payload) == ("sys_std", "m", MESSAGE)
    for part in PARTS:
        less = read_frame({name: value for name, value in MESSAGE.items() if name != part})
        assert less is not None
        assert less.type == ""
    assert read_frame({**MESSAGE, "type": "other"}).type == "other"  # type: ignore[union-attr]
    assert read_frame({**MESSAGE, "payload": 1}).type == ""  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given_id", "taken"),
    [
        ("m", "m"),
        (5, 5),
        (0, 0),
        ("", None),
        (None, None),
        (True, None),
        (1.5, None),
        ([], None),
        ("x" * MAX_ID_CHARACTERS, "x" * MAX_ID_CHARACTERS),
        ("x" * (MAX_ID_CHARACTERS + 1), None),
    ],
)
def test_what_a_msg_id_may_be(given_id: object, taken: object):
    assert read_value({"msg_id": given_id}).msg_id == taken  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("queue", "seconds"),
    [
        (True, 0.0),
        (False, None),
        (None, None),
        (1, None),
        ("true", None),
        ({}, 0.0),
        ({"ttl_seconds": 5}, 5.0),
        ({"ttl_seconds": 0.5}, 0.5),
        ({"ttl_seconds": 0}, 0.0),
        ({"ttl_seconds": -1}, 0.0),
        ({"ttl_seconds": "5"}, 0.0),
        ({"ttl_seconds": True}, 0.0),
        ({"ttl_seconds": 10**400}, MAX_TTL_SECONDS),
    ],
)
def test_how_long_it_is_to_be_kept(queue: object, seconds: float | None):
    """A number that no float holds used to end the connection."""
    assert read_value({"meta": {"queue": queue}}).ttl_seconds == seconds  # type: ignore[union-attr]


def test_what_a_bot_may_call_its_connection():
    assert clean_uuid("single_0123") == "single_0123"
    assert clean_uuid("x" * 100) == "x" * 100
    for bad in ("", "x" * 101, "a b", "ü", "a\n", "\x00"):
        assert clean_uuid(bad) is None


def test_what_a_platform_may_be():
    assert clean_platform(" 微信 ") == "微信"
    for bad in ("", " ", "x" * 201, "a\nb", "\x00"):
        with pytest.raises(Invalid):
            clean_platform(bad)


def test_what_a_key_may_be():
    assert is_key("key-a")
    assert not any(is_key(bad) for bad in ("a b", "ü", "a\r\n", "\x7f"))
    for bad in ("", "a b", "x" * 257, "sma_0123456789ab", 5, ["k"], True):
        with pytest.raises(Invalid) as caught:
            read(MaimKeyBody, {"user": "bob", "key": bad})
        assert [problem.path for problem in caught.value.fields] == ["key"]
        assert str(bad) not in caught.value.detail or bad in ("", 5)
    assert read(MaimKeyBody, {"user": "bob", "key": "sma_"}).key == "sma_"


def paths(kind: Any, body: Any) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read(kind, body)
    return [problem.path for problem in caught.value.fields]


def test_every_bad_field_of_a_key_is_named():
    body = {"user": "", "tenant": [], "platforms": ["", "ok", 5.5], "name": {}, "key": " ", "typo": 1}
    assert sorted(paths(MaimKeyBody, body)) == ["key", "name", "platforms[0]", "platforms[2]", "tenant", "typo", "user"]
    assert paths(MaimKeyBody, {"user": "bob", "platforms": []}) == ["platforms"]
    assert paths(MaimKeyBody, {}) == ["user"]


def test_every_bad_field_of_a_send_is_named():
    body = {"message": {}, "target_platform": [], "queue": "yes", "ttl_seconds": 0}
    assert sorted(paths(MaimSendBody, body)) == ["message", "queue", "target_platform", "ttl_seconds"]
    assert paths(MaimSendBody, with_message({"message_info": {}})) == ["message"]
    assert paths(MaimBroadcastBody, {"platform": "a\nb", "tenant": {}}) == ["message", "platform", "tenant"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["message_type", "payload"]),
        ({"message_type": "", "payload": 1}, ["message_type"]),
        ({"message_type": "x", "payload": None}, ["connection_uuid"]),
        ({"message_type": "x", "payload": 1, "connection_uuid": "a", "api_key": "b"}, ["connection_uuid"]),
        ({"message_type": "x", "payload": 1, "target_user": "bob"}, ["target_platform"]),
        ({"message_type": "x", "payload": 1, "api_key": "a b", "target_user": []}, ["target_user", "api_key"]),
        ({"message_type": "x", "payload": 1, "connection_uuid": "a", "queue": True}, ["queue"]),
        ({"message_type": "x", "payload": 1, "connection_uuid": "a", "ttl_seconds": 5}, ["queue"]),
    ],
)
def test_every_bad_field_of_a_custom_message_is_named(body: dict[str, Any], named: list[str]):
    """(What is kept is kept for a user: a connection that is not there will not come again.)"""
    with pytest.raises(Invalid) as caught:
        read_custom(body)
    assert [problem.path for problem in caught.value.fields] == named


def test_a_custom_type_gets_its_beginning():
    for given_type in ("reload", "custom_reload"):
        body = {"message_type": given_type, "payload": None, "connection_uuid": "a"}
        assert read_custom(body).message_type == "custom_reload"
