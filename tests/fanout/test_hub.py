"""The hub: rooms, one copy a subscriber, guards, and a publish that nobody can break."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.domain.events import Event, Volatile
from sidecar.fanout.hub import Hub, Room, Subscriber
from tests.fanout.recipients import CountingCodec, FakeRecipient


def event(seq: int, *rooms: str) -> Event:
    return Event(seq, 1, "fact", "{}", rooms, "2026-01-01T00:00:00Z")


def not_congested(subscriber: Subscriber, event: Event) -> None:
    raise AssertionError("nobody is congested here")


@pytest.fixture
def hub() -> Hub:
    return Hub(not_congested)


def member(hub: Hub, *rooms: str, recipient: FakeRecipient | None = None) -> tuple[Subscriber, FakeRecipient]:
    recipient = recipient or FakeRecipient()
    subscriber = Subscriber(recipient, recipient.codec, 0)
    for room in rooms:
        hub.join(subscriber, room, 0)
    return subscriber, recipient


def test_an_event_reaches_the_subscribers_of_its_rooms_and_nobody_else(hub: Hub):
    _, a = member(hub, "a")
    _, b = member(hub, "b")
    _, c = member(hub, "c")
    hub.publish(event(1, "a", "b"))
    hub.publish(event(2, "b"))
    hub.publish(event(3, "nobody"))
    hub.publish(event(4))
    assert (a.seqs, b.seqs, c.seqs) == ([1], [1, 2], [])


def test_a_subscriber_in_several_of_the_rooms_gets_one_copy(hub: Hub):
    """The stock stack sends one a room."""
    _, both = member(hub, "a", "b", "c")
    hub.publish(event(1, "a", "b", "c"))
    assert both.seqs == [1]
    assert hub.count(["a", "b"]) == 1


def test_a_frame_is_made_once_an_event_and_codec(hub: Hub):
    first, second = CountingCodec(), CountingCodec()
    for codec in (first, second):
        for _ in range(50):
            member(hub, "a", "b", recipient=FakeRecipient(codec))
    hub.publish(event(1, "a", "b"))
    assert (first.made, second.made) == (1, 1)
    hub.publish(event(2, "nobody"))
    assert (first.made, second.made) == (1, 1), "no frame without a reader"


def test_leaving_one_room_keeps_the_others(hub: Hub):
    subscriber, recipient = member(hub, "a", "b")
    hub.leave(subscriber, "a")
    hub.leave(subscriber, "a")
    hub.leave(subscriber, "never joined")
    hub.publish(event(1, "a"))
    hub.publish(event(2, "b"))
    assert recipient.seqs == [2]
    assert list(subscriber.rooms) == ["b"]


def test_the_end_of_a_connection_looks_at_its_own_rooms_alone():
    """Stock scans every room of the server for each disconnect."""

    class Watched(dict):
        looked_at: list[str] = []  # noqa: RUF012

        def get(self, key, default=None):
            self.looked_at.append(key)
            return super().get(key, default)

        def __iter__(self):
            raise AssertionError("all rooms were walked")

    hub = Hub(not_congested)
    hub._rooms = Watched()
    for number in range(100):
        member(hub, f"other-{number}")
    subscriber, _ = member(hub, "a", "b")
    hub.drop(subscriber)
    assert sorted(Watched.looked_at) == ["a", "b"]
    assert hub.room_count == 100


def test_nothing_is_left_of_rooms_and_guards_when_their_last_member_goes(hub: Hub):
    subscribers = [member(hub, "a", f"own-{number}")[0] for number in range(5)]
    for subscriber in subscribers:
        hub.guard(subscriber, "a", lambda event: True)
        hub.drop(subscriber)
    assert hub.room_count == 0
    assert hub._guards == {}
    assert all(not subscriber.rooms for subscriber in subscribers)


def test_who_has_gone_can_not_join_any_more(hub: Hub):
    """A subscribe that was reading the database while its connection ended used to leave it in the room for ever."""
    subscriber, recipient = member(hub, "a")
    hub.drop(subscriber)
    hub.join(subscriber, "late", 7)
    hub.guard(subscriber, "late", lambda event: True)
    hub.publish(event(8, "late"))
    assert recipient.seqs == []
    assert hub.room_count == 0
    assert hub._guards == {}


def test_joining_again_keeps_the_first_hold(hub: Hub):
    """Pages subscribe anew in their connect handler: what was covered stays covered."""
    subscriber = Subscriber(FakeRecipient(), CountingCodec(), 0)
    first = hub.join(subscriber, "a", 5)
    assert hub.join(subscriber, "a", 9) is first
    assert isinstance(first, Room)
    assert (first.joined, first.covers, first.sent) == (5, 5, 5)


def test_a_subscriber_off_the_live_path_gets_no_live_frame(hub: Hub):
    subscriber, recipient = member(hub, "a")
    subscriber.live = False
    hub.publish(event(1, "a"))
    subscriber.live = True
    hub.publish(event(2, "a"))
    assert recipient.seqs == [2]


def test_a_congested_subscriber_is_reported_with_the_event_that_it_did_not_get():
    reported: list[tuple[Subscriber, int]] = []

    def take_off(subscriber: Subscriber, event: Event) -> None:
        reported.append((subscriber, event.seq))
        subscriber.live = False

    hub = Hub(take_off)
    slow, outbox = member(hub, "a", recipient=FakeRecipient(capacity=2))
    _, other = member(hub, "a")
    for seq in range(1, 6):
        hub.publish(event(seq, "a"))
    assert reported == [(slow, 3)]
    assert outbox.seqs == [1, 2]
    assert other.seqs == [1, 2, 3, 4, 5]


def test_one_broken_recipient_costs_the_others_nothing_and_is_cut_off(hub: Hub, capsys):
    _, before = member(hub, "a")
    broken_subscriber, broken = member(hub, "a")
    _, after = member(hub, "a")
    broken.broken = RuntimeError("its queue is gone")
    hub.publish(event(1, "a"))
    broken.broken = None
    hub.publish(event(2, "a"))
    assert before.seqs == after.seqs == [1, 2]
    assert broken.closed
    assert broken.seqs == [], "2 would move its offset past 1, which it never got"
    assert broken_subscriber.closed
    assert "hub.recipient_failed" in capsys.readouterr().out


class TestGuards:
    """A guard is asked at a room's first event, before anybody sees it."""

    def test_a_guard_that_says_yes_is_asked_once(self, hub: Hub):
        subscriber, recipient = member(hub, "deployment:1")
        asked: list[int] = []
        hub.guard(subscriber, "deployment:1", lambda event: asked.append(event.seq) or True)
        for seq in (1, 2):
            hub.publish(event(seq, "deployment:1"))
        assert asked == [1]
        assert recipient.seqs == [1, 2]

    def test_a_guard_that_says_no_takes_it_out_before_the_event(self, hub: Hub):
        subscriber, recipient = member(hub, "deployment:1", "project:mine")
        hub.guard(subscriber, "deployment:1", lambda event: False)
        hub.publish(event(1, "project:other", "deployment:1"))
        hub.publish(event(2, "deployment:1"))
        hub.publish(event(3, "project:mine"))
        assert recipient.seqs == [3]
        assert list(subscriber.rooms) == ["project:mine"]

    def test_a_refused_room_does_not_hide_the_event_of_another(self, hub: Hub):
        subscriber, recipient = member(hub, "deployment:1", "project:mine")
        hub.guard(subscriber, "deployment:1", lambda event: False)
        hub.publish(event(1, "project:mine", "deployment:1"))
        assert recipient.seqs == [1]

    def test_a_guard_is_asked_also_while_its_subscriber_is_catching_up(self, hub: Hub):
        subscriber, _ = member(hub, "deployment:1")
        subscriber.live = False
        hub.guard(subscriber, "deployment:1", lambda event: False)
        hub.publish(event(1, "deployment:1"))
        assert not subscriber.rooms, "else the event would reach it from the journal"

    def test_a_guard_goes_with_its_room(self, hub: Hub):
        subscriber, _ = member(hub, "deployment:1")
        hub.guard(subscriber, "deployment:1", lambda event: pytest.fail("nobody waits for it"))
        hub.leave(subscriber, "deployment:1")
        hub.publish(event(1, "deployment:1"))

    def test_a_guard_taken_back_is_not_asked(self, hub: Hub):
        subscriber, recipient = member(hub, "deployment:1")
        hub.guard(subscriber, "deployment:1", lambda event: False)
        hub.unguard(subscriber, "deployment:1")
        hub.publish(event(1, "deployment:1"))
        assert recipient.seqs == [1]

    def test_a_guard_that_breaks_counts_as_no(self, hub: Hub, capsys):
        def broken(event: Event) -> bool:
            raise RuntimeError("no verdict")

        subscriber, recipient = member(hub, "deployment:1")
        _, other = member(hub, "deployment:1")
        hub.guard(subscriber, "deployment:1", broken)
        hub.publish(event(1, "deployment:1"))
        assert recipient.seqs == []
        assert other.seqs == [1]
        assert "hub.guard_failed" in capsys.readouterr().out


