"""The test console in a real Chromium: connect, join, send by socket and by each REST call, see the frames."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.chromium import Browser
from tests.conftest import Start
from tests.pages import DESKTOP, PHONE, fill, log_in, nameless, needs_no_sideways_scrolling, press, shows, text
from tests.servers import RunningSidecar

WRONG = "sct_000000000000_" + "a" * 43


class Console:
    """The page, open; `frames` are what its log shows."""

    def __init__(self, browser: Browser, server: RunningSidecar):
        self.browser = browser
        self.server = server
        browser.open(f"{server.url}/project-dashboard/console")

    def connect(self, token: str, transport: str = "websocket", room: str | None = None) -> None:
        fill(self.browser, "#token", token)
        fill(self.browser, "#transport", transport)
        if room is not None:
            fill(self.browser, "#plain-room", room)
        press(self.browser, "#connect")

    def connected(self, token: str, transport: str = "websocket", room: str | None = None) -> None:
        self.connect(token, transport, room)
        shows(self.browser, "#link", "connected by")

    def join(self, kind: str, name: str) -> None:
        fill(self.browser, "#kind", kind)
        fill(self.browser, "#name", name)
        press(self.browser, "#join button")
        shows(self.browser, "#rooms", f"{kind}:{name}")

    def submit(self, form: str, **fields: str) -> None:
        self.browser.evaluate(f"(document.querySelector('#{form}').closest('details').open = true)")
        for name, value in fields.items():
            fill(self.browser, f"#{form} [name={name}]", value)
        press(self.browser, f"#{form} button[type=submit]")

    def call(self, form: str, **fields: str) -> Any:
        """Submit a REST call; the body of its answer, once the log shows it."""
        before = len(self.answers(form))
        self.submit(form, **fields)
        path = f"document.querySelector('#{form}').dataset"
        self.browser.wait_for(f"{self._answers(path)}.length > {before}")
        return self.answers(form)[-1]

    def answers(self, form: str) -> list[Any]:
        found = self.browser.evaluate(self._answers(f"document.querySelector('#{form}').dataset"))
        return [json.loads(body) for body in found]

    def _answers(self, data: str) -> str:
        start = f"({data}.method + ' ' + {data}.path.split('{{')[0])"
        return (
            "[...document.querySelectorAll('#frames .in')]"
            f".filter(item => item.querySelector('.kind').textContent.slice(4).startsWith({start}))"
            ".map(item => item.querySelector('pre').textContent)"
        )

    def frames(self, kind: str) -> list[Any]:
        return [json.loads(body) for body in self.browser.evaluate(self._frames(kind))]

    def frame(self, kind: str, number: int = 1) -> Any:
        """The body of the frame of this kind, once so many of them are there."""
        self.browser.wait_for(f"{self._frames(kind)}.length >= {number}")
        return self.frames(kind)[number - 1]

    def _frames(self, kind: str) -> str:
        return (
            "[...document.querySelectorAll('#frames .in')]"
            f".filter(item => item.querySelector('.kind').textContent === {json.dumps(kind)})"
            ".map(item => item.querySelector('pre').textContent)"
        )


@pytest.fixture
def console(browser: Browser, sidecar: RunningSidecar) -> Console:
    return Console(browser, sidecar)


@pytest.fixture
def token(sidecar: RunningSidecar) -> str:
    """Of a back end that may do all that the page offers, but is no admin."""
    scopes = ("messages:send", "rooms:read", "push:manage", "tokens:issue", "deployments:read")
    return sidecar.new_token(*scopes)


def test_a_message_sent_to_a_joined_room_arrives_and_the_answer_counts_one_recipient(console, token, name):
    console.connected(token)
    console.join("room", name)
    assert console.frame("ack subscribe_room")["room"] == f"room:{name}"
    answer = console.call("send", room=name, message="hello", data='{"priority": "high"}')
    assert (answer["success"], answer["recipients"]) == (True, 1)
    assert "recipients: 1" in text(console.browser, "#send output")
    payload = console.frame("event api_message")["payload"]
    assert (payload["content"], payload["priority"]) == ("hello", "high")
    assert console.browser.errors == []


def test_a_left_room_is_silent(console, token, name):
    console.connected(token)
    console.join("room", name)
    press(console.browser, "#rooms button")
    console.browser.wait_for("document.querySelectorAll('#rooms li').length === 0")
    assert console.call("send", room=name, message="nobody there")["recipients"] == 0
    assert console.frames("event api_message") == []


def test_every_kind_of_room_can_be_joined(console, token, name):
    console.connected(token)
    for kind in ("room", "project", "deployment"):
        console.join(kind, name)
    for kind in ("menu", "projects"):
        fill(console.browser, "#kind", kind)
        press(console.browser, "#join button")
        shows(console.browser, "#rooms", f"{kind}\n")
    assert console.browser.evaluate("document.querySelectorAll('#rooms li').length") == 5


def test_a_token_made_by_the_page_gets_the_messages_of_its_user_alone(console, token, name):
    fill(console.browser, "#token", token)
    console.call("connection-token", sub=name, rooms=f"room:{name}", scopes="rooms:read, messages:send")
    press(console.browser, "#use-token")
    press(console.browser, "#connect")
    console.join("room", name)
    assert console.call("send", room=name, message="for you", target_user=name)["recipients"] == 1
    assert console.frame("event api_message")["payload"]["content"] == "for you"
    assert console.call("send", room=name, message="for another", target_user="another")["recipients"] == 0
    console.call("send", room=name, message="for all", target_user="")
    assert console.frame("event api_message", 2)["payload"]["content"] == "for all"


def test_every_rest_call_shows_its_answer(console, token, name):
    user = name
    console.connected(console.server.connection_token(sub=user, rooms=["room:*"]))
    console.join("room", "location_tracking")
    console.join("room", name)
    fill(console.browser, "#token", token)
    assert console.call("location", latitude="48.5", longitude="2.25", device_id=name)["location"]["lat"] == 48.5
    place = console.frame("event api_message")["payload"]
    assert (place["type"], place["latitude"], place["device_id"]) == ("location_update", 48.5, name)
    assert console.call("broadcast", message="to all", data='{"a": 1}')["recipients"] >= 1
    assert console.frame("event api_message", 2)["payload"]["a"] == 1
    assert console.call("notify", user_id=user, message="to you")["recipients"] == 1
    assert console.frame("event api_message", 3)["payload"]["content"] == "to you"
    listed = console.call("list-rooms")["items"]
    assert {"room": name, "connections": 1, "anonymous": 0, "users": [{"user": user, "connections": 1}]} in listed
    assert console.call("presence", room=name)["connections"] == 1
    assert console.call("disconnect-user", user=user)["disconnected"] == 1
    shows(console.browser, "#link", "You have been disconnected. (disconnected)")
    assert console.browser.errors == []


def test_a_live_push_is_started_seen_and_stopped(console, token, name):
    console.connected(token)
    console.join("room", name)
    console.call("start-push", room=name, interval="0.2")
    live = console.frame("event api_message", 2)
    assert (live["payload"]["type"], "seq" in live) == ("live_stats", False)
    assert name in [item["room"] for item in console.call("list-pushes")["items"]]
    assert console.call("stop-push")["stopped"] == [name]
    assert name not in [item["room"] for item in console.call("list-pushes")["items"]]
    assert console.browser.errors == []


def test_chat_comes_back_to_the_room(console, token, name):
    console.connected(token)
    console.join("room", name)
    fill(console.browser, "#chat-room", name)
    fill(console.browser, "#chat-username", "Ada")
    fill(console.browser, "#chat-message", "hi")
    press(console.browser, "#chat button[type=submit]")
    assert console.frame("ack chat")["ok"] is True
    payload = console.frame("event chat_message")["payload"]
    assert (payload["message"], payload["username"]) == ("hi", "Ada")
    press(console.browser, "#ping")
    assert console.frame("ack heartbeat")["ok"] is True


def test_a_plain_websocket_gets_bare_frames_of_the_same_room(console, token, name):
    console.connected(token)
    console.join("room", name)
    press(console.browser, "#disconnect")
    console.connected(token, "plain", name)
    assert console.frame("connection_status")["room"] == name
    assert console.call("send", room=name, message="bare")["recipients"] == 1
    bare = console.frame("api_message")
    assert (bare["message"]["content"], "payload" in bare) == ("bare", False)
    fill(console.browser, "#chat-message", "hi")
    press(console.browser, "#chat button[type=submit]")
    assert console.frame("chat_message")["message"] == "hi"
    press(console.browser, "#ping")
    assert console.frame("pong")["original_message"] == {"message_type": "ping"}
    press(console.browser, "#disconnect")
    assert console.frame("close")["code"] == 1000
    assert console.browser.errors == []


def test_a_lost_connection_comes_back_with_its_rooms(browser, start_sidecar: Start, name):
    server = start_sidecar()
    console = Console(browser, server)
    console.connected(server.token)
    console.join("room", name)
    server.kill()
    shows(browser, "#link", "trying again")
    server.start()
    shows(browser, "#link", "connected by")
    console.call("send", room=name, message="after")
    assert console.frame("event api_message")["payload"]["content"] == "after"


@pytest.mark.parametrize("transport", ["websocket", "polling", "plain"])
def test_a_refusal_says_why(console, transport):
    console.connect(WRONG, transport)
    shows(console.browser, "#link", "(unauthenticated)")
    assert text(console.browser, "#link").startswith("refused: ")
    assert console.browser.evaluate("document.getElementById('connect').disabled") is False


def test_a_refused_room_says_why(console, sidecar, name):
    console.connected(sidecar.connection_token(sub="ada", rooms=[f"room:{name}"]))
    fill(console.browser, "#name", "another")
    press(console.browser, "#join button")
    shows(console.browser, "#join-answer", "(not_allowed)")
    assert text(console.browser, "#rooms") == ""


def test_a_revoked_token_says_that_it_has_ended(console, sidecar, name):
    made = sidecar.post("/api/tokens", {"name": name, "scopes": ["rooms:read"]}).json()
    console.connected(made["token"], "plain", name)
    sidecar.request("DELETE", f"/api/tokens/{made['id']}")
    shows(console.browser, "#link", "closed: 4401")


def test_what_can_not_be_a_token_is_told_without_quoting_it(console):
    for transport in ("websocket", "plain"):
        console.connect("two words", transport)
        shows(console.browser, "#link", "characters that no token has")
    assert "two words" not in text(console.browser, "body")
    assert console.browser.errors == []


def test_bad_json_is_told_in_its_place_and_not_sent(console, token, name):
    fill(console.browser, "#token", token)
    console.submit("send", room=name, data='{"a": ')
    shows(console.browser, "#send-data-error", "no JSON")
    assert console.browser.evaluate("document.activeElement.name") == "data"
    assert text(console.browser, "#frames") == ""
    console.call("send", room=name, data='{"a": 1}')
    assert text(console.browser, "#send-data-error") == ""


def test_a_refused_call_names_its_fields(console, token):
    fill(console.browser, "#token", token)
    told = console.call("location", latitude="91", longitude="east")
    assert {item["path"] for item in told["errors"]} == {"latitude", "longitude"}
    shows(console.browser, "#location output", "400")


def test_who_has_logged_in_needs_no_token(browser, start_sidecar: Start, name):
    server = start_sidecar()
    log_in(browser, server)
    browser.evaluate("[...document.querySelectorAll('header a')].find(a => a.innerText === 'test console').click()")
    browser.wait_for("document.title.startsWith('Test console') && document.readyState === 'complete'")
    console = Console(browser, server)
    console.connected("")
    console.join("room", name)
    assert console.call("send", room=name, message="by cookie")["recipients"] == 1
    assert browser.errors == []


def test_tokens_are_nowhere_in_the_page_its_address_or_storage(console, token, name):
    console.connected(token)
    console.join("room", name)
    press(console.browser, "#renew")
    shows(console.browser, "#join-answer", "refresh_token: ok")
    console.call("send", room=name, message=f"here is {token}")
    console.frame("event api_message")
    console.call("connection-token", sub=name)
    press(console.browser, "#use-token")
    made = console.browser.evaluate("document.getElementById('token').value")
    assert made.count(".") == 2
    fill(console.browser, "#send [name=message]", "")
    everywhere = console.browser.evaluate(
        "[document.documentElement.outerHTML, document.body.innerText, location.href, document.cookie, "
        "JSON.stringify(localStorage), JSON.stringify(sessionStorage), "
        "...performance.getEntries().map(entry => entry.name)].join(' ')"
    )
    assert token not in everywhere
    assert made not in everywhere


def test_markup_in_frames_stays_text(console, token, name):
    evil = "<img src=x onerror=document.title='owned'>"
    console.connected(token)
    console.join("room", name)
    console.call("send", room=name, message=evil, data=json.dumps({"type": evil}))
    assert console.frame("event api_message")["payload"]["content"] == evil
    assert console.browser.evaluate("document.querySelectorAll('#console img').length") == 0


def test_the_log_is_paused_resumed_bounded_and_cleared(console, token, name):
    console.connected(token)
    console.join("room", name)
    press(console.browser, "#pause")
    shown = console.browser.evaluate("document.querySelectorAll('#frames li').length")
    console.submit("send", room=name, message="while paused")
    shows(console.browser, "#count", "3 waiting")
    assert console.browser.evaluate("document.querySelectorAll('#frames li').length") == shown
    press(console.browser, "#pause")
    shows(console.browser, "#frames", "while paused")
    with httpx.Client(headers={"Authorization": f"Token {token}"}) as client:
        for number in range(510):
            body = {"room": name, "message": f"message {number}"}
            assert client.post(f"{console.server.url}/api/send-websocket/", json=body).status_code == 200
    shows(console.browser, "#frames li:last-child", "message 509")
    assert console.browser.evaluate("document.querySelectorAll('#frames li').length") == 500
    shows(console.browser, "#count", "the last 500 are shown")
    end = "document.getElementById('frames')"
    assert console.browser.evaluate(f"{end}.scrollHeight - {end}.scrollTop - {end}.clientHeight") < 30
    press(console.browser, "#clear")
    assert text(console.browser, "#count") == "0 frames"
    assert console.browser.evaluate("document.querySelectorAll('#frames li').length") == 0


def test_compact_frames_are_one_line(console, token, name):
    console.connected(token)
    console.join("room", name)
    acknowledged = console.frame("ack subscribe_room")
    press(console.browser, "#pretty")
    last = "document.querySelector('#frames li:last-child pre').textContent"
    assert console.browser.evaluate(last) == json.dumps(acknowledged, separators=(",", ":"))


def test_every_field_and_button_has_a_name(console):
    assert nameless(console.browser) == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_needs_no_sideways_scrolling(console, token, size, tmp_path):
    long = "a-room-with-quite-a-long-name-for-a-phone-" + "x" * 100
    console.browser.screenshot(tmp_path / "empty.png", *size)
    assert needs_no_sideways_scrolling(console.browser)
    console.connected(token)
    console.join("room", long)
    console.call("send", room=long, message="y" * 300)
    console.browser.evaluate("for (const part of document.querySelectorAll('details')) part.open = true; null")
    console.submit("send", data="{" * 300)
    shows(console.browser, "#send-data-error", "no JSON")
    console.browser.screenshot(tmp_path / "used.png", *size)
    assert needs_no_sideways_scrolling(console.browser)
