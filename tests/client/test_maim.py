"""MaimClient against a small server: what it says, acknowledges, tells and remembers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.client.maim import ClientConfig, MaimClient, create_client_config, text_message
from tests.client.maim_server import WAIT_SECONDS, FrozenProxy, MaimServer, envelope, maim_server, until

KEY = "smk_not-to-be-seen"


@pytest.fixture
def server() -> Iterator[MaimServer]:
    with maim_server() as server:
        yield server


def config(server: MaimServer, **options: Any) -> ClientConfig:
    """Quick to come back."""
    return ClientConfig(**{"url": server.url, "api_key": KEY, "platform": "qq", "reconnect_delay": 0.05, **options})


def message(text: str = "hello") -> dict[str, Any]:
    return text_message(text, "receiver", "qq", "wechat").to_dict()


# -- Connecting


def test_it_says_who_it_is_in_headers(server):
    with MaimClient(config(server, headers={"x-more": "1", "X-Uuid": "forged"})) as client:
        assert client.is_connected()
        (uuid,) = client.get_connections()
    (request,) = server.requests
    assert request.path == "/ws"
    assert request.headers["x-apikey"] == KEY
    assert request.headers["x-platform"] == "qq"
    assert request.headers["x-uuid"] == uuid
    assert request.headers["x-more"] == "1"


def test_it_says_who_it_is_in_the_query_if_that_is_wanted(server):
    with MaimClient(config(server, url=server.url + "?a=1", key_in_query=True, connection_uuid="u 1")):
        pass
    (request,) = server.requests
    assert request.path == f"/ws?a=1&api_key={KEY}&platform=qq&uuid=u+1"
    assert not {"x-apikey", "x-platform", "x-uuid"} & set(request.headers)


def test_a_platform_of_other_letters_goes_into_the_query(server):
    """A header's bytes are read as Latin-1 by many servers."""
    with MaimClient(config(server, platform="微信")):
        pass
    assert server.requests[0].path == "/ws?platform=%E5%BE%AE%E4%BF%A1"
    assert server.requests[0].headers["x-apikey"] == KEY


def test_starting_and_stopping_again(server):
    client = MaimClient(config(server))
    assert client.start()
    assert not client.is_connected()
    for _ in range(2):
        assert client.connect()
        assert client.connect(), "it is already"
        assert client.send_message(text_message("hello", "receiver", "qq"), wait_seconds=WAIT_SECONDS)
        assert client.stop()
        assert not client.is_connected()
    assert len(server.requests) == 2


@pytest.mark.parametrize(("status", "words"), [(401, "the API key is not known"), (403, "platform is not allowed")])
def test_a_refusal_is_told_at_once_and_tried_again(server, status, words):
    server.refuse = status
    client = MaimClient(config(server, max_reconnect_attempts=0))
    try:
        assert client.connect() is False
        assert f"HTTP {status}" in str(client.last_error)
        assert words in str(client.last_error)
        server.refuse = None
        until(client.is_connected)
        assert client.last_error is None
    finally:
        client.stop()


def test_it_gives_up_after_so_many_attempts_and_can_be_asked_again(server):
    server.refuse = 503
    client = MaimClient(config(server, max_reconnect_attempts=2, reconnect_delay=0.01))
    assert client.connect() is False
    assert len(server.requests) == 3
    assert client.get_stats()["reconnect_attempts"] == 2
    server.refuse = None
    assert client.connect()
    assert client.stop()


def test_without_reconnecting_it_tries_once(server):
    server.refuse = 503
    client = MaimClient(config(server, auto_reconnect=False))
    assert client.connect() is False
    assert len(server.requests) == 1
    assert client.stop()