def test_after_a_gap_all_are_cut_off(hub: Hub):
    _, first = member(hub, "a", "b")
    _, second = member(hub, "c")
    hub.cut_off_all()
    hub.publish(event(9, "a", "c"))
    assert first.closed
    assert second.closed
    assert first.seqs == second.seqs == []


class TestTargets:
    """An event for one user alone."""

    def test_it_reaches_that_users_subscribers_in_the_room(self, hub: Hub):
        ada, bob, nobody = (member_of(hub, user, "a") for user in ("ada", "bob", None))
        elsewhere = member_of(hub, "ada", "b")
        hub.publish(replace(event(1, "a"), target="ada"))
        hub.publish(event(2, "a"))
        assert [each.seqs for each in (ada, bob, nobody, elsewhere)] == [[1, 2], [2], [2], []]

    def test_it_is_framed_for_nobody_else(self, hub: Hub):
        codec = CountingCodec()
        member_of(hub, "bob", "a", codec=codec)
        hub.publish(replace(event(1, "a"), target="ada"))
        assert codec.made == 0

    def test_nobody_is_congested_by_what_is_not_theirs(self, hub: Hub):
        full = member_of(hub, "bob", "a", capacity=0)
        hub.publish(replace(event(1, "a"), target="ada"))
        assert (full.seqs, full.closed) == ([], False)

    def test_the_catch_up_sees_it_alike(self, hub: Hub):
        wanted = [
            Subscriber(FakeRecipient(), CountingCodec(), 0, user=user).wants(replace(event(1, "a"), target="ada"))
            for user in ("ada", "bob", None)
        ]
        assert wanted == [False] * 3, "in none of its rooms"
        for user in ("ada", "bob", None):
            subscriber = Subscriber(FakeRecipient(), CountingCodec(), 0, user=user)
            hub.join(subscriber, "a", 0)
            assert subscriber.wants(replace(event(1, "a"), target="ada")) is (user == "ada")
            assert subscriber.wants(event(1, "a"))

    def test_they_are_counted(self, hub: Hub):
        for user in ("ada", "ada", "bob", None):
            member_of(hub, user, "a")
        assert [hub.count(["a"], user) for user in ("ada", "bob", "eve", None)] == [2, 1, 0, 4]


