"""Authorizations over HTTP: who may, what is said of each failure, and what the pages tell. The platform is a script in
this process (tests/services/authorizing.py); tests/lark/ has a real one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import load_settings
from sidecar import factory
from sidecar.domain import errors
from sidecar.factory import Sidecar, create_app
from sidecar.http.authorization_texts import ERRORS, STATES, of_error, of_state
from sidecar.http.errors import STATUS
from tests.postgres import Postgres
from tests.services.authorizing import ALICE, BOB, Platform

URL = "/api/authorizations"
APP = {"lark_app_id": "cli_a", "lark_app_secret": "the-secret-of-a", "lark_redirect_uri": "https://x.example/callback"}
SUCCEEDED = {"zh": "授权成功", "en": "Authorized"}
FAILED = {"zh": "授权失败", "en": "Not authorized"}


class Site:
    """A whole sidecar in this process, asked by WSGI."""

    def __init__(self, folder: Path, **settings: Any):
        self.sidecar: Sidecar = create_app(load_settings(instance_dir=folder, rate_limit="off", **settings))
        self.sidecar.start()
        self.client = self.sidecar.app.test_client()
        self.token = self.new_token("admin")

    def new_token(self, *scopes: str, projects: list[str] | None = None) -> str:
        text: str = self.sidecar.core.tokens.create("shop", scopes, projects).text
        return text

    def browser(self, user: str) -> str:
        connections = self.sidecar.core.connections
        scopes = ["authorizations:read", "authorizations:write"]
        text: str = connections.issue(connections.identify(self.token), sub=user, scopes=scopes).text
        return text

    def ask(self, method: str, path: str, token: str | None = None, **options: Any) -> Any:
        token = self.token if token is None else token
        headers = options.pop("headers", {}) | ({"Authorization": f"Token {token}"} if token else {})
        return self.client.open(path, method=method, headers=headers, **options)

    def start(self, user: str, **body: Any) -> dict[str, Any]:
        answer = self.ask("POST", URL, json={"user": user, **body})
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.get_json()
        return told

    def state(self, started: dict[str, Any]) -> str:
        found = re.search(r"state=([^&]+)", started["authorize_url"])
        assert found is not None
        return found[1]

    def come_back(self, started: dict[str, Any], path: str = "/callback", **query: str) -> Any:
        return self.ask("GET", path, "", query_string={"state": self.state(started), **query})

    def close(self) -> None:
        self.sidecar.stop()
        self.sidecar.network.stop()


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(
    request: pytest.FixtureRequest, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    database = {}
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        database["database_url"] = postgres.url(postgres.new_database()).replace("+psycopg", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "Lark", lambda *given: platform)
        made = Site(tmp_path_factory.mktemp("site"), **APP, **database)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def well(platform: Platform) -> Iterator[None]:
    yield
    platform.failing.clear()
    platform.who = ALICE


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


def authorized(site: Site, user: str) -> str:
    started = site.start(user)
    assert site.come_back(started, code="code").status_code == 200
    session_id: str = started["session_id"]
    return session_id


ROUTES = [
    ("POST", URL),
    ("GET", f"{URL}/x"),
    ("POST", f"{URL}/x/card"),
    ("GET", f"{URL}/cli_a/u1/token"),
    ("DELETE", f"{URL}/cli_a/u1/token"),
    ("GET", f"{URL}/cli_a/app-token"),
    ("POST", f"{URL}/cleanup"),
    ("GET", f"{URL}/audit"),
    ("POST", f"{URL}/events"),
    ("POST", f"{URL}/events/link"),
    ("POST", "/callback/lark"),
    ("POST", "/callback/lark/cli_a"),
    ("GET", "/callback"),
    ("GET", f"{URL}/callback"),
    ("GET", "/authorizations/x"),
    ("GET", "/authorizations/x/state"),
]


def test_without_an_app_there_is_nothing(tmp_path):
    site = Site(tmp_path)
    try:
        known = {re.sub("<[^>]+>", "x", rule.rule) for rule in site.sidecar.app.url_map.iter_rules()}
        assert {path for path in known if "authorizations" in path or "callback" in path} == {
            re.sub("cli_a|u1", "x", path) for _, path in ROUTES
        }
        for method, path in ROUTES:
            for token in (site.token, "", "wrong"):
                for query in ("", "?nonsense=1"):
                    answer = site.ask(method, path + query, token, json={} if method == "POST" else None)
                    assert problem(answer) == (404, "not_found"), (method, path, query)
    finally:
        site.close()


def test_from_the_beginning_to_the_token(site, platform):
    started = site.start("ada", open_id="ou_alice", scope="contact:read", language="en")
    assert {name: started[name] for name in ("success", "app", "user", "state", "method", "duplicate")} == {
        "success": True,
        "app": "cli_a",
        "user": "ada",
        "state": "pending",
        "method": "oauth",
        "duplicate": False,
    }
    assert started["page"] == f"http://localhost/authorizations/{started['session_id']}"
    page = site.come_back(started, code="code")
    assert (page.status_code, page.content_type) == (200, "text/html; charset=utf-8")
    told = site.ask("GET", f"{URL}/{started['session_id']}").get_json()
    assert (told["state"], told["open_id"], told["name"], told["reason"]) == ("completed", "ou_alice", "Alice", None)
    assert not [name for name in told if "token" in name or name == "sealed"]
    token = site.ask("GET", f"{URL}/cli_a/ada/token").get_json()
    assert set(token) == {"user_access_token", "token_expires_at", "expires_in", "is_expiring", "scope", "open_id"}
    assert site.ask("DELETE", f"{URL}/cli_a/ada/token").get_json() == {"success": True, "revoked": True}
    assert problem(site.ask("GET", f"{URL}/cli_a/ada/token")) == (404, "authentication_required")


def test_users_whose_names_look_like_paths(site):
    for user in ("a/b", "a/token", "ü 1", "%41", "card"):
        authorized(site, user)
        quoted = "".join(f"%{byte:02x}" for byte in user.encode())
        assert site.ask("GET", f"{URL}/cli_a/{quoted}/token").status_code == 200, user
        assert site.ask("DELETE", f"{URL}/cli_a/{quoted}/token").get_json()["revoked"], user


STRANGE = ["%00", "x%00y", "%ff", "%ed%a0%80", "..%2f..", "x" * 5_000, "'%22;--"]


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_strange_words_in_addresses(site, text):
    """They name nothing that there is: not the store's fault, nor ours."""
    for method, path in (
        ("GET", f"{URL}/{text}"),
        ("POST", f"{URL}/{text}/card"),
        ("GET", f"{URL}/cli_a/{text}/token"),
        ("GET", f"{URL}/{text}/u1/token"),
        ("GET", f"{URL}/{text}/app-token"),
        ("GET", f"/authorizations/{text}"),
        ("GET", f"/authorizations/{text}/state"),
        ("GET", f"/callback?code={text}&state={text}&error={text}"),
        ("POST", f"/callback/lark/{text}"),
    ):
        answer = site.ask(method, path, json={} if method == "POST" else None)
        assert answer.status_code == 404, (method, path[:60], answer.status_code)
    answer = site.ask("DELETE", f"{URL}/cli_a/{text}/token")
    assert (answer.status_code, answer.get_json().get("revoked")) == (200, False)
    assert site.ask("GET", f"{URL}/audit?app={text}&user={text}").status_code in (200, 400)