def test_a_server_that_takes_it_in_and_throws_it_out_is_not_asked_for_ever(server):
    """So does maim_message's own server with a key that it does not know."""
    server.hang_up = 0
    thrown = threading.Event()

    def out(uuid: str, error: str | None) -> None:
        thrown.set()

    client = MaimClient(config(server, max_reconnect_attempts=2, reconnect_delay=0.01, on_disconnect=out))
    client.start()
    stop = threading.Event()

    def throw_out() -> None:
        while not stop.is_set():
            server.cut(1000)
            stop.wait(0.01)

    thrower = threading.Thread(target=throw_out)
    thrower.start()
    try:
        client.connect()
        until(lambda: len(server.requests) == 3 and not client.is_connected())
        assert thrown.wait(WAIT_SECONDS)
        assert "the server closed the connection: 1000" in str(client.last_error)
    finally:
        stop.set()
        thrower.join()
        client.stop()
    assert len(server.requests) == 3


def test_a_server_that_is_not_there():
    with maim_server() as server:
        url = server.url
    client = MaimClient(create_client_config(url, KEY, auto_reconnect=False))
    assert client.connect() is False
    assert "can't be reached" in str(client.last_error)


def test_a_busy_server_is_left_alone_as_long_as_it_asks(server):
    server.refuse, server.retry_after = 503, "300"
    client = MaimClient(config(server, reconnect_delay=0.001))
    client.start()
    waiting = threading.Thread(target=client.connect)
    waiting.start()
    until(lambda: client.last_error)
    assert client.stop(), "a long pause ends with it"
    waiting.join()
    assert len(server.requests) == 1


def test_the_key_is_nowhere_to_be_seen(server, caplog):
    """Not in what is logged at any level, by us or by the library below, nor in what can be printed."""
    caplog.set_level(logging.DEBUG)
    server.refuse = 401
    refused = MaimClient(config(server, auto_reconnect=False))
    refused.connect()
    server.refuse = None
    wanted = config(server, key_in_query=True, log_level="DEBUG")
    with MaimClient(wanted) as client:
        sent = text_message("hello", KEY, "qq")
        client.send_message(sent, wait_seconds=WAIT_SECONDS)
        server.push(envelope(sent.to_dict()))
        until(lambda: client.get_stats()["messages_received"] == 2)
        shown = [wanted, sent, client, client.get_stats(), client.get_connections(), refused.last_error]
    server.cut()
    missing = MaimClient(create_client_config("ws://no-such-host.invalid/?api_key=" + KEY, KEY, auto_reconnect=False))
    missing.connect()
    shown += [missing.last_error, missing.get_connections(), caplog.text]
    assert KEY not in repr(shown)
    assert "HTTP 401" in caplog.text


def test_logs_can_be_switched_off(server, caplog):
    caplog.set_level(logging.DEBUG, "sidecar.client.maim")
    with MaimClient(config(server, enable_message_log=False)) as client:
        client.send_message(text_message("hello", "receiver", "qq"))
    assert "Connected to" in caplog.text
    assert "Sent" not in caplog.text
    caplog.clear()
    with MaimClient(config(server, enable_connection_log=False)) as client:
        client.send_message(text_message("hello", "receiver", "qq"))
    assert "onnected to" not in caplog.text
    assert "Sent" in caplog.text
    caplog.clear()
    with MaimClient(config(server, log_level="ERROR")) as client:
        client.send_message(text_message("hello", "receiver", "qq"))
    assert caplog.text == ""


# -- Sending


def test_a_message_on_the_wire(server):
    with MaimClient(config(server)) as client:
        sent = text_message("hello", "receiver", "wechat", "qq")
        assert client.send_message(sent)
        assert client.send_message(sent, queue=True, target_platform="lark", wait_seconds=WAIT_SECONDS)
        assert client.send_message(sent, ttl_seconds=60, wait_seconds=WAIT_SECONDS)
    plain, queued, limited = server.of_type("sys_std")
    assert plain["ver"] == 1
    assert plain["payload"] == sent.to_dict()
    assert plain["meta"] == {"sender_user": KEY, "platform": "qq", "timestamp": plain["meta"]["timestamp"]}
    prefix, middle, seconds = plain["msg_id"].split("_")
    assert (prefix, len(middle), int(seconds)) == ("msg", 12, int(plain["meta"]["timestamp"]))
    assert (queued["meta"]["queue"], queued["meta"]["target_platform"]) == (True, "lark")
    assert limited["meta"]["queue"] == {"ttl_seconds": 60}


