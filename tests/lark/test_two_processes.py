"""Two processes of one installation are one sidecar to Lark, to users and to back ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from examples.fake_lark import callback_request
from tests.lark.flow import PAST, Flow, Json, ended, heading
from tests.lark.stage import APP_ID, ENCRYPT_KEY, HTTP
from tests.programs import wait_until
from tests.servers import RunningSidecar

Pair = tuple[Flow, RunningSidecar]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    environment = {}
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        environment["SIDECAR_DATABASE_URL"] = postgres.url(postgres.new_database()).replace("+psycopg", "")
    with Flow(folder / "one", **environment) as flow:
        other = flow.another(folder / "two")
        other.start()
        try:
            yield flow, other
        finally:
            other.stop()
        assert "Traceback" not in other.output()
        flow.server.stop()
        flow.check_nothing_told(other)


def at_once(*calls: Callable[[], httpx.Response]) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda call=call: answers.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_begun_at_one_and_completed_at_the_other(pair: Pair, name: str):
    flow, other = pair
    begun = flow.start(name, open_id="ou_ada")
    message = flow.send_card(begun)
    page = flow.come_back(flow.consent(begun), at=other)
    assert (page.status_code, heading(page)) == (200, "授权成功")
    assert flow.state(begun) == ("completed", None)
    flow.wait_card(message, "授权成功")
    assert {flow.token(name).json()["user_access_token"]} == {
        other.get(f"/api/authorizations/{APP_ID}/{name}/token").json()["user_access_token"]
    }


def test_the_same_return_at_both(pair: Pair, name: str):
    flow, other = pair
    begun = flow.start(name)
    location = flow.consent(begun)
    calls = [lambda at=at: flow.come_back(location, at=at) for at in (flow.server, other) * 3]
    assert sorted(page.status_code for page in at_once(*calls)) == [200, 409, 409, 409, 409, 409]


def test_renewed_once(pair: Pair, name: str):
    flow, other = pair
    flow.lark.console.access_seconds = 1
    begun = flow.authorized(name)
    flow.lark.console.access_seconds = 7200
    given = len(flow.lark.platform.grants)
    path = f"/api/authorizations/{APP_ID}/{name}/token"
    ended(flow, begun)
    answers = at_once(*[lambda server=server: server.get(path) for server in (flow.server, other) * 4])
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["user_access_token"] for answer in answers}) == 1
    assert len(flow.lark.platform.grants) == given + 1


def test_an_event_at_both_is_handled_once_and_a_replay_refused(pair: Pair, name: str):
    flow, other = pair
    begun = flow.start(name, open_id="ou_ada")
    message = flow.send_card(begun)
    value = {"session_id": begun["session_id"], "action": "reject"}
    event = flow.lark.platform.click_event(message.message_id, "ou_ada", 0, value)
    payload: Json = flow.lark.platform.new_delivery("card.action.trigger", event).payload

    def send(server: RunningSidecar, request: tuple[dict[str, str], bytes]) -> httpx.Response:
        return HTTP.post(f"{server.url}/callback/lark", content=request[1], headers=request[0])

    request = callback_request(payload, ENCRYPT_KEY)
    answers = at_once(*[lambda at=at: send(at, callback_request(payload, ENCRYPT_KEY)) for at in (flow.server, other)])
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len({answer.text for answer in answers}) == 1
    assert sorted(
        answer.status_code for answer in at_once(*[lambda at=at: send(at, request) for at in (flow.server, other)])
    ) == [200, 401]


def test_five_a_minute_over_both(pair: Pair, name: str):
    flow, other = pair
    answers = at_once(
        *[lambda at=at: at.post("/api/authorizations", {"user": name}) for at in (flow.server, other) * 4]
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 3


def test_killed_in_the_midst_it_stays_pending_and_can_be_done_again(pair: Pair, name: str):
    flow, other = pair
    begun = flow.start(name)
    location = flow.consent(begun)
    flow.lark.break_(endpoint="user_info", slow=0.8)
    asked = len(flow.lark.platform.requests)

    def come() -> None:
        with pytest.raises(httpx.HTTPError):
            flow.come_back(location, at=other)

    coming = threading.Thread(target=come)
    coming.start()
    wait_until(lambda: len(flow.lark.platform.requests) > asked, "the code was exchanged")
    other.kill()
    coming.join()
    flow.lark.mend()
    other.start()
    assert flow.state(begun) == ("pending", None)
    busy = flow.authorize(begun)
    assert busy.status_code == 409, "somebody may still be at it, for half a minute"
    flow.change(begun, exchanging_until=PAST)
    assert flow.authorize(begun).status_code == 200
