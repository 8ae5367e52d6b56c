"""What must not get through: callbacks that are not the platform's, returns that are not this user's, and a platform
that refuses or is away. Each time the user is told the truth, and nothing is half stored."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import Any

import httpx
import pytest

from examples.fake_lark import OAUTH_ERRORS, Message, callback_request, encrypt, signature
from tests.lark.flow import PAST, Flow, Json, heading, title_of
from tests.lark.stage import APP_ID, ENCRYPT_KEY, HTTP, VERIFICATION_TOKEN, query_of
from tests.programs import wait_until

Request = tuple[dict[str, str], bytes]


def event_of(flow: Flow, begun: Json, message: Message, action: str = "reject", event_id: str | None = None) -> Json:
    """What the platform says when ou_ada clicks."""
    value = {"session_id": begun["session_id"], "action": action}
    event = flow.lark.platform.click_event(message.message_id, "ou_ada", 0, value)
    return flow.lark.platform.new_delivery("card.action.trigger", event, event_id).payload


def post(flow: Flow, request: Request, path: str = "/callback/lark") -> httpx.Response:
    headers, body = request
    return HTTP.post(flow.server.url + path, content=body, headers=headers)


def signed(body: bytes, key: str = ENCRYPT_KEY, at: float = 0, nonce: str = "12345678") -> Request:
    """Any bytes, signed as the platform does; `at` seconds from now."""
    timestamp = str(int(time.time() + at))
    headers = {
        "Content-Type": "application/json",
        "X-Lark-Request-Timestamp": timestamp,
        "X-Lark-Request-Nonce": nonce,
        "X-Lark-Signature": signature(timestamp, nonce, key, body),
    }
    return headers, body


def encrypted(payload: object, key: str = ENCRYPT_KEY) -> bytes:
    return json.dumps({"encrypt": encrypt(json.dumps(payload), key)}).encode()


@pytest.fixture
def begun(flow: Flow, name: str) -> Json:
    return flow.start(name, open_id="ou_ada")


@pytest.fixture
def message(flow: Flow, begun: Json) -> Message:
    return flow.send_card(begun)


class TestCallbacks:
    def forgeries(self, payload: Json) -> dict[str, Request]:
        headers, body = callback_request(payload, ENCRYPT_KEY)
        other_headers, other_body = callback_request(payload, "another key")
        plain = json.dumps(payload).encode()
        flipped = bytearray(base64.b64decode(json.loads(body)["encrypt"]))
        flipped[20] ^= 1
        return {
            "no signature": ({"Content-Type": "application/json"}, body),
            "another key": (other_headers, other_body),
            "another key's signature": ({**headers, "X-Lark-Signature": other_headers["X-Lark-Signature"]}, body),
            "another nonce": ({**headers, "X-Lark-Request-Nonce": "1"}, body),
            "another timestamp": (
                {**headers, "X-Lark-Request-Timestamp": str(int(headers["X-Lark-Request-Timestamp"]) + 1)},
                body,
            ),
            "another body": (headers, json.dumps({"encrypt": base64.b64encode(flipped).decode()}).encode()),
            "a body and more": (headers, body + b" "),
            "in clear text, with the token": ({"Content-Type": "application/json"}, plain),
            "empty signature": ({**headers, "X-Lark-Signature": ""}, body),
            "signature in capitals": ({**headers, "X-Lark-Signature": headers["X-Lark-Signature"].upper()}, body),
            "without a timestamp": ({**headers, "X-Lark-Request-Timestamp": ""}, body),
        }

    def test_forged(self, flow: Flow, begun: Json, message: Message):
        for what, request in self.forgeries(event_of(flow, begun, message)).items():
            answer = post(flow, request)
            assert (answer.status_code, answer.json()["success"]) == (401, False), what
        assert flow.state(begun) == ("pending", None)
        assert len(message.versions) == 1

    @pytest.mark.parametrize("at", [-301, -86_400, 302, 86_400])
    def test_stale_or_from_the_future(self, flow: Flow, begun: Json, message: Message, at: float):
        answer = post(flow, signed(encrypted(event_of(flow, begun, message)), at=at))
        assert answer.status_code == 401
        assert flow.state(begun) == ("pending", None)

    def test_replayed(self, flow: Flow, begun: Json, message: Message):
        request = signed(encrypted(event_of(flow, begun, message, action="authorize")), nonce="the-same")
        assert post(flow, request).json()["toast"]["content"] == "请点击链接完成授权"
        again = post(flow, request)
        assert (again.status_code, "toast" in again.json()) == (401, False)
        for path in ("/callback/lark/", f"/callback/lark/{APP_ID}", "/project-dashboard/callback/lark"):
            assert post(flow, request, path).status_code == 401, "whatever the address"

    def test_sent_again_by_the_platform_it_is_answered_as_before(self, flow: Flow, begun: Json, message: Message):
        payload = event_of(flow, begun, message)
        first = post(flow, signed(encrypted(payload), nonce="one"))
        assert first.json()["card"]["data"]["header"]["title"]["content"] == "已取消授权"
        second = post(flow, signed(encrypted(payload), nonce="two"))
        assert (second.status_code, second.json()) == (200, first.json())
        known = event_of(flow, begun, message, "authorize", payload["header"]["event_id"])
        assert post(flow, signed(encrypted(known), nonce="three")).json() == first.json(), "by its id alone"

    def test_of_many_at_once_one_is_handled(self, flow: Flow, begun: Json, message: Message):
        payload = event_of(flow, begun, message)
        answers: list[httpx.Response] = []

        def send(number: int) -> None:
            answers.append(post(flow, signed(encrypted(payload), nonce=f"many-{number}")))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 1

    @pytest.mark.parametrize("size", [1_100_000, 8_000_000])
    def test_oversized(self, flow: Flow, size: int):
        answer = post(flow, signed(b'{"encrypt":"' + b"A" * size + b'"}'))
        assert answer.status_code == 413

    def test_signed_but_unreadable(self, flow: Flow):
        bodies = [
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            b"null",
            b'{"encrypt":1}',
            b'{"encrypt":""}',
            b'{"encrypt":"@@@@"}',
            b'{"encrypt":"QUJD"}',
            json.dumps({"encrypt": base64.b64encode(bytes(64)).decode()}).encode(),
            encrypted({}, key="another key"),
            encrypted([]),
            encrypted({"schema": "2.0"}),
            encrypted({"schema": "2.0", "header": {"event_type": "card.action.trigger"}, "event": {}}),
            encrypted({"schema": "2.0", "header": {"event_type": "x", "event_id": "y" * 300}, "event": {}}),
            encrypted({"schema": "2.0", "header": {"event_type": "x", "event_id": "y"}, "event": []}),
            encrypted({"open_message_id": "om", "action": {}}),
            b"[" * 50_000 + b"]" * 50_000,
        ]
        for number, body in enumerate(bodies):
            answer = post(flow, signed(body, nonce=f"unreadable-{number}"))
            assert (answer.status_code, answer.json()["success"]) == (400, False), body[:80]

    def test_for_another_app_or_with_another_token(self, flow: Flow, begun: Json, message: Message):
        for number, header in enumerate(({"app_id": "cli_other"}, {"token": "wrong"})):
            payload = event_of(flow, begun, message)
            payload["header"] |= header
            assert post(flow, signed(encrypted(payload), nonce=f"app-{number}")).status_code == 401, header
        assert (
            post(
                flow, callback_request(event_of(flow, begun, message), ENCRYPT_KEY), "/callback/lark/cli_x"
            ).status_code
            == 404
        )
        assert flow.state(begun) == ("pending", None)

    def test_signed_in_the_old_way(self, flow: Flow, begun: Json, message: Message):
        headers, body = signed(encrypted(event_of(flow, begun, message)))
        answer = post(flow, ({**headers, "X-Lark-Signature": "0" * 40}, body))
        assert (answer.status_code, "card.action.trigger" in answer.json()["detail"]) == (401, True)

    def test_the_check_of_the_address(self, flow: Flow):
        asked = {"type": "url_verification", "challenge": "c-1", "token": VERIFICATION_TOKEN}
        unsigned = callback_request(asked, ENCRYPT_KEY, signed=False)
        assert post(flow, unsigned).json() == {"challenge": "c-1"}
        assert post(flow, signed(encrypted(asked), nonce="check")).json() == {"challenge": "c-1"}
        for wrong in ({"token": "wrong"}, {"token": None}, {"challenge": "x" * 5000}, {"challenge": 1}):
            answer = post(flow, callback_request({**asked, **wrong}, ENCRYPT_KEY, signed=False))
            assert answer.status_code in (400, 401), wrong
            assert "challenge" not in answer.json(), wrong

    def test_clicks_that_mean_nothing(self, flow: Flow, begun: Json, message: Message):
        unknown = "00000000-0000-4000-8000-000000000000"
        for value in ({}, {"session_id": begun["session_id"], "action": "complete"}, {"action": "reject"}):
            assert flow.lark.click(message.message_id, "ou_ada", value=value) == {"toast": None}, value
        shown = flow.lark.click(message.message_id, "ou_ada", value={"session_id": unknown, "action": "reject"})
        assert shown["toast"]["type"] == "error"
        assert flow.state(begun) == ("pending", None)

    def test_events_of_other_kinds_are_taken_once(self, flow: Flow):
        event_id = flow.lark.push("im.message.receive_v1", {"message": {"content": "hello"}})
        wait_until(lambda: len(flow.lark.platform.deliveries[event_id].attempts) == 1, "it was delivered")
        assert flow.lark.platform.deliveries[event_id].attempts[0]["answer"] == {}

    def test_over_the_feeding_route_only_with_the_scope(self, flow: Flow, begun: Json, message: Message):
        payload = event_of(flow, begun, message)
        body = {"app": APP_ID, "event": payload}
        path = "/api/authorizations/events"
        assert flow.server.post(path, body, token="").status_code == 401
        assert flow.server.post(path, body, flow.server.new_token("authorizations:read")).status_code == 403
        other = flow.server.new_token("authorizations:write", projects=["another-app"])
        assert flow.server.post(path, body, other).status_code in (403, 404)
        assert flow.state(begun) == ("pending", None)
        answer = flow.server.post(path, body, flow.server.new_token("authorizations:write", projects=[APP_ID]))
        assert answer.json()["toast"]["content"] == "已取消授权"


def is_failure(page: httpx.Response, status: int) -> bool:
    """A page that tells of a failure, and holds nothing of what came in."""
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    return (page.status_code, heading(page)) == (status, "授权失败")


class TestReturns:
    def test_an_unknown_or_missing_state(self, flow: Flow, begun: Json):
        location = flow.consent(begun)
        for state in ("unknown", "", "x" * 5_000, "<script>alert(1)</script>", "\x00"):
            page = flow.come_back(location, state=state)
            assert is_failure(page, 404), state[:20]
            assert "<script>alert" not in page.text
        assert flow.state(begun) == ("pending", None)
        assert flow.authorize(begun).status_code == 200, "the right one still works"

    def test_a_missing_code(self, flow: Flow, begun: Json):
        assert is_failure(flow.come_back(flow.consent(begun), code=""), 400)
        assert flow.state(begun) == ("pending", "missing_code")
        assert flow.nothing_stored(begun)

    def test_a_used_state_says_that_it_was_complete_before(self, flow: Flow, begun: Json):
        location = flow.consent(begun)
        assert flow.come_back(location).status_code == 200
        before = flow.row(begun), len(flow.lark.platform.requests)
        again = flow.come_back(location)
        assert again.status_code == 409
        assert heading(again) == "授权成功"
        assert flow.come_back(flow.consent(begun, "ou_eve")).status_code == 409
        assert (flow.row(begun), len(flow.lark.platform.requests)) == before, "nothing was asked or changed"

    def test_twice_at_once(self, flow: Flow, begun: Json):
        location = flow.consent(begun)
        pages: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: pages.append(flow.come_back(location))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(page.status_code for page in pages) == [200, 409, 409, 409, 409, 409]
        assert flow.state(begun) == ("completed", None)

    def test_another_sessions_code(self, flow: Flow, begun: Json, name: str):
        """Somebody slips their own code under our user's state, or takes a code for theirs: PKCE doesn't fit."""
        other = flow.start(f"{name}-other")
        foreign = query_of(flow.consent(other, "ou_eve"))["code"]
        page = flow.come_back(flow.consent(begun), code=foreign)
        assert page.status_code != 200
        assert heading(page) == "授权失败"
        assert flow.nothing_stored(begun)
        assert flow.nothing_stored(other)
        assert flow.state(begun)[0] == "pending"

    def test_the_wrong_user(self, flow: Flow, begun: Json, message: Message):
        assert is_failure(flow.authorize(begun, "ou_eve"), 403)
        assert flow.state(begun) == ("pending", "wrong_user")
        assert flow.nothing_stored(begun)
        assert title_of(message.versions[-1]) == "用户授权请求"
        assert flow.authorize(begun, "ou_ada").status_code == 200
        assert flow.state(begun) == ("completed", None)

    def test_somebody_else_than_before(self, flow: Flow, name: str):
        """Who has authorized for a user once can't be replaced unnoticed."""
        flow.authorized(name, "ou_ada")
        second = flow.start(name)
        assert is_failure(flow.authorize(second, "ou_eve"), 403)
        assert flow.token(name).json()["open_id"] == "ou_ada"

    def test_an_expired_session(self, flow: Flow, begun: Json, message: Message):
        location = flow.consent(begun)
        flow.change(begun, expires_at=PAST)
        assert is_failure(flow.come_back(location), 410)
        assert flow.state(begun)[0] == "expired"
        assert flow.nothing_stored(begun)
        shown = flow.lark.click(message.message_id, "ou_ada", button=1)
        assert shown["toast"]["content"] == "授权已过期，请重新授权"
        assert title_of(message.versions[-1]) == "授权已过期"

    def test_the_card_of_an_expired_session_says_so_by_itself(self, flow: Flow, begun: Json, message: Message):
        flow.change(begun, expires_at=PAST)
        flow.wait_card(message, "授权已过期")
        assert message.changes == ["patch"]

    def test_under_the_prefix_and_at_the_api_address_too(self, flow: Flow, begun: Json):
        for path in ("/api/authorizations/callback", "/project-dashboard/callback", "/callback/"):
            page = HTTP.get(f"{flow.server.url}{path}", params={"state": "unknown", "code": "c"})
            assert is_failure(page, 404), path
        location = flow.consent(begun).replace("/callback", "/project-dashboard/api/authorizations/callback")
        assert flow.come_back(location + "&more=of-the-platform").status_code == 200

    def test_a_look_at_the_address_does_not_use_it_up(self, flow: Flow, begun: Json):
        location = flow.consent(begun)
        assert HTTP.head(location).status_code == 405
        assert flow.state(begun) == ("pending", None)
        page = flow.come_back(location)
        assert (page.status_code, page.headers.get_list("Referrer-Policy")) == (200, ["no-referrer"])

    def test_errors_of_the_platforms_page(self, flow: Flow, begun: Json):
        state = query_of(begun["authorize_url"])["state"]
        url = f"{flow.server.url}/callback"
        page = HTTP.get(url, params={"state": state, "error": "<b>odd</b>", "error_description": "<script>x"})
        assert page.status_code == 502
        assert "<b>odd" not in page.text
        assert "<script>x" not in page.text
        assert flow.state(begun) == ("pending", "unknown_error")

    def test_a_name_with_markup_is_text(self, flow: Flow, name: str):
        begun = flow.authorized(name, "ou_bob")
        page = HTTP.get(begun["page"])
        assert "<b>Bold" not in page.text
        assert flow.session(begun)["name"] == "Bob <b>Bold</b>"


