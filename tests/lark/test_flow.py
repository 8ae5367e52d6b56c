"""Users authorize: from the link or the card to the token in a back end's hand, against the local platform."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.chromium import Browser
from tests.lark.flow import Flow, ended, heading, title_of
from tests.lark.stage import APP_ID, HTTP, query_of
from tests.programs import JsClient, wait_until


def user_of_token(flow: Flow, token: str) -> str:
    """Whom the platform takes the bearer for."""
    answer = HTTP.get(f"{flow.lark.url}/open-apis/authen/v1/user_info", headers={"Authorization": f"Bearer {token}"})
    open_id: str = answer.json()["data"]["open_id"]
    return open_id


def test_a_link_leads_to_a_token(flow: Flow, name: str):
    begun = flow.start(name)
    asked = query_of(begun["authorize_url"])
    assert (asked["code_challenge_method"], len(asked["code_challenge"])) == ("S256", 43)
    assert "offline_access" in asked["scope"].split()
    assert flow.state(begun) == ("pending", None)
    assert flow.token(name).json()["code"] == "authentication_required"
    page = flow.authorize(begun)
    assert (page.status_code, heading(page)) == (200, "授权成功")
    told = flow.session(begun)
    assert (told["state"], told["open_id"], told["name"]) == ("completed", "ou_ada", "李爱达 Ada Li")
    assert told["email"] != "ada@example.com", "masked"
    assert "+8613800001815" not in str(told)
    token = flow.token(name).json()
    assert user_of_token(flow, token["user_access_token"]) == "ou_ada"
    assert (token["open_id"], token["is_expiring"]) == ("ou_ada", False)
    assert 7100 < token["expires_in"] <= 7200
    items = flow.server.get(f"/api/authorizations/audit?app={APP_ID}&user={name}").json()["items"]
    assert [item["use"] for item in items] == ["token"]


def test_in_english(flow: Flow, name: str):
    begun = flow.start(name, language="en", open_id="ou_ada")
    message = flow.send_card(begun)
    assert title_of(message.versions[0]) == "Authorization request"
    assert flow.lark.click(message.message_id, "ou_ada")["toast"]["content"] == "Follow the link to authorize"
    assert heading(flow.authorize(begun)) == "Authorized"
    flow.wait_card(message, "Authorized")


def test_a_card_changes_in_place(flow: Flow, name: str):
    begun = flow.start(name, open_id="ou_ada")
    message = flow.send_card(begun)
    assert flow.send_card(begun) is message, "sent once"
    assert message.receivers == ["ou_ada"]
    shown = flow.lark.click(message.message_id, "ou_ada", button=0)
    assert shown == {"toast": {"type": "info", "content": "请点击链接完成授权"}}
    link = message.versions[-1]["elements"][1]["actions"][0]["url"]
    assert link == begun["authorize_url"]
    assert heading(flow.authorize({"authorize_url": link})) == "授权成功"
    flow.wait_card(message, "授权成功")
    assert (message.changes, message.versions[-1]["header"]["template"]) == (["patch"], "green")
    assert "李爱达 Ada Li" in str(message.versions[-1])
    assert "action" not in [element["tag"] for element in message.versions[-1]["elements"]], "no buttons are left"
    assert flow.session(begun)["method"] == "http_callback"
    again = flow.lark.click(message.message_id, "ou_ada", value={"session_id": begun["session_id"], "action": "reject"})
    assert again["toast"]["type"] == "success", "too late: it is done, and stays so"
    assert flow.state(begun)[0] == "completed"


def test_cancelled_on_the_card(flow: Flow, name: str):
    begun = flow.start(name, open_id="ou_ada")
    message = flow.send_card(begun)
    assert flow.lark.click(message.message_id, "ou_ada", button=1)["toast"]["content"] == "已取消授权"
    assert (title_of(message.versions[-1]), message.changes) == ("已取消授权", ["callback"])
    assert flow.state(begun) == ("rejected", "user_rejected")
    page = flow.authorize(begun)
    assert (page.status_code, heading(page)) == (409, "授权失败")
    assert flow.nothing_stored(begun)


def test_denied_on_the_platforms_page(flow: Flow, name: str):
    begun = flow.start(name, open_id="ou_ada")
    message = flow.send_card(begun)
    page = flow.come_back(flow.consent(begun, allow=False))
    assert (page.status_code, heading(page)) == (409, "授权失败")
    assert flow.state(begun) == ("rejected", "user_rejected")
    flow.wait_card(message, "已取消授权")


def test_a_card_to_a_group_is_for_whoever_clicks_first(flow: Flow, name: str):
    begun = flow.start(name)
    message = flow.send_card(begun, receive_id_type="chat_id", receive_id="oc_everyone")
    flow.lark.click(message.message_id, "ou_bob", button=0)
    other = flow.lark.click(message.message_id, "ou_eve", button=1)
    assert other["toast"]["type"] == "warning"
    assert flow.state(begun) == ("pending", None)
    assert flow.authorize(begun, "ou_eve").status_code == 403
    assert flow.authorize(begun, "ou_bob").status_code == 200
    flow.wait_card(message, "授权成功")
    assert "<b>" not in str(message.versions[-1]), "names are text"


def test_the_page_follows(flow: Flow, name: str, browser: Browser):
    begun = flow.start(name)
    browser.open(begun["page"])
    browser.wait_for("document.querySelector('h1')?.textContent.includes('等待授权')")
    flow.authorize(begun)
    browser.wait_for("document.querySelector('h1')?.textContent.includes('授权成功')")
    assert browser.errors == []


def test_the_users_browser_is_told(flow: Flow, name: str):
    token = flow.server.connection_token(sub=name)
    with JsClient() as client:
        url = f"{flow.server.url}/project-dashboard/ws"
        client.connect(url, path="/socket.io", transports=["websocket"], auth={"token": token})
        client.next("connect")
        first = flow.start(name, open_id="ou_ada")
        flow.authorize(first, "ou_eve")
        flow.authorize(first)
        second = flow.start(name)
        flow.come_back(flow.consent(second, allow=False))
        flow.server.request("DELETE", f"/api/authorizations/{APP_ID}/{name}/token")
        told = [client.next("event", lambda line: str(line).count("authorization_") > 0) for _ in range(4)]
    bodies = [line["args"][0] for line in told]
    assert [(body["type"], body["payload"]["state"], body["payload"]["reason"]) for body in bodies] == [
        ("authorization_failed", "pending", "wrong_user"),
        ("authorization_completed", "completed", None),
        ("authorization_rejected", "rejected", "user_rejected"),
        ("authorization_revoked", "completed", "revoked"),
    ]


def test_five_a_minute(flow: Flow, name: str):
    for _ in range(5):
        flow.start(name)
    answer = flow.server.post("/api/authorizations", {"user": name})
    assert (answer.status_code, 0 < int(answer.headers["Retry-After"]) <= 60) == (429, True)


def test_a_revoked_token_is_gone(flow: Flow, name: str):
    begun = flow.authorized(name)
    path = f"/api/authorizations/{APP_ID}/{name}/token"
    assert flow.server.request("DELETE", path).json() == {"success": True, "revoked": True}
    assert flow.token(name).json()["code"] == "authentication_required"
    assert flow.server.request("DELETE", path).json() == {"success": True, "revoked": False}
    row = flow.row(begun)
    assert (row["user_access_token"], row["refresh_token"]) == (None, None)


def test_an_apps_token(flow: Flow):
    for kind in ("tenant", "app"):
        answer = flow.server.get(f"/api/authorizations/{APP_ID}/app-token?kind={kind}").json()
        assert answer["token"] in flow.lark.platform.app_tokens


class TestRenewal:
    @pytest.fixture(autouse=True)
    def short(self, flow: Flow):
        """Access tokens that are to be renewed a moment after they were given."""
        flow.lark.console.access_seconds = 1
        yield
        flow.lark.console.access_seconds = 7200

    def test_one_renewal_for_all_who_ask(self, flow: Flow, name: str):
        """A refresh token holds once: two renewals would lose the user."""
        before = len(flow.lark.platform.grants)
        begun = flow.authorized(name)
        first = flow.lark.platform.grants[-1].access
        ended(flow, begun)
        answers: list[Any] = []
        asking = [threading.Thread(target=lambda: answers.append(flow.token(name))) for _ in range(8)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert {answer.status_code for answer in answers} == {200}
        tokens = {answer.json()["user_access_token"] for answer in answers}
        assert len(tokens) == 1
        assert first not in tokens
        assert len(flow.lark.platform.grants) == before + 2

    @pytest.mark.parametrize("why", ["revoked", "expired", "used"])
    def test_a_refresh_token_that_holds_no_more(self, flow: Flow, name: str, why: str):
        begun = flow.authorized(name)
        grant = flow.lark.platform.grants[-1]
        grant.revoked, grant.used = why == "revoked", why == "used"
        if why == "expired":
            grant.refresh_ends = 0
        ended(flow, begun)
        first, then = flow.token(name), flow.token(name)
        known = {(502, "token_refresh_failed"), (404, "user_token_expired")}  # the latter if the job was there before
        assert (first.status_code, first.json()["code"]) in known
        assert (then.status_code, then.json()["code"]) == (404, "user_token_expired")
        wait_until(lambda: flow.row(begun)["user_access_token"] is None, "it is forgotten, by the job at the latest")
        flow.authorized(name)
        assert flow.token(name).status_code == 200

    def test_a_platform_that_is_away_costs_nothing(self, flow: Flow, name: str):
        begun = flow.authorized(name)
        flow.lark.break_(endpoint="token", down=True)
        ended(flow, begun)
        for fault in ({"down": True}, {"code": 20050}, {"code": 20072}, {"text": "<html>"}, {"slow": 20.0}):
            flow.lark.mend()
            flow.lark.break_(endpoint="token", **fault)
            answer = flow.token(name)
            assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable"), fault
        flow.lark.mend()
        assert flow.token(name).status_code == 200
