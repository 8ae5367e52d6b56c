"""What Lark answers, and what it might answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.authorizations import AppToken, Person, UserTokens
from sidecar.domain.errors import ProviderUnavailable
from sidecar.wire import lark_answers

TOKENS = {
    "code": 0,
    "access_token": "u-1",
    "expires_in": 7200,
    "refresh_token": "ur-1",
    "refresh_token_expires_in": 604800,
    "scope": "auth:user.id:read offline_access",
    "token_type": "Bearer",
}
PERSON = {"open_id": "ou_1", "union_id": "on_1", "name": "张三", "mobile": "+8613000000000", "email": "z@example.com"}
BAD_TEXTS = [None, "", 1, True, [], {}, "a b", "a\nb", "é", "x" * 20_000]


def test_tokens():
    told = lark_answers.user_tokens(TOKENS)
    assert told == UserTokens("u-1", 7200, "ur-1", 604800, "auth:user.id:read offline_access")


def test_tokens_without_offline_access():
    told = lark_answers.user_tokens({"access_token": "u-1", "expires_in": 7200})
    assert told == UserTokens("u-1", 7200)


def test_tokens_as_long_as_lark_announces():
    long = "e" * 4096
    assert lark_answers.user_tokens({**TOKENS, "access_token": long, "refresh_token": long}).refresh == long


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_a_token_that_is_none(bad):
    with pytest.raises(ProviderUnavailable, match="access_token"):
        lark_answers.user_tokens({**TOKENS, "access_token": bad})
    assert lark_answers.user_tokens({**TOKENS, "refresh_token": bad}).refresh is None


@pytest.mark.parametrize("bad", [None, 0, -1, True, "7200", 1e300, float("nan"), float("inf"), 10**30, []])
def test_a_lifetime_that_is_none(bad):
    with pytest.raises(ProviderUnavailable, match="expires_in"):
        lark_answers.user_tokens({**TOKENS, "expires_in": bad})
    assert lark_answers.user_tokens({**TOKENS, "refresh_token_expires_in": bad}).refresh_expires_in is None


def test_tokens_are_not_shown():
    assert "u-1" not in repr(lark_answers.user_tokens(TOKENS))
    assert "ur-1" not in repr(lark_answers.user_tokens(TOKENS))


def test_a_person():
    told = lark_answers.person({"code": 0, "data": {**PERSON, "avatar_url": "https://example.com/a"}})
    assert told == Person("ou_1", "on_1", "张三", "+8613000000000", "z@example.com")


def test_a_person_of_whom_little_may_be_said():
    assert lark_answers.person({"data": {"open_id": "ou_1", "name": "", "email": ""}}) == Person("ou_1")


def test_the_address_of_the_organization_stands_in():
    assert (
        lark_answers.person({"data": {"open_id": "ou_1", "enterprise_email": "e@example.com"}}).email == "e@example.com"
    )


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_nobody(bad):
    with pytest.raises(ProviderUnavailable, match="open_id"):
        lark_answers.person({"data": {**PERSON, "open_id": bad}})


@pytest.mark.parametrize("data", [None, [], "x", 1])
def test_no_data(data):
    with pytest.raises(ProviderUnavailable, match="data"):
        lark_answers.person({"data": data})
    with pytest.raises(ProviderUnavailable, match="data"):
        lark_answers.message_id({"data": data})


@pytest.mark.parametrize("field", ["union_id", "name", "mobile", "email"])
@pytest.mark.parametrize("bad", [None, 1, [], {}, "x" * 20_000, "\n"])
def test_what_is_strange_about_a_person_is_left_out(field, bad):
    assert getattr(lark_answers.person({"data": {**PERSON, field: bad}}), field) is None


def test_a_long_name_is_cut():
    told = lark_answers.person({"data": {**PERSON, "name": "n" * 1000}})
    assert told.name == "n" * lark_answers.MAX_NAME_CHARACTERS


@given(st.text(max_size=300))
def test_a_name_is_one_line(name):
    told = lark_answers.person({"data": {**PERSON, "name": name}}).name
    assert told is None or (told.isprintable() and len(told) <= lark_answers.MAX_NAME_CHARACTERS)


def test_tokens_of_apps():
    body = {"code": 0, "tenant_access_token": "t-1", "app_access_token": "a-1", "expire": 7100}
    assert lark_answers.app_token(body, "tenant") == AppToken("t-1", 7100)
    assert lark_answers.app_token(body, "app") == AppToken("a-1", 7100)
    with pytest.raises(ProviderUnavailable, match="app_access_token"):
        lark_answers.app_token({"tenant_access_token": "t-1", "expire": 7100}, "app")


def test_the_message():
    assert lark_answers.message_id({"data": {"message_id": "om_1", "msg_type": "interactive"}}) == "om_1"
