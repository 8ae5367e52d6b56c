"""`UserTokenAuth` in httpx, in httpx with asyncio, and in requests: sidecar and platform answer as the test says."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from sidecar.client import ApiError, SidecarClient
from sidecar.client.lark import AuthenticationRequired, UserTokenAuth
from tests.client.lark_sidecar import TOKEN, StandIn, stand_in
from tests.programs import ROOT

APP, USER = "cli_0123456789abcdef", "ada/ä"
TOKENS = "GET /api/authorizations/cli_0123456789abcdef/ada%2F%C3%A4/token"
BEGIN = "POST /api/authorizations"
TABLE = "/open-apis/apaas/v1/workspaces/w1/tables/tasks/records"
ROWS = {"code": 0, "data": {"total": 1, "items": "[]"}}
EXPIRED = (401, {"code": 99991677, "msg": "Authentication token expired."})
REQUIRED = (404, {"code": "authentication_required", "detail": "The user has not authorized this app."})

Call = Callable[..., tuple[int, Any]]


def with_httpx(method: str, url: str, auth: UserTokenAuth, **options: Any) -> tuple[int, Any]:
    with httpx.Client(auth=auth, follow_redirects=True) as client:
        response = client.request(method, url, **options)
    return response.status_code, response.json()


def with_asyncio(method: str, url: str, auth: UserTokenAuth, **options: Any) -> tuple[int, Any]:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(auth=auth, follow_redirects=True) as client:
            return await client.request(method, url, **options)

    response = asyncio.run(ask())
    return response.status_code, response.json()


def with_requests(method: str, url: str, auth: UserTokenAuth, **options: Any) -> tuple[int, Any]:
    requests = pytest.importorskip("requests")
    with requests.Session() as session:
        session.auth = auth
        response = session.request(method, url, **options)
    return response.status_code, response.json()


@pytest.fixture(params=[with_httpx, with_asyncio, with_requests])
def call(request: pytest.FixtureRequest) -> Call:
    way: Call = request.param
    return way


@pytest.fixture
def sidecar() -> Iterator[StandIn]:
    with stand_in() as sidecar:
        yield sidecar


@pytest.fixture
def lark() -> Iterator[StandIn]:
    with stand_in() as lark:
        lark.says(f"GET {TABLE}", (200, ROWS))
        lark.says(f"POST {TABLE}", (200, ROWS))
        yield lark


@pytest.fixture
def auth(sidecar: StandIn) -> Iterator[UserTokenAuth]:
    with SidecarClient(sidecar.url, TOKEN, retries=0) as client:
        yield UserTokenAuth(APP, USER, client=client)


def token(text: str, expires_in: float = 7200) -> tuple[int, Any]:
    return 200, {"user_access_token": text, "expires_in": expires_in, "is_expiring": False, "scope": "", "open_id": "o"}


def begun(number: int, seconds: float = 600) -> tuple[int, Any]:
    ends = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return 200, {"session_id": f"s{number}", "authorize_url": f"https://accounts.test/{number}", "expires_at": ends}


def test_the_users_token_is_in_each_call(call: Call, lark: StandIn, sidecar: StandIn, auth: UserTokenAuth):
    sidecar.says(TOKENS, token("u-1"))
    for _ in range(2):
        assert call("GET", lark.url + TABLE, auth) == (200, ROWS)
    assert lark.tokens == ["Bearer u-1"] * 2
    assert sidecar.tokens == [f"Token {TOKEN}"], "asked for once"


def test_a_token_that_lark_refuses_is_replaced_once(call: Call, lark: StandIn, sidecar: StandIn, auth: UserTokenAuth):
    sidecar.says(TOKENS, token("u-1"), token("u-2"), token("u-3"))
    lark.says(f"POST {TABLE}", EXPIRED, (200, ROWS))
    assert call("POST", lark.url + TABLE, auth, json={"records": "[]"}) == (200, ROWS)
    assert lark.tokens == ["Bearer u-1", "Bearer u-2"]
    assert lark.bodies(f"POST {TABLE}") == [{"records": "[]"}] * 2
    lark.says(f"POST {TABLE}", EXPIRED)
    assert call("POST", lark.url + TABLE, auth, json={})[0] == 401, "not again and again"
    assert lark.tokens[2:] == ["Bearer u-2", "Bearer u-3"]


def test_a_body_that_can_not_be_sent_again_is_not(lark: StandIn, sidecar: StandIn, auth: UserTokenAuth):
    """httpx would raise StreamConsumed; requests would send what is left of the file."""
    sidecar.says(TOKENS, token("u-1"), token("u-2"), token("u-3"))
    lark.says(f"POST {TABLE}", EXPIRED)
    headers = {"Content-Length": "2"}
    assert with_httpx("POST", lark.url + TABLE, auth, content=iter([b"{}"]), headers=headers)[0] == 401
    assert with_requests("POST", lark.url + TABLE, auth, data=io.BytesIO(b"{}"))[0] == 401
    assert lark.tokens == ["Bearer u-1", "Bearer u-2"]


def test_a_user_who_has_not_authorized_is_told_where_to(
    call: Call, lark: StandIn, sidecar: StandIn, auth: UserTokenAuth
):
    sidecar.says(TOKENS, REQUIRED)
    sidecar.says(BEGIN, begun(1), begun(2))
    sidecar.says("GET /api/authorizations/s1", (200, {"state": "pending"}))
    for _ in range(2):
        with pytest.raises(AuthenticationRequired, match="has not authorized") as required:
            call("GET", lark.url + TABLE, auth)
        assert required.value.authorize_url == "https://accounts.test/1"
    assert sidecar.bodies(BEGIN) == [{"app": APP, "user": USER}], "a user may begin five a minute"
    sidecar.says("GET /api/authorizations/s1", (200, {"state": "rejected"}))
    with pytest.raises(AuthenticationRequired) as required:
        call("GET", lark.url + TABLE, auth)
    assert required.value.authorize_url == "https://accounts.test/2"
    assert lark.tokens == []


def test_a_dead_token_that_can_not_be_renewed(call: Call, lark: StandIn, sidecar: StandIn, auth: UserTokenAuth):
    """The user has taken the grant back at Lark: the sidecar is told which token it is, to try."""
    sidecar.says(TOKENS, token("u-1"), REQUIRED)
    sidecar.says(BEGIN, begun(1))
    lark.says(f"GET {TABLE}", (400, {"code": 99991668, "msg": "Invalid access token"}))
    with pytest.raises(AuthenticationRequired) as required:
        call("GET", lark.url + TABLE, auth)
    assert required.value.session_id == "s1"
    assert sidecar.queries[:2] == ["", f"refused={hashlib.sha256(b'u-1').hexdigest()}"]
    lark.says(f"GET {TABLE}", (200, ROWS))
    sidecar.says(TOKENS, token("u-2"))
    assert call("GET", lark.url + TABLE, auth) == (200, ROWS)
    assert lark.tokens == ["Bearer u-1", "Bearer u-2"]


def test_tokens_are_not_renewed_again_and_again(call: Call, lark: StandIn, sidecar: StandIn, auth: UserTokenAuth):
    """As they would be when they are sent to another Lark than that of the app."""
    sidecar.says(TOKENS, token("u-1"), token("u-2"))
    lark.says(f"GET {TABLE}", EXPIRED)
    for _ in range(3):
        assert call("GET", lark.url + TABLE, auth)[0] == 401
    assert len([query for query in sidecar.queries if query]) == 1


def test_what_is_not_the_tokens_fault_is_the_callers(call: Call, lark: StandIn, sidecar: StandIn, auth: UserTokenAuth):
    sidecar.says(TOKENS, token("u-1"))
    for answer in ((400, {"code": 99991679, "msg": "no permission"}), (401, {}), (403, "no"), (500, {}), (401, [])):
        lark.says(f"GET {TABLE}", answer)
        assert call("GET", lark.url + TABLE, auth) == answer
    assert len(lark.tokens) == 5


def test_another_host_never_gets_the_token(call: Call, lark: StandIn, sidecar: StandIn, auth: UserTokenAuth):
    """Not even a fresh one for its 401, when Lark redirects there."""
    sidecar.says(TOKENS, token("u-1"), token("u-2"))
    with stand_in() as other:
        other.says("GET /file", EXPIRED)
        lark.says(f"GET {TABLE}", (302, f"{other.url}/file".replace("127.0.0.1", "localhost")))
        assert call("GET", lark.url + TABLE, auth)[0] == 401
        assert other.tokens == [None]
    assert lark.tokens == ["Bearer u-1"]


def test_a_token_is_not_used_to_its_very_end(lark: StandIn, sidecar: StandIn, auth: UserTokenAuth):
    sidecar.says(TOKENS, token("u-1", expires_in=50), token("u-2", expires_in=7200))
    assert [auth.token(), auth.token(), auth.token()] == ["u-1", "u-2", "u-2"]


def test_threads_ask_once(sidecar: StandIn, auth: UserTokenAuth):
    sidecar.says(TOKENS, token("u-1"), token("u-2"), token("u-3"))
    assert auth.token() == "u-1"
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: auth._newer("u-1", 99991677), range(20))) == {"u-2"}


def test_no_authorization_can_be_begun(sidecar: StandIn, auth: UserTokenAuth):
    sidecar.says(TOKENS, (404, {"code": "user_token_expired", "detail": "It has expired."}))
    sidecar.says(BEGIN, (403, {"code": "not_allowed", "detail": "The token lacks authorizations:write."}))
    with pytest.raises(AuthenticationRequired, match=r"It has expired.*lacks authorizations:write") as required:
        auth.token()
    assert required.value.authorize_url is None
    sidecar.says(BEGIN, begun(1, seconds=30), begun(2))
    with pytest.raises(AuthenticationRequired):
        auth.token()
    with pytest.raises(AuthenticationRequired) as required:
        auth.token()
    assert required.value.session_id == "s2", "the first ends too soon to be pointed at again"


def test_the_authorization_is_begun_as_asked(sidecar: StandIn):
    auth = UserTokenAuth(APP, USER, url=sidecar.url, token=TOKEN, open_id="ou_ada", scope="a b", language="en")
    sidecar.says(TOKENS, REQUIRED)
    sidecar.says(BEGIN, begun(1))
    with pytest.raises(AuthenticationRequired):
        auth.token()
    asked = {"app": APP, "user": USER, "open_id": "ou_ada", "scope": "a b", "language": "en"}
    assert sidecar.bodies(BEGIN) == [asked]
    auth.close()


@pytest.mark.parametrize(
    ("status", "code"), [(503, "provider_unavailable"), (404, "not_found"), (401, "unauthenticated")]
)
def test_what_only_the_sidecars_owner_can_mend_is_no_request_to_the_user(
    sidecar: StandIn, auth: UserTokenAuth, status: int, code: str
):
    sidecar.says(TOKENS, (status, {"code": code, "detail": "No."}))
    with pytest.raises(ApiError) as failed:
        auth.token()
    assert not isinstance(failed.value, AuthenticationRequired)
    assert failed.value.code == code


def test_a_token_is_not_shown(sidecar: StandIn, auth: UserTokenAuth):
    sidecar.says(TOKENS, token("u-1"))
    auth.token()
    assert repr(auth) == f"UserTokenAuth('{APP}', '{USER}')"


def test_it_needs_no_requests():
    """Nor anything else than httpx."""
    code = "import sys; sys.modules['requests'] = None; import sidecar.client.lark; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    assert not loaded & {"gevent", "flask", "structlog", "pydantic", "lark_oapi", "websockets"}


def test_the_example_of_the_page(lark: StandIn, sidecar: StandIn, monkeypatch: pytest.MonkeyPatch, capsys):
    """docs/lark.md, as it stands but for Lark's address."""
    pytest.importorskip("requests")
    page = (ROOT / "docs" / "lark.md").read_text().partition("## Calling Lark as the user")[2]
    code = page.partition("```python\n")[2].partition("```")[0].replace("https://open.feishu.cn", lark.url)
    monkeypatch.setenv("SIDECAR_URL", sidecar.url)
    monkeypatch.setenv("SIDECAR_TOKEN", TOKEN)
    tokens = f"GET /api/authorizations/{APP}/ada/token"
    sidecar.says(tokens, token("u-1"))
    lark.says("GET /open-apis/apaas/v1/workspaces/workspace_x/tables/tasks/records", (200, ROWS))
    names: dict[str, Any] = {}
    exec(code, names)
    names["auth"].close()
    assert names["rows"] == ROWS
    assert lark.tokens == ["Bearer u-1"] * 2
    sidecar.says(tokens, REQUIRED)
    sidecar.says(BEGIN, begun(1))
    exec(code, names)
    names["auth"].close()
    assert capsys.readouterr().out == "Please authorize: https://accounts.test/1\n"
