"""Bodies of messages, read: what is taken, what is refused, and that nothing else is ever raised."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.domain.errors import FieldError, Invalid
from sidecar.wire.bodies import parse_message
from sidecar.wire.checks import read
from sidecar.wire.envelopes import bare_message
from sidecar.wire.messages import (
    BroadcastBody,
    ChatBody,
    LocationBody,
    NotifyBody,
    SendBody,
    StartPushBody,
    StopPushBody,
)

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")
st = hypothesis.strategies

KINDS = [SendBody, LocationBody, StartPushBody, StopPushBody, BroadcastBody, NotifyBody, ChatBody]
FIELDS = sorted({name for kind in KINDS for name in kind.model_fields})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["nan", "\ud800"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.given(body=st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_anything_is_read_or_refused_by_its_fields(kind: type, body: dict[str, Any]):
    fields: tuple[FieldError, ...] | None = None
    try:
        made = read(kind, body)
    except Invalid as error:
        fields = error.fields
    if fields is None:
        json.dumps({name: value for name, value in made.model_dump().items() if name != "data"}, allow_nan=False)
        return
    assert fields
    assert {field.path.partition(".")[0] for field in fields} <= set(kind.model_fields)
    assert all(field.message for field in fields)


@pytest.mark.parametrize("kind", [SendBody, NotifyBody])
@pytest.mark.parametrize("name", ["a", " a ", 7, "Züri", "a b", "😀", "x" * 200])
def test_names(kind: type, name: object):
    field = "room" if kind is SendBody else "user_id"
    assert getattr(read(kind, {field: name}), field) == str(name).strip()


@pytest.mark.parametrize("value", [None, "", " ada "])
def test_nobody_in_particular(value: object):
    expected = value.strip() or None if isinstance(value, str) else None
    assert read(SendBody, {"target_user": value}).target_user == expected
    assert read(StopPushBody, {"room": value}).room == expected


@pytest.mark.parametrize("device", [None, ""])
def test_a_device_without_a_name(device: object):
    assert read(LocationBody, {"latitude": 0, "longitude": 0, "device_id": device}).device_id == "unknown"
    assert read(LocationBody, {"latitude": 0, "longitude": 0}).device_id == "unknown"


@pytest.mark.parametrize(("given", "read_as"), [(0, 0.0), ("0", 0.0), ("-12.5", -12.5), (90, 90.0), (-90, -90.0)])
def test_numbers_may_be_text(given: object, read_as: float):
    assert read(LocationBody, {"latitude": given, "longitude": "0"}).latitude == read_as


def test_a_refusal_repeats_nothing_of_what_was_sent():
    with pytest.raises(Invalid) as caught:
        read(SendBody, {"room": ["hunter2"], "message": {"x": "hunter2"}, "data": "hunter2"})
    assert "hunter2" not in caught.value.detail + str(caught.value.fields)


@pytest.mark.parametrize(("text", "said"), [("\ud800", "\ufffd"), ("a\x00b", "a\ufffdb"), ("😀", "😀")])
def test_text_that_no_client_can_decode_is_replaced(text: str, said: str):
    assert read(ChatBody, {"message": text, "username": text}).message == said


@pytest.mark.parametrize("payload", [{}, {"content": 'say "hi"\n'}, {"a": {"b": [1, None]}, "ü": "🚀"}])
@pytest.mark.parametrize("offset", [None, "7.00000abc"])
def test_bare_frames_are_json_whatever_they_hold(payload: dict[str, Any], offset: str | None):
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    last = {} if offset is None else {"offset": offset}
    api = json.loads(bare_message("api_message", text, "now", offset))
    assert api == {"type": "api_message", "message": payload, "timestamp": "now", "source": "rest_api"} | last
    assert json.loads(bare_message("chat_message", text, "now", offset)) == (
        {"type": "chat_message", "timestamp": "now"} | payload | last
    )


def test_lone_surrogates_in_a_message_are_replaced():
    assert parse_message('{"a":"\\ud800","\\udfff":["\\u0000"]}') == {"a": "\ufffd", "\ufffd": ["\ufffd"]}