def test_a_custom_message_on_the_wire(server):
    with MaimClient(config(server)) as client:
        assert client.send_custom_message("notification", {"title": "t"})
        assert client.send_custom_message("custom_notification", [1, None], wait_seconds=WAIT_SECONDS)
    one, two = server.of_type("custom_notification")
    assert (one["payload"], two["payload"]) == ({"title": "t"}, [1, None])
    assert one["msg_id"].startswith("custom_")


def test_what_is_no_json_is_refused_and_the_connection_stays(server):
    with MaimClient(config(server)) as client:
        for payload in ({1, 2}, float("nan")):
            with pytest.raises(ValueError, match="can't be written as JSON"):
                client.send_custom_message("odd", payload)
        assert client.send_custom_message("good", "\ud800 half a letter", wait_seconds=WAIT_SECONDS)


def test_waiting_for_an_acknowledgement_that_does_not_come(server):
    server.silent = True
    with MaimClient(config(server)) as client:
        assert client.send_message(text_message("hello", "receiver", "qq"))
        assert not client.send_message(text_message("hello", "receiver", "qq"), wait_seconds=0.05)
        assert client.get_stats()["messages_pending"] == 2


def test_many_threads_send_at_once(server):
    with MaimClient(config(server)) as client:

        def send(number: int) -> None:
            for count in range(20):
                assert client.send_message(text_message(f"{number}-{count}", "receiver", "qq"), wait_seconds=20)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(server.texts())) == 160
    for number in range(8):
        assert [text for text in server.texts() if text.startswith(f"{number}-")] == [
            f"{number}-{count}" for count in range(20)
        ]


# -- Receiving


def test_each_frame_is_acknowledged_at_once_and_told_in_order(server):
    told: list[tuple[str, dict[str, Any]]] = []
    go_on = threading.Event()

    def on_message(message: Any, metadata: dict[str, Any]) -> None:
        go_on.wait(WAIT_SECONDS)
        told.append((message.message_segment.data, metadata))

    with MaimClient(config(server, on_message=on_message)) as client:
        sent = [envelope(message(str(number))) for number in range(20)]
        for frame in sent:
            server.push(frame)
        until(lambda: len(server.acked()) == 20, "twenty acknowledgements, while the first callback runs")
        assert told == []
        go_on.set()
        until(lambda: len(told) == 20)
        (uuid,) = client.get_connections()
    assert [text for text, _ in told] == [str(number) for number in range(20)]
    assert server.acked() == [frame["msg_id"] for frame in sent]
    ack = server.of_type("sys_ack")[0]
    assert set(ack) == {"ver", "msg_id", "type", "meta", "payload"}
    assert ack["meta"]["uuid"] == uuid
    assert ack["payload"]["status"] == "received"
    first = told[0][1]
    assert first["target_user"] == "bob"
    assert (first["msg_id"], first["connection_uuid"]) == (sent[0]["msg_id"], uuid)


def test_a_message_that_comes_twice_is_told_once(server):
    """The server offers a message again if the acknowledgement was lost with the connection."""
    told: list[str] = []

    def on_message(message: Any, metadata: dict[str, Any]) -> None:
        told.append(message.message_segment.data)

    frame = envelope(message("once"))
    with MaimClient(config(server, on_message=on_message)) as client:
        server.push(frame)
        until(lambda: told)
        server.cut()
        until(lambda: len(server.requests) == 2 and client.is_connected())
        server.push(frame)
        server.push(envelope(message("next")))
        until(lambda: "next" in told)
        until(lambda: len(server.acked()) == 3, "three acknowledgements")
    assert told == ["once", "next"]


