"""Authorizations from their beginning to each of their ends."""

from __future__ import annotations

import gevent
import pytest
from sqlalchemy.exc import IntegrityError

from sidecar.domain.authorizations import App
from sidecar.domain.errors import (
    AuthorizationCodeExpired,
    AuthorizationCodeMissing,
    AuthorizationExpired,
    AuthorizationFailed,
    AuthorizationNotFound,
    AuthorizationRejected,
    Conflict,
    Invalid,
    NotAllowed,
    ProviderUnavailable,
    RateLimited,
    Unavailable,
    WrongUser,
)
from tests.fanout.stages import wait_until
from tests.services.authorizing import ALICE, BOB, SHOP, browser, outcome_of, state_of, together

ENDED = {"sealed": None, "exchanging_until": None}


def pending(row):
    found = (row["state"], row["user_access_token"], row["open_id"], row["completed_at"])
    return found == ("pending", None, None, None)


def test_completed(desk):
    started = desk.start(open_id=ALICE.open_id, scope="contact:read  offline_access")
    assert started.row.asked_scope == "offline_access contact:read"
    outcome = desk.come_back(started)
    assert outcome.error is None
    row = desk.row(started.row.session_id)
    assert (row["state"], row["open_id"], row["user_name"], row["reason"]) == ("completed", "ou_alice", "Alice", None)
    assert row | ENDED == row, "nothing is kept of the flow's secrets"
    assert "access-" not in row["user_access_token"]
    assert "refresh-" not in row["refresh_token"]
    assert desk.told("authorization_completed") == [
        {
            "session_id": started.row.session_id,
            "app": "cli_a",
            "user": "u1",
            "state": "completed",
            "reason": None,
            "name": "Alice",
        }
    ]
    assert desk.committed[-1].rooms == ("user:u1",)
    again = desk.come_back(started, "another")
    assert isinstance(again.error, Conflict)
    assert again.row.state == "completed"
    assert desk.platform.count("exchange") == 1


def test_a_state_that_is_nobody_s(desk):
    for state in ("", "x", "\x00", "\udcff", "é" * 5000):
        outcome = desk.service.returned(state, "code", "")
        assert outcome.row is None
        assert isinstance(outcome.error, AuthorizationNotFound)
    assert desk.platform.calls == []


def test_declined_on_the_platform_s_page(desk):
    started = desk.start()
    outcome = desk.come_back(started, "", "access_denied")
    assert isinstance(outcome.error, AuthorizationRejected)
    row = desk.row(started.row.session_id)
    assert (row["state"], row["reason"]) == ("rejected", "user_rejected")
    assert row | ENDED == row
    assert desk.told_types() == ["authorization_rejected"]
    assert isinstance(desk.come_back(started).error, AuthorizationRejected), "nor by a code that comes after it"
    assert desk.platform.calls == []


def test_time_is_over(desk):
    started = desk.start()
    desk.clock.ahead += 601
    assert desk.service.known(started.row.session_id).state == "expired"
    assert isinstance(desk.come_back(started).error, AuthorizationExpired)
    assert desk.service.expire() == 1
    assert desk.service.expire() == 0
    row = desk.row(started.row.session_id)
    assert row["state"] == "expired"
    assert row | ENDED == row
    assert desk.told_types() == ["authorization_expired"]
    assert isinstance(desk.come_back(started).error, AuthorizationExpired)
    assert desk.platform.calls == []


FAILURES = [
    (AuthorizationCodeExpired("Used.", provider_code=20065), "code_expired"),
    (ProviderUnavailable("Away."), "provider_unavailable"),
    (AuthorizationFailed("The secret is wrong.", provider_code=20002, reason="misconfigured"), "misconfigured"),
    (AuthorizationFailed("Strange.", provider_code=1), "unknown_error"),
]


@pytest.mark.parametrize("call", ["exchange", "person"])
@pytest.mark.parametrize(("error", "reason"), FAILURES, ids=[reason for _, reason in FAILURES])
def test_a_failed_attempt_leaves_it_pending_and_the_next_one_completes_it(desk, call, error, reason):
    started = desk.start()
    desk.platform.failing[call] = error
    outcome = desk.come_back(started)
    assert outcome.error is error
    row = desk.row(started.row.session_id)
    assert pending(row)
    assert (row["reason"], row["exchanging_until"]) == (reason, None)
    assert desk.told("authorization_failed")[0]["reason"] == reason
    assert desk.figure("lark_service_auth_failure_total", app_id="cli_a", auth_method="oauth", reason=reason) == 1
    desk.platform.failing.clear()
    assert desk.come_back(started).error is None
    assert desk.row(started.row.session_id)["reason"] is None


