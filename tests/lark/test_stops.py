"""A server that is asked to end in the midst of something with the platform does it to its end: what has been used up
there (a code, a refresh token) would be lost to the user."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.lark.flow import Flow, ended, heading
from tests.programs import wait_until

Answers = list[httpx.Response]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    with Flow(tmp_path_factory.mktemp("stops"), SIDECAR_LARK_TIMEOUT_SECONDS="5") as flow:
        yield flow
        flow.server.stop()
        flow.check_nothing_told()


def stopped_during(flow: Flow, endpoint: str, act: Callable[[], httpx.Response] | None) -> Answers:
    """Stop it while the platform takes its time at this endpoint, and start it again."""
    flow.lark.break_(endpoint=endpoint, slow=1.5, times=1)
    answers: Answers = []
    acting = threading.Thread(target=lambda: answers.append(act()) if act is not None else None)
    acting.start()
    wait_until(lambda: flow.lark.platform.faults[-1].times == 0, "the platform was asked")
    assert flow.server.stop() == 0
    acting.join()
    flow.lark.mend()
    flow.server.start()
    return answers


@pytest.mark.parametrize("endpoint", ["token", "user_info"])
def test_while_a_user_comes_back(flow: Flow, name: str, endpoint: str):
    begun = flow.start(name)
    location = flow.consent(begun)
    (page,) = stopped_during(flow, endpoint, lambda: flow.come_back(location))
    assert (page.status_code, heading(page)) == (200, "授权成功")
    assert flow.state(begun) == ("completed", None)
    assert flow.token(name).status_code == 200


def test_while_a_back_end_waits_for_a_renewal(flow: Flow, name: str):
    flow.lark.console.access_seconds = 1
    begun = flow.authorized(name)
    flow.lark.break_(endpoint="token", down=True)  # so that the job can't be quicker
    ended(flow, begun)
    flow.lark.mend()
    (answer,) = stopped_during(flow, "token", lambda: flow.token(name))
    assert answer.status_code == 200
    assert flow.token(name).json()["user_access_token"] == answer.json()["user_access_token"]


def test_while_a_token_is_renewed_by_the_clock(flow: Flow, name: str):
    flow.forget_lease()
    flow.lark.console.access_seconds = 3
    flow.authorized(name, "ou_eve")
    flow.lark.console.access_seconds = 7200
    stopped_during(flow, "token", None)
    assert flow.token(name).status_code == 200
    assert [grant.used for grant in flow.lark.platform.grants if grant.open_id == "ou_eve"] == [True, False]
