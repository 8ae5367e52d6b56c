"""The captured frames of both generations, replayed: first against the real servers, which shows that the replay is
right, then against ours."""

from __future__ import annotations

import pytest

from tests.bots.peers import VERSIONS, RealServer
from tests.bots.raw import new_key
from tests.bots.replay import Replay
from tests.servers import RunningSidecar

USERS = {"key-a": "user-a", "key-b": "user-b"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_real_server_answers_as_captured(version: str):
    with RealServer(version, USERS) as real:
        replay = Replay(version, real.url)
        replay.run()
    assert replay.differences == []
    assert replay.compared > 20


def test_a_difference_is_found():
    with RealServer("0.6.8", USERS | {"key-b": "somebody"}) as real:
        replay = Replay("0.6.8", real.url)
        replay.run()
    assert replay.differences


@pytest.fixture(scope="module")
def with_keys(server: RunningSidecar) -> RunningSidecar:
    """It knows the keys of the captured traffic, by both ways to register one."""
    made = server.cli("maim", "key", "create", "--user", "user-a", "--key-stdin", stdin=b"key-a\n")
    assert made.returncode == 0, made.stderr
    assert new_key(server, "user-b", key="key-b").key == "key-b"
    return server


@pytest.mark.parametrize("version", VERSIONS)
def test_we_answer_as_captured(with_keys: RunningSidecar, version: str):
    replay = Replay(version, with_keys.url)
    replay.run()
    assert replay.differences == []
    assert replay.compared > 20
    # Refusals are not the real server's: its own clients take those for a connection.
    if version == "0.6.8":
        assert list(replay.refusals.values()) == [[401]] * 4
    else:
        ((*opened, refused, closed),) = replay.refusals.values()
        assert (opened, refused[:3], closed) == ([200, 101, "3probe"], "44{", "close 1000 ")