def test_no_code_and_errors_of_other_kinds(desk):
    started = desk.start()
    assert isinstance(desk.come_back(started, "").error, AuthorizationCodeMissing)
    assert desk.row(started.row.session_id)["reason"] == "missing_code"
    assert isinstance(desk.come_back(started, "", "server_error").error, AuthorizationFailed)
    assert desk.row(started.row.session_id)["reason"] == "unknown_error"
    assert desk.come_back(started).error is None


def test_the_wrong_user_of_a_given_open_id(desk):
    started = desk.start(open_id=ALICE.open_id)
    desk.platform.who = BOB
    outcome = desk.come_back(started)
    assert isinstance(outcome.error, WrongUser)
    row = desk.row(started.row.session_id)
    assert pending(row)
    assert row["reason"] == "wrong_user"
    desk.platform.who = ALICE
    assert desk.come_back(started).error is None


def test_who_has_authorized_once_stays_the_same_person_until_revoked(desk):
    desk.authorized()
    desk.platform.who = BOB
    other = desk.start()
    assert isinstance(desk.come_back(other).error, WrongUser)
    assert desk.token().open_id == "ou_alice", "the tokens of the first are untouched"
    assert desk.come_back(desk.start("u2")).error is None, "another user may be another person"
    desk.tokens.revoke(SHOP, "cli_a", "u1")
    assert desk.come_back(other).error is None
    assert desk.token().open_id == "ou_bob"


def test_a_new_open_id_from_the_back_end_wins_over_the_former_person(desk):
    desk.authorized()
    desk.platform.who = BOB
    assert desk.come_back(desk.start(open_id=BOB.open_id)).error is None
    assert desk.token().open_id == "ou_bob"


def test_two_people_at_once_for_one_user_who_is_nobody_yet(desk):
    """Whoever is stored first is the user from then on: the check must be in the same commit."""
    one, two = desk.start(), desk.start()
    with desk.platform.held("person"):
        first = gevent.spawn(desk.come_back, one)
        wait_until(lambda: desk.platform.count("person") == 1, "Alice is asked for")
        desk.platform.who = BOB
        second = gevent.spawn(desk.come_back, two)
        wait_until(lambda: desk.platform.count("person") == 2, "Bob is asked for")
    outcomes = [first.get(), second.get()]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert len(failed) == 1
    assert isinstance(failed[0].error, WrongUser)


def test_a_click_that_names_another_person_during_the_exchange(desk):
    """The operator of the card is who must complete it, also if the click comes while the code is exchanged."""
    started = desk.start()
    desk.platform.who = BOB
    with desk.platform.held("person"):
        coming = gevent.spawn(desk.come_back, started)
        wait_until(lambda: desk.platform.count("person") == 1, "it is being exchanged")
        assert desk.clicked(started, "authorize", ALICE.open_id)["toast"] == "follow_link"
    assert isinstance(coming.get().error, WrongUser)
    assert pending(desk.row(started.row.session_id))


@pytest.mark.parametrize("processes", [1, 2])
def test_many_callbacks_with_one_state_exchange_one_code(desks, processes):
    those = [desks() for _ in range(processes)]
    started = those[0].start()
    outcomes = together(*(lambda at=at: at.come_back(started) for at in those * 4))
    assert [outcome.error for outcome in outcomes].count(None) == 1
    assert {type(outcome.error) for outcome in outcomes} <= {type(None), Conflict}
    assert those[0].platform.count("exchange") == 1


@pytest.mark.parametrize("by", ["card", "page"])
def test_declined_while_the_code_is_exchanged(desk, by):
    started = desk.start()
    with desk.platform.held("exchange"):
        coming = gevent.spawn(desk.come_back, started)
        wait_until(lambda: desk.platform.count("exchange") == 1, "it is being exchanged")
        if by == "card":
            assert desk.clicked(started, "reject")["toast"] == "cancelled"
        else:
            desk.come_back(started, "", "access_denied")
    outcome = coming.get()
    assert isinstance(outcome.error, AuthorizationRejected)
    row = desk.row(started.row.session_id)
    assert (row["state"], row["user_access_token"]) == ("rejected", None)
    assert desk.told_types() == ["authorization_rejected"]