FAILURES = [
    (errors.AuthorizationCodeExpired("x", provider_code=20004), 400),
    (errors.ProviderUnavailable("x"), 503),
    (errors.AuthorizationFailed("x", provider_code=20002, reason="misconfigured"), 502),
    (errors.AuthorizationFailed("x"), 502),
]


@pytest.mark.parametrize("language", LANGUAGES := ("zh", "en"))
@pytest.mark.parametrize(("error", "status"), FAILURES)
def test_a_page_tells_the_failure_in_the_session_s_language(site, platform, name, error, status, language):
    started = site.start(name, language=language)
    platform.failing["exchange"] = error
    page = site.come_back(started, code="the-code-itself")
    assert page.status_code == status
    assert f'<h1 role="status">{FAILED[language]}</h1>' in page.text
    assert SUCCEEDED[language] not in page.text.replace(FAILED[language], "")
    assert ("advice on" in page.text) == (error.provider_code is not None)
    assert_safe(page, site.state(started))
    platform.failing.clear()
    assert site.come_back(started, code="another").status_code == 200


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_way_to_come_back(site, platform, name, language):
    started = site.start(name, open_id="ou_alice", language=language)

    def shown(status: int, heading: str, **query: str) -> None:
        for path in ("/callback", f"{URL}/callback"):
            page = site.come_back(started, path, **query)
            assert (page.status_code, f">{heading}</h1>" in page.text) == (status, True), page.text
            assert_safe(page, site.state(started))

    shown(400, FAILED[language])
    platform.who = BOB
    shown(403, FAILED[language], code="the-code-itself")
    platform.who = ALICE
    shown(502, FAILED[language], error="server_error")
    assert site.ask("GET", f"{URL}/{started['session_id']}").get_json()["state"] == "pending"
    first = site.come_back(started, code="the-code-itself")
    assert (first.status_code, f">{SUCCEEDED[language]}</h1>" in first.text) == (200, True)
    shown(409, SUCCEEDED[language], code="the-code-itself")
    started = site.start(f"{name}-2", language=language)
    shown(409, FAILED[language], error="access_denied")
    shown(409, FAILED[language], code="the-code-itself")