def member_of(
    hub: Hub, user: str | None, room: str, codec: CountingCodec | None = None, capacity: int | None = None
) -> FakeRecipient:
    recipient = FakeRecipient(codec) if capacity is None else FakeRecipient(codec, capacity=capacity)
    hub.join(Subscriber(recipient, recipient.codec, 0, user=user), room, 0)
    return recipient


def test_who_comes_and_leaves_is_told_once_each(hub: Hub):
    """Also of one that joins twice, or after its end, and of one that leaves a room that it was not in."""
    moves: list[tuple[str, str | None, int]] = []
    hub.on_moved("room:", lambda room, subscriber, step: moves.append((room, subscriber.user, step)))
    ada, bob = (Subscriber(FakeRecipient(), CountingCodec(), 0, user=user) for user in ("ada", "bob"))
    for room in ("room:a", "room:a", "rooms", "room:b", "project:room:"):
        hub.join(ada, room, 0)
    hub.leave(ada, "room:a")
    hub.leave(ada, "room:a")
    hub.drop(ada)
    bob.closed = True
    hub.join(bob, "room:a", 0)
    hub.drop(bob)
    assert moves == [("room:a", "ada", 1), ("room:b", "ada", 1), ("room:a", "ada", -1), ("room:b", "ada", -1)]


