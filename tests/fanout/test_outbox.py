"""What waits for each connection and how it leaves: order, bounds, policies, fairness; on real sockets."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import gevent
import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import given
from hypothesis import strategies as st

from sidecar.fanout.outbox import DRAINED_BYTES, SEND_BYTES, Flusher, Outbox
from tests.fanout.stages import wait_until

BUDGET = 10_000_000


class Peer:
    """Both ends of a connection: the transport and owner of an outbox, and what a client reads."""

    def __init__(self, flusher: Flusher, limit_bytes: int = 1_000_000, kind: int = socket.SOCK_STREAM):
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, kind)
        for end in (self.ours, self.theirs):
            end.setblocking(False)
        self.descriptor = self.ours.fileno()
        self.outbox = Outbox(flusher, limit_bytes, self)
        self.cut = self.broken = 0
        self.received = b""

    def cut_off(self) -> None:
        self.cut += 1

    def failed(self) -> None:
        self.broken += 1

    def attach(self) -> Peer:
        self.outbox.attach(self)
        return self

    def read(self, size: int = 1_000_000) -> bytes:
        """What is there, b"" if nothing is."""
        try:
            data = self.theirs.recv(size)
        except BlockingIOError:
            data = b""
        self.received += data
        return data

    def read_until(self, size: int) -> bytes:
        wait_until(lambda: len(self.received) >= size or (self.read() and False), f"{size} bytes came")
        return self.received

    def fill(self) -> list[bytes]:
        """Send until the kernel takes no more, as with a client that never reads; what was sent."""
        sent: list[bytes] = []
        while not self.outbox._watcher:
            frame = bytes([65 + len(sent) % 26]) * 8_192
            assert self.outbox.offer(frame)
            sent.append(frame)
            gevent.sleep(0.001)
        return sent

    def close(self) -> None:
        self.outbox.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def flusher() -> Iterator[Flusher]:
    made = Flusher(gevent.get_hub().loop, BUDGET)
    yield made
    made.close()


@pytest.fixture
def peer(flusher: Flusher) -> Iterator[Peer]:
    made = Peer(flusher).attach()
    yield made
    made.close()


def numbered(count: int) -> list[bytes]:
    return [f"<{number}>".encode() for number in range(count)]


class TestSending:
    def test_frames_leave_in_order(self, peer: Peer):
        frames = numbered(1_000)
        for frame in frames:
            assert peer.outbox.offer(frame)
        assert peer.read_until(len(b"".join(frames))) == b"".join(frames)
        assert peer.outbox.size == 0

    def test_what_comes_before_the_turn_is_one_send(self, flusher: Flusher):
        """A packet socket shows where one send ends."""
        peer = Peer(flusher, kind=socket.SOCK_SEQPACKET).attach()
        for frame in (b"a", b"b", b"c"):
            peer.outbox.offer(frame)
        wait_until(lambda: peer.read() != b"", "the first send")
        assert peer.received == b"abc"
        peer.outbox.offer(b"d")
        wait_until(lambda: peer.read() != b"", "the second send")
        assert peer.received == b"abcd"
        peer.close()

    def test_connections_that_hold_the_same_share_the_join_and_others_do_not(self, flusher: Flusher):
        peers = [Peer(flusher).attach() for _ in range(6)]
        shared = numbered(5)
        for place, peer in enumerate(peers):
            own = [b"[own]"] if place % 2 else []
            for frame in [*shared[:3], *own, *shared[3:]]:
                peer.outbox.offer(frame)
        for place, peer in enumerate(peers):
            expected = b"<0><1><2>" + (b"[own]" if place % 2 else b"") + b"<3><4>"
            assert peer.read_until(len(expected)) == expected
            peer.close()

    def test_more_than_one_send_may_take_is_sent_in_several(self, flusher: Flusher):
        peer = Peer(flusher, limit_bytes=10 * SEND_BYTES).attach()
        frames = [bytes([65 + number]) * 100_000 for number in range(12)]
        for frame in frames:
            assert peer.outbox.offer(frame)
        assert peer.read_until(1_200_000) == b"".join(frames)
        peer.close()

    def test_a_partial_send_goes_on_where_it_stopped(self, peer: Peer):
        sent = peer.fill()
        total = b"".join(sent)
        assert 0 < peer.outbox.size < len(total)
        assert peer.read_until(len(total)) == total

    def test_a_peer_that_is_gone_is_told_to_the_transport_once(self, flusher: Flusher):
        peer = Peer(flusher).attach()
        peer.theirs.close()
        peer.outbox.offer(b"x")
        wait_until(lambda: peer.broken == 1, "the transport heard of it")
        peer.close()

    def test_nothing_leaves_a_closed_outbox_or_enters_it(self, flusher: Flusher):
        peer = Peer(flusher).attach()
        peer.outbox.offer(b"never")
        peer.outbox.close()
        assert not peer.outbox.offer(b"x")
        peer.outbox.put(b"x")
        gevent.sleep(0.01)
        assert peer.read() == b""
        assert (peer.cut, peer.outbox.size) == (0, 0)
        assert not peer.outbox.wait_drained()
        peer.close()

    @given(st.data())
    def test_each_reader_gets_its_own_frames_once_and_in_order_however_it_reads(self, data: st.DataObject):
        flusher = Flusher(gevent.get_hub().loop, BUDGET)
        seed = data.draw(st.integers(0, 2**32))
        chooser = random.Random(seed)
        peers = [Peer(flusher).attach() for _ in range(4)]
        expected: list[list[bytes]] = [[] for _ in peers]
        for number in range(data.draw(st.integers(1, 60))):
            frame = b"%d:" % number + b"x" * chooser.choice((1, 50, 5_000, 60_000)) + b";"
            for place, peer in enumerate(peers):
                if chooser.random() < 0.7 and peer.outbox.offer(frame):
                    expected[place].append(frame)
            if chooser.random() < 0.3:
                gevent.sleep(0)
            chooser.choice(peers).read(chooser.choice((10, 100_000)))
        for place, peer in enumerate(peers):
            whole = b"".join(expected[place])
            assert peer.read_until(len(whole)) == whole
            assert peer.outbox.size == 0
            peer.close()
        assert flusher.held_bytes == 0
        flusher.close()


class TestBounds:
    def test_an_empty_outbox_takes_any_one_frame(self, flusher: Flusher):
        peer = Peer(flusher, limit_bytes=10)
        assert peer.outbox.offer(b"x" * 1_000)
        assert not peer.outbox.offer(b"y")
        peer.close()

    def test_offer_refuses_what_does_not_fit_and_takes_it_again_later(self, flusher: Flusher):
        peer = Peer(flusher, limit_bytes=100_000).attach()
        sent = peer.fill()
        while peer.outbox.offer(b"z" * 1_000):
            sent.append(b"z" * 1_000)
        assert peer.outbox.size <= 100_000
        assert peer.cut == 0
        assert peer.read_until(len(b"".join(sent))) == b"".join(sent)
        assert peer.outbox.offer(b"again")
        peer.close()

    def test_put_cuts_the_connection_off_when_it_does_not_fit(self, flusher: Flusher):
        peer = Peer(flusher, limit_bytes=100_000).attach()
        peer.fill()
        while peer.outbox.offer(b"z" * 1_000):
            pass
        peer.outbox.put(b"y" * 1_000)
        assert peer.cut == 1
        peer.close()

    def test_only_the_newest_of_a_kind_waits(self, flusher: Flusher):
        peer = Peer(flusher).attach()
        sent = b"".join(peer.fill())
        for number in range(100):
            assert peer.outbox.offer_latest("cpu", b"<cpu %d>" % number)
            assert peer.outbox.offer_latest("memory", b"<memory %d>" % number)
        assert peer.outbox.offer(b"<fact>")
        assert peer.outbox.offer_latest("cpu", b"<cpu 100>")
        expected = sent + b"<cpu 100><memory 99><fact>"
        assert peer.read_until(len(expected)) == expected
        assert peer.outbox.offer_latest("cpu", b"<cpu 101>"), "what has left is not replaced"
        assert peer.read_until(len(expected) + 9).endswith(b"<fact><cpu 101>")
        peer.close()

    def test_slow_readers_share_a_budget_and_quick_ones_do_not_feel_it(self):
        flusher = Flusher(gevent.get_hub().loop, 300_000)
        slow = [Peer(flusher, limit_bytes=BUDGET).attach() for _ in range(3)]
        for peer in slow:
            peer.fill()
        refused = [0, 0, 0]
        for _ in range(200):
            for place, peer in enumerate(slow):
                refused[place] += not peer.outbox.offer(b"z" * 2_000)
        assert all(refused)
        assert sum(peer.outbox.size for peer in slow) == flusher.held_bytes <= 300_000
        quick = Peer(flusher).attach()
        assert all(quick.outbox.offer(b"q" * 2_000) for _ in range(20))
        assert len(quick.read_until(40_000)) == 40_000
        for peer in [*slow, quick]:
            peer.close()
        assert flusher.held_bytes == 0
        flusher.close()

    def test_no_connection_waits_behind_a_slow_one(self, flusher: Flusher):
        slow, quick = Peer(flusher).attach(), Peer(flusher).attach()
        slow.fill()
        for frame in numbered(500):
            slow.outbox.offer(frame)
            quick.outbox.offer(frame)
        assert quick.read_until(len(b"".join(numbered(500)))) == b"".join(numbered(500))
        assert slow.outbox.size > 0
        slow.close()
        quick.close()

    def test_who_waits_for_the_reader_goes_on_when_it_has_read(self, peer: Peer):
        """Nearly all, or all of it."""
        sent = b"".join(peer.fill())
        while peer.outbox.size <= 2 * DRAINED_BYTES:
            assert peer.outbox.offer(b"z" * 10_000)
            sent += b"z" * 10_000
        left: list[int] = []
        nearly = gevent.spawn(peer.outbox.wait_drained)
        entirely = gevent.spawn(peer.outbox.wait_drained, entirely=True)
        entirely.link(lambda _: left.append(peer.outbox.size))
        gevent.sleep(0.01)
        assert not nearly.dead
        assert not entirely.dead
        peer.read_until(len(sent))
        assert nearly.get(timeout=10) is entirely.get(timeout=10) is True
        wait_until(lambda: left == [0], "nothing was left")

    def test_nobody_waits_for_one_that_is_to_close(self, peer: Peer):
        """It takes nothing more, however much it has drained."""
        peer.outbox.finish(b"<last>", lambda: None)
        assert peer.outbox.wait_drained() is False
        assert peer.outbox.wait_drained(entirely=True) is False

    def test_closing_releases_who_waits_for_the_reader(self, flusher: Flusher):
        peer = Peer(flusher).attach()
        peer.fill()
        while peer.outbox.offer(b"z" * 10_000) and peer.outbox.size < 100_000:
            pass
        waiting = gevent.spawn(peer.outbox.wait_drained)
        gevent.sleep(0.01)
        peer.close()
        assert waiting.get(timeout=10) is False


class TestFinishing:
    def test_the_last_frame_leaves_behind_what_waits_and_nothing_follows(self, peer: Peer):
        done = []
        sent = b"".join(peer.fill())
        peer.outbox.offer(b"<waits>")
        peer.outbox.finish(b"<last>", lambda: done.append(True))
        assert not peer.outbox.offer(b"<late>")
        assert done == []
        assert peer.read_until(len(sent) + 13) == sent + b"<waits><last>"
        wait_until(lambda: done == [True], "it was told")
        assert not peer.outbox.offer(b"<late>")

    def test_of_an_idle_connection_too(self, peer: Peer):
        done = []
        peer.outbox.offer(b"x")
        peer.read_until(1)
        peer.outbox.finish(b"<last>", lambda: done.append(True))
        assert peer.read_until(7) == b"x<last>"
        wait_until(lambda: done == [True], "it was told")


class TestPolling:
    def test_frames_wait_until_they_are_taken(self, flusher: Flusher):
        peer = Peer(flusher)
        for frame in numbered(5):
            peer.outbox.offer(frame)
        assert peer.outbox.wait(10)
        assert peer.outbox.take(100, 3) == numbered(3)
        peer.outbox.arrived()
        assert peer.outbox.take(3, 100) == [b"<3>"], "one that fits"
        peer.outbox.arrived()
        assert peer.outbox.take(1, 100) == [b"<4>"], "one though it does not fit"
        peer.outbox.arrived()
        assert (peer.outbox.take(100, 100), peer.outbox.size, flusher.held_bytes) == ([], 0, 0)
        peer.close()

    def test_what_was_taken_stays_until_it_has_arrived(self, flusher: Flusher):
        peer = Peer(flusher)
        for frame in numbered(3):
            peer.outbox.offer(frame)
        assert peer.outbox.take(100, 2) == numbered(2)
        peer.outbox.offer(b"<3>")
        assert peer.outbox.given == peer.outbox.take(100, 2) == numbered(2)
        assert peer.outbox.size == flusher.held_bytes == 12
        for _ in range(2):
            peer.outbox.arrived()
            assert peer.outbox.given == []
            assert peer.outbox.size == flusher.held_bytes == 6
        assert peer.outbox.take(100, 100) == [b"<2>", b"<3>"]
        peer.close()

    def test_a_frame_that_was_taken_is_not_replaced(self, flusher: Flusher):
        peer = Peer(flusher)
        assert peer.outbox.offer_latest("kind", b"old")
        assert peer.outbox.take(100, 100) == [b"old"]
        for frame in (b"new", b"newest"):
            assert peer.outbox.offer_latest("kind", frame)
        assert peer.outbox.given == [b"old"]
        peer.outbox.arrived()
        assert peer.outbox.offer_latest("kind", b"last")
        assert peer.outbox.take(100, 100) == [b"newest", b"last"]
        peer.close()

    def test_who_waits_for_the_reader_goes_on_when_it_has_arrived(self, flusher: Flusher):
        peer = Peer(flusher)
        peer.outbox.offer(b"z" * 2 * DRAINED_BYTES)
        waiting = gevent.spawn(peer.outbox.wait_drained)
        gevent.sleep(0.01)
        peer.outbox.take(100, 1)
        gevent.sleep(0.01)
        assert not waiting.dead
        peer.outbox.arrived()
        assert waiting.get(timeout=10) is True
        peer.close()

    def test_one_who_waits_is_woken_by_the_first_frame(self, flusher: Flusher):
        peer = Peer(flusher)
        waiting = gevent.spawn(peer.outbox.wait, 10)
        gevent.sleep(0.01)
        assert peer.outbox.waiting
        peer.outbox.offer(b"x")
        assert waiting.get(timeout=5) is True
        assert not peer.outbox.waiting
        assert peer.outbox.take(10, 10) == [b"x"]
        peer.close()

    def test_waiting_ends_after_the_time_out_or_when_it_is_closed(self, flusher: Flusher):
        peer = Peer(flusher)
        assert peer.outbox.wait(0.01) is False
        waiting = gevent.spawn(peer.outbox.wait, 10)
        gevent.sleep(0.01)
        peer.close()
        assert waiting.get(timeout=5) is True

    def test_a_transport_sends_what_waited_behind_what_the_former_outbox_holds(self, flusher: Flusher):
        """An upgrade: the probe's answer first, then what came meanwhile."""
        peer, polling = Peer(flusher), Peer(flusher)
        polling.outbox.offer(b"<1>")
        polling.outbox.offer(b"<2>")
        peer.outbox.offer(b"<probe>")
        polling.outbox.attach(peer, peer.outbox)
        polling.outbox.offer(b"<3>")
        assert peer.read_until(16) == b"<probe><1><2><3>"
        assert flusher.held_bytes == 0
        polling.close()
        peer.close()

    def test_waiting_ends_when_a_transport_is_attached(self, flusher: Flusher):
        peer = Peer(flusher)
        waiting = gevent.spawn(peer.outbox.wait, 10)
        gevent.sleep(0.01)
        peer.attach()
        assert waiting.get(timeout=5) is True
        peer.outbox.offer(b"x")
        assert peer.read_until(1) == b"x"
        peer.close()


def test_a_fault_in_one_flush_costs_that_connection_alone(flusher: Flusher, capsys):
    class Faulty(Peer):
        @property
        def descriptor(self) -> int:
            raise RuntimeError("no descriptor")

        @descriptor.setter
        def descriptor(self, value: int) -> None:
            pass

    faulty, sound = Faulty(flusher).attach(), Peer(flusher).attach()
    faulty.outbox.offer(b"x")
    sound.outbox.offer(b"y")
    assert sound.read_until(1) == b"y"
    assert faulty.cut == 1
    assert "outbox.flush_failed" in capsys.readouterr().out
    faulty.close()
    sound.close()
