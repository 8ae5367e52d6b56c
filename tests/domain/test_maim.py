"""The maim_message protocol as pure rules: whom a message is for, what a message is, and the server's own frames."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sidecar.domain.maim import (
    REASONS,
    Account,
    Place,
    Undelivered,
    ack,
    address_of,
    destination,
    envelope,
    is_message,
    wrapped,
)

BOB = Account("shop", "bob")


def found(payload: object, target_platform: str | None = None, *, reaches: bool = True) -> Place | str:
    """Where it goes, or why nowhere."""
    try:
        return destination(payload, target_platform, {"key-b": BOB}.get, lambda tenant: reaches and tenant == "shop")
    except Undelivered as problem:
        return REASONS[REASONS.index(problem.reason)]


def to(key: object = "key-b", platform: object = "qq") -> dict[str, Any]:
    return {"message_dim": {"api_key": key, "platform": platform}}


def test_it_goes_to_the_user_of_the_key_on_the_platform():
    assert found(to()) == Place("shop", "bob", "qq")


def test_a_target_platform_stands_before_the_message_dim():
    assert found(to(), "wechat") == Place("shop", "bob", "wechat")
    assert found(to(platform=""), "wechat") == Place("shop", "bob", "wechat")


@pytest.mark.parametrize("payload", [None, "text", [], {}, {"message_dim": None}, {"message_dim": []}, to(""), to(5)])
def test_without_a_key_it_goes_nowhere(payload):
    assert found(payload) == "no_key"


@pytest.mark.parametrize("platform", [None, "", 5, [], {"a": 1}])
def test_without_a_platform_it_goes_nowhere(platform):
    assert found(to(platform=platform)) == "no_platform"


@pytest.mark.parametrize("platform", ["x" * 201, "x" * 100_000, "a\nb", "\ud800", " "])
def test_a_platform_that_no_connection_can_have_is_none(platform):
    """A PostgreSQL index takes no such text: the whole batch of commands used to fail with it."""
    assert found(to(platform=platform)) == "invalid"


def test_white_space_around_a_platform_does_not_count():
    """It does not in the handshake either."""
    assert found(to(platform=" qq ")) == Place("shop", "bob", "qq")


def test_the_other_reasons():
    assert found(to("key-c")) == "unknown_receiver"
    assert found(to(), reaches=False) == "foreign_tenant"


def test_an_account_may_be_bound_to_platforms():
    assert Account("t", "u").may_use("anything")
    assert Account("t", "u", ("qq",)).may_use("qq")
    assert not Account("t", "u", ("qq",)).may_use("QQ")
    assert not Account("t", "u", ()).may_use("qq")


MESSAGE = {
    "message_info": {"platform": "qq", "message_id": "m", "time": 1},
    "message_segment": {"type": "text", "data": None},
    "message_dim": {},
}


def test_a_message():
    assert is_message(MESSAGE)
    assert is_message(MESSAGE | {"more": 1})


@pytest.mark.parametrize("part", list(MESSAGE))
@pytest.mark.parametrize("value", [None, [], "text", 5, True])
def test_no_message_without_each_part_as_an_object(part: str, value: object):
    assert not is_message(MESSAGE | {part: value})
    assert not is_message({name: other for name, other in MESSAGE.items() if name != part})


@pytest.mark.parametrize(
    ("part", "field", "bad"),
    [
        ("message_info", "platform", [None, 5, ["qq"]]),
        ("message_info", "message_id", [None, 5, {}]),
        ("message_info", "time", [None, "1", True, []]),
        ("message_segment", "type", [None, 5, ["text"]]),
    ],
)
def test_no_message_with_a_field_that_clients_raise_on(part: str, field: str, bad: list[object]):
    for value in bad:
        assert not is_message(MESSAGE | {part: MESSAGE[part] | {field: value}}), value
    assert not is_message(MESSAGE | {part: {name: 1 for name in MESSAGE[part] if name != field}})


@pytest.mark.parametrize("value", [None, 5, "text", [], True])
def test_what_is_no_object_is_no_message(value: object):
    assert not is_message(value)


def test_what_is_no_message_comes_back_as_one():
    made = wrapped({"x": 1}, "key-a", "wechat", 1.5)
    assert is_message(made)
    assert made["message_segment"] == {"type": "text", "data": "{'x': 1}"}
    assert made["message_dim"] == {"api_key": "key-a", "platform": "wechat"}


def test_the_servers_own_frames():
    made = envelope("sys_std", {"a": 1}, {"target_user": "bob", "platform": "qq"}, 1795227114.9)
    assert re.fullmatch(r"msg_[0-9a-f]{12}_1795227114", made.pop("msg_id"))
    assert made == {
        "ver": 1,
        "type": "sys_std",
        "meta": {"sender_user": "server", "target_user": "bob", "platform": "qq", "timestamp": 1795227114.9},
        "payload": {"a": 1},
    }
    assert envelope("custom_x", None, {}, 1.0)["msg_id"].startswith("custom_")
    assert envelope("sys_std", None, {}, 1.0)["msg_id"] != envelope("sys_std", None, {}, 1.0)["msg_id"]


def test_an_acknowledgement_names_the_frame_and_the_connection():
    made = ack("single_1", 5, 1.5)
    assert made["type"] == "sys_ack"
    assert made["meta"] == {"uuid": "single_1", "acked_msg_id": 5, "timestamp": 1.5}
    assert made["payload"] == {"status": "received", "server_timestamp": 1.5}


def test_an_address_tells_of_the_key_only_its_id():
    assert address_of("0123456789ab") == "sma_0123456789ab"
