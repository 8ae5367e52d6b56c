"""Reading the journal back: pages of rooms, bounded by count and bytes, and counts without what was sent."""

from __future__ import annotations

import random

import pytest

from sidecar.store.journal import count_room_events, events_after, mark_of, read_head, room_events
from tests.store.stores import Store

MANY = 10_000_000


def page(store: Store, rooms, after=0, upto=MANY, limit=100, limit_bytes=MANY):
    return store.database.read(lambda c: room_events(c, rooms, after, upto, limit, limit_bytes))


@pytest.fixture
def rooms_of(store: Store) -> dict[int, tuple[str, ...]]:
    """Sixty events, each in some of three rooms or in none; the rooms of each seq."""
    chooser = random.Random(3)
    choices = [tuple(r for r in ("room:a", "room:b", "room:c") if chooser.random() < 0.4) for _ in range(60)]
    return {store.append(*rooms, n=number).seq: rooms for number, rooms in enumerate(choices)}


def test_pages_together_are_each_event_of_the_rooms_once_in_order(store: Store, rooms_of):
    for wanted in (["room:a"], ["room:a", "room:b"], ["room:a", "room:b", "room:c"], []):
        for limit in (1, 3, 7, 100):
            found, after, upto = [], 5, 55
            while after < upto:
                part = page(store, wanted, after, upto, limit)
                assert len(part.events) <= limit
                assert part.upto > after, "every page gets on"
                found += [event.seq for event in part.events]
                after = part.upto
            assert found == [seq for seq, rooms in rooms_of.items() if 5 < seq <= 55 and set(rooms) & set(wanted)]


def test_a_page_is_cut_by_bytes_but_holds_one_event_at_least(store: Store):
    for size in (10, 10, 5_000, 10):
        store.append("room:a", text="x" * size)
    first = page(store, ["room:a"], limit_bytes=100)
    assert ([e.seq for e in first.events], first.upto) == ([1, 2], 2)
    second = page(store, ["room:a"], after=2, limit_bytes=100)
    assert ([e.seq for e in second.events], second.upto) == ([3], 3)
    third = page(store, ["room:a"], after=3, upto=90, limit_bytes=100)
    assert ([e.seq for e in third.events], third.upto) == ([4], 90), "the last page is complete up to its bound"


def test_events_come_back_as_they_were_appended(store: Store):
    """The tail compares nothing: what it reads from the journal must equal what the writer handed over."""
    store.append("room:ä", "room:ä", "room:b", type="typ", text="Übung 🚀 \"'\n", n=2**60, f=0.1, none=None)
    assert store.journal() == store.committed
    assert store.committed[0].rooms == ("room:ä", "room:b"), "a room named twice counts once"


def test_events_after_pages_the_whole_journal(store: Store, rooms_of):
    read = lambda after, limit: [e.seq for e in store.database.read(lambda c: events_after(c, after, limit))]  # noqa: E731
    assert read(0, 7) == [1, 2, 3, 4, 5, 6, 7]
    assert read(57, 7) == [58, 59, 60]
    assert read(60, 7) == []


def test_marks_tell_rows_apart_and_missing_rows_have_none(store: Store):
    made = [store.append("room:a") for _ in range(3)]
    assert [store.database.read(lambda c, s=e.seq: mark_of(c, s)) for e in made] == [e.mark for e in made]
    assert len({event.mark for event in made}) == 3
    assert store.database.read(lambda c: mark_of(c, 4)) is None


def test_the_count_of_a_replay_leaves_out_what_other_rooms_covered(store: Store, rooms_of):
    def expected(after, upto, held):
        return sum(
            after < seq <= upto
            and "room:a" in rooms
            and not any(room in held and held[room] < seq for room in rooms if room != "room:a")
            for seq, rooms in rooms_of.items()
        )

    chooser = random.Random(11)
    for _ in range(30):
        held = {room: chooser.randrange(61) for room in ("room:b", "room:c", "room:x") if chooser.random() < 0.6}
        after, upto = sorted((chooser.randrange(61), chooser.randrange(61)))
        counted = store.database.read(lambda c, a=after, u=upto, h=held: count_room_events(c, "room:a", a, u, h))
        assert counted == expected(after, upto, held), (after, upto, held)


def test_an_empty_journal_has_a_name_and_nothing_else(store: Store):
    head = store.database.read(read_head)
    assert (head.seq, head.floor) == (0, 0)
    assert len(head.epoch) == 8


def test_targeted_events_are_read_and_counted_for_their_user_alone(store: Store):
    targets = [None, "ada", "bob", None, "Ada", "ada", ""]
    for target in targets:
        store.writer.submit(lambda t, target=target: t.append("fact", {}, ["room:a", "room:b"], target))
    assert [event.target for event in store.journal()] == targets
    assert store.journal() == store.committed
    for user in (None, "ada", "bob", "Ada", "eve", ""):
        theirs = [seq for seq, target in enumerate(targets, 1) if target is None or target == user]
        for rooms in (["room:a"], ["room:b", "room:a"], [f"room:{number}" for number in range(450)] + ["room:a"]):
            found, after = [], 0
            while after < len(targets):
                part = store.database.read(
                    lambda c, r=rooms, a=after, u=user: room_events(c, r, a, len(targets), 2, MANY, u)
                )
                found += [event.seq for event in part.events]
                assert part.upto > after
                after = part.upto
            assert found == theirs
        counted = store.database.read(lambda c, u=user: count_room_events(c, "room:a", 0, len(targets), {}, u))
        assert counted == len(theirs)
        covered = store.database.read(
            lambda c, u=user: count_room_events(c, "room:a", 0, len(targets), {"room:b": 3}, u)
        )
        assert covered == len([seq for seq in theirs if seq <= 3])


@pytest.mark.parametrize("target", ["\ud800", "a\udfff"])
def test_a_target_that_can_not_be_stored_fails_its_command_alone(store: Store, target: str):
    with pytest.raises(ValueError, match="surrogates"):
        store.writer.submit(lambda t: t.append("fact", {}, ["room:a"], target))
    assert store.append("room:a").seq == 1