class Screen:
    """A recipient and codec of volatile news: the newest of each kind that waits."""

    def __init__(self) -> None:
        self.shown: dict[str, bytes] = {}
        self.made = 0
        self.broken = self.closed = False

    def volatile_frame(self, news: Volatile) -> bytes:
        self.made += 1
        return news.payload.encode()

    def offer_latest(self, kind: str, frame: bytes) -> bool:
        if self.broken:
            raise RuntimeError("its queue is gone")
        self.shown[kind] = frame
        return True

    def cut_off(self) -> None:
        self.closed = True


class TestVolatile:
    NEWS = Volatile("gauge", "1", "a", "2026-01-01T00:00:00Z")

    def screen(self, hub: Hub, room: str = "a", codec: Screen | None = None) -> tuple[Subscriber, Screen]:
        screen = Screen()
        subscriber = Subscriber(screen, codec or screen, 0)
        hub.join(subscriber, room, 0)
        return subscriber, screen

    def test_it_reaches_its_room_and_is_framed_once(self, hub: Hub):
        codec = Screen()
        inside = [self.screen(hub, codec=codec)[1] for _ in range(3)]
        _, outside = self.screen(hub, "b", codec)
        hub.publish_volatile(self.NEWS)
        assert [screen.shown for screen in inside] == [{"gauge a": b"1"}] * 3
        assert outside.shown == {}
        assert codec.made == 1

    def test_of_what_waits_the_newest_stays_for_each_room_and_type(self, hub: Hub):
        subscriber, screen = self.screen(hub)
        hub.join(subscriber, "b", 0)
        for news in (
            self.NEWS,
            replace(self.NEWS, payload="2"),
            replace(self.NEWS, room="b"),
            replace(self.NEWS, type="t"),
        ):
            hub.publish_volatile(news)
        assert screen.shown == {"gauge a": b"2", "gauge b": b"1", "t a": b"1"}

    def test_who_is_off_the_live_path_goes_without(self, hub: Hub):
        subscriber, screen = self.screen(hub)
        subscriber.live = False
        hub.publish_volatile(self.NEWS)
        assert screen.shown == {}

    def test_what_is_not_said_again_is_not_replaced_and_comes_off_the_live_path_too(self, hub: Hub):
        subscriber, screen = self.screen(hub)
        subscriber.live = False
        for number in "12":
            hub.publish_volatile(replace(self.NEWS, payload=number, mark=f"m{number}"))
        assert screen.shown == {"m1": b"1", "m2": b"2"}
        subscriber.closed = True
        hub.publish_volatile(replace(self.NEWS, mark="m3"))
        assert len(screen.shown) == 2

    def test_one_broken_recipient_costs_the_others_nothing(self, hub: Hub, capsys):
        _, before = self.screen(hub)
        _, broken = self.screen(hub)
        _, after = self.screen(hub)
        broken.broken = True
        hub.publish_volatile(self.NEWS)
        assert before.shown == after.shown == {"gauge a": b"1"}
        assert broken.closed
        assert "hub.recipient_failed" in capsys.readouterr().out