def refused(flow: Flow, message: Message) -> bool:
    """Was the card to be changed, in vain?"""
    return any(
        request["status"] is None and request["path"].endswith(message.message_id)
        for request in flow.lark.platform.requests
    )


CODES = sorted(OAUTH_ERRORS)
GENTLE = {20003, 20004, 20007, 20065}
"""A code that was too old or used."""


class TestThePlatformRefuses:
    @pytest.mark.parametrize("code", [*CODES, 20029, 99_999])
    def test_each_code_of_the_token_endpoint(self, flow: Flow, begun: Json, code: int):
        flow.lark.break_(endpoint="token", code=code)
        page = flow.authorize(begun)
        expected = 400 if code in GENTLE else 503 if code in (20050, 20072) else 502
        assert is_failure(page, expected), page.text
        state, reason = flow.state(begun)
        assert state == "pending"
        assert reason in ("code_expired", "misconfigured", "provider_unavailable", "unknown_error")
        assert (reason == "code_expired") == (code in GENTLE)
        assert flow.nothing_stored(begun)
        flow.lark.mend()
        assert flow.authorize(begun).status_code == 200, "the user may try again"

    @pytest.mark.parametrize("code", [20029, 20071, 20003, 20004, 20064, 20065, 20073])
    @pytest.mark.parametrize("language", ["zh", "en"])
    def test_what_to_do_is_said(self, flow: Flow, name: str, code: int, language: str):
        begun = flow.start(name, language=language)
        flow.lark.break_(endpoint="token", code=code)
        page = flow.authorize(begun)
        advice = page.text.partition('class="advice">')[2].partition("</p>")[0]
        assert len(advice) > 8
        assert advice.isascii() == (language == "en"), advice
        if code in (20029, 20071):
            assert "SIDECAR_LARK_REDIRECT_URI" in advice

    @pytest.mark.parametrize("code", [20005, 20008, 20021, 99991663, 99991668, 99991677, 99991400])
    def test_refused_after_the_token_was_given_nothing_is_half_stored(self, flow: Flow, begun: Json, code: int):
        flow.lark.break_(endpoint="user_info", code=code)
        page = flow.authorize(begun)
        assert page.status_code in (404, 502, 503)
        assert heading(page) == "授权失败"
        assert flow.state(begun)[0] == "pending"
        assert flow.nothing_stored(begun)

    @pytest.mark.parametrize("endpoint", ["token", "user_info"])
    @pytest.mark.parametrize(
        "fault",
        [
            {"down": True},
            {"slow": 20.0},
            {"text": "<html>502 Bad Gateway</html>"},
            {"text": "", "status": 200},
            {"text": "[]", "status": 200},
            {"text": '{"code":0}', "status": 200},
            {"text": '{"code":0,"access_token":' + "1" * 50 + "}", "status": 200},
            {"text": '{"code":"x"}', "status": 200},
            {"text": "x" * 3_000_000, "status": 200},
            {"text": "[" * 100_000, "status": 200},
        ],
    )
    def test_down_slow_or_strange(self, flow: Flow, begun: Json, endpoint: str, fault: Json):
        flow.lark.break_(endpoint=endpoint, **fault)
        page = flow.authorize(begun)
        assert is_failure(page, 503), page.text
        assert flow.state(begun) == ("pending", "provider_unavailable")
        assert flow.nothing_stored(begun)
        flow.lark.mend()
        assert flow.authorize(begun).status_code == 200

    @pytest.mark.parametrize("code", [10003, 10014, 99991663, 230001, 230013, 230020, 230025, 230099])
    def test_a_card_that_can_not_be_sent(self, flow: Flow, begun: Json, code: int):
        flow.lark.break_(endpoint="app_token" if code < 20_000 else "send", code=code)
        lark = flow.lark.platform
        if code < 20_000:
            flow.lark.expire("app")
        before = len(lark.messages)
        answer = flow.server.post(f"/api/authorizations/{begun['session_id']}/card", {})
        if code < 20_000 and answer.status_code == 200:
            pytest.skip("the app's token was kept from before")
        assert answer.status_code in (400, 502, 503), answer.text
        assert answer.json()["success"] is False
        assert len(lark.messages) == before
        assert flow.session(begun)["message_id"] is None
        flow.lark.mend()
        assert flow.send_card(begun).message_id == flow.session(begun)["message_id"]

    def test_a_card_that_can_not_be_changed_now_is_changed_later(self, flow: Flow, begun: Json, message: Message):
        flow.lark.break_(endpoint="update", down=True, times=1)
        assert flow.authorize(begun).status_code == 200
        assert flow.state(begun) == ("completed", None)
        wait_until(lambda: refused(flow, message), "the platform was asked to change it")

        def shown() -> bool:
            """Whenever it is to be tried later, later is now. (The claim of the first attempt looks the same.)"""
            if (flow.row(begun)["card_due_at"] or PAST) > PAST:
                flow.change(begun, card_due_at=PAST)
            return title_of(message.versions[-1]) == "授权成功"

        wait_until(shown, "the card shows it")

    def test_an_apps_token_that_the_platform_has_forgotten_is_asked_anew(self, flow: Flow, begun: Json):
        flow.send_card(begun)
        flow.lark.expire("app")
        flow.authorize(begun)
        (message,) = [
            one for one in flow.lark.platform.messages.values() if one.message_id == flow.row(begun)["message_id"]
        ]
        flow.wait_card(message, "授权成功")


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"user": ""},
            {"user": []},
            {"user": "u", "language": "fr"},
            {"user": "u", "method": "sms"},
            {"user": "u", "scope": ["a"]},
            {"user": "u", "scope": "x" * 10_000},
            {"user": "u", "open_id": "x" * 1000},
            {"user": "u", "redirect_uri": "https://evil.example"},
        ],
    )
    def test_of_a_start(self, flow: Flow, body: Json):
        answer = flow.server.post("/api/authorizations", body)
        assert (answer.status_code, bool(answer.json()["errors"])) == (400, True)

    def test_another_app(self, flow: Flow):
        assert flow.server.post("/api/authorizations", {"user": "u", "app": "cli_other"}).status_code == 404
        assert flow.server.get("/api/authorizations/cli_other/u/token").status_code == 404

    def test_a_browser_sees_its_own_user_only_and_no_token(self, flow: Flow, name: str):
        own = flow.server.connection_token(sub=name, scopes=["authorizations:write"])
        assert flow.server.post("/api/authorizations", {"user": f"{name}-x"}, own).status_code == 403
        begun = flow.server.post("/api/authorizations", {"user": name}, own)
        assert begun.status_code == 200
        other: dict[str, Any] = flow.start(f"{name}-other")
        assert flow.server.get(f"/api/authorizations/{other['session_id']}", own).status_code == 404
        assert flow.server.get(f"/api/authorizations/{begun.json()['session_id']}", own).status_code == 200
        assert flow.server.get(f"/api/authorizations/{APP_ID}/{name}/token", own).status_code == 403
        assert flow.server.get(f"/api/authorizations/{APP_ID}/app-token", own).status_code == 403
        for path in ("/api/authorizations/audit", "/api/authorizations/events"):
            assert flow.server.get(path, own).status_code in (403, 404, 405)

    def test_without_a_token(self, flow: Flow, begun: Json):
        for path in (f"/api/authorizations/{begun['session_id']}", f"/api/authorizations/{APP_ID}/u/token"):
            assert flow.server.get(path, "").status_code == 401
        assert flow.server.post("/api/authorizations", {"user": "u"}, "").status_code == 401


def test_without_an_app_there_is_nothing(sidecar):
    for path in ("/callback?code=c&state=s", "/authorizations/x", "/api/authorizations/x"):
        assert sidecar.get(path).status_code == 404
    for path in ("/callback/lark", "/api/authorizations", "/api/authorizations/events"):
        assert sidecar.post(path, {"user": "u"}).status_code == 404