def assert_safe(page: Any, state: str) -> None:
    """No secret of the flow is on it, and its address, which holds two, is sent to nobody."""
    for secret in (state, "the-code-itself", "access-", "refresh-", "the-secret-of-a"):
        assert secret not in page.text
    assert page.headers.getlist("Referrer-Policy") == ["no-referrer"]
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


def test_nothing_of_the_address_is_on_the_page(site):
    marked = "<script>alert(1)</script>&{{7*7}}"
    for query in ({"state": marked, "code": marked}, {"error": marked, "error_description": marked}, {marked: marked}):
        page = site.ask("GET", "/callback", "", query_string=query)
        assert page.status_code == 404
        assert "alert" not in page.text
        assert "49" not in page.text


def test_the_platform_s_advice_is_text(site, platform, name, monkeypatch):
    monkeypatch.setattr(platform, "advice", lambda code, language: "<b>look</b>")
    platform.failing["exchange"] = errors.AuthorizationFailed("x", provider_code=1)
    assert "&lt;b&gt;look&lt;/b&gt;" in site.come_back(site.start(name), code="c").text


def test_looking_at_the_address_uses_nothing_up(site, platform, name):
    started = site.start(name)
    before = platform.count("exchange")
    for path in ("/callback", f"{URL}/callback"):
        answer = site.ask("HEAD", path, "", query_string={"state": site.state(started), "code": "c"})
        assert answer.status_code == 405
    assert platform.count("exchange") == before
    assert site.come_back(started, code="c").status_code == 200


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_of_the_state(site, platform, name, language):
    started = site.start(name, language=language)
    path = f"/authorizations/{started['session_id']}"
    page = site.ask("GET", path, "")
    assert (page.status_code, "authorization.js" in page.text) == (200, True)
    assert started["authorize_url"] not in page.text
    assert site.ask("GET", path + "/state", "").get_json() == {"state": "pending", "reason": None}
    platform.failing["exchange"] = errors.ProviderUnavailable("Away.")
    site.come_back(started, code="c")
    assert site.ask("GET", path + "/state", "").get_json()["reason"] == "provider_unavailable"
    platform.failing.clear()
    site.come_back(started, code="c")
    page = site.ask("GET", path, "")
    assert (SUCCEEDED[language] in page.text, "authorization.js" in page.text) == (True, False)


def test_the_store_is_away_when_the_user_comes_back(site, platform, name, monkeypatch):
    monkeypatch.setattr("sidecar.services.authorizations.SAVE_PAUSE_SECONDS", 0.0)
    started = site.start(name, language="en")
    writer = site.sidecar.core.writer

    def away(batch: Any) -> Any:
        raise errors.Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_store", away)
        page = site.come_back(started, code="c")
    assert (page.status_code, FAILED["en"] in page.text) == (503, True)
    assert site.come_back(started, code="c").status_code == 200


