"""What protects a person in a browser: the one-time login, the cookie, CSRF, origins, hosts and trusted proxies."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.servers import RunningSidecar

PREFIX = "/project-dashboard"
WEBHOOK = "/api/webhooks/deployment"
COOKIE = "sidecar_login"


def login_code(server) -> str:
    answer = server.cli("login")
    assert answer.returncode == 0, answer.stderr
    match = re.search(r"/login\?code=([\w-]+)", answer.stdout)
    assert match
    return match[1]


def spend(server, code: str, prefix: str = PREFIX, **headers: str) -> httpx.Response:
    return server.post(f"{prefix}/login", token="", data={"code": code}, headers=headers)


@pytest.fixture(scope="module")
def cookie(sidecar) -> str:
    return spend(sidecar, login_code(sidecar)).cookies[COOKIE]


def with_cookie(cookie: str, **headers: str) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={cookie}", **{name.replace("_", "-"): value for name, value in headers.items()}}


def test_looking_at_the_login_link_does_not_spend_it(sidecar):
    """Link previews and prefetching open a link before its owner does."""
    code = login_code(sidecar)
    for _ in range(3):
        page = sidecar.get(f"{PREFIX}/login?code={code}", token="")
        assert page.status_code == 200
        assert f'value="{code}"' in page.text
        assert COOKIE not in page.cookies
    assert spend(sidecar, code).status_code == 303


def test_a_login_link_works_once(sidecar):
    code = login_code(sidecar)
    first = spend(sidecar, code)
    assert (first.status_code, first.headers["Location"]) == (303, f"{PREFIX}/")
    assert first.cookies[COOKIE]
    second = spend(sidecar, code)
    assert second.status_code == 404
    assert COOKIE not in second.cookies
    assert "was used" in second.text


@pytest.mark.parametrize("code", ["", "nonsense", "é", "x" * 10_000, "<script>alert(1)</script>"])
def test_a_code_that_never_was_logs_nobody_in(sidecar, code):
    answer = spend(sidecar, code)
    assert answer.status_code == 404
    assert "<script>alert" not in answer.text


def test_the_login_page_escapes_the_code(sidecar):
    page = sidecar.get(f"{PREFIX}/login?code=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", token="")
    assert "<script>alert" not in page.text


def flags(answer: httpx.Response) -> set[str]:
    return {part.strip() for part in answer.headers["Set-Cookie"].split(";")[1:]}


def test_the_cookie_is_kept_from_scripts_and_other_sites(sidecar):
    given = flags(spend(sidecar, login_code(sidecar)))
    assert {"HttpOnly", "SameSite=Lax", f"Path={PREFIX}/", "Max-Age=604800"} <= given
    assert "Secure" not in given


def test_the_cookie_is_secure_behind_tls(sidecar):
    given = flags(spend(sidecar, login_code(sidecar), **{"X-Forwarded-Proto": "https"}))
    assert "Secure" in given


def test_the_cookie_belongs_to_the_prefix_that_the_proxy_cut(sidecar):
    answer = spend(sidecar, login_code(sidecar), prefix="", **{"X-Forwarded-Prefix": "/somewhere/else"})
    assert answer.headers["Location"] == "/somewhere/else/"
    assert "Path=/somewhere/else/" in flags(answer)


def test_a_login_from_another_site_is_refused(sidecar):
    """Else a page of somebody's could log its visitor in as somebody else."""
    code = login_code(sidecar)
    for origin in ("https://evil.example", "null"):
        assert spend(sidecar, code, Origin=origin).status_code == 403
    assert spend(sidecar, code, Origin=sidecar.url).status_code == 303


def test_the_cookie_reads_as_admin(sidecar, cookie):
    session = sidecar.get("/api/session", token="", headers=with_cookie(cookie)).json()
    assert (session["kind"], session["scopes"]) == ("cookie", ["admin"])
    assert sidecar.get("/api/tokens", token="", headers=with_cookie(cookie)).status_code == 200


