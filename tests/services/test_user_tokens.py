"""Users' tokens: handed out while they hold, renewed by one for all, forgotten when told to."""

from __future__ import annotations

import gevent
import pytest

from sidecar.domain.access import Identity
from sidecar.domain.authorizations import App
from sidecar.domain.errors import (
    AuthenticationRequired,
    AuthorizationFailed,
    NotAllowed,
    NotFound,
    ProviderUnavailable,
    TokenRefreshFailed,
    Unauthenticated,
    Unavailable,
    UserTokenExpired,
)
from sidecar.services import token_renewal, user_tokens
from tests.fanout.stages import wait_until
from tests.services.authorizing import LIFE_SECONDS, SCOPES, SHOP, browser, outcome_of, together

NEAR_THE_END = LIFE_SECONDS * 0.95
NEVER_AUTHORIZED = Identity(kind="anonymous", name="anonymous")


def unavailable(*given):
    raise Unavailable("The store is away.")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(token_renewal, "SAVE_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(token_renewal, "LOOK_SECONDS", 0.01)


def test_handed_out_while_it_holds(desk):
    row = desk.authorized()
    found = desk.token()
    assert found.text.startswith("access-")
    assert (found.open_id, found.scope, found.is_expiring) == ("ou_alice", "offline_access", False)
    assert 0 < found.expires_in <= LIFE_SECONDS
    assert found.expires_at == desk.row(row.session_id)["token_expires_at"]
    assert desk.platform.count("refresh") == 0


def test_nobody_has_authorized(desk):
    for user in ("u1", "", "\x00", "u'1", "x" * 5_000):
        with pytest.raises(AuthenticationRequired):
            desk.token(user)
    with pytest.raises(NotFound):
        desk.token(app="cli_unknown")
    assert desk.all_uses() == 0


@pytest.mark.parametrize("concurrent", [1, 8])
@pytest.mark.parametrize("processes", [1, 2])
def test_one_renews_for_all(desks, concurrent, processes):
    those = [desks() for _ in range(processes)]
    those[0].authorized()
    first = those[0].token().text
    those[0].clock.ahead += NEAR_THE_END
    found = together(*(at.token for at in those * concurrent))
    assert those[0].platform.count("refresh") == 1
    assert len({one.text for one in found}) == 1
    assert found[0].text != first
    assert not any(one.is_expiring for one in found)


def test_renewed_again_and_again_each_with_a_new_refresh_token(desk):
    desk.authorized()
    texts = set()
    for _ in range(4):
        desk.clock.ahead += NEAR_THE_END
        texts.add(desk.token().text)
    assert len(texts) == desk.platform.count("refresh") == 4


def test_without_a_refresh_token_it_holds_to_its_end(desk):
    desk.platform.renewable = False
    desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    assert desk.token().is_expiring
    desk.clock.ahead += LIFE_SECONDS
    with pytest.raises(UserTokenExpired):
        desk.token()
    desk.cleaning.run()
    with pytest.raises(UserTokenExpired):
        desk.token()
    assert desk.platform.count("refresh") == 0


def test_a_renewal_that_brings_no_refresh_token_was_the_last(desk):
    row = desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    desk.platform.renewable = False
    assert not desk.token().is_expiring
    stored = desk.row(row.session_id)
    assert (stored["refresh_token"], stored["refresh_expires_at"]) == (None, None)


def test_refused_while_the_old_token_holds(desk):
    row = desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    desk.platform.refresh_tokens.clear()
    assert desk.token().is_expiring
    assert desk.row(row.session_id)["refresh_token"] is None
    assert desk.told("authorization_revoked")[0]["reason"] == "refresh_failed"
    assert desk.token().is_expiring
    assert desk.platform.count("refresh") == 1, "it is not asked again"
    desk.clock.ahead += LIFE_SECONDS
    with pytest.raises(UserTokenExpired):
        desk.token()
    desk.cleaning.run()
    with pytest.raises(UserTokenExpired):
        desk.token()
    assert desk.authorized().state == "completed"
    assert not desk.token().is_expiring


def test_refused_after_its_end(desk):
    row = desk.authorized()
    desk.clock.ahead += LIFE_SECONDS + 1
    desk.platform.refresh_tokens.clear()
    with pytest.raises(TokenRefreshFailed):
        desk.token()
    assert desk.row(row.session_id)["user_access_token"] is None
    with pytest.raises(UserTokenExpired):
        desk.token()
    assert desk.platform.count("refresh") == 1


def test_refused_while_others_wait(desks):
    """All are told the same: the platform has refused. None is told that somebody has revoked it."""
    one, two = desks(), desks()
    one.authorized()
    one.clock.ahead += LIFE_SECONDS + 1
    one.platform.refresh_tokens.clear()
    with one.platform.held("refresh"):
        waiting = [gevent.spawn(outcome_of, at.token) for at in (one, two, two)]
        wait_until(lambda: one.platform.count("refresh") == 1, "one has asked")
    kinds = {type(greenlet.get()) for greenlet in waiting}
    assert kinds <= {TokenRefreshFailed, UserTokenExpired}
    assert one.platform.count("refresh") == 1


def test_the_platform_is_away_while_the_old_token_holds(desk):
    desk.authorized()
    old = desk.token().text
    desk.clock.ahead += NEAR_THE_END
    desk.platform.failing["refresh"] = ProviderUnavailable("Away.")
    found = desk.token()
    assert (found.text, found.is_expiring) == (old, True)
    for _ in range(5):
        assert desk.token().text == old
    assert desk.platform.count("refresh") == 1, "each caller would wait for the time-out of its own call"
    desk.platform.failing.clear()
    desk.clock.ahead += token_renewal.AGAIN_SECONDS + 1
    assert desk.token().text != old


def test_the_platform_is_away_and_the_old_token_has_ended(desk):
    row = desk.authorized()
    desk.clock.ahead += LIFE_SECONDS + 1
    desk.platform.failing["refresh"] = ProviderUnavailable("Away.")
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            desk.token()
    assert desk.row(row.session_id)["refresh_token"] is not None
    desk.platform.failing.clear()
    assert not desk.token().is_expiring, "it is asked at once: nothing is left to hand out"


def test_waiting_for_one_who_finds_the_platform_away(desks):
    """Whoever waited does not ask a platform again that has just not answered."""
    one, two = desks(), desks()
    one.authorized()
    old = one.token().text
    one.clock.ahead += NEAR_THE_END
    with one.platform.held("refresh"):
        one.platform.failing["refresh"] = ProviderUnavailable("Away.")
        waiting = [gevent.spawn(outcome_of, at.token) for at in (one, one, two, two)]
        wait_until(lambda: one.platform.count("refresh") == 1, "one has asked")
    assert {greenlet.get().text for greenlet in waiting} == {old}
    assert one.platform.count("refresh") == 1


def test_a_save_that_fails_after_the_platform_answered_is_repeated(desk):
    """The old refresh token is used up: the new one must not be lost."""
    row = desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    with desk.broken(lambda number: number in (1, 2, 3)):
        assert not desk.token().is_expiring
    assert desk.platform.count("refresh") == 1
    assert desk.row(row.session_id)["refreshing_until"] is None
    desk.clock.ahead += NEAR_THE_END
    assert not desk.token().is_expiring, "with the refresh token of the first renewal"


def test_a_save_that_is_repeated_for_long_goes_on_behind(desk, monkeypatch):
    """Who asks again meanwhile waits for it, and does not use up the old refresh token a second time."""
    monkeypatch.setattr(token_renewal, "WAIT_SECONDS", 0.05)
    desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    with desk.broken(lambda number: number > 0):
        with pytest.raises(Unavailable):
            desk.token()
        desk.clock.ahead += token_renewal.CLAIM_SECONDS + 1
    monkeypatch.setattr(token_renewal, "WAIT_SECONDS", 12.0)
    assert not desk.token().is_expiring
    assert desk.platform.count("refresh") == 1
    assert "authorization_revoked" not in desk.told_types()


def test_while_a_save_is_repeated_nobody_here_renews_again(desk, monkeypatch):
    """Not when its claim has ended, either: the store takes the claim of another one, and the refresh token is used."""
    monkeypatch.setattr(token_renewal, "WAIT_SECONDS", 0.05)
    desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    with monkeypatch.context() as patch:
        patch.setattr(token_renewal, "_store", unavailable)
        for _ in range(3):
            with pytest.raises(Unavailable):
                desk.token()
            desk.clock.ahead += token_renewal.CLAIM_SECONDS + 1
    assert desk.platform.count("refresh") == 1
    monkeypatch.setattr(token_renewal, "WAIT_SECONDS", 12.0)
    assert not desk.token().is_expiring
    assert "authorization_revoked" not in desk.told_types()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_token_that_the_platform_does_not_take_is_replaced_once(desks, processes):
    those = [desks() for _ in range(processes)]
    those[0].authorized()
    first = those[0].token().text
    mark = user_tokens.fingerprint(first)
    found = together(*(lambda at=at: at.tokens.token(SHOP, "cli_a", "u1", mark) for at in those * 4))
    assert those[0].platform.count("refresh") == 1
    assert {one.text for one in found} == {those[0].token().text} != {first}
    assert those[0].tokens.token(SHOP, "cli_a", "u1", mark).text == found[0].text, "it is another one by now"
    for nonsense in ("", "x", "\ud800", "0" * 64):
        assert those[0].tokens.token(SHOP, "cli_a", "u1", nonsense).text == found[0].text


def test_a_token_that_the_platform_neither_takes_nor_renews(desk):
    desk.platform.renewable = False
    desk.authorized()
    mark = user_tokens.fingerprint(desk.token().text)
    with pytest.raises(AuthenticationRequired):
        desk.tokens.token(SHOP, "cli_a", "u1", mark)
    desk.platform.renewable = True
    desk.authorized()
    mark = user_tokens.fingerprint(desk.token().text)
    desk.platform.failing["refresh"] = ProviderUnavailable("Away.")
    with pytest.raises(ProviderUnavailable):
        desk.tokens.token(SHOP, "cli_a", "u1", mark)
    desk.platform.failing.clear()
    assert desk.tokens.token(SHOP, "cli_a", "u1", mark).text != ""


@pytest.mark.parametrize("number", range(3))
def test_the_store_is_away_at_one_of_the_steps(desk, number, monkeypatch):
    """0: the claim, 1: the save, 2: the audit log. No token is handed out that isn't noted, and none is lost."""
    monkeypatch.setattr(token_renewal, "WAIT_SECONDS", 0.05)
    desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    with desk.broken(lambda at: at >= number), pytest.raises(Unavailable):
        desk.token()
    assert desk.all_uses() == 0
    monkeypatch.setattr(token_renewal, "WAIT_SECONDS", 12.0)
    assert not desk.token().is_expiring
    assert (desk.platform.count("refresh"), desk.all_uses()) == (1, 1)


@pytest.mark.parametrize("left", [NEAR_THE_END, LIFE_SECONDS + 1])
def test_revoked_while_it_is_renewed(desk, left):
    row = desk.authorized()
    desk.clock.ahead += left
    with desk.platform.held("refresh"):
        asking = gevent.spawn(outcome_of, desk.token)
        wait_until(lambda: desk.platform.count("refresh") == 1, "it is being renewed")
        assert desk.tokens.revoke(SHOP, "cli_a", "u1")
    assert isinstance(asking.get(), AuthenticationRequired), "neither the old token nor the new one is handed out"
    stored = desk.row(row.session_id)
    assert (stored["user_access_token"], stored["refresh_token"]) == (None, None)
    with pytest.raises(AuthenticationRequired):
        desk.token()


def test_authorized_again_while_it_is_renewed(desk):
    desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    with desk.platform.held("refresh"):
        asking = gevent.spawn(outcome_of, desk.token)
        wait_until(lambda: desk.platform.count("refresh") == 1, "it is being renewed")
        newest = desk.authorized()
    assert asking.get().text == desk.token().text
    assert desk.row(newest.session_id)["user_access_token"] is not None


def test_a_claim_whose_owner_died_ends(desk):
    row = desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    with desk.platform.held("refresh"):
        dying = gevent.spawn(desk.token)
        wait_until(lambda: desk.platform.count("refresh") == 1, "it is being renewed")
        dying.kill()
    assert desk.row(row.session_id)["refreshing_until"] is not None
    desk.clock.ahead += token_renewal.CLAIM_SECONDS + 1
    assert not desk.token().is_expiring


def test_who_was_overtaken_leaves_the_other_one_s_claim_alone(desks):
    """Its own has ended long ago; ending the other's would let a third one use the refresh token again."""
    one, two = desks(), desks()
    row = one.authorized()
    one.clock.ahead += NEAR_THE_END
    with one.platform.held("refresh") as first_gate:
        late = gevent.spawn(outcome_of, one.token)
        wait_until(lambda: one.platform.count("refresh") == 1, "the first asks")
        one.clock.ahead += token_renewal.CLAIM_SECONDS + 1
        with one.platform.held("refresh"):
            second = gevent.spawn(outcome_of, two.token)
            wait_until(lambda: one.platform.count("refresh") == 2, "the second asks")
            claim = one.row(row.session_id)["refreshing_until"]
            one.platform.failing["refresh"] = ProviderUnavailable("Away.")
            first_gate.set()
            late.get()
            assert one.row(row.session_id)["refreshing_until"] == claim
            one.platform.failing.clear()
    assert not second.get().is_expiring


def test_what_comes_late_for_a_token_that_was_refused_meanwhile_is_kept(desks):
    """The process that has used the refresh token stood still; another one was refused for it. What the first has got
    is good, unless the user's tokens were revoked."""
    one, two = desks(), desks()
    one.authorized()
    one.clock.ahead += LIFE_SECONDS + 1
    with one.broken(lambda number: number > 0):
        late = gevent.spawn(outcome_of, one.token)
        wait_until(lambda: one.commands > 1, "the first has new tokens, and can't store them")
        one.clock.ahead += token_renewal.CLAIM_SECONDS + 1
        assert isinstance(outcome_of(two.token), TokenRefreshFailed)
    assert not late.get().is_expiring
    assert two.token().text == late.get().text


def test_what_comes_late_does_not_undo_a_revocation(desks):
    one, two = desks(), desks()
    one.authorized()
    one.clock.ahead += NEAR_THE_END
    with one.broken(lambda number: number > 0):
        late = gevent.spawn(outcome_of, one.token)
        wait_until(lambda: one.commands > 1, "the first has new tokens, and can't store them")
        one.clock.ahead += token_renewal.CLAIM_SECONDS + 1
        assert outcome_of(two.token).is_expiring, "the second is refused"
        assert two.tokens.revoke(SHOP, "cli_a", "u1")
    assert isinstance(late.get(), AuthenticationRequired)
    assert isinstance(outcome_of(two.token), AuthenticationRequired)


def test_revoked(desk):
    row = desk.authorized()
    assert desk.tokens.revoke(SHOP, "cli_a", "u1")
    assert not desk.tokens.revoke(SHOP, "cli_a", "u1")
    with pytest.raises(AuthenticationRequired):
        desk.token()
    assert desk.told("authorization_revoked")[0]["reason"] == "revoked"
    stored = desk.row(row.session_id)
    assert (stored["state"], stored["user_access_token"], stored["refresh_token"]) == ("completed", None, None)
    assert not desk.tokens.revoke(SHOP, "cli_a", "never-authorized")


def test_revoked_after_a_refusal_is_revoked(desk):
    desk.authorized()
    desk.clock.ahead += NEAR_THE_END
    desk.platform.refresh_tokens.clear()
    desk.token()
    desk.tokens.revoke(SHOP, "cli_a", "u1")
    with pytest.raises(AuthenticationRequired):
        desk.token()


@pytest.mark.parametrize("who", [browser("u1"), Identity(kind="cookie", name="admin", scopes=frozenset({"admin"}))])
def test_never_to_a_browser(desk, who):
    desk.authorized()
    for call in (
        lambda: desk.token(who=who),
        lambda: desk.tokens.app_token(who, "cli_a", "tenant"),
        lambda: desk.tokens.revoke(who, "cli_a", "u1"),
    ):
        with pytest.raises(NotAllowed):
            call()
    assert desk.all_uses() == 0


@pytest.mark.parametrize(
    ("who", "error"),
    [
        (NEVER_AUTHORIZED, Unauthenticated),
        (Identity(kind="token", name="x", scopes=frozenset({"messages:send"}), projects=None), NotAllowed),
        (Identity(kind="token", name="x", scopes=frozenset({"authorizations:write"}), projects=None), NotAllowed),
        (Identity(kind="token", name="x", scopes=SCOPES, projects=("cli_b",)), NotAllowed),
    ],
)
def test_who_may_not(desk, who, error):
    desk.authorized()
    with pytest.raises(error):
        desk.token(who=who)
    with pytest.raises(error):
        desk.tokens.app_token(who, "cli_a", "app")


def test_a_token_of_an_app_s_name_reaches_that_app(desk):
    desk.apps.add(App("cli_b", "secret-b"), "B")
    mine = Identity(kind="token", name="x", scopes=SCOPES, projects=("cli_b",), token_id="t", number=2)
    desk.authorized(app="cli_b")
    assert desk.token(app="cli_b", who=mine).open_id == "ou_alice"
    with pytest.raises(AuthenticationRequired):
        desk.token()


def test_each_use_is_noted(desk):
    desk.authorized()
    desk.token()
    desk.tokens.app_token(SHOP, "cli_a", "tenant")
    desk.tokens.revoke(SHOP, "cli_a", "u1")
    noted = [(row.app_id, row.user_id, row.use, row.by, row.token_id) for row in desk.uses()]
    assert noted == [
        ("cli_a", "u1", "revoke", "shop", "t1"),
        ("cli_a", None, "tenant_token", "shop", "t1"),
        ("cli_a", "u1", "token", "shop", "t1"),
    ]
    assert [row.use for row in desk.tokens.uses("cli_a", "u1", 1)] == ["revoke"]
    assert desk.tokens.uses("cli_b", None, 10) == []
    assert desk.figure("sidecar_authorization_token_uses_total") == 2


def test_renewed_ahead(desk):
    rows = [desk.authorized(f"u{number}") for number in range(3)]
    assert desk.tokens.renew_ending() == 0
    desk.clock.ahead += NEAR_THE_END
    assert desk.tokens.renew_ending() == 3
    assert desk.tokens.renew_ending() == 0
    assert desk.platform.count("refresh") == 3
    assert all(desk.row(row.session_id)["reason"] is None for row in rows)


def test_those_that_can_t_be_renewed_don_t_starve_the_others(desk, monkeypatch):
    """More than a batch of tokens of an app that was removed came first at each look, for ever."""
    monkeypatch.setattr(user_tokens, "BATCH", 3)
    desk.apps.add(App("cli_b", "secret-b"), "B")
    for number in range(4):
        desk.authorized(f"u{number}", app="cli_b")
    desk.apps.remove("cli_b")
    good = desk.authorized("u9")
    before = desk.row(good.session_id)["user_access_token"]
    desk.clock.ahead += NEAR_THE_END
    for _ in range(3):
        desk.tokens.renew_ending()
    assert desk.row(good.session_id)["user_access_token"] != before


def test_a_platform_that_is_away_is_not_asked_for_each_token(desk):
    for number in range(5):
        desk.authorized(f"u{number}")
    desk.clock.ahead += NEAR_THE_END
    desk.platform.failing["refresh"] = ProviderUnavailable("Away.")
    desk.tokens.renew_ending()
    assert desk.platform.count("refresh") == 1
    desk.platform.failing.clear()
    desk.clock.ahead += token_renewal.AGAIN_SECONDS + 1
    desk.tokens.renew_ending()
    assert desk.platform.count("refresh") == 6


def test_people_are_brought_up_to_date(desk):
    row = desk.authorized()
    other = desk.authorized("u2")
    access = list(desk.platform.people)
    desk.platform.people[access[0]] = type(desk.platform.who)("ou_alice", name="Alice B.", email="a@x.example")
    desk.platform.people[access[1]] = type(desk.platform.who)("ou_somebody_else", name="Eve")
    assert desk.tokens.sync_people() == 1
    assert (desk.row(row.session_id)["user_name"], desk.row(row.session_id)["email"]) == ("Alice B.", "a@x.example")
    assert desk.row(other.session_id)["user_name"] == "Alice", "whose token it is does not change"
    desk.platform.failing["person"] = AuthorizationFailed("Strange.")
    assert desk.tokens.sync_people() == 0


def test_a_token_that_no_key_reads(desks):
    one = desks()
    row = one.authorized()
    one.change(row.session_id, user_access_token="nonsense")
    with pytest.raises(AuthenticationRequired):
        one.token()
    assert one.all_uses() == 0