def test_time_runs_out_while_the_code_is_exchanged(desk):
    """Who came in time has authorized, and meanwhile nobody is told that it is over."""
    started = desk.start()
    desk.clock.ahead += 595
    with desk.platform.held("exchange"):
        coming = gevent.spawn(desk.come_back, started)
        wait_until(lambda: desk.platform.count("exchange") == 1, "it is being exchanged")
        desk.clock.ahead += 10
        assert desk.service.expire() == 0
        assert desk.service.known(started.row.session_id).state == "pending"
        assert isinstance(desk.come_back(started).error, Conflict)
    assert coming.get().error is None
    assert desk.row(started.row.session_id)["state"] == "completed"


def test_an_exchange_that_another_one_has_overtaken_tells_the_truth(desk):
    """A process that stood still for longer than its claim finds the authorization completed: it is not told that the
    user has declined."""
    started = desk.start()
    with desk.platform.held("exchange"):
        slow = gevent.spawn(desk.come_back, started)
        wait_until(lambda: desk.platform.count("exchange") == 1, "it is being exchanged")
        desk.change(started.row.session_id, exchanging_until=None)
        desk.platform.closed.clear()
        assert desk.come_back(started).error is None
        held = desk.row(started.row.session_id)["user_access_token"]
    assert isinstance(slow.get().error, Conflict)
    assert desk.row(started.row.session_id)["user_access_token"] == held


def test_an_exchange_that_ends_after_the_time_was_declared_over(desk):
    started = desk.start()
    with desk.platform.held("exchange"):
        slow = gevent.spawn(desk.come_back, started)
        wait_until(lambda: desk.platform.count("exchange") == 1, "it is being exchanged")
        desk.clock.ahead += 3_600
        assert desk.service.expire() == 1
    assert isinstance(slow.get().error, AuthorizationExpired)
    assert desk.row(started.row.session_id)["user_access_token"] is None


@pytest.mark.parametrize("number", range(3))
def test_the_store_is_away_at_one_of_the_steps(desk, number, monkeypatch):
    """Nothing is half stored, and the user can come again."""
    monkeypatch.setattr("sidecar.services.authorizations.SAVE_PAUSE_SECONDS", 0.0)
    started = desk.start()
    with desk.broken(lambda at: at >= number):
        outcome = outcome_of(lambda: desk.come_back(started))
    error = outcome if isinstance(outcome, Unavailable) else outcome.error
    row = desk.row(started.row.session_id)
    if number == 2:
        assert error is None
        assert row["state"] == "completed"
        return
    assert isinstance(error, Unavailable)
    assert pending(row)
    desk.clock.ahead += 120
    assert desk.come_back(started).error is None


def test_a_save_that_fails_twice_is_tried_again(desk, monkeypatch):
    """The code is used up: losing what came for it would send the user away for a moment's fault."""
    monkeypatch.setattr("sidecar.services.authorizations.SAVE_PAUSE_SECONDS", 0.0)
    started = desk.start()
    with desk.broken(lambda at: at in (1, 2)):
        assert desk.come_back(started).error is None
    assert desk.platform.count("exchange") == 1


def test_the_note_of_a_failure_can_t_be_stored(desk):
    started = desk.start()
    desk.platform.failing["exchange"] = ProviderUnavailable("Away.")
    with desk.broken(lambda at: at >= 1):
        outcome = outcome_of(lambda: desk.come_back(started))
    assert isinstance(outcome, Unavailable) or outcome.error is not None
    desk.platform.failing.clear()
    desk.clock.ahead += 120
    assert desk.come_back(started).error is None


def test_the_app_is_gone_when_the_user_comes_back(desk):
    desk.apps.add(App("cli_b", "secret-b"), "B")
    started = desk.start(app="cli_b")
    desk.apps.remove("cli_b")
    outcome = desk.come_back(started)
    assert isinstance(outcome.error, AuthorizationFailed)
    row = desk.row(started.row.session_id)
    assert (row["state"], row["reason"], row["exchanging_until"]) == ("pending", "misconfigured", None)


@pytest.mark.parametrize("processes", [1, 2])
def test_five_a_minute_over_all_processes(desks, processes):
    those = [desks(per_minute=5) for _ in range(processes)]
    begun = together(*(lambda at=at: at.start() for at in those * 8))
    refused = [one for one in begun if isinstance(one, RateLimited)]
    assert len(begun) - len(refused) == 5
    assert all(1 <= error.retry_after_seconds <= 61 for error in refused)
    assert those[0].start("u2").row.user_id == "u2"
    those[0].clock.ahead += 61
    assert those[-1].start().row.user_id == "u1"