@pytest.mark.parametrize("value", ["", "nonsense", "a.b.c", "é"])
def test_a_cookie_that_does_not_hold_makes_a_stranger(sidecar, value):
    headers = {"Cookie": f"{COOKIE}={value}".encode()}
    answer = sidecar.get("/api/session", token="", headers=headers)
    assert (answer.status_code, answer.json()["kind"]) == (200, "anonymous")
    assert sidecar.get("/api/tokens", token="", headers=headers).status_code == 401


def test_a_connection_token_is_no_login_cookie(sidecar):
    """Both are signed by us; a key a purpose keeps one from passing as the other."""
    token = sidecar.connection_token(scopes=["deployments:read"])
    assert sidecar.get("/api/session", token="", headers=with_cookie(token)).json()["kind"] == "anonymous"


def test_a_login_cookie_is_no_token(sidecar, cookie):
    assert sidecar.get("/api/session", cookie).status_code == 401


def test_a_write_by_cookie_needs_its_csrf_token(sidecar, cookie, name):
    csrf = sidecar.get("/api/session", token="", headers=with_cookie(cookie)).json()["csrf_token"]
    other = spend(sidecar, login_code(sidecar)).cookies[COOKIE]
    others = sidecar.get("/api/session", token="", headers=with_cookie(other)).json()["csrf_token"]
    body = {"name": name, "scopes": ["deployments:read"]}

    def create(**headers: str) -> int:
        return sidecar.post("/api/tokens", body, token="", headers=with_cookie(cookie, **headers)).status_code

    assert create() == 403
    assert create(X_CSRF_Token="") == 403
    assert create(X_CSRF_Token="nonsense") == 403
    assert create(X_CSRF_Token=others) == 403, "another session's token"
    assert create(X_CSRF_Token=csrf, Origin="https://evil.example") == 403
    assert create(X_CSRF_Token=csrf) == 200
    assert create(X_CSRF_Token=csrf, Origin=sidecar.url) == 200


def test_a_webhook_by_cookie_needs_it_too(sidecar, cookie, name):
    body = {"type": "step_started", "project": name, "deployment_id": name, "step_name": "x"}
    assert sidecar.post(WEBHOOK, body, token="", headers=with_cookie(cookie)).status_code == 403


def test_a_token_wins_over_the_cookie(sidecar, cookie):
    """A page's script that names a token means that one, also to do less."""
    weak = sidecar.new_token("deployments:read")
    assert sidecar.get("/api/tokens", weak, headers=with_cookie(cookie)).status_code == 403


def test_a_cookie_ends_with_the_token_behind_it(start_sidecar):
    server = start_sidecar()
    value = spend(server, login_code(server)).cookies[COOKIE]
    unspent = login_code(server)
    assert server.get("/api/tokens", token="", headers=with_cookie(value)).status_code == 200
    assert server.request("DELETE", f"/api/tokens/{server.token.split('_')[1]}").status_code == 200
    assert server.get("/api/tokens", token="", headers=with_cookie(value)).status_code == 401
    assert spend(server, unspent).status_code == 404, "the link rests on the same token"


# Origins


