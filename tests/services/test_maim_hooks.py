"""An embedder's code in the bots' traffic: whatever it does, the traffic goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event as Signal

from sidecar.domain.errors import Invalid, Unauthenticated
from sidecar.services import maim_hooks
from sidecar.services.maim_embedded import EmbeddedServer
from sidecar.services.maim_hooks import Hooks, load_hooks
from tests.fanout.stages import wait_until
from tests.services.bots import House, frame, message


class Embedder:
    """Does for each hook what the test says, and keeps what it was called with."""

    def __init__(self, **acts: Callable[..., Any]) -> None:
        self.calls: list[tuple[str, Any]] = []
        for name, act in acts.items():
            setattr(self, name, self._kept(name, act))

    def _kept(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.calls.append((name, args))
            return act(*args)

        return call

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def embed(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Embedder]:
    """`embed(on_message=…)`: the house has these hooks from now on."""
    monkeypatch.setattr(maim_hooks, "HOOK_SECONDS", 0.05)

    def use(**acts: Callable[..., Any]) -> Embedder:
        embedder = Embedder(**acts)
        house.bots._hooks = house.delivery._hooks = Hooks(house.core.metrics, embedder)
        return embedder

    return use


def raise_key(*_: Any) -> Any:
    raise KeyError("a-secret-key")


def leave(*_: Any) -> Any:
    raise SystemExit(3)


def hang(*_: Any) -> Any:
    gevent.sleep(30)


def own_timeout(*_: Any) -> Any:
    raise gevent.Timeout(1)


def cancelled(*_: Any) -> Any:
    raise asyncio.CancelledError


BAD = [raise_key, leave, hang, own_timeout, cancelled]


def failed(house: House, hook: str) -> float | None:
    found: float | None = house.core.metrics.registry.get_sample_value(
        "sidecar_maim_hooks_failed_total", {"hook": hook}
    )
    return found


@pytest.mark.parametrize("act", BAD)
def test_what_fails_lets_nobody_in_and_otherwise_has_no_effect(house, embed, act):
    """An embedder's own time-out used to end the handling of everything that the connection said."""
    bob, alice = house.key("bob"), house.key("alice")
    embed(on_auth=act)
    with pytest.raises(Unauthenticated):
        house.connect(bob)
    assert failed(house, "on_auth") == 1
    embed(on_message=act, on_connect=act, on_disconnect=act)
    house.bots._hooks.register_custom_handler("x", act)
    one, two = house.connect(bob), house.connect(alice)
    two.send(bob)
    two.say(frame({"message_dim": {"api_key": bob, "platform": "qq"}}, "custom_x"))
    assert [got["type"] for got in one.got] == ["sys_std", "custom_x"]
    two.close()
    wait_until(lambda: failed(house, "on_disconnect") == 1, "it was called")
    assert (failed(house, "on_connect"), failed(house, "on_message"), failed(house, "custom_handler")) == (2, 1, 1)


def test_a_failure_is_logged_without_what_it_says(house, embed, monkeypatch, logged):
    """`USERS[metadata["api_key"]]` is how keys are looked up, and a KeyError says the key."""
    embed(on_message=raise_key)
    one = house.connect(house.key("bob"))
    monkeypatch.setattr(maim_hooks.log, "_next", {})
    one.send("nobody")
    (line,) = [line for line in logged if line["event"] == "maim.hook_failed"]
    assert line["problem"].startswith("KeyError at ")
    assert "secret" not in str(logged)


@pytest.mark.parametrize("answer", [None, "", 5, [], "a\nb", {"user": "bob"}, "x" * 201])
def test_what_is_no_user_lets_nobody_in(house, embed, answer: object):
    embed(on_auth=lambda metadata: True, on_auth_extract_user=lambda metadata: answer)
    with pytest.raises(Unauthenticated):
        house.connect("anything")


@pytest.mark.parametrize("answer", [None, False, 1, "yes", []])
def test_only_true_lets_in(house, embed, answer: object):
    embed(on_auth=lambda metadata: answer)
    with pytest.raises(Unauthenticated):
        house.connect(house.key("bob"))


def test_hooks_may_know_the_keys(house, embed):
    users = {"key-a": "alice", "key-b": "bob"}
    embedder = embed(
        on_auth=lambda metadata: True, on_auth_extract_user=lambda metadata: users.get(metadata["api_key"])
    )
    alice, bob = house.connect("key-a"), house.connect("key-b")
    alice.send("key-b")
    alice.send("key-c")
    assert bob.texts == ["hello"]
    assert bob.got[0]["meta"]["target_user"] == "bob"
    assert house.sending.stats()["undelivered"]["unknown_receiver"] == 1
    outgoing = [args[0] for name, args in embedder.calls if args[0].get("message_type") == "outgoing"]
    assert [metadata["api_key"] for metadata in outgoing] == ["key-b", "key-c"]
    with pytest.raises(Unauthenticated):
        house.connect("key-c")
    with pytest.raises(Unauthenticated):
        house.connect("")


def test_a_message_may_be_kept_from_being_passed_on(house, embed):
    bob = house.key("bob")
    one = house.connect(bob)
    embedder = embed(on_message=lambda message, metadata: message["message_segment"]["data"] != "no")
    two = house.connect(house.key("alice"), "wechat")
    sent = [two.send(bob, text) for text in ("yes", "no")]
    assert (one.texts, two.acked) == (["yes"], sent)
    metadata = embedder.calls[0][1][1]
    assert metadata | {"timestamp": 0} == {
        "uuid": two.bot.uuid,
        "api_key": two.bot.key,
        "platform": "wechat",
        "user": "alice",
        "tenant": "default",
        "line": "websocket",
        "address": "127.0.0.1",
        "timestamp": 0,
    }