def test_odd_frames_harm_nothing(server, caplog):
    told: list[str] = []

    def on_message(message: Any, metadata: dict[str, Any]) -> None:
        told.append(message.message_segment.data)

    with MaimClient(config(server, on_message=on_message)) as client:
        for text in ("not json", "[]", "null", "[" * 100_000, "{}", '{"type":5,"msg_id":7}', '{"msg_id":[1]}'):
            server.push(text)
        server.push('{"type":"sys_ack","meta":5}')
        server.push('{"type":"sys_ack","meta":{"acked_msg_id":["x"]}}')
        server.push('{"type":"sys_std","msg_id":"a","meta":5,"payload":"x"}')
        server.push(envelope({"message_info": {"platform": 5}}))
        server.push({"type": "custom_unknown", "payload": 1})
        server.push(envelope(message("still here")))
        until(lambda: told == ["still here"])
        assert client.get_stats()["invalid_frames"] == 6
        until(lambda: server.acked()[:2] == [7, "a"], "what has an id is acknowledged")
    assert "message_info.platform must be a string" in caplog.text


def test_callbacks_plain_async_and_lambda(server):
    told: list[object] = []

    async def connected(uuid: str, config: ClientConfig) -> None:
        await asyncio.sleep(0)
        told.append(("connected", uuid, config.platform))

    async def disconnected(uuid: str, error: str | None) -> None:
        told.append(("disconnected", uuid, error))

    async def custom(payload: Any) -> None:
        await asyncio.sleep(0.01)
        told.append(payload)

    handlers = {"slow": custom, "custom_quick": lambda payload: told.append(payload)}
    wanted = config(
        server, on_connect=connected, on_disconnect=disconnected, custom_handlers=handlers,
        on_message=lambda message, metadata: told.append(message.get_platform()),
    )  # fmt: skip
    with MaimClient(wanted) as client:
        (uuid,) = client.get_connections()
        client.register_custom_handler("later", lambda payload: told.append(payload))
        server.push(envelope({"n": 1}, "custom_slow"))
        server.push(envelope({"n": 2}, "custom_quick"))
        server.push(envelope(message()))
        server.push(envelope({"n": 3}, "custom_later"))
        until(lambda: len(told) == 5)
        client.unregister_custom_handler("later")
        server.push(envelope({"n": 4}, "custom_later"))
        until(lambda: len(server.acked()) == 5)
    assert told == [
        ("connected", uuid, "qq"), {"n": 1}, {"n": 2}, "qq", {"n": 3}, ("disconnected", uuid, None)
    ]  # fmt: skip


def test_a_failing_callback_is_logged_and_harms_nothing(server, caplog):
    told: list[object] = []

    async def fails(payload: Any) -> None:
        raise KeyError("of the async one")

    def on_message(message: Any, metadata: dict[str, Any]) -> None:
        if message.message_segment.data == "bad":
            raise RuntimeError("of the plain one")
        told.append(message.message_segment.data)

    with MaimClient(config(server, on_message=on_message, custom_handlers={"bad": fails})) as client:
        server.push(envelope(message("bad")))
        server.push(envelope({}, "custom_bad"))
        server.push(envelope(message("good")))
        until(lambda: told == ["good"])
        assert client.get_stats()["callback_errors"] == 2
    assert "of the plain one" in caplog.text
    assert "of the async one" in caplog.text


def test_a_callback_may_send_wait_and_stop(server):
    answers: list[bool] = []

    def on_message(message: Any, metadata: dict[str, Any]) -> None:
        answers.append(client.send_message(text_message("answer", "receiver", "qq"), wait_seconds=WAIT_SECONDS))
        client.stop()

    client = MaimClient(config(server, on_message=on_message))
    client.connect()
    server.push(envelope(message()))
    until(lambda: answers == [True] and not client.is_connected())


def test_stopping_ends_an_async_callback_that_hangs(server, monkeypatch):
    monkeypatch.setattr("sidecar.client.maim.STOP_SECONDS", 0.2)
    begun, ended = threading.Event(), threading.Event()

    async def hang(payload: Any) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    with MaimClient(config(server, custom_handlers={"hang": hang})):
        server.push(envelope({}, "custom_hang"))
        assert begun.wait(WAIT_SECONDS)
    assert ended.wait(WAIT_SECONDS)


