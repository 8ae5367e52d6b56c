"""Every error code that Lark publishes for what we ask becomes one of our errors, and says what to do."""

from __future__ import annotations

import pytest

from sidecar.domain.authorizations import REASONS
from sidecar.domain.errors import (
    AuthorizationCodeExpired,
    AuthorizationFailed,
    ProviderUnavailable,
    TokenRefreshFailed,
    UserTokenExpired,
)
from sidecar.wire.lark_codes import APP_TOKEN_CODES, MEANINGS, advice, refusal

V2 = [20001, 20002, 20003, 20004, 20008, 20009, 20010, 20024, 20036, 20048, 20049, 20050, 20063, 20065, 20066, 20067]
V2 += [20068, 20069, 20070, 20071, 20072]
V2_REFRESH = [20026, 20037, 20064, 20073, 20074]
V1 = [20001, 20002, 20003, 20004, 20007, 20008, 20013, 20014, 20021, 20022, 20023, 20024, 20025, 20026, 20028, 20029]
V1 += [20035, 20036, 20037, 20038, 20039, 20042, 20046]
PERSON = [20001, 20005, 20008, 20021, 20022, 20023, 20050]
MESSAGES = [230001, 230002, 230006, 230011, 230013, 230018, 230020, 230022, 230025, 230027, 230028, 230029, 230031]
MESSAGES += [230034, 230035, 230038, 230049, 230053, 230099, 230110, 232009]
GENERIC = [99991400, 99991401, 99991403, 99991543, 99991661, 99991662, 99991663, 99991664, 99991665, 99991668, 99991669]
GENERIC += [99991671, 99991672, 99991673, 99991676, 99991677, 99991679, 10003, 10005, 10012, 10013, 10014, 10015]
AUTHORIZE_PAGE = [20027, 20029]
PUBLISHED = sorted({*V2, *V2_REFRESH, *V1, *PERSON, *MESSAGES, *GENERIC, *AUTHORIZE_PAGE})


@pytest.mark.parametrize("code", PUBLISHED)
def test_each_published_code_is_explained_in_both_languages(code):
    zh, en = advice(code, "zh"), advice(code, "en")
    assert zh is not None
    assert en is not None
    assert zh.endswith("。")
    assert en.endswith(".")
    assert any("\u4e00" <= c <= "\u9fff" for c in zh)
    assert en.isascii()


@pytest.mark.parametrize("code", sorted(MEANINGS))
def test_each_code_becomes_an_error_that_holds_it(code):
    error = refusal(code, 400)
    assert error.provider_code == code
    assert str(code) in error.detail
    assert error.reason in REASONS


@pytest.mark.parametrize(
    ("codes", "kind", "reason"),
    [
        ([20003, 20004, 20065, 20007], AuthorizationCodeExpired, "code_expired"),
        ([20026, 20037, 20038, 20064, 20073], TokenRefreshFailed, "unknown_error"),
        ([20005, 20006, 99991668, 99991677], UserTokenExpired, "unknown_error"),
        ([20050, 20072, 99991400, 230020, *APP_TOKEN_CODES], ProviderUnavailable, "provider_unavailable"),
        ([20002, 20009, 20010, 20024, 20027, 20029, 20048, 20069, 20071, 20074], AuthorizationFailed, "misconfigured"),
        ([20001, 20036, 20063, 20067, 20068, 20070, 99991672, 230006], AuthorizationFailed, "misconfigured"),
        ([20008, 20021, 20022, 20023, 20049, 20066, 230053], AuthorizationFailed, "unknown_error"),
    ],
)
def test_what_each_code_becomes(codes, kind, reason):
    for code in codes:
        error = refusal(code, 400)
        assert type(error) is kind, code
        assert error.reason == reason, code


@pytest.mark.parametrize(
    ("code", "zh", "en"),
    [
        (20029, "重定向 URL", "Redirect URLs"),
        (20071, "SIDECAR_LARK_REDIRECT_URI", "SIDECAR_LARK_REDIRECT_URI"),
        (20003, "重新发起授权", "start the authorization again"),
        (20004, "5 分钟", "five minutes"),
        (20065, "只能使用一次", "works once"),
        (20064, "重新授权", "authorize again"),
        (20073, "重新授权", "authorize again"),
    ],
)
def test_the_codes_that_people_meet_say_what_to_do(code, zh, en):
    assert zh in str(advice(code, "zh"))
    assert en in str(advice(code, "en"))


def test_a_users_token_that_is_not_taken_is_the_users():
    """99991663 stands for any token; only the call knows whose it was."""
    assert isinstance(refusal(99991663, 400, of_user=True), UserTokenExpired)
    assert isinstance(refusal(99991663, 400), ProviderUnavailable)


@pytest.mark.parametrize(("status", "kind"), [(400, AuthorizationFailed), (200, AuthorizationFailed)])
def test_an_unknown_code_is_a_failure(status, kind):
    error = refusal(12345, status)
    assert type(error) is kind
    assert (error.provider_code, error.reason) == (12345, "unknown_error")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_an_unknown_code_with_larks_own_trouble_can_be_tried_again(status):
    error = refusal(12345, status, retry_after_seconds=7)
    assert isinstance(error, ProviderUnavailable)
    assert (error.provider_code, error.retry_after_seconds) == (12345, 7)


@pytest.mark.parametrize("code", [None, 0, 12345, -1])
def test_nothing_is_advised_about_the_unknown(code):
    assert advice(code, "zh") is None
    assert advice(code, "en") is None