def test_a_custom_handler_gets_the_envelope(house, embed):
    """All of it, as from the original server."""
    got: list[Any] = []
    embed()
    house.bots._hooks.register_custom_handler("x", lambda envelope, metadata: got.append(envelope))
    one = house.connect(house.key("bob"))
    said = frame({"a": 1}, "custom_x", more=2)
    one.say(said)
    one.say(said)
    one.say(frame({"a": 1}, "custom_y"))
    assert got == [said]
    assert house.sending.stats()["custom_messages_processed"] == 3


def test_who_comes_and_goes_is_told_in_order_though_a_hook_is_slow(house, embed, monkeypatch):
    seen: list[str] = []
    go = Signal()

    def come(uuid: str, metadata: Any) -> None:
        if uuid == "u":
            go.wait()
        seen.append(f"+{uuid}")

    embed(on_connect=come, on_disconnect=lambda uuid, metadata: seen.append(f"-{uuid}"))
    monkeypatch.setattr(maim_hooks, "HOOK_SECONDS", 60)
    bob = house.key("bob")
    for _ in range(3):
        house.connect(bob, uuid="u").close()
    house.connect(bob, uuid="v").close()
    wait_until(lambda: seen == ["+v", "-v"], "others do not wait")
    go.set()
    wait_until(lambda: len(seen) == 8, "all were told")
    assert seen[2:] == ["+u", "-u"] * 3
    assert not house.bots._hooks._turns


def test_one_that_went_before_it_was_taken_in_is_not_told(house, embed):
    """The end used to be told, and the beginning after it."""
    embedder = embed(on_connect=lambda *_: None, on_disconnect=lambda *_: None)
    peer = house.connect(house.key("bob"))
    peer.close()
    house.bots.greet(peer.bot, waiting=False)
    bot = house.connect(house.key("bob")).bot
    house.bots.close(bot)
    house.bots.close(bot)
    wait_until(lambda: len(embedder.calls) == 4, "all were told")
    house.settle()
    assert embedder.names.count("on_connect") == embedder.names.count("on_disconnect") == 2


def test_without_hooks_there_are_none():
    hooks = load_hooks("", metrics=None)  # type: ignore[arg-type]
    assert hooks.admit({})
    assert hooks.message({}, {})
    assert hooks.user_of({}) is None
    assert not hooks.handles("custom_x")
    hooks.start(object())
    hooks.connected("u", {})
    hooks.disconnected("u", {})


@pytest.mark.parametrize("path", ["no.such.module:x", "sidecar.version:nothing", "sidecar", "sidecar:", ":x"])
def test_hooks_that_can_not_be_imported_are_told(path: str):
    with pytest.raises(Invalid, match="SIDECAR_MAIM_HOOKS"):
        load_hooks(path, metrics=None)  # type: ignore[arg-type]


def test_handlers_that_are_no_mapping_are_told(house):
    with pytest.raises(AttributeError):
        Hooks(house.core.metrics, Embedder(custom_handlers=lambda: None))


class TestEmbedded:
    """What an embedder sends by."""

    @pytest.fixture
    def server(self, house: House) -> EmbeddedServer:
        return EmbeddedServer(house.sending, house.bots._hooks)

    def test_it_sends(self, house, server):
        bob = house.key("bob")
        one = house.connect(bob)
        found = {one.bot.uuid: True}
        assert server.send_message(message(bob)) == found
        assert server.send_message({"message": message(bob, "wechat")}, target_platform="qq") == found
        assert server.broadcast_message(message("", "")) == found
        assert server.broadcast_message(message("", ""), platform="elsewhere") == {}
        assert server.broadcast_message(message("", ""), tenant="elsewhere") == {}
        assert server.send_custom_message("x", {"a": (1, 2)}, connection_uuid=one.bot.uuid) == found
        assert server.send_custom_message("x", None, target_user="bob", target_platform="qq") == found
        assert server.send_custom_message("x", 5, api_key=bob, platform="qq") == found
        assert [got["payload"] for got in one.got[3:]] == [{"a": [1, 2]}, None, 5]
        assert [row["uuid"] for row in server.get_connections()] == [one.bot.uuid]
        assert server.send_message(message("nobody")) == {}

    @pytest.mark.parametrize("bad", [object(), {1, 2}, float("nan"), [[[]]] * 60_000, b"x"])
    def test_what_json_can_not_hold_is_refused(self, house, server, bad):
        house.connect(house.key("bob"), uuid="u")
        with pytest.raises(Invalid):
            server.send_custom_message("x", bad, connection_uuid="u")
        with pytest.raises(Invalid):
            server.send_message(message("k", text=bad))
        with pytest.raises(Invalid):
            server.broadcast_message(message("k", text=bad))

    def test_bad_names_are_refused(self, server):
        with pytest.raises(Invalid):
            server.send_message({})
        with pytest.raises(Invalid):
            server.send_custom_message("x", 1)

    def test_lone_surrogates_are_replaced(self, house, server):
        bob = house.key("bob")
        one = house.connect(bob)
        server.send_message(message(bob, text="a\ud800\x00"))
        assert one.texts == ["a\ufffd\ufffd"]
