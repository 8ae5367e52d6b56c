"""What back ends send to have users authorized: every bad field named, nothing repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.errors import Invalid
from sidecar.wire.authorizations import CardBody, EventBody, LinkBody, NewAppBody, StartBody
from sidecar.wire.checks import read

KINDS = [StartBody, CardBody, EventBody, LinkBody, NewAppBody]
LINK = {"app": "cli_a", "connected": True, "started_at": "2026-11-21T04:29:00Z"}
NEW = {"app_id": "cli_a", "secret": "s"}


def bad_fields(kind, body) -> set[str]:
    with pytest.raises(Invalid) as caught:
        read(kind, body)
    return {field.path for field in caught.value.fields}


def test_the_least_that_is_needed():
    start = read(StartBody, {"user": " 5 "})
    assert (start.user, start.app, start.open_id, start.scope, start.language, start.method) == (
        "5",
        None,
        None,
        "",
        None,
        None,
    )
    assert (read(CardBody, {}).receive_id_type, read(CardBody, {}).receive_id) == ("open_id", None)
    link = read(LinkBody, LINK)
    assert (link.heartbeat_seconds, link.reconnects.attempt) == (30.0, 0)
    assert read(NewAppBody, NEW).app.encrypt_key == ""
    assert read(StartBody, {"user": 5, "open_id": ""}).open_id is None


@pytest.mark.parametrize(
    ("kind", "body", "bad"),
    [
        (StartBody, {"user": "", "app": "x" * 65, "scope": 5, "language": "de", "method": "x"}, None),
        (StartBody, {"user": True, "open_id": "\n"}, None),
        (StartBody, {"user": "u", "User": "u"}, {"User"}),
        (CardBody, {"receive_id_type": "phone", "receive_id": " "}, None),
        (CardBody, {"receive_id": "x" * 201}, None),
        (EventBody, {"app": "cli_a", "event": []}, {"event"}),
        (EventBody, {"event": {}}, {"app"}),
        (LinkBody, LINK | {"connected": "yes, indeed"}, {"connected"}),
        (LinkBody, LINK | {"reconnects": {"attempt": -1, "success": 10**10}}, None),
        (LinkBody, LINK | {"heartbeat_seconds": "nan"}, {"heartbeat_seconds"}),
        (LinkBody, LINK | {"started_at": "x" * 41}, {"started_at"}),
        (NewAppBody, {"app_id": "", "secret": "", "verification_token": "x" * 501}, None),
        (NewAppBody, NEW | {"secret": "a\nb"}, {"secret"}),
    ],
)
def test_every_bad_field_is_named(kind, body, bad):
    nested = {f"reconnects.{name}" for name in body.get("reconnects", {})}
    expected = bad if bad is not None else nested or set(body)
    assert bad_fields(kind, body) == expected


def test_a_secret_that_can_t_be_used_is_not_repeated():
    for body in (NEW | {"secret": "hunter2\n2"}, NEW | {"secret": ["hunter2"]}, NEW | {"encrypt_key": "hunter2" * 99}):
        with pytest.raises(Invalid) as caught:
            read(NewAppBody, body)
        assert "hunter2" not in repr(caught.value) + repr(caught.value.fields) + caught.value.detail


def test_an_app_shows_no_secret():
    body = NEW | {"secret": "hunter2", "verification_token": "hunter2", "encrypt_key": "hunter2"}
    assert "hunter2" not in repr(read(NewAppBody, body).app)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted({name for kind in KINDS for name in kind.model_fields})


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from([*NAMES, "x"]), VALUES, max_size=5))
def test_whatever_comes_is_read_or_refused(kind, body):
    try:
        found = read(kind, body)
    except Invalid:
        assert bad_fields(kind, body)
        return
    for value in found.model_dump().values():
        if isinstance(value, str):
            value.encode()
            assert "\x00" not in value


@pytest.mark.parametrize("app_id", ["a/b", "cli a", "", "x" * 65, "飞书", 5, None])
def test_an_app_has_an_id_that_can_stand_in_an_address(app_id):
    assert bad_fields(NewAppBody, NEW | {"app_id": app_id}) == {"app_id"}


def test_a_new_app_shows_no_secret():
    assert "hush" not in repr(
        read(NewAppBody, {"app_id": "cli_a", "secret": "hush", "verification_token": "hush2", "encrypt_key": "hush3"})
    )