# -- When the connection ends


def test_what_could_not_be_written_is_sent_when_it_is_back():
    with maim_server() as before:
        port = before.port
        client = MaimClient(config(before, max_reconnect_attempts=0))
        assert client.connect()
    until(lambda: not client.is_connected())
    for number in range(3):
        assert not client.send_message(text_message(str(number), "receiver", "qq"))
    try:
        with maim_server(port) as server:
            until(lambda: client.get_stats()["messages_acked"] == 3)
            assert server.texts() == ["0", "1", "2"]
            assert client.get_stats()["messages_pending"] == 0
            client.stop()
    finally:
        client.stop()


def test_what_was_not_acknowledged_is_sent_again_under_the_same_id(server):
    server.silent = True
    with MaimClient(config(server)) as client:
        assert client.send_message(text_message("one", "receiver", "qq"))
        assert client.send_message(text_message("two", "receiver", "qq"))
        until(lambda: len(server.frames) == 2)
        server.silent = False
        server.cut()
        until(lambda: client.get_stats()["messages_pending"] == 0)
    assert server.texts() == ["one", "two", "one", "two"]
    first, second, again, second_again = [frame["msg_id"] for frame in server.frames]
    assert (again, second_again) == (first, second)


def test_a_sender_waits_over_a_break(server):
    server.hang_up = 1
    with MaimClient(config(server)) as client:
        results: list[bool] = []
        sender = threading.Thread(
            target=lambda: results.append(
                client.send_message(text_message("one", "receiver", "qq"), wait_seconds=WAIT_SECONDS)
            )
        )
        sender.start()
        until(lambda: server.frames)
        server.hang_up = None
        sender.join()
        assert results == [True]


def test_a_message_over_which_connections_end_is_given_up(server, caplog):
    """Else it would end them for ever, and nothing behind it would get through."""
    server.hang_up = 1
    with MaimClient(config(server, max_reconnect_attempts=0)) as client:
        client.send_message(text_message("poison", "receiver", "qq"))
        until(lambda: client.get_stats()["messages_dropped"] == 1)
        server.hang_up = None
        until(client.is_connected)
        assert client.send_message(text_message("good", "receiver", "qq"), wait_seconds=WAIT_SECONDS)
    assert server.texts().count("poison") == 3
    assert "connections ended before" in caplog.text


def test_a_message_that_is_too_large_for_the_server_is_given_up(server, caplog):
    """The server closes with 1009."""
    with MaimClient(config(server)) as client:
        assert not client.send_message(text_message("x" * 2**21, "receiver", "qq"), wait_seconds=WAIT_SECONDS)
        assert client.send_message(text_message("good", "receiver", "qq"), wait_seconds=WAIT_SECONDS)
        assert client.get_stats()["messages_dropped"] == 1
    assert server.texts() == ["good"]
    assert "larger than the server takes" in caplog.text


def test_a_message_that_is_too_large_for_us_costs_none_of_ours(server):
    """The answer to our close frame says 1009 too."""
    server.silent = True
    with MaimClient(config(server, max_size=1000)) as client:
        assert client.send_message(text_message("ours", "receiver", "qq"))
        until(lambda: server.frames)
        server.silent = False
        server.push(envelope(message("x" * 2000)))
        until(lambda: client.get_stats()["messages_acked"] == 1)
        assert client.get_stats()["messages_dropped"] == 0
    assert server.texts() == ["ours", "ours"]


def test_a_server_that_went_silent_is_given_up(server):
    """A cable was pulled: nothing says so. The way there is a proxy that passes nothing on any more."""
    proxy = FrozenProxy(server.port)
    try:
        url = server.url.replace(str(server.port), str(proxy.port))
        ends: list[str | None] = []
        quick = {"ping_interval": 0.1, "ping_timeout": 0.5, "close_timeout": 0.1}
        wanted = config(server, url=url, on_disconnect=lambda uuid, error: ends.append(error), **quick)
        with MaimClient(wanted) as client:
            assert client.is_connected()
            proxy.frozen = True
            until(lambda: ends)
            assert "ping timeout" in str(ends[0])
            assert not client.is_connected()
            client.send_message(text_message("later", "receiver", "qq"))
            proxy.frozen = False
            until(lambda: server.texts() == ["later"])
    finally:
        proxy.close()