ALLOWED = "https://dash.example.com"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A sidecar that knows its public URL and one more origin."""

    server = RunningSidecar(
        tmp_path_factory.mktemp("guarded"),
        {"SIDECAR_PUBLIC_URL": "https://live.example.com", "SIDECAR_ALLOWED_ORIGINS": ALLOWED},
    )
    server.start()
    yield server
    server.stop()


def cors(answer: httpx.Response) -> str | None:
    return answer.headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize("path", ["/api/projects", "/nothing", WEBHOOK])
def test_allowed_origins_may_read_answers_and_errors(guarded, path):
    for token in (None, "", "wrong"):
        answer = guarded.get(path, token, headers={"Origin": ALLOWED})
        assert cors(answer) == ALLOWED
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answer.headers, "the cookie stays at home"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://dash.example.com",
        "https://dash.example.com.evil.example",
        "https://dash.example.com:444",
        "",
    ],
)
def test_other_origins_may_not(guarded, origin):
    assert cors(guarded.get("/api/projects", headers={"Origin": origin})) is None


def test_our_own_origin_needs_no_cors(guarded):
    assert cors(guarded.get("/api/projects", headers={"Origin": "https://live.example.com"})) is None


def preflight(server, origin: str, path: str = WEBHOOK) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return server.request("OPTIONS", path, token="", headers=headers)


def test_a_preflight_is_answered_without_a_token(guarded):
    answer = preflight(guarded, ALLOWED)
    assert (answer.status_code, cors(answer)) == (204, ALLOWED)
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    allowed = {item.strip().lower() for item in answer.headers["Access-Control-Allow-Headers"].split(",")}
    assert {"authorization", "content-type", "idempotency-key", "x-api-key"} <= allowed


def test_a_preflight_of_a_stranger_gets_no_leave(guarded):
    answer = preflight(guarded, "https://evil.example")
    assert cors(answer) is None
    assert "Access-Control-Allow-Methods" not in answer.headers


def test_a_star_allows_any_origin_but_no_cookie(start_sidecar):
    server = start_sidecar(SIDECAR_ALLOWED_ORIGINS="*")
    answer = server.get("/api/projects", headers={"Origin": "https://anybody.example"})
    assert cors(answer) == "https://anybody.example"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert spend(server, login_code(server), Origin="https://anybody.example").status_code == 403


# Hosts and proxies


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("live.example.com", 200),
        ("LIVE.example.com", 200),
        ("dash.example.com", 200),
        ("localhost:8091", 200),
        ("127.0.0.1", 200),
        ("[::1]:8091", 200),
        ("evil.example", 400),
        ("live.example.com.evil.example", 400),
        ("live.example.com:81", 400),
        ("127.0.0.1.evil.example", 400),
    ],
)
def test_only_our_own_host_is_answered(guarded, host, status):
    """A name of somebody else's that points to our address (DNS rebinding) must not become our own origin."""
    answer = guarded.get("/api/info", token="", headers={"Host": host})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["code"] == "bad_host"


def test_without_a_public_url_any_host_is_answered(sidecar):
    assert sidecar.get("/api/info", token="", headers={"Host": "whatever.example"}).status_code == 200


def test_forwarded_hosts_count_from_our_proxies_only(guarded, start_sidecar):
    said = {"Host": "127.0.0.1", "X-Forwarded-Host": "evil.example"}
    assert guarded.get("/api/info", headers=said).status_code == 400
    deaf = start_sidecar(SIDECAR_PUBLIC_URL="https://live.example.com", SIDECAR_TRUSTED_PROXIES="203.0.113.1")
    assert deaf.get("/api/info", headers=said).status_code == 200


def test_nothing_of_a_stranger_is_believed(start_sidecar):
    """Without a trusted proxy neither scheme, prefix, host nor address come from a header."""
    server = start_sidecar(SIDECAR_TRUSTED_PROXIES="203.0.113.1")
    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-For": "198.51.100.7",
        "X-Real-IP": "198.51.100.7",
        "Forwarded": "for=198.51.100.7;proto=https",
    }
    answer = spend(server, login_code(server), **headers)
    assert answer.headers["Location"] == f"{PREFIX}/"
    assert "Secure" not in flags(answer)
    server.post(WEBHOOK, {"type": "test", "project": "p"}, headers=headers)
    assert server.get("/api/deliveries").json()["items"][0]["address"] == "127.0.0.1"


def test_the_senders_address_comes_through_our_proxies(sidecar, name):
    sidecar.post(WEBHOOK, {"type": "test", "project": name}, headers={"X-Forwarded-For": "1.2.3.4, 198.51.100.7"})
    kept = next(item for item in sidecar.get("/api/deliveries").json()["items"] if item["project"] == name)
    assert kept["address"] == "198.51.100.7", "what stands left of the first stranger is the stranger's own word"


def test_pages_link_to_the_prefix_that_the_client_knows(sidecar):
    assert 'href="/project-dashboard/static/style.css"' in sidecar.get(f"{PREFIX}/").text
    assert 'href="/static/style.css"' in sidecar.get("/").text
    assert 'href="/a/b/static/style.css"' in sidecar.get("/", headers={"X-Forwarded-Prefix": "/a/b/"}).text
    for prefix in ("javascript:alert(1)", '/"><script>', "//evil.example/%0d"):
        assert 'href="/static/style.css"' in sidecar.get("/", headers={"X-Forwarded-Prefix": prefix}).text
