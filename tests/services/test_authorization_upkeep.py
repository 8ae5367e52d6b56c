"""What is done behind: cards changed in place, what is old deleted, keys changed, one process of all at work."""

from __future__ import annotations

import gevent
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import func, select

from sidecar.domain.authorizations import App
from sidecar.domain.errors import (
    AuthenticationRequired,
    AuthorizationFailed,
    AuthorizationNotFound,
    Conflict,
    NotFound,
    ProviderUnavailable,
)
from sidecar.jobs.authorizations import LEASE_SECONDS
from sidecar.services import authorization_cards, lark_callbacks
from sidecar.services.resealing import reseal_all
from sidecar.services.vault import Unreadable, Vault
from sidecar.store.tables import authorization_uses, lark_events, lark_nonces, user_auth_sessions
from tests.fanout.stages import wait_until
from tests.services.authorizing import ALICE, APP, KEY, LIFE_SECONDS, SHOP, outcome_of, together

DAY = 86_400.0


def shown(desk):
    return [(card.session_id, card.state) for what, _, card in desk.platform.cards if what == "changed"]


def due(desk, session_id):
    return desk.row(session_id)["card_due_at"]


def count(desk, table) -> int:
    return desk.database.read(
        lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one()
    )


def run_job(desk) -> bool:
    """One look, and all that it begins."""
    ours = desk.job.run_once()
    gevent.joinall(list(desk.job._running.values()), timeout=30, raise_error=True)
    return ours


@pytest.mark.parametrize("end", ["completed", "rejected", "expired"])
def test_the_card_is_changed_in_place_at_each_end(desk, end):
    started = desk.start(open_id=ALICE.open_id)
    session_id = started.row.session_id
    desk.send_card(started)
    assert desk.cards.change_due() == 0
    if end == "completed":
        desk.come_back(started)
    elif end == "rejected":
        desk.come_back(started, "", "access_denied")
    else:
        desk.clock.ahead += 601
        desk.service.expire()
        assert desk.cards.change_due() == 1
    wait_until(lambda: due(desk, session_id) is None, "it shows the end")
    assert shown(desk) == [(session_id, end)]
    assert desk.platform.cards[-1][1] == f"om_{session_id}"
    assert desk.row(session_id)["card_state"] == end


def test_a_card_that_the_answer_to_the_click_has_changed_is_changed_once_more(desk):
    """The platform may have dropped the answer that was to change it."""
    started = desk.start(open_id=ALICE.open_id)
    desk.send_card(started)
    desk.clicked(started, "reject")
    assert desk.cards.change_due() == 0
    desk.clock.ahead += 6
    assert desk.cards.change_due() == 1
    assert shown(desk) == [(started.row.session_id, "rejected")]


def test_a_change_that_fails_comes_later(desk):
    started = desk.start(open_id=ALICE.open_id)
    session_id = started.row.session_id
    desk.send_card(started)
    desk.platform.failing["update_card"] = ProviderUnavailable("Away.")
    desk.come_back(started)
    wait_until(lambda: desk.platform.count("update_card") == 1, "it is tried")
    wait_until(lambda: desk.figure("sidecar_lark_card_updates_total", outcome="failed") == 1, "it has failed")
    assert desk.row(session_id)["state"] == "completed", "the authorization doesn't hang on its card"
    desk.platform.failing.clear()
    desk.clock.ahead += authorization_cards.RETRY_SECONDS + 1
    assert desk.cards.change_due() == 1
    assert due(desk, session_id) is None


def test_a_card_that_can_t_be_changed_is_given_up_after_a_day(desk):
    started = desk.start(open_id=ALICE.open_id)
    session_id = started.row.session_id
    desk.send_card(started)
    desk.platform.failing["update_card"] = AuthorizationFailed("It was recalled.", provider_code=230_011)
    desk.come_back(started)
    wait_until(lambda: desk.figure("sidecar_lark_card_updates_total", outcome="failed") == 1, "it has failed")
    for _ in range(300):
        desk.clock.ahead += 1_200
        desk.cards.change_due()
    assert due(desk, session_id) is None
    assert desk.platform.count("update_card") < 40