def tree(base: type[errors.SidecarError]) -> set[type[errors.SidecarError]]:
    return {base}.union(*(tree(child) for child in base.__subclasses__()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_has_words(language):
    chinese = re.compile("[\u4e00-\u9fff]")
    for kind in tree(errors.SidecarError):
        text = of_error(kind("the detail"), language, None)
        assert (text.kind, text.title) == ("bad", FAILED[language])
        assert text.message
        assert text.advice
        assert "the detail" not in text.message + text.advice
        for words in (text.title, text.message, text.advice):
            assert bool(chinese.search(words)) == (language == "zh")
        assert STATUS[kind] >= 400
    for state in STATES[language]:
        for reason in (None, "wrong_user"):
            text = of_state(state, language, reason)
            assert (text.kind == "good") == (text.title == SUCCEEDED[language])
    assert {set(words) == {"zh", "en"} for words in ERRORS.values()} == {True}


def test_five_a_minute(site, name):
    for _ in range(5):
        site.start(name)
    answer = site.ask("POST", URL, json={"user": name})
    assert problem(answer) == (429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 61


def test_a_repetition_gets_the_same_authorization(site, name):
    headers = {"Idempotency-Key": name}
    answers = [site.ask("POST", URL, json={"user": name}, headers=headers).get_json() for _ in range(7)]
    assert {answer["session_id"] for answer in answers} == {answers[0]["session_id"]}
    assert {answer["authorize_url"] for answer in answers} == {answers[0]["authorize_url"]}
    assert [answer["duplicate"] for answer in answers] == [False] + [True] * 6
    other = site.ask("POST", URL, json={"user": f"{name}x"}, headers=headers)
    assert problem(other) == (409, "conflict")


def asking(path: str) -> Callable[..., Any]:
    method, path = path.split(" ")
    return lambda site, token, **options: site.ask(method, path, token, **options)


WRITES = [f"POST {URL}", f"POST {URL}/x/card", f"DELETE {URL}/cli_a/u1/token"]
WRITES += [f"POST {URL}/events", f"POST {URL}/events/link"]
READS = [f"GET {URL}/x", f"GET {URL}/cli_a/u1/token", f"GET {URL}/cli_a/app-token"]
ADMINS = [f"POST {URL}/cleanup", f"GET {URL}/audit"]
BODIES = {
    f"POST {URL}": {"user": "u1"},
    f"POST {URL}/events": {"app": "cli_a", "event": {"type": "t", "event_id": "e", "event": {}}},
    f"POST {URL}/events/link": {"app": "cli_a", "connected": True, "started_at": "2026-11-21T04:29:00Z"},
}


@pytest.mark.parametrize("route", WRITES + READS + ADMINS)
def test_scopes(site, route):
    needed = "admin" if route in ADMINS else "authorizations:read" if route in READS else "authorizations:write"
    body = {"json": BODIES.get(route, {})} if route.startswith("POST") else {}
    ask = asking(route)
    assert problem(ask(site, "", **body)) == (401, "unauthenticated")
    assert problem(ask(site, "sct_wrong", **body)) == (401, "unauthenticated")
    for scope in ("messages:send", "authorizations:read", "authorizations:write"):
        if scope != needed:
            assert problem(ask(site, site.new_token(scope), **body)) == (403, "not_allowed"), scope
    assert ask(site, site.new_token(needed), **body).status_code not in (401, 403)


@pytest.mark.parametrize("route", [path for path in WRITES + READS + ADMINS if path not in (WRITES[0], READS[0])])
def test_browsers_have_nothing_but_their_own_authorizations(site, route):
    body = {"json": BODIES.get(route, {})} if route.startswith("POST") else {}
    assert problem(asking(route)(site, site.browser("u1"), **body)) == (403, "not_allowed")


def test_a_browser_s_own(site, name):
    token = site.browser(name)
    started = site.ask("POST", URL, token, json={"user": name}).get_json()
    assert site.ask("GET", f"{URL}/{started['session_id']}", token).get_json()["user"] == name
    assert problem(site.ask("POST", URL, token, json={"user": "somebody-else"})) == (403, "not_allowed")
    other = f"{URL}/{site.start('somebody-else')['session_id']}"
    assert problem(site.ask("GET", other, token)) == (404, "authorization_not_found")


def test_a_token_of_another_app(site, name):
    other = site.new_token("authorizations:read", "authorizations:write", projects=["cli_b"])
    session_id = authorized(site, name)
    for method, path in (("GET", f"{URL}/{session_id}"), ("POST", f"{URL}/{session_id}/card")):
        assert problem(site.ask(method, path, other, json={} if method == "POST" else None)) == (
            404,
            "authorization_not_found",
        )
    for method, path in (("GET", f"{URL}/cli_a/{name}/token"), ("DELETE", f"{URL}/cli_a/{name}/token")):
        assert problem(site.ask(method, path, other)) == (403, "not_allowed")
    assert problem(site.ask("POST", URL, other, json={"user": name})) == (403, "not_allowed")
    mine = site.new_token("authorizations:read", projects=["cli_a"])
    assert site.ask("GET", f"{URL}/cli_a/{name}/token", mine).status_code == 200


def test_the_audit_log(site, name):
    authorized(site, name)
    site.ask("GET", f"{URL}/cli_a/{name}/token")
    site.ask("GET", f"{URL}/cli_a/app-token?kind=app")
    site.ask("DELETE", f"{URL}/cli_a/{name}/token")
    items = site.ask("GET", f"{URL}/audit?app=cli_a&user={name}&limit=10").get_json()["items"]
    assert [(item["use"], item["user"], item["by"]) for item in items] == [
        ("revoke", name, "shop"),
        ("token", name, "shop"),
    ]
    assert items[0]["app"] == "cli_a"
    assert site.ask("GET", f"{URL}/audit?limit=1").get_json()["items"][0]["use"] == "revoke"
    for query in ("limit=0", "limit=201", "limit=x", "app=%00", "since=1"):
        assert problem(site.ask("GET", f"{URL}/audit?{query}")) == (400, "invalid")


def test_app_tokens(site):
    for query, kind in (("", "tenant"), ("?kind=tenant", "tenant"), ("?kind=app", "app")):
        told = site.ask("GET", f"{URL}/cli_a/app-token{query}").get_json()
        assert (told["token"], told["kind"]) == (f"{kind}-of-cli_a", kind)
        assert told["expires_in"] > 0
    assert problem(site.ask("GET", f"{URL}/cli_a/app-token?kind=root")) == (400, "invalid")
    assert problem(site.ask("GET", f"{URL}/cli_b/app-token")) == (404, "not_found")


def test_clean_up(site):
    told = site.ask("POST", f"{URL}/cleanup").get_json()
    assert told == {"success": True, "cleaned_count": 0}


def test_people_s_numbers_are_masked(site, platform, name):
    platform.who = type(ALICE)("ou_alice", name="Alice", mobile="+8613800138000", email="alice@shop.example")
    told = site.ask("GET", f"{URL}/{authorized(site, name)}").get_json()
    assert (told["mobile"], told["email"]) == ("****", "alic****mple")


BAD = {
    "no user": {},
    "user": {"user": ""},
    "user with a bell": {"user": "\x07"},
    "app": {"user": "u", "app": 5},
    "language": {"user": "u", "language": "fr"},
    "method": {"user": "u", "method": "magic"},
    "scope": {"user": "u", "scope": ["a"]},
    "long scope": {"user": "u", "scope": "x" * 4_001},
    "many scopes": {"user": "u", "scope": " ".join(map(str, range(60)))},
    "other field": {"user": "u", "redirect_uri": "https://evil.example"},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bodies(site, name):
    answer = site.ask("POST", URL, json=BAD[name])
    assert problem(answer) == (400, "invalid")
    assert answer.get_json()["errors"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["app", "user", "open_id", "scope", "language", "method", "event", "connected", "reconnects", "started_at"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*FIELDS, "heartbeat_seconds", "receive_id", "x"]), VALUES, max_size=5))
def test_whatever_the_body_the_answer_is_one_of_ours(site, body):
    raw = json.dumps(body)
    for path in (URL, f"{URL}/events", f"{URL}/events/link", f"{URL}/nothing/card"):
        answer = site.ask("POST", path, data=raw, content_type="application/json")
        assert answer.status_code in (200, 400, 404, 429), answer.text
        assert answer.get_json() is not None