def test_without_a_cache_nothing_is_kept(server):
    client = MaimClient(config(server, enable_message_cache=False))
    assert not client.send_message(text_message("lost", "receiver", "qq"))
    assert client.connect()
    assert client.send_message(text_message("here", "receiver", "qq"), wait_seconds=WAIT_SECONDS)
    client.stop()
    assert server.texts() == ["here"]
    assert client.get_stats()["messages_dropped"] == 1


# -- Several connections


def test_several_connections(server):
    client = MaimClient(config(server))
    (first,) = client.get_connections()
    second = client.add_connection(server.url, "other-key", "wechat")
    assert client.connect_to(server.url, "other-key", "lark")
    assert [info["connected"] for info in client.get_connections().values()] == [False, False, True]
    assert client.connect()
    assert len(client.get_active_connections()) == 3
    assert client.connect_to(server.url, "other-key", "lark"), "the one that is there"
    assert len(client.get_connections()) == 3
    assert client.disconnect(second)
    assert not client.is_connected(second)
    assert client.is_connected(first)
    assert client.remove_connection(first)
    assert not client.remove_connection(first)
    assert first not in client.get_connections()
    assert not client.disconnect("no such")
    assert not client.connect("no such")
    stats = client.get_stats()
    assert (stats["connections_registered"], stats["connections_active"]) == (2, 1)
    assert client.stop()


@pytest.mark.parametrize(
    ("given", "receiver", "sender_platform", "through"),
    [
        ({"api_key": "a", "platform": "qq"}, ("b", "lark"), "lark", ("a", "qq")),
        ({"api_key": "b", "platform": "unknown"}, ("a", "qq"), "qq", ("b", "lark")),
        ({"api_key": "unknown", "platform": "wechat"}, ("b", "lark"), "lark", ("a", "wechat")),
        ({"platform": "wechat"}, ("b", "lark"), "lark", ("a", "wechat")),
        ({}, ("a", "wechat"), "lark", ("a", "wechat")),
        ({}, ("b", "wechat"), "wechat", ("b", "lark")),
        ({}, ("unknown", "lark"), "qq", ("b", "lark")),
        ({}, ("unknown", "unknown"), "lark", ("b", "lark")),
        ({}, ("unknown", "unknown"), "unknown", ("a", "qq")),
    ],
)
def test_the_connection_of_a_message(server, given, receiver, sender_platform, through):
    client = MaimClient()
    for key, platform in (("a", "qq"), ("a", "wechat"), ("b", "lark")):
        client.add_connection(server.url, key, platform)
    assert client.connect()
    assert client.send_message(text_message("hello", *receiver, sender_platform), wait_seconds=WAIT_SECONDS, **given)
    client.stop()
    (frame,) = server.of_type("sys_std")
    assert (frame["meta"]["sender_user"], frame["meta"]["platform"]) == through


def test_no_connection_fits(server):
    client = MaimClient()
    assert not client.send_message(text_message("hello", "receiver", "qq"))
    client.add_connection(server.url, "a", "qq")
    assert not client.send_message(text_message("hello", "receiver", "qq"), api_key="b")
    assert "no connection of this API key" in str(client.last_error)


def test_forwarding_keeps_sender_and_content(server):
    client: MaimClient

    def on_message(message: Any, metadata: dict[str, Any]) -> None:
        client.forward(message, "third", "lark", through_platform="qq")

    client = MaimClient(config(server, on_message=on_message))
    client.connect()
    sent = message("pass it on")
    server.push(envelope(sent))
    until(lambda: server.texts())
    client.stop()
    (frame,) = server.of_type("sys_std")
    assert frame["payload"] == {**sent, "message_dim": {"api_key": "third", "platform": "lark"}}
