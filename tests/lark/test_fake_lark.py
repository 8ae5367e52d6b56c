"""examples/fake_lark.py refuses what the real platform refuses: a test of the sidecar that passes against something
lenient says nothing."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.fake_lark import FakeLark, Frame, decode_frame, encode_frame, encrypt, signature
from tests.chromium import Browser
from tests.lark.stage import (
    APP_ID,
    APP_SECRET,
    CARD,
    DONE,
    HTTP,
    REDIRECT_URI,
    VERIFIER,
    authorize_url,
    console,
    granted_code,
    query_of,
)
from tests.programs import ROOT, running, stop, wait_until

CLIENT = {"client_id": APP_ID, "client_secret": APP_SECRET}


@pytest.fixture
def lark() -> Iterator[FakeLark]:
    with FakeLark(console()) as lark:
        yield lark


def exchange(lark: FakeLark, code: str | None, **more: Any) -> httpx.Response:
    """Ask for tokens rightly, but for what `more` says; None leaves a field out."""
    body: dict[str, Any] = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI}
    body |= {"code_verifier": VERIFIER, **CLIENT, **more}
    given = {name: value for name, value in body.items() if value is not None}
    return HTTP.post(f"{lark.url}/open-apis/authen/v2/oauth/token", json=given)


def refreshed(lark: FakeLark, refresh_token: str | None, **more: Any) -> httpx.Response:
    body = {"grant_type": "refresh_token", "refresh_token": refresh_token, **CLIENT, **more}
    return HTTP.post(f"{lark.url}/open-apis/authen/v2/oauth/token", json=body)


def told(answer: httpx.Response) -> tuple[int, int]:
    return answer.status_code, answer.json()["code"]


def user_info(lark: FakeLark, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return HTTP.get(f"{lark.url}/open-apis/authen/v1/user_info", headers=headers)


# The authorize page


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"redirect_uri": REDIRECT_URI + "/"}, "20029"),
        ({"redirect_uri": None}, "20029"),
        ({"client_id": "cli_other"}, "20048"),
        ({"scope": "offline_access im:message"}, "20027"),
        ({"response_type": "token"}, "20001"),
        ({"code_challenge": "short"}, "20001"),
        ({"code_challenge_method": "S512"}, "20001"),
    ],
)
def test_the_authorize_page_says_what_is_wrong(lark: FakeLark, query: dict[str, str | None], code: str):
    answer = HTTP.get(authorize_url(lark, **query))
    assert answer.status_code == 400
    assert f"<b id=code>{code}</b>" in answer.text


def test_consent_gives_a_code_and_refusal_an_error(lark: FakeLark):
    url = authorize_url(lark)
    assert "offline_access" in HTTP.get(url).text
    yes = HTTP.post(url, data={"open_id": "ou_bob", "decision": "allow"})
    assert yes.status_code == 302
    assert yes.headers["location"].startswith(REDIRECT_URI + "?")
    assert query_of(yes.headers["location"])["state"] == "the-state"
    no = HTTP.post(url, data={"open_id": "ou_bob", "decision": "deny"})
    assert query_of(no.headers["location"]) == {"error": "access_denied", "state": "the-state"}


def test_a_person_consents_in_a_browser(lark: FakeLark, browser: Browser):
    lark.console.redirect_uris.append(f"{lark.url}/chat")
    browser.open(authorize_url(lark, redirect_uri=f"{lark.url}/chat"))
    assert browser.evaluate("document.querySelectorAll('[name=open_id]').length") == 3
    assert browser.evaluate("document.querySelector('form').textContent.includes('Bob <b>Bold</b>')")
    browser.evaluate("document.querySelector('[value=ou_bob]').click(); document.querySelector('.primary').click()")
    browser.wait_for("location.pathname === '/chat' && location.search.includes('code=')")
    assert [code.open_id for code in lark.platform.codes.values()] == ["ou_bob"]


# The token endpoint


def test_a_code_gives_tokens_once(lark: FakeLark):
    code = granted_code(lark, scope="offline_access contact:user.phone:readonly")
    answer = exchange(lark, code)
    body = answer.json()
    assert answer.status_code == 200
    assert (body["code"], body["expires_in"], body["refresh_token_expires_in"]) == (0, 7200, 604_800)
    assert 1000 < len(body["access_token"]) < 4096, "as long as real ones"
    assert told(exchange(lark, code)) == (400, 20065)
    person = user_info(lark, body["access_token"]).json()["data"]
    assert (person["open_id"], person["mobile"], "email" in person) == ("ou_ada", "+8613800001815", False)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"code": "unknown"}, (400, 20003)),
        ({"code": None}, (400, 20001)),
        ({"client_id": "cli_other"}, (400, 20048)),
        ({"client_secret": "wrong"}, (400, 20002)),
        ({"client_secret": None}, (400, 20001)),
        ({"grant_type": "password"}, (400, 20036)),
        ({"redirect_uri": None}, (400, 20071)),
        ({"redirect_uri": REDIRECT_URI + "2"}, (400, 20071)),
        ({"code_verifier": None}, (400, 20049)),
        ({"code_verifier": "w" * 64}, (400, 20049)),
        ({"scope": "offline_access offline_access"}, (400, 20067)),
        ({"scope": "contact:user.email:readonly"}, (400, 20068)),
    ],
)
def test_what_the_token_endpoint_refuses(lark: FakeLark, body: dict[str, Any], expected: tuple[int, int]):
    code = granted_code(lark)
    answer = exchange(lark, **{"code": code} | body)
    assert told(answer) == expected
    assert set(answer.json()) == {"code", "error", "error_description"}
    assert lark.platform.grants == []


def test_a_code_that_is_too_old(lark: FakeLark):
    code = granted_code(lark)
    lark.expire("codes")
    assert told(exchange(lark, code)) == (400, 20004)


def test_the_token_endpoint_wants_json(lark: FakeLark):
    url = f"{lark.url}/open-apis/authen/v2/oauth/token"
    for answer in (HTTP.post(url, data={"grant_type": "x"}), HTTP.post(url, content=b"{", headers=JSON)):
        assert told(answer) == (400, 20063)


JSON = {"Content-Type": "application/json"}


def test_without_offline_access_nothing_can_be_renewed(lark: FakeLark):
    body = exchange(lark, granted_code(lark, scope=None)).json()
    assert "refresh_token" not in body
    assert told(refreshed(lark, None)) == (400, 20001)


def test_a_refresh_token_holds_once_and_the_old_access_token_a_minute_more(lark: FakeLark):
    first = exchange(lark, granted_code(lark)).json()
    second = refreshed(lark, first["refresh_token"]).json()
    assert second["code"] == 0
    assert second["access_token"] != first["access_token"]
    assert told(refreshed(lark, first["refresh_token"])) == (400, 20073)
    assert lark.platform.grants[0].access_ends < time.time() + 61
    assert user_info(lark, first["access_token"]).status_code == 200


def test_refresh_tokens_that_hold_no_more(lark: FakeLark):
    token = exchange(lark, granted_code(lark)).json()["refresh_token"]
    assert told(refreshed(lark, "unknown")) == (400, 20026)
    lark.expire("refresh")
    assert told(refreshed(lark, token)) == (400, 20037)
    lark.revoke("ou_ada")
    assert told(refreshed(lark, token)) == (400, 20064)


def test_access_tokens_that_hold_no_more(lark: FakeLark):
    token = exchange(lark, granted_code(lark)).json()["access_token"]
    assert told(user_info(lark, "")) == (400, 99991661)
    assert told(user_info(lark, "u-unknown")) == (401, 99991668)
    lark.expire("access")
    assert told(user_info(lark, token)) == (401, 99991677)
    records = f"{lark.url}/open-apis/apaas/v1/workspaces/w/tables/t/records"
    assert told(HTTP.get(records, headers={"Authorization": f"Bearer {token}"})) == (401, 99991677)


# The app's token, and messages


def app_token(lark: FakeLark, **more: str) -> httpx.Response:
    body = {"app_id": APP_ID, "app_secret": APP_SECRET, **more}
    return HTTP.post(f"{lark.url}/open-apis/auth/v3/tenant_access_token/internal", json=body)


def test_the_apps_token(lark: FakeLark):
    one, two = app_token(lark).json(), app_token(lark).json()
    assert one["tenant_access_token"] == two["tenant_access_token"]
    assert one["expire"] == 7200
    assert told(app_token(lark, app_secret="wrong")) == (200, 10014)
    assert told(app_token(lark, app_id="cli_other")) == (200, 10003)


def send(lark: FakeLark, card: object = CARD, to: str = "ou_ada", kind: str = "open_id", **more: str) -> httpx.Response:
    text = card if isinstance(card, str) else json.dumps(card)
    body = {"receive_id": to, "msg_type": "interactive", "content": text, **more}
    url = f"{lark.url}/open-apis/im/v1/messages?receive_id_type={kind}"
    return HTTP.post(url, json=body, headers=authorization(lark))


def update(lark: FakeLark, message_id: str, card: object) -> httpx.Response:
    url = f"{lark.url}/open-apis/im/v1/messages/{message_id}"
    return HTTP.patch(url, json={"content": json.dumps(card)}, headers=authorization(lark))


def authorization(lark: FakeLark) -> dict[str, str]:
    return {"Authorization": f"Bearer {app_token(lark).json()['tenant_access_token']}"}


RECEIVERS = [("open_id", "ou_ada"), ("union_id", "on_ada"), ("user_id", "ada1815"), ("email", "ada@example.com")]


@pytest.mark.parametrize(("kind", "to"), [*RECEIVERS, ("chat_id", "oc_everyone")])
def test_a_card_is_sent_and_changed_in_place(lark: FakeLark, kind: str, to: str):
    message_id = send(lark, to=to, kind=kind).json()["data"]["message_id"]
    assert told(update(lark, message_id, DONE)) == (200, 0)
    (message,) = lark.platform.messages.values()
    assert (message.message_id, message.versions) == (message_id, [CARD, DONE])
    assert "ou_ada" in message.receivers


def with_element(element: object) -> dict[str, Any]:
    return {**CARD, "elements": [element]}


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("{", 230001),
        ("[]", 230099),
        ({}, 230099),
        ({"type": "template", "data": {}}, 230099),
        ({**CARD, "header": {"title": "text"}}, 230099),
        ({**CARD, "header": {**DONE["header"], "template": "pink"}}, 230099),
        (with_element({"tag": "blink"}), 230099),
        (with_element({"tag": "div", "text": "text"}), 230099),
        (with_element({"tag": "action", "actions": [{"tag": "button", "text": "x"}]}), 230099),
        (with_element({"tag": "div", "text": {"tag": "lark_md", "content": "x" * 30_000}}), 230025),
    ],
)
def test_cards_that_are_none(lark: FakeLark, card: object, code: int):
    assert told(send(lark, card)) == (400, code)
    assert lark.platform.messages == {}


def test_what_else_is_refused_of_messages(lark: FakeLark):
    assert told(send(lark, to="ou_nobody")) == (400, 230001)
    assert told(send(lark, msg_type="text")) == (400, 230001)
    own = send(lark, {**CARD, "config": {}}).json()["data"]["message_id"]
    assert told(update(lark, own, DONE)) == (400, 230099), "only a shared card can be changed"
    assert told(update(lark, "om_unknown", DONE)) == (400, 230001)
    lark.platform.messages[own].sent -= 15 * 86_400
    assert told(update(lark, own, DONE)) == (400, 230031)
    headers = {"Authorization": "Bearer t-unknown"}
    assert told(HTTP.post(f"{lark.url}/open-apis/im/v1/messages", json={}, headers=headers)) == (400, 99991663)


def test_five_messages_a_second(lark: FakeLark):
    codes = [send(lark).json()["code"] for _ in range(7)]
    assert codes[:5] == [0] * 5
    assert 230020 in codes[5:]


# Callbacks


def test_the_published_vector_of_signatures():
    assert signature("1700000000", "n1", "test key", b'{"a":1}') == (
        "ef7fa497f697e1e16ef7c26d9112ce6610912d4c4db384661eb0113543e97cde"
    )


def test_no_two_encrypted_texts_are_the_same():
    assert encrypt("hello world", "test key") != encrypt("hello world", "test key")


def test_frames_are_read_as_they_were_written():
    frame = Frame(33554678, 1, {"type": "event", "键": "值"}, bytes(range(256)), 2**63, 300)
    assert decode_frame(encode_frame(frame)) == frame
    for broken in (b"", b"\x08", b"\x0b", encode_frame(frame)[:-1]):
        with pytest.raises(ValueError, match=r"cut off|missing|wire type"):
            decode_frame(broken)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"msg": "success"}, 200672),
        (CARD, 200672),
        ({"toast": {"type": "loud", "content": "x"}}, 200672),
        ({"toast": {"type": "info"}}, 200672),
        ({"card": CARD}, 200673),
        ({"card": {"type": "raw", "data": {"elements": []}}}, 200673),
    ],
)
def test_answers_to_clicks_that_lark_shows_as_an_error(lark: FakeLark, answer: dict[str, Any], code: int):
    """A bare card among them, which is what the older service answered."""
    message_id = send(lark).json()["data"]["message_id"]
    lark.post = lambda request, attempt: answer  # type: ignore[method-assign]
    assert lark.click(message_id, "ou_ada")["error"]["code"] == code
    assert lark.platform.messages[message_id].versions == [CARD]


def test_a_click_needs_a_callback_address_and_a_value_that_is_an_object(lark: FakeLark):
    message_id = send(lark).json()["data"]["message_id"]
    assert lark.click(message_id, "ou_ada")["error"]["code"] == 200340
    assert lark.click(message_id, "ou_ada", value="text")["error"]["code"] == 200671
    assert lark.click(message_id, "ou_eve")["error"]["code"] == 230001, "she can't see it"
    lark.console.callback_url = "http://127.0.0.1:9/"
    assert lark.click(message_id, "ou_ada")["error"]["code"] == 200342


def test_an_answer_must_come_in_time(lark: FakeLark):
    message_id = send(lark).json()["data"]["message_id"]
    lark.console.answer_seconds = 0.2
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        lark.console.callback_url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert lark.click(message_id, "ou_ada")["error"]["code"] == 200341


# Faults, and what is for tests


def test_faults_as_often_as_asked(lark: FakeLark):
    url = f"{lark.url}/control"
    orders: list[dict[str, Any]] = [
        {"endpoint": "token", "code": 20050, "times": 1},
        {"endpoint": "token", "down": True, "times": 1},
        {"endpoint": "token", "text": "<html>", "times": 1},
        {"endpoint": "token", "code": 20072, "times": 1},
    ]
    for order in orders:
        assert HTTP.post(url, json={"do": "break", **order}).status_code == 200
    code = granted_code(lark)
    assert told(exchange(lark, code)) == (500, 20050)
    with pytest.raises(httpx.RemoteProtocolError):
        exchange(lark, code)
    assert (exchange(lark, code).status_code, told(exchange(lark, code))) == (502, (503, 20072))
    assert told(exchange(lark, code)) == (200, 0)
    state = HTTP.get(url).json()
    assert [(one["endpoint"], one["status"]) for one in state["requests"]] == [
        ("token", status) for status in (500, None, 502, 503, 200)
    ]
    assert HTTP.post(url, json={"do": "nothing"}).status_code == 400
    assert HTTP.post(url, content=b'{"do":"mend"}').status_code == 400, "no page of another origin may"


def test_as_a_program(tmp_path: Path):
    command = [sys.executable, str(ROOT / "examples" / "fake_lark.py"), "--app-id", APP_ID, "--app-secret", APP_SECRET]
    faults = ["--fault", "app_token=20050,1", "--fault", "user_info=down"]
    with running([*command, *faults], tmp_path / "log") as process:
        wait_until(lambda: (tmp_path / "log").read_text().endswith("\n"), "it tells its address")
        url = (tmp_path / "log").read_text().strip()
        asked = {"app_id": APP_ID, "app_secret": APP_SECRET}
        path = f"{url}/open-apis/auth/v3/app_access_token/internal"
        assert [HTTP.post(path, json=asked).json()["code"] for _ in range(2)] == [20050, 0]
        with pytest.raises(httpx.RemoteProtocolError):
            HTTP.get(f"{url}/open-apis/authen/v1/user_info")
        assert HTTP.get(f"{url}/chat").status_code == 200
        assert HTTP.post(path, content=b"x" * 300_000).status_code == 413
        assert HTTP.get(f"{url}/open-apis/other").status_code == 404
        assert stop(process) == 0
    assert (tmp_path / "log").read_text().strip() == url, "and says no more"


def test_an_event_comes_again_until_it_is_answered(lark: FakeLark):
    answers: list[str] = []

    def post(request: tuple[dict[str, str], bytes], attempt: dict[str, Any]) -> dict[str, Any]:
        answers.append(request[0]["X-Lark-Request-Nonce"])
        if len(answers) < 3:
            return FakeLark.post(lark, request, attempt)  # nobody listens there
        return {}

    lark.console.callback_url = "http://127.0.0.1:9/"
    lark.post = post  # type: ignore[method-assign]
    event_id = lark.push("im.message.receive_v1", {"message": {}})
    wait_until(lambda: len(lark.platform.deliveries[event_id].attempts) == 3, "it came three times")
    assert len(set(answers)) == 3, "each time signed anew"


def test_the_chat_shows_cards_and_clicks_their_buttons(lark: FakeLark, browser: Browser):
    message_id = send(lark).json()["data"]["message_id"]
    lark.post = lambda request, attempt: {  # type: ignore[method-assign]
        "toast": {"type": "info", "content": "已取消授权"},
        "card": {"type": "raw", "data": DONE},
    }
    browser.open(f"{lark.url}/chat?user=ou_ada")
    browser.wait_for(f"document.getElementById('{message_id}')")
    text = "document.querySelector('article').innerText"
    assert "请授权\n<b> & *" in browser.evaluate(text)
    link = "document.querySelector('article a.primary')"
    assert browser.evaluate(f"{link}.href + ' ' + {link}.target") == "https://example.com/authorize _blank"
    browser.evaluate("document.querySelector('article button').click()")
    browser.wait_for("document.getElementById('toast').textContent === '已取消授权'")
    browser.wait_for(f"{text}.includes('授权成功') && {text}.includes('version 2')")
    assert browser.evaluate("document.querySelectorAll('article').length") == 1, "the same card"
    assert browser.errors == []
    browser.open(f"{lark.url}/chat?user=ou_bob")
    browser.wait_for("document.getElementById('user').value === 'ou_bob'")
    assert browser.evaluate("document.querySelectorAll('article').length") == 0
