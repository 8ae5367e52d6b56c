"""What live pushes are fed from: functions of users in native threads, whatever they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from sidecar.domain.errors import Invalid
from sidecar.services import sources
from sidecar.services.sources import InThread, SourceFailed, machine_figures, user_source


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a source waits for; opened at the end, so that no thread stays."""
    made = threading.Event()
    yield made
    made.set()


def test_it_is_called_in_another_thread():
    source = InThread(lambda: {"thread": threading.get_native_id(), 7: "seven"})
    said = source()
    assert said["thread"] != threading.get_native_id()
    assert said["7"] == "seven"


def test_the_loop_goes_on_meanwhile(gate: threading.Event):
    source = InThread(lambda: {"done": gate.wait(10)})
    asked = gevent.spawn(source)
    gevent.sleep(0.05)
    assert not asked.ready()
    gate.set()
    assert asked.get(timeout=10) == {"done": True}


def raising(error: BaseException) -> Callable[[], Any]:
    def source() -> Any:
        raise error

    return source


@pytest.mark.parametrize("error", [ValueError("no figures"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_it_raises_is_its_failure(error: BaseException):
    """Also what would end the whole server."""
    with pytest.raises(SourceFailed, match=type(error).__name__):
        InThread(raising(error))()


@pytest.mark.parametrize("said", [None, 7, "text", [("a", 1)]])
def test_what_is_no_mapping_is_its_failure(said: Any):
    with pytest.raises(SourceFailed, match="mapping"):
        InThread(lambda: said)()


def test_one_that_hangs_is_waited_for_so_long_and_no_longer(monkeypatch, gate: threading.Event):
    monkeypatch.setattr(sources, "SOURCE_SECONDS", 0.05)
    hanging = InThread(lambda: {"came": gate.wait(30)})
    for _ in range(2):
        with pytest.raises(SourceFailed, match="has not come back"):
            hanging()
    gate.set()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            assert hanging() == {"came": True}
            return
        except SourceFailed:
            gevent.sleep(0.01)
    pytest.fail("it never came back")


def test_many_that_hang_keep_no_other_from_its_thread(monkeypatch, gate: threading.Event):
    monkeypatch.setattr(sources, "SOURCE_SECONDS", 0.05)
    for _ in range(12):
        with pytest.raises(SourceFailed):
            InThread(lambda: {"came": gate.wait(30)})()
    monkeypatch.setattr(sources, "SOURCE_SECONDS", 10)
    with gevent.Timeout(10):
        assert InThread(lambda: {"a": 1})() == {"a": 1}


def test_rooms_that_ask_at_once_share_one_call(gate: threading.Event):
    """Two rooms of one slow source beat together: the second used to get nothing."""
    calls: list[int] = []

    def slow() -> dict[str, object]:
        calls.append(1)
        gate.wait(10)
        return {"calls": len(calls)}

    source = InThread(slow)
    asked = [gevent.spawn(source) for _ in range(5)]
    gevent.sleep(0.05)
    gate.set()
    assert [one.get(timeout=10) for one in asked] == [{"calls": 1}] * 5


@pytest.mark.parametrize("path", ["no.such.module:f", "json:nothing", "json:__name__", "json", ":f", "json:"])
def test_a_path_that_names_no_function_is_refused(path: str):
    with pytest.raises(Invalid):
        user_source(path)


@pytest.mark.parametrize("text", ["def broken(:\n", "1 / 0\n", "raise SystemExit(1)\n"])
def test_a_module_that_does_not_load_is_refused(tmp_path, monkeypatch, text: str, request):
    module = f"bad_module_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Invalid, match=module):
        user_source(f"{module}:f")


def test_the_figures_of_a_machine_are_plain_numbers():
    figures = machine_figures()
    assert all(isinstance(value, (int, float)) for value in figures.values())
    assert {"cpu_percent", "memory_percent", "disk_percent"} <= set(figures)
