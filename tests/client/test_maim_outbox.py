"""The outbox of a connection, with a clock of the test's own."""

from __future__ import annotations

from sidecar.client.maim_outbox import Entry, Outbox


class Box(Outbox):
    """With what it lost, and the time."""

    def __init__(self, messages: int = 1000, seconds: float = 300, keep: bool = True):
        self.now = 0.0
        self.losses: list[tuple[str, str]] = []
        super().__init__(
            messages, seconds, keep, lambda entry, why: self.losses.append((entry.msg_id, why)), lambda: self.now
        )

    def write(self) -> Entry:
        entry = self.next()
        assert entry is not None
        self.written(entry)
        return entry


def test_messages_wait_for_a_connection_and_for_their_acknowledgement():
    box = Box()
    one, two = box.add("1", "one"), box.add("2", "two")
    assert not box.wait_written(one)
    box.open()
    assert [box.write(), box.write()] == [one, two]
    assert box.wait_written(two)
    assert box.acknowledge("1")
    assert not box.acknowledge("1")
    assert not box.acknowledge(["1"])
    assert box.wait_acked(one, 0)
    assert not box.wait_acked(two, 0)
    box.close()
    assert box.next() is None
    box.open()
    assert box.write() is two
    assert box.acknowledge("2")
    assert len(box) == 0
    assert box.losses == []


def test_the_oldest_goes_when_there_are_too_many():
    box = Box(messages=2)
    entries = [box.add(str(number), "x") for number in range(3)]
    assert len(box) == 2
    assert [number for number, _ in box.losses] == ["0"]
    assert not box.wait_acked(entries[0], 5), "told at once"
    box.open()
    assert [box.write().msg_id, box.write().msg_id] == ["1", "2"]


def test_what_was_written_may_go_without_a_word():
    """A fast sender has more than so many on their way."""
    box = Box(messages=2)
    box.open()
    for number in range(5):
        box.add(str(number), "x")
        box.write()
    assert (len(box), box.losses) == (2, [])


def test_messages_get_too_old():
    box = Box(seconds=300)
    box.add("old", "x")
    box.now = 299
    box.add("new", "x")
    box.now = 300
    box.open()
    assert box.write().msg_id == "new"
    assert box.losses == [("old", "it could not be written in time")]


def test_nothing_outlives_its_connection_if_that_is_wanted():
    box = Box(keep=False)
    assert not box.wait_written(box.add("early", "x"))
    box.open()
    sent = box.add("sent", "x")
    box.write()
    box.close()
    assert not box.wait_acked(sent, 5)
    assert (len(box), [number for number, _ in box.losses]) == (0, ["early", "sent"])


def test_the_message_over_which_connections_end_is_given_up():
    """The first that was not acknowledged: all before it were taken."""
    box = Box()
    for number in range(3):
        box.add(str(number), "x")
    for _ in range(3):
        box.open()
        for _ in range(len(box)):
            box.write()
        box.acknowledge("0")
        box.close()
    assert [number for number, _ in box.losses] == ["1"]
    assert len(box) == 1


def test_the_largest_is_given_up_if_one_was_too_large():
    box = Box()
    for text in ("short", "long" * 100, "middle" * 5):
        box.add(text, text)
    box.open()
    for _ in range(3):
        box.write()
    box.close(too_big=True)
    assert [number[:4] for number, _ in box.losses] == ["long"]
