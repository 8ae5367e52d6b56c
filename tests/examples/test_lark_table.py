"""examples/lark_table.py: a table of the local platform, read as a user whose token a real sidecar holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from examples.fake_lark import FakeLark
from sidecar.client import SidecarClient
from sidecar.client.lark import AuthenticationRequired, UserTokenAuth
from tests.conftest import Start
from tests.lark.stage import APP_ID, APP_SECRET, HTTP, REDIRECT_URI, console
from tests.programs import DEADLINE_SECONDS, ROOT, running, wait_until
from tests.servers import RunningSidecar


@pytest.fixture
def lark() -> Iterator[FakeLark]:
    with FakeLark(console()) as lark:
        yield lark


@pytest.fixture
def sidecar(start_sidecar: Start, lark: FakeLark) -> RunningSidecar:
    return start_sidecar(
        SIDECAR_LARK_APP_ID=APP_ID,
        SIDECAR_LARK_APP_SECRET=APP_SECRET,
        SIDECAR_LARK_API_URL=lark.url,
        SIDECAR_LARK_REDIRECT_URI=REDIRECT_URI,
    )


def command(sidecar: RunningSidecar, lark: FakeLark, *more: str) -> tuple[list[str], dict[str, str]]:
    token = sidecar.new_token("authorizations:read", "authorizations:write", projects=[APP_ID])
    place = ["--app", APP_ID, "--user", "ada", "--workspace", "w1", "--table", "tasks", "--lark", lark.url]
    environment = {"SIDECAR_URL": sidecar.url, "SIDECAR_TOKEN": token, "PATH": "/usr/bin:/bin"}
    return [sys.executable, str(ROOT / "examples" / "lark_table.py"), *place, *more], environment


def authorize(sidecar: RunningSidecar, lark: FakeLark, url: str) -> None:
    """What the user does in the browser."""
    back = urlsplit(lark.grant_now(url, "ou_ada")["location"])
    assert HTTP.get(f"{sidecar.url}{back.path}?{back.query}").status_code == 200


def test_it_waits_for_the_user_and_reads_the_table(sidecar: RunningSidecar, lark: FakeLark, tmp_path: Path):
    arguments, environment = command(sidecar, lark, "--wait", "--add", "title=Tee 茶", "done=no")
    output = tmp_path / "output"
    with running(arguments, output, environment) as process:
        wait_until(lambda: "has to authorize: " in output.read_text(), "it tells where the user authorizes")
        authorize(sidecar, lark, output.read_text().split("authorize: ", 1)[1].split()[0])
        assert process.wait(DEADLINE_SECONDS) == 0, output.read_text()
    said = output.read_text()
    assert "The authorization is completed." in said
    assert '"title": "Tee 茶", "done": "no"' in said.partition("httpx GET:")[2]
    assert '"_created_by": "ou_ada"' in said.partition("requests GET:")[2]
    assert not any(grant.access in said for grant in lark.platform.grants)


def test_without_waiting_it_ends(sidecar: RunningSidecar, lark: FakeLark):
    arguments, environment = command(sidecar, lark)
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert done.returncode == 1
    assert done.stdout.startswith(f"ada has to authorize: {lark.url}/open-apis/authen/v1/authorize?")
    assert "Traceback" not in done.stderr


def test_a_token_that_lark_takes_no_more_and_a_grant_that_the_user_took_back(sidecar: RunningSidecar, lark: FakeLark):
    with SidecarClient(sidecar.url, sidecar.token) as client:
        authorize(sidecar, lark, client.start_authorization("ada")["authorize_url"])
        auth = UserTokenAuth(APP_ID, "ada", client=client)
        address = f"{lark.url}/open-apis/apaas/v1/workspaces/w1/tables/tasks/records"
        assert HTTP.get(address, auth=auth).json()["code"] == 0
        lark.expire("access")
        assert HTTP.get(address, auth=auth).json()["code"] == 0, "renewed because Lark refused it"
        assert len(lark.platform.grants) == 2
        lark.revoke("ou_ada")
        auth = UserTokenAuth(APP_ID, "ada", client=client)  # one renews once a minute
        for _ in range(2):
            with pytest.raises(AuthenticationRequired) as required:
                HTTP.get(address, auth=auth)
        assert required.value.authorize_url is not None
        authorize(sidecar, lark, required.value.authorize_url)
        assert HTTP.get(address, auth=auth).json()["code"] == 0
        assert client.forget_user_token(APP_ID, "ada") is True
        with pytest.raises(AuthenticationRequired):
            UserTokenAuth(APP_ID, "ada", client=client).token()
        assert client.app_token(APP_ID)["token"] in lark.platform.app_tokens
