"""Datagrams between processes of one host, each with a socket of its own in one folder."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import sidecar.fanout.datagrams as datagrams_module
from sidecar.domain.events import Event, Volatile
from sidecar.fanout.datagrams import BATCH_BYTES, FOLDER, Datagrams, decode, encode
from sidecar.fanout.doorbells import Batch
from tests.fanout.ears import Ear
from tests.fanout.stages import wait_until


class Process:
    def __init__(self, instance: Path, node: str):
        self.now = 0.0
        self.ear = Ear()
        self.news: list[Volatile] = []
        self.dead: list[str] = []
        self.bell = Datagrams(instance, node, "e", self.dead.append, lambda: self.now)

    def start(self) -> Process:
        self.bell.start(self.ear, self.news.append)
        return self

    @property
    def heard(self) -> list[list[Event] | int | None]:
        return self.ear.heard_of

    def ring(self, events: list[Event]) -> None:
        self.now += 2  # looks who is there
        self.bell.ring(Batch(events))


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    made: list[Process] = []

    def make(node: str) -> Process:
        made.append(Process(tmp_path, node))
        return made[-1]

    yield make
    for one in made:
        one.bell.stop()


NEWS = Volatile("api_message", '{"type":"部署"}', "room:r", "2026-11-21T12:00:00.000Z")


def event(seq: int, payload: str = '{"name":"部署 \\u0000"}') -> Event:
    return Event(seq, 2**32 - 1, "step_started", payload, ("project:p", "deployment:1"), "2026-11-21T12:00:00.000Z")


def test_the_others_hear_the_batch_as_it_is(process):
    one, two, three = (process(name).start() for name in "abc")
    batch = [event(7), event(8)]
    two.ring(batch)
    wait_until(lambda: bool(one.heard and three.heard), "both have heard")
    assert one.heard == three.heard == [batch]
    assert two.heard == []


def test_who_has_not_started_rings_all_the_same(process):
    """A command of the command line, which revokes a token."""
    one = process("a").start()
    process("cli").ring([event(1)])
    wait_until(lambda: bool(one.heard), "it is heard")


def test_nobody_is_there(process, tmp_path):
    process("a").ring([event(1)])
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("size", [BATCH_BYTES - 10, BATCH_BYTES, 10 * BATCH_BYTES])
def test_a_large_batch_only_says_that_there_is_more(process, size: int):
    one, two = process("a").start(), process("b")
    two.ring([event(7, json.dumps("x" * size))])
    wait_until(lambda: bool(one.heard), "it is heard")
    assert one.heard == [7]


def test_the_socket_of_a_dead_process_is_removed_and_its_end_told(process, tmp_path):
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    one = process("a").start()
    here = os.getcwd()
    os.chdir(tmp_path / FOLDER)
    left.bind("dead")
    os.chdir(here)
    left.close()
    other = process("b")
    other.ring([event(1)])
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["a"]
    assert other.dead == ["dead"]
    wait_until(lambda: bool(one.heard), "the living one hears it")


def test_a_process_that_stops_leaves_no_socket(process, tmp_path):
    one = process("a").start()
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["a"]
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700
    one.bell.stop()
    assert list((tmp_path / FOLDER).iterdir()) == []
    one.bell = Datagrams(tmp_path, "again", "e")


def test_who_does_not_read_holds_nobody_up_and_is_told_later(process):
    """Its queue is full at some time: the kernel keeps some ten."""
    slow, ringing = process("a").start(), process("b").start()
    for seq in range(5_000):
        ringing.ring([event(seq)])
    assert slow.heard == []
    wait_until(lambda: slow.heard[-1:] == [4_999], "it is told how far the journal has come")
    assert slow.heard[0] == [event(0)]


@pytest.mark.parametrize(
    "message",
    [b"", b"{", b"\xff", b"[]", b"7", b'["e",[1]]', b'["e",[["x",1,"t","{}",[],"at",null]]]',
     b'["e",[[1,1,"t","{}",5,"at",null]]]',
     b'["e",[[1,1,"t","{}",[],"at",null],[3,1,"t","{}",[],"at",null]]]',
     b'["f",[[1,1,"t","{}",[],"at",null]]]', b'["f",null]',
     b'["e",{"type":"t"}]', b'["e",{"type":"t","payload":"{}","room":"r","at":"a","more":1}]',
     b"[" * 50_000, b"x" * (3 * BATCH_BYTES)],
    ids=lambda message: repr(message[:20]),
)  # fmt: skip
def test_rubbish_is_dropped_and_told_once(process, tmp_path, monkeypatch, message: bytes):
    told = []
    monkeypatch.setattr(datagrams_module.log, "warning", lambda *args, **facts: told.append(facts))
    one = process("a").start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(message, f"/proc/self/fd/{one.bell._folder}/a")
    process("b").ring([event(1)])
    wait_until(lambda: bool(one.heard), "what comes behind it")
    assert one.heard == [[event(1)]]
    assert len(told) == 1


def test_a_folder_with_a_long_name(tmp_path):
    instance = tmp_path / ("x" * 120) / ("y" * 120)
    ear = Ear()
    one, two = Datagrams(instance, "a", "e"), Datagrams(instance, "b", "e")
    one.start(ear, lambda news: None)
    two.ring(Batch([event(1)]))
    wait_until(lambda: bool(ear.heard_of), "it is heard")
    one.stop()
    two.stop()


def test_what_is_sent_is_what_is_read():
    batch = [event(seq) for seq in range(3, 20)]
    assert decode(encode(Batch(batch), "e"), "e") == batch
    assert decode(encode(Batch([event(5, "x" * BATCH_BYTES)]), "e"), "e") == 5
    targeted = [replace(event(20), target="ada")]
    assert decode(encode(Batch(targeted), "e"), "e") == targeted


def test_volatile_news_comes_to_the_others_and_is_lost_where_there_is_no_room(process):
    one, two = process("a").start(), process("b").start()
    one.now += 2
    one.bell.tell(NEWS)
    wait_until(lambda: two.news == [NEWS], "the other hears it")
    one.bell.tell(replace(NEWS, payload="x" * BATCH_BYTES))
    one.ring([event(1)])
    wait_until(lambda: two.heard == [[event(1)]], "what comes behind it")
    assert (one.news, two.news) == ([], [NEWS])
    assert (one.bell.dropped, two.bell.dropped) == (1, 0), "what was lost is counted"


@pytest.mark.parametrize("broken", ["os.listdir", "socket.socket"])
def test_ringing_never_raises(process, monkeypatch: pytest.MonkeyPatch, broken: str):
    """A process that has run out of file descriptors: the writer rings, and an exception would end it."""

    def fail(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    one = process("a").start()
    two = process("b")
    with monkeypatch.context() as context:
        context.setattr(broken, fail)
        two.ring([event(1)])
    two.ring([event(2)])
    wait_until(lambda: bool(one.heard), "it rings when it can")
