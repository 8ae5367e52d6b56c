"""The same flow set up otherwise: without an encrypt key, with a card template of one's own, in English, with a second
app."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from examples.fake_lark import Message, callback_request, encrypt
from tests.lark.flow import Flow, Json, heading
from tests.lark.stage import APP_ID, ENCRYPT_KEY, HTTP, VERIFICATION_TOKEN
from tests.lark.test_bad_input import post, signed
from tests.programs import wait_until

TEMPLATE = "AAqkTestTemplate"
SECOND, SECOND_SECRET, SECOND_KEY = "cli_second", "secret-of-the-second-app", "encrypt-key-of-the-second-app"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    """No encrypt key; a template; English."""
    settings = {
        "SIDECAR_LARK_ENCRYPT_KEY": "",
        "SIDECAR_LARK_CARD_TEMPLATE_ID": TEMPLATE,
        "SIDECAR_LARK_LANGUAGE": "en",
    }
    with Flow(tmp_path_factory.mktemp("plain"), **settings) as flow:
        flow.lark.console.encrypt_key = ""
        yield flow
        flow.server.stop()
        flow.check_nothing_told()


class TestWithoutAnEncryptKey:
    def test_with_a_template_of_ones_own(self, plain: Flow, name: str):
        begun = plain.start(name, open_id="ou_ada")
        message = plain.send_card(begun)
        told = message.versions[0]["data"]
        assert (told["template_id"], told["template_variable"]["state"]) == (TEMPLATE, "pending")
        assert told["template_variable"]["authorize_url"] == begun["authorize_url"]
        assert (
            plain.lark.click(message.message_id, "ou_ada", button=0)["toast"]["content"]
            == "Follow the link to authorize"
        )
        assert heading(plain.authorize(begun)) == "Authorized"
        wait_until(lambda: shown(message) == "completed", "the card shows it")
        assert message.versions[-1]["data"]["template_variable"]["authorize_url"] == ""

    def test_cancelled(self, plain: Flow, name: str):
        begun = plain.start(name, open_id="ou_ada")
        message = plain.send_card(begun)
        assert plain.lark.click(message.message_id, "ou_ada", button=1)["toast"]["content"] == "Authorization declined"
        assert (message.changes, message.versions[-1]["data"]["template_variable"]["state"]) == (
            ["callback"],
            "rejected",
        )

    def test_the_verification_token_proves_it(self, plain: Flow, name: str):
        assert plain.lark.verify()
        begun = plain.start(name, open_id="ou_ada")
        message = plain.send_card(begun)
        value = {"session_id": begun["session_id"], "action": "reject"}
        event = plain.lark.platform.click_event(message.message_id, "ou_ada", 0, value)
        payload: Json = plain.lark.platform.new_delivery("card.action.trigger", event).payload
        header = payload["header"]
        for token in ("wrong", "", None, [VERIFICATION_TOKEN], VERIFICATION_TOKEN + "x"):
            forged = {**payload, "header": {**header, "token": token}}
            assert post(plain, callback_request(forged, "")).status_code == 401, token
        without = {**payload, "header": {key: value for key, value in header.items() if key != "token"}}
        assert post(plain, callback_request(without, "")).status_code == 401
        hidden = json.dumps({"encrypt": encrypt(json.dumps(payload), "any key")}).encode()
        assert post(plain, ({"Content-Type": "application/json"}, hidden)).status_code == 401
        asked = {"type": "url_verification", "challenge": "c", "token": "wrong"}
        assert post(plain, callback_request(asked, "")).status_code == 401
        assert plain.state(begun) == ("pending", None)
        first = post(plain, callback_request(payload, ""))
        assert first.json()["toast"]["content"] == "Authorization declined"
        assert post(plain, callback_request(payload, "")).json() == first.json(), "the same event is handled once"

    def test_pages_are_in_english(self, plain: Flow):
        page = HTTP.get(f"{plain.server.url}/callback", params={"state": "unknown", "code": "c"})
        assert (page.status_code, heading(page), 'lang="en"' in page.text) == (404, "Not authorized", True)


def shown(message: Message) -> str:
    state: str = message.versions[-1]["data"]["template_variable"]["state"]
    return state


@pytest.fixture(scope="module")
def second(one_flow: Flow) -> Flow:
    """An app of the table beside that of the settings."""
    done = one_flow.server.cli("lark", "app", "add", SECOND, stdin=f"{SECOND_SECRET}\nv-2\n{SECOND_KEY}\n".encode())
    assert done.returncode == 0, done.stderr
    assert SECOND_SECRET not in done.stdout + done.stderr
    return one_flow


class TestASecondApp:
    def event(self, flow: Flow, begun: Json, key: str, app: str) -> httpx.Response:
        message = flow.lark.platform.messages[flow.session(begun)["message_id"]]
        value = {"session_id": begun["session_id"], "action": "reject"}
        event = flow.lark.platform.click_event(message.message_id, "ou_ada", 0, value)
        payload = flow.lark.platform.new_delivery("card.action.trigger", event).payload
        payload["header"] |= {"app_id": app, "token": "v-2" if app == SECOND else VERIFICATION_TOKEN}
        return post(flow, callback_request(payload, key))

    def test_its_callbacks_are_known_by_its_key(self, second: Flow):
        asked = {"type": "url_verification", "challenge": "c-2", "token": "v-2"}
        for path in ("/callback/lark", f"/callback/lark/{SECOND}"):
            assert post(second, callback_request(asked, SECOND_KEY), path).json() == {"challenge": "c-2"}
        assert post(second, callback_request(asked, SECOND_KEY), f"/callback/lark/{APP_ID}").status_code == 401

    @pytest.mark.parametrize("key", [ENCRYPT_KEY, SECOND_KEY])
    def test_what_is_wrong_is_told_of_the_right_app(self, second: Flow, key: str):
        """And not what another app makes of it."""
        stale = post(second, signed(b"{}", key, at=-3600, nonce=f"stale-{key}"))
        assert (stale.status_code, "minutes" in stale.json()["detail"]) == (401, True)
        unreadable = post(second, signed(b"{", key, nonce=f"unreadable-{key}"))
        assert unreadable.status_code == 400

    def test_it_can_do_nothing_to_the_others_authorizations(self, second: Flow, name: str):
        begun = second.start(name, open_id="ou_ada")
        second.send_card(begun)
        assert self.event(second, begun, SECOND_KEY, APP_ID).status_code == 401, "it says to be the other"
        answer = self.event(second, begun, SECOND_KEY, SECOND)
        assert (answer.status_code, answer.json()["toast"]["type"]) == (200, "error")
        assert second.state(begun) == ("pending", None)
        assert self.event(second, begun, ENCRYPT_KEY, APP_ID).json()["toast"]["content"] == "已取消授权"

    def test_tokens_are_each_apps_own(self, second: Flow, name: str):
        second.authorized(name)
        other = second.server.get(f"/api/authorizations/{SECOND}/{name}/token")
        assert (other.status_code, other.json()["code"]) == (404, "authentication_required")
        limited = second.server.new_token("authorizations:read", "authorizations:write", projects=[SECOND])
        assert second.server.get(f"/api/authorizations/{APP_ID}/{name}/token", limited).status_code in (403, 404)
        assert second.server.post("/api/authorizations", {"user": name}, limited).status_code in (403, 404)
        begun = second.server.post("/api/authorizations", {"user": name, "app": SECOND}, limited)
        assert (begun.status_code, f"client_id={SECOND}" in begun.text) == (200, True)

    def test_removed_it_is_unknown(self, second: Flow, name: str):
        assert second.server.cli("lark", "app", "remove", SECOND).returncode == 0
        assert second.server.post("/api/authorizations", {"user": name, "app": SECOND}).status_code == 404
        asked = {"type": "url_verification", "challenge": "c-2", "token": "v-2"}
        assert post(second, callback_request(asked, SECOND_KEY)).status_code == 401


def test_a_callback_without_a_length_that_goes_on_and_on(flow: Flow):
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    answer = HTTP.post(f"{flow.server.url}/callback/lark", content=endless())
    assert answer.status_code in (411, 413)


def test_a_token_is_renewed_before_anybody_asks(flow: Flow, name: str):
    def given() -> int:
        return sum(grant.open_id == "ou_eve" for grant in flow.lark.platform.grants)

    before = given()
    flow.lark.console.access_seconds = 3
    flow.authorized(name, "ou_eve")
    flow.lark.console.access_seconds = 7200
    wait_until(lambda: given() == before + 2, "it is renewed")
    uses = flow.server.get(f"/api/authorizations/audit?user={name}").json()["items"]
    assert uses == []