@pytest.mark.parametrize("processes", [1, 2])
def test_one_changes_a_card(desks, processes):
    those = [desks() for _ in range(processes)]
    one = those[0]
    started = one.start(open_id=ALICE.open_id)
    one.send_card(started)
    one.clock.ahead += 601
    one.service.expire()
    together(*(desk.cards.change_due for desk in those * 3))
    assert len(shown(one)) == 1


def test_a_process_that_died_at_it_leaves_it_to_another(desks):
    one, two = desks(), desks()
    started = one.start(open_id=ALICE.open_id)
    one.send_card(started)
    with one.platform.held("update_card"):
        one.clock.ahead += 601
        one.service.expire()
        dying = gevent.spawn(one.cards.change_due)
        wait_until(lambda: one.platform.count("update_card") == 1, "it is at it")
        dying.kill()
    assert two.cards.change_due() == 0
    two.clock.ahead += authorization_cards.CLAIM_SECONDS + 1
    assert two.cards.change_due() == 1
    assert len(shown(one)) == 1


def test_a_platform_that_is_away_is_asked_for_one_card(desk):
    for number in range(4):
        desk.send_card(desk.start(f"u{number}", open_id=ALICE.open_id))
    desk.clock.ahead += 601
    desk.service.expire()
    desk.platform.failing["update_card"] = ProviderUnavailable("Away.")
    desk.cards.change_due()
    assert desk.platform.count("update_card") == 1


def test_a_click_in_a_card_that_was_sent_by_somebody_else_s_hand(desk):
    """The message is known from the click, and changed like one that we have sent."""
    started = desk.start()
    click = {"session_id": started.row.session_id, "action": "reject", "open_id": "ou_x", "message_id": "om_theirs"}
    desk.called("card.action.trigger", {"click": click})
    desk.clock.ahead += 6
    desk.cards.change_due()
    assert desk.platform.cards[-1][:2] == ("changed", "om_theirs")


def test_what_is_old_goes_and_what_holds_stays(desk):
    holding = desk.authorized("u1")
    declined = desk.start("u2")
    desk.come_back(declined, "", "access_denied")
    desk.token("u1")
    desk.called("nobody.wants.this", {}, nonce="n")
    desk.handlers._handlers["wanted"] = lambda event, told: {}
    desk.called("wanted", {}, "ev")
    assert desk.cleaning.run() == 0
    assert (count(desk, lark_nonces), count(desk, lark_events), count(desk, authorization_uses)) == (2, 1, 1)
    desk.clock.ahead += 4 * DAY
    desk.token("u1")
    desk.cleaning.run()
    assert (count(desk, lark_nonces), count(desk, lark_events), count(desk, authorization_uses)) == (0, 0, 2)
    desk.clock.ahead += 27 * DAY
    for _ in range(5):  # keep its tokens alive
        desk.token("u1")
    waiting = desk.start("u3")
    assert desk.cleaning.run() == 1
    with pytest.raises(AuthorizationNotFound):
        desk.service.known(declined.row.session_id)
    assert desk.row(holding.session_id)["state"] == "completed"
    assert desk.row(waiting.row.session_id)["state"] == "pending"
    assert desk.figure("sidecar_authorization_cleanup_timestamp_seconds") > 0


def test_an_event_that_is_not_done_is_not_cleaned_up(desk):
    desk.handlers._handlers["wanted"] = lambda event, told: 1 / 0
    desk.called("wanted", {}, "ev")
    desk.clock.ahead += 30 * DAY
    desk.cleaning.run()
    assert count(desk, lark_events) == 1


