"""Two processes of one installation: bots at one reach bots at the other, and what holds at one holds at both."""

from __future__ import annotations

import pytest

from tests.bots.conftest import Connect
from tests.bots.peers import VERSIONS, RealClient, envelope, text_message
from tests.bots.raw import LINES, RawBot, new_key
from tests.programs import wait_until
from tests.servers import RunningSidecar

OLD, NEW = VERSIONS
Stage = list[RunningSidecar]


@pytest.fixture(scope="module")
def stage(two_servers: list[RunningSidecar]) -> list[RunningSidecar]:
    return two_servers


def ws(server: RunningSidecar) -> str:
    return server.url.replace("http", "ws", 1) + "/ws"


def wait_known(server: RunningSidecar, *bots: RealClient) -> None:
    """Until this process knows that they are connected, to whichever: a bot's handshake is answered before."""

    def known() -> bool:
        items = server.get("/api/maim/connections").json()["items"]
        return {bot.state["uuid"] for bot in bots} <= {item["uuid"] for item in items}

    wait_until(known, "they are known")


@pytest.mark.parametrize(("version", "other_version"), [(OLD, NEW), (NEW, OLD)])
def test_bots_at_different_processes_talk(stage: Stage, connect: Connect, name: str, version: str, other_version: str):
    here, there = stage
    keys = [new_key(server, f"{name}-{number}").key for number, server in enumerate(stage)]
    one = connect(version, ws(here), keys[0], "wechat", custom=["poke"])
    two = connect(other_version, ws(there), keys[1], "qq", custom=["poke"])
    near = connect(other_version, ws(here), keys[1], "qq")
    wait_known(here, two, near)
    wait_known(there, one)
    sent = [one.send_text(f"there {number}", to=(keys[1], "qq")) for number in range(10)]
    assert [two.next_message() for _ in sent] == sent
    assert [near.next_message() for _ in sent] == sent
    back = [two.send_text(f"back {number}", to=(keys[0], "wechat")) for number in range(10)]
    assert [one.next_message() for _ in back] == back
    poke = {"message_dim": {"api_key": keys[1], "platform": "qq"}}
    assert one.send_custom("poke", poke)
    assert two.next_custom() == ("poke", poke)
    for server in stage:
        items = server.get(f"/api/maim/connections?user={name}-1").json()["items"]
        assert {item["uuid"] for item in items} == {two.state["uuid"], near.state["uuid"]}


def test_a_duplicate_at_the_other_process_is_not_delivered(stage: Stage, connect: Connect, name: str):
    here, there = stage
    keys = [new_key(here, f"{name}-{number}").key for number in range(2)]
    senders = [connect(version, ws(server), keys[0], "qq") for version, server in zip(VERSIONS, stage, strict=True)]
    receiver = connect(OLD, ws(there), keys[1], "qq")
    wait_known(here, receiver)
    frame = envelope(text_message("once", (keys[1], "qq")))
    for sender in senders:
        sender.send_frame(frame)
        sender.acked(frame["msg_id"])
    for sender in senders:
        sender.send_text(f"last of {sender.name}", to=(keys[1], "qq"))
    expected = {"once"} | {f"last of {sender.name}" for sender in senders}
    assert {receiver.next_text() for _ in range(3)} == expected
    assert len(receiver.texts()) == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_a_queued_message_is_delivered_by_the_process_that_the_receiver_comes_to(
    stage: Stage, connect: Connect, name: str, version: str
):
    here, there = stage
    keys = [new_key(here, f"{name}-{number}").key for number in range(2)]
    sender = connect(version, ws(here), keys[0], "qq")
    kept = envelope(text_message("kept", (keys[1], "qq")), queue=True)
    sender.send_frame(kept)
    sender.acked(kept["msg_id"])
    receiver = connect(version, ws(there), keys[1], "qq")
    assert receiver.next_text() == "kept"
    receiver.send_text("round", to=(keys[1], "qq"))  # behind its acknowledgement
    assert receiver.next_text() == "round"
    receiver.stop()
    again = connect(version, ws(here), keys[1], "qq")
    wait_known(here, again)
    sender.send_text("last", to=(keys[1], "qq"))
    assert again.next_text() == "last"
    assert again.texts() == ["last"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_key_revoked_at_one_process_ends_connections_at_the_other(
    stage: Stage, connect: Connect, name: str, version: str
):
    here, there = stage
    key = new_key(here, name)
    bot = connect(version, ws(there), key.key, "qq")
    assert here.request("DELETE", f"/api/maim/keys/{key.id}").status_code == 200
    wait_until(lambda: not bot.connected, "it is disconnected")
    wait_until(lambda: not there.get(f"/api/maim/connections?user={name}").json()["items"], "it is gone")


@pytest.mark.parametrize("line", LINES)
def test_a_name_belongs_to_the_key_that_has_it(stage: Stage, name: str, line: str):
    """A bot that comes back at the other process, by its own uuid, is there alone; another key can't take its place."""
    here, there = stage
    key, other = new_key(here, name).key, new_key(here, f"{name}-other", tenant="shop").key
    with RawBot(here, key, "qq", line) as first:
        first.acked(first.send_to((key, "qq"), "taken in"))  # a plain upgrade is answered before
        assert first.next_text() == "taken in"
        with RawBot(there, other, "qq", line, uuid=first.uuid) as thief:
            first.send_to((key, "qq"), "private")
            assert first.next_text() == "private"
            thief.send_to((other, "qq"), "mine")
            assert thief.next_text() == "mine"
        with RawBot(there, key, "qq", line, uuid=first.uuid) as second:
            assert first.closed() is not None
            second.send_to((key, "qq"), "back")
            assert second.next_text() == "back"
            items = [server.get(f"/api/maim/connections?user={name}").json()["items"] for server in stage]
            assert [[item["uuid"] for item in found] for found in items] == [[first.uuid]] * 2


def test_bots_of_a_process_that_was_killed_go_on_at_the_other(stage: Stage, connect: Connect, name: str):
    """What was sent to wait meanwhile comes there, and comes once."""
    here, there = stage
    keys = [new_key(here, f"{name}-{number}").key for number in range(2)]
    sender = connect(NEW, ws(here), keys[0], "qq")
    receiver = connect(OLD, ws(there), keys[1], "qq")
    wait_known(here, receiver)
    sender.send_text("before", to=(keys[1], "qq"))
    assert receiver.next_text() == "before"
    there.kill()
    kept = envelope(text_message("kept", (keys[1], "qq")), queue=True)
    sender.send_frame(kept)
    sender.acked(kept["msg_id"])
    receiver.stop()
    moved = connect(OLD, ws(here), keys[1], "qq")
    assert moved.next_text() == "kept"
    there.start()
    again = connect(NEW, ws(there), keys[1], "qq")
    wait_known(here, moved, again)
    sender.send_text("last", to=(keys[1], "qq"))
    assert moved.next_text() == "last"
    assert again.next_text() == "last"
    assert (moved.texts(), again.texts()) == (["kept", "last"], ["last"])