def test_browsers_begin_and_see_their_own_alone(desk):
    mine = desk.start("u1", who=browser("u1"))
    assert desk.service.seen(browser("u1"), mine.row.session_id).state == "pending"
    with pytest.raises(NotAllowed):
        desk.start("u2", who=browser("u1"))
    with pytest.raises(AuthorizationNotFound):
        desk.service.seen(browser("u2"), mine.row.session_id)


def test_a_browser_sends_no_cards(desk):
    """It could have the app's bot ask anybody to authorize in the name of its own user."""
    mine = desk.start("u1", who=browser("u1"))
    with pytest.raises(NotAllowed):
        desk.send_card(mine, who=browser("u1"), receive_id="ou_of_the_boss")
    assert desk.platform.calls == []


def test_a_card_needs_a_receiver(desk):
    started = desk.start()
    with pytest.raises(Invalid):
        desk.send_card(started)
    assert desk.send_card(started, receive_id="ou_alice") == (f"om_{started.row.session_id}", False)
    assert desk.send_card(started, receive_id="ou_alice") == (f"om_{started.row.session_id}", True)
    assert desk.platform.count("send_card") == 1
    desk.platform.who = BOB
    assert isinstance(desk.come_back(started).error, WrongUser), "who was sent the card is who must authorize"
    with pytest.raises(Conflict):
        desk.send_card(desk.start("u3", open_id=ALICE.open_id), receive_id=BOB.open_id)


def test_a_card_that_could_not_be_sent_or_noted_is_sent_at_the_next_try(desk):
    started = desk.start(open_id=ALICE.open_id)
    desk.platform.failing["send_card"] = ProviderUnavailable("Away.")
    with pytest.raises(ProviderUnavailable):
        desk.send_card(started)
    desk.platform.failing.clear()
    with desk.broken(), pytest.raises(Unavailable):
        desk.send_card(started)
    assert desk.row(started.row.session_id)["message_id"] is None
    assert desk.send_card(started)[1] is False


def test_no_card_for_what_has_ended(desk):
    started = desk.start(open_id=ALICE.open_id)
    desk.come_back(started)
    with pytest.raises(Conflict):
        desk.send_card(started)
    assert desk.platform.count("send_card") == 0


CHECKS = {
    "state": {"state": "done"},
    "auth_method": {"auth_method": "magic"},
    "completed_without_time": {"state": "completed"},
    "time_without_completed": {"completed_at": "2026-01-01T00:00:00.000Z"},
    "token_while_pending": {"user_access_token": "x", "token_expires_at": "2026-01-01T00:00:00.000Z"},
    "refresh_without_access": {"refresh_token": "x"},
    "no_language": {"language": None},
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_database_itself_refuses_impossible_rows(desk, name):
    started = desk.start()
    with pytest.raises(IntegrityError):
        desk.change(started.row.session_id, **CHECKS[name])
    assert desk.come_back(started).error is None


def test_one_row_of_a_user_has_tokens(desk):
    first, second = desk.authorized(), desk.authorized()
    assert desk.row(first.session_id)["user_access_token"] is None
    held = desk.row(second.session_id)
    with pytest.raises(IntegrityError):
        desk.change(first.session_id, user_access_token="x", token_expires_at=held["token_expires_at"])
    with pytest.raises(IntegrityError):
        desk.insert({**held, "id": None, "session_id": "other", "state_hash": "other"})


def test_no_secret_is_logged(desk, logged):
    started = desk.start(open_id=ALICE.open_id)
    desk.send_card(started)
    desk.come_back(started, "the-code-itself")
    desk.token()
    text = repr(logged)
    for secret in ("the-code-itself", state_of(started), "access-", "refresh-", "the-secret-of-a"):
        assert secret not in text


def test_a_commit_whose_answer_was_lost_is_recognised(desk, monkeypatch):
    """The tokens are stored; trying it again must not say that somebody else has completed it."""
    monkeypatch.setattr("sidecar.services.authorizations.SAVE_PAUSE_SECONDS", 0.0)
    started = desk.start()
    submit = desk.service._submit
    lost = []

    def answer_lost(command):
        found = submit(command)
        if desk.row(started.row.session_id)["state"] == "completed" and not lost:
            lost.append(found)
            raise Unavailable("It is not known whether this was stored.")
        return found

    monkeypatch.setattr(desk.service, "_submit", answer_lost)
    assert desk.come_back(started).error is None
    assert len(lost) == 1
    assert desk.told_types() == ["authorization_completed"]