def test_tokens_that_have_ended_are_forgotten_and_told(desk):
    desk.platform.renewable = False
    row = desk.authorized()
    desk.clock.ahead += LIFE_SECONDS + 1
    desk.cleaning.run()
    stored = desk.row(row.session_id)
    assert (stored["user_access_token"], stored["reason"]) == (None, "token_expired")
    assert desk.told("authorization_revoked")[0]["reason"] == "token_expired"


def test_figures(desk):
    desk.authorized("u1")
    desk.start("u2")
    desk.clock.ahead += LIFE_SECONDS + 1
    desk.cleaning.measure()
    assert desk.figure("lark_service_token_active_count", app_id="cli_a") == 1, "it can be renewed"
    assert desk.figure("lark_service_auth_session_active", app_id="cli_a") == 0, "its time is over"
    assert desk.figure("sidecar_authorization_rows", state="pending") == 1


def test_keys_are_changed(desks):
    """Everything is readable with the new key alone after it, and nothing was lost on the way."""
    old, new = Fernet(KEY), Fernet(Fernet.generate_key())
    before = desks()
    before.apps.add(App("cli_b", "secret-b", "token-b", "key-b"), "B")
    waiting = before.start("u2")
    before.authorized("u1")
    before.handlers._handlers["wanted"] = lambda event, told: 1 / 0
    before.called("wanted", {"text": "hi"}, "ev")
    text = before.token("u1").text

    between = desks(vault=Vault([new, old]))
    assert between.token("u1").text == text
    found = reseal_all(between.database, between.writer.submit, between.vault)
    assert (found.done, found.unreadable) == (1 + 1 + 2 + 1, 0)

    seen = []
    after = desks(vault=Vault([new]))
    after.handlers._handlers["wanted"] = lambda event, told: seen.append(event) or {}
    assert after.token("u1").text == text
    assert after.apps.named("cli_b") == App("cli_b", "secret-b", "token-b", "key-b")
    assert after.come_back(waiting).error is None
    after.clock.ahead += LIFE_SECONDS * 0.95
    assert not after.token("u1").is_expiring
    after.callbacks.redo()
    wait_until(lambda: seen == [{"text": "hi"}], "the event is handled")
    with pytest.raises(AuthenticationRequired):
        before.token("u1")
    assert reseal_all(before.database, before.writer.submit, before.vault).unreadable > 0


def test_what_was_moved_to_another_row_can_t_be_opened_there(desk):
    mine, theirs = desk.authorized("u1"), desk.authorized("u2")
    stolen = desk.row(theirs.session_id)
    desk.change(mine.session_id, user_access_token=stolen["user_access_token"])
    with pytest.raises(AuthenticationRequired):
        desk.token("u1")
    own = desk.row(mine.session_id)
    desk.change(theirs.session_id, user_access_token=stolen["refresh_token"], refresh_token=own["refresh_token"])
    with pytest.raises(AuthenticationRequired):
        desk.token("u2")
    started, other = desk.start("u3"), desk.start("u4")
    desk.change(started.row.session_id, sealed=desk.row(other.row.session_id)["sealed"])
    outcome = desk.come_back(started)
    assert outcome.error.reason == "misconfigured"
    assert desk.platform.count("exchange") == 2, "only for those before"


def test_what_the_vault_can_t_open():
    vault = Vault([Fernet(KEY)])
    for sealed in ("", "x", "é", "\ud800", "gAAAA" * 100, Fernet(KEY).encrypt(b"5").decode()):
        with pytest.raises(Unreadable):
            vault.open(sealed, "place")
    with pytest.raises(Unreadable):
        vault.open(vault.seal("text", "place", "a"), "place")
    assert vault.open(vault.seal("text \ud800", "place"), "place") == "text \ud800"


def test_apps(desk):
    second = App("cli_b", "secret-b")
    desk.apps.add(second, "B")
    for known in (second, APP):
        with pytest.raises(Conflict):
            desk.apps.add(known, "again")
    assert [app.id for app in desk.apps.all()] == ["cli_a", "cli_b"]
    assert [(app.id, app.proves) for app in desk.apps.listed()] == [("cli_a", "nothing"), ("cli_b", "nothing")]
    assert "secret" not in repr(desk.apps.listed()) + repr(desk.apps.all())
    desk.apps.remove("cli_b")
    for app_id in ("cli_b", "cli_a", "\x00"):
        with pytest.raises(NotFound):
            desk.apps.remove(app_id)
    with pytest.raises(NotFound):
        desk.apps.named("cli_b")
    assert desk.apps.named(None) == APP


def test_without_an_app(desks):
    desk = desks(app=None)
    for call in (
        lambda: desk.start(),
        lambda: desk.token(),
        lambda: desk.called("x", {}),
        lambda: desk.fed("x", {}, "ev"),
        lambda: desk.tokens.revoke(SHOP, "cli_a", "u1"),
        lambda: desk.service.seen(SHOP, "x"),
    ):
        with pytest.raises(NotFound):
            call()
    assert not run_job(desk)
    desk.apps.add(App("cli_b", "secret-b"), "B")
    assert desk.start().row.app_id == "cli_b"


def test_one_process_of_all_is_at_work(desks):
    one, two = desks(node="one"), desks(node="two")
    assert run_job(one)
    assert not run_job(two)
    assert run_job(one)
    one.clock.ahead += LEASE_SECONDS + 1
    assert run_job(two), "the first has stood still"
    assert not run_job(one)


def test_a_process_that_ends_leaves_the_work_to_another_at_once(desks):
    one, two = desks(node="one"), desks(node="two")
    assert run_job(one)
    one.job.stop()
    assert run_job(two)
    one.job.stop()
    assert run_job(two), "and takes nothing from it by stopping again"


def test_the_job_does_what_is_due(desk):
    ended = desk.start("u1", open_id=ALICE.open_id)
    desk.send_card(ended)
    row = desk.authorized("u2")
    before = desk.row(row.session_id)["user_access_token"]
    desk.clock.ahead += LIFE_SECONDS * 0.95
    run_job(desk)
    assert desk.row(ended.row.session_id)["state"] == "expired"
    assert desk.row(row.session_id)["user_access_token"] != before
    desk.clock.ahead += 1
    run_job(desk)
    assert shown(desk) == [(ended.row.session_id, "expired")]


def test_a_part_that_fails_does_not_keep_the_others_from_their_work(desk, monkeypatch):
    started = desk.start()
    desk.job._parts["cards"] = lambda: 1 / 0
    desk.clock.ahead += 601
    assert run_job(desk)
    assert desk.row(started.row.session_id)["state"] == "expired"


def test_people_are_asked_for_again_by_one_process_at_the_time_given(desks):
    clock = desks().clock
    clock.ahead += (DAY / 2 - clock()) % DAY  # noon
    one, two = desks(node="one", schedule="0 2 * * *"), desks(node="two", schedule="0 2 * * *")
    one.authorized()
    asked = one.platform.count("person")
    run_job(one)
    assert one.platform.count("person") == asked
    one.clock.ahead += DAY
    run_job(one)
    run_job(two)
    assert one.platform.count("person") == asked + 1
    one.clock.ahead += 3_600 * 3
    run_job(two)
    assert one.platform.count("person") == asked + 1, "two takes over, and does not do it over again"
    one.clock.ahead += DAY
    run_job(two)
    assert one.platform.count("person") == asked + 2


def test_the_store_is_away_while_the_job_is_at_work(desk):
    desk.start()
    desk.clock.ahead += 601
    with desk.broken():
        outcome_of(desk.job.run_once)
    with desk.broken(lambda number: number > 0):
        run_job(desk)
    assert run_job(desk)
    assert count(desk, user_auth_sessions) == 1
    assert lark_callbacks.TRIES == 4
