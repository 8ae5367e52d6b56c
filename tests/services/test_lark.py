"""Lark asked over real HTTP: what is sent, and each way in which it may fail to answer."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sidecar.domain.authorizations import App, AppToken, Card, Person, UserTokens
from sidecar.domain.errors import (
    AuthorizationCodeExpired,
    AuthorizationFailed,
    ProviderUnavailable,
    TokenRefreshFailed,
    Unauthenticated,
    UserTokenExpired,
)
from sidecar.services.lark import RENEW_SECONDS, Lark
from sidecar.services.lark_calls import MAX_ANSWER_BYTES
from sidecar.services.providers import Provider

APP = App("cli_a", "secret-of-app", "verify-me", "test key")
CARD = Card("5f0c", "pending", "zh", "https://accounts.example/authorize?state=x")
TOKENS = {
    "code": 0,
    "access_token": "u-1",
    "expires_in": 7200,
    "refresh_token": "ur-1",
    "refresh_token_expires_in": 604800,
    "scope": "offline_access",
    "token_type": "Bearer",
}
SECRETS = ("secret-of-app", "the-code", "the-verifier", "ur-0", "u-0", "t-1", "leaked by Lark")


Write = Callable[[bytes], None]


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Platform:
    """A server that answers what it was told to, in order, and keeps what it was asked. A function in place of an
    answer writes bytes of its own; `over` ends what it waits for."""

    address: str
    answers: list[tuple[int, dict[str, str], bytes] | Callable[[Write], None]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, raw))

    def write(self, write: Callable[[Write], None]) -> None:
        self.answers.append(write)


class Server(ThreadingHTTPServer):
    """Answers as `platform` says, which is another one for each test."""

    daemon_threads = True
    platform: Platform

    def handle_error(self, *_: object) -> None:
        """A client that has hung up is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def handle_any(self) -> None:
        platform = self.server.platform
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.loads(raw) if raw else None
        platform.asked.append(Asked(self.command, parts.path, parse_qs(parts.query), headers, body))
        answer = platform.answers.pop(0)
        if callable(answer):
            self.close_connection = True
            answer(self.wfile.write)
            return
        status, told, content = answer
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **told}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = handle_any

    def log_message(self, *_: object) -> None:
        pass


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def platform(server) -> Iterator[Platform]:
    server.platform = Platform(f"http://127.0.0.1:{server.server_address[1]}")
    yield server.platform
    server.platform.over.set()


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def client(server, clock) -> Iterator[Lark]:
    """(A client is made once: reading the certificates takes most of the time of a test.)"""
    lark = Lark(f"http://127.0.0.1:{server.server_address[1]}", "https://accounts.example", 10, None, True, clock)
    yield lark
    lark.close()


@pytest.fixture
def lark(client, platform, clock) -> Lark:
    """With no token of an app that is still kept."""
    clock.now += 1_000_000
    return client


@pytest.fixture(scope="module")
def hasty_client(server) -> Iterator[Lark]:
    lark = Lark(f"http://127.0.0.1:{server.server_address[1]}", "https://accounts.example", 0.2)
    yield lark
    lark.close()


@pytest.fixture
def hasty(hasty_client, platform) -> Lark:
    """With a short time-out and the real clock."""
    return hasty_client


def exchange(lark: Provider) -> UserTokens:
    return lark.exchange(APP, "the-code", "https://we.example/callback", "the-verifier")


def failure(call: Callable[[], object]) -> AuthorizationFailed:
    """What a call raises, which tells no secret: neither ours nor what Lark says."""
    with pytest.raises(AuthorizationFailed) as caught:
        call()
    told = f"{caught.value!r} {caught.value.detail} {caught.value.__cause__!r}"
    assert not [secret for secret in SECRETS if secret in told]
    return caught.value


class TestAuthorizeUrl:
    def test_it_holds_what_lark_wants(self):
        lark: Provider = Lark("https://open.feishu.cn", "https://accounts.feishu.cn/", 5)
        url = lark.authorize_url(APP, "http://localhost:8000/callback?a=1&b=ü", "offline_access a:b", "st/&", "ch-_")
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == (
            "https://accounts.feishu.cn/open-apis/authen/v1/authorize"
        )
        assert {name: value for name, [value] in parse_qs(parts.query, strict_parsing=True).items()} == {
            "client_id": "cli_a",
            "response_type": "code",
            "redirect_uri": "http://localhost:8000/callback?a=1&b=ü",
            "scope": "offline_access a:b",
            "state": "st/&",
            "code_challenge": "ch-_",
            "code_challenge_method": "S256",
        }
        assert "redirect_uri=http%3A%2F%2Flocalhost%3A8000%2Fcallback%3Fa%3D1%26b%3D%C3%BC&" in url
        assert "scope=offline_access%20a%3Ab&" in url


class TestTokens:
    def test_a_code_is_exchanged(self, lark, platform):
        platform.answer(TOKENS)
        assert exchange(lark) == UserTokens("u-1", 7200, "ur-1", 604800, "offline_access")
        [asked] = platform.asked
        assert (asked.method, asked.path, asked.query) == ("POST", "/open-apis/authen/v2/oauth/token", {})
        assert asked.headers["content-type"] == "application/json"
        assert "authorization" not in asked.headers  # (two ways to authenticate are error 20070)
        assert asked.body == {
            "grant_type": "authorization_code",
            "client_id": "cli_a",
            "client_secret": "secret-of-app",
            "code": "the-code",
            "redirect_uri": "https://we.example/callback",
            "code_verifier": "the-verifier",
        }

    def test_a_token_is_refreshed(self, lark, platform):
        platform.answer({**TOKENS, "access_token": "u-2", "refresh_token": "ur-2"})
        told = lark.refresh(APP, "ur-0")
        assert (told.access, told.refresh) == ("u-2", "ur-2")
        [asked] = platform.asked
        assert asked.path == "/open-apis/authen/v2/oauth/token"
        assert asked.body == {
            "grant_type": "refresh_token",
            "client_id": "cli_a",
            "client_secret": "secret-of-app",
            "refresh_token": "ur-0",
        }

    @pytest.mark.parametrize("status", [200, 400])
    @pytest.mark.parametrize(
        ("code", "kind"),
        [(20003, AuthorizationCodeExpired), (20065, AuthorizationCodeExpired), (20071, AuthorizationFailed)],
    )
    def test_a_refusal_by_either_status(self, lark, platform, code, kind, status):
        """Version 2 refuses with HTTP 400, version 1 within HTTP 200; Lark's own words don't get out."""
        platform.answer({"code": code, "error": "invalid_grant", "error_description": "leaked by Lark"}, status)
        error = failure(lambda: exchange(lark))
        assert (type(error), error.provider_code) == (kind, code)

    def test_a_refresh_token_that_was_used(self, lark, platform):
        platform.answer({"code": 20073, "error": "invalid_grant"}, 400)
        assert isinstance(failure(lambda: lark.refresh(APP, "ur-0")), TokenRefreshFailed)

    def test_nothing_is_tried_twice(self, lark, platform):
        """A code and a refresh token work once."""
        platform.answer({"code": 20050, "error": "server_error"}, 500)
        assert isinstance(failure(lambda: lark.refresh(APP, "ur-0")), ProviderUnavailable)
        assert len(platform.asked) == 1


class TestPerson:
    def test_it_is_asked_with_the_users_token(self, lark, platform):
        platform.answer({"code": 0, "msg": "success", "data": {"open_id": "ou_1", "name": "张三"}})
        assert lark.person("u-0") == Person("ou_1", name="张三")
        [asked] = platform.asked
        assert (asked.method, asked.path) == ("GET", "/open-apis/authen/v1/user_info")
        assert asked.headers["authorization"] == "Bearer u-0"

    @pytest.mark.parametrize("code", [20005, 99991663, 99991668, 99991677])
    def test_a_token_that_holds_no_longer(self, lark, platform, code):
        platform.answer({"code": code, "msg": "leaked by Lark"}, 400)
        assert isinstance(failure(lambda: lark.person("u-0")), UserTokenExpired)


class TestAppTokens:
    @pytest.mark.parametrize("kind", ["tenant", "app"])
    def test_it_is_kept(self, lark, platform, clock, kind):
        platform.answer({"code": 0, f"{kind}_access_token": "t-1", "expire": 7200})
        assert lark.app_token(APP, kind) == AppToken("t-1", 7200)
        clock.now += 7200 - RENEW_SECONDS - 1
        assert lark.app_token(APP, kind) == AppToken("t-1", RENEW_SECONDS + 1)
        [asked] = platform.asked
        assert (asked.method, asked.path) == ("POST", f"/open-apis/auth/v3/{kind}_access_token/internal")
        assert asked.body == {"app_id": "cli_a", "app_secret": "secret-of-app"}

    def test_it_is_renewed_before_its_end(self, lark, platform, clock):
        platform.answer({"code": 0, "tenant_access_token": "t-1", "expire": 7200})
        platform.answer({"code": 0, "tenant_access_token": "t-2", "expire": 7200})
        lark.app_token(APP, "tenant")
        clock.now += 7200 - RENEW_SECONDS
        assert lark.app_token(APP, "tenant") == AppToken("t-2", 7200)

    def test_apps_and_kinds_have_their_own(self, lark, platform):
        for token in ("t-1", "t-2"):
            platform.answer({"code": 0, "tenant_access_token": token, "expire": 7200})
        platform.answer({"code": 0, "app_access_token": "a-1", "expire": 7200})
        told = [lark.app_token(APP, "tenant"), lark.app_token(App("cli_b", "other"), "tenant")]
        told.append(lark.app_token(APP, "app"))
        assert [token.text for token in told] == ["t-1", "t-2", "a-1"]

    def test_a_changed_secret_is_tried(self, lark, platform):
        platform.answer({"code": 0, "tenant_access_token": "t-1", "expire": 7200})
        platform.answer({"code": 10015, "msg": "wrong app secret"})
        lark.app_token(APP, "tenant")
        error = failure(lambda: lark.app_token(App("cli_a", "changed"), "tenant"))
        assert (error.provider_code, error.reason) == (10015, "misconfigured")


@pytest.fixture
def bot(lark, platform) -> Lark:
    """With a token of the app in hand."""
    platform.answer({"code": 0, "tenant_access_token": "t-1", "expire": 7200})
    lark.app_token(APP, "tenant")
    platform.asked.clear()
    return lark


class TestCards:
    def test_it_is_sent(self, bot, platform):
        platform.answer({"code": 0, "data": {"message_id": "om_1"}})
        assert bot.send_card(APP, "open_id", "ou_1", CARD) == "om_1"
        [asked] = platform.asked
        assert (asked.method, asked.path) == ("POST", "/open-apis/im/v1/messages")
        assert asked.query == {"receive_id_type": ["open_id"]}
        assert asked.headers["authorization"] == "Bearer t-1"
        assert (asked.body["receive_id"], asked.body["msg_type"]) == ("ou_1", "interactive")
        content = json.loads(asked.body["content"])
        assert content["header"]["title"]["content"] == "用户授权请求"
        assert content["config"]["update_multi"] is True

    def test_sent_again_it_is_the_same_message_to_lark(self, bot, platform):
        """After a time-out nobody knows whether it was sent; Lark shows one message an hour for a `uuid`."""
        for _ in range(4):
            platform.answer({"code": 0, "data": {"message_id": "om_1"}})
        bot.send_card(APP, "open_id", "ou_1", CARD)
        bot.send_card(APP, "open_id", "ou_1", CARD)
        bot.send_card(APP, "open_id", "ou_2", CARD)
        bot.send_card(APP, "open_id", "ou_1", Card("other", "pending", "zh"))
        first, again, *others = [asked.body["uuid"] for asked in platform.asked]
        assert first == again
        assert len({first, *others}) == 3
        assert 1 <= len(first) <= 50

    def test_it_is_changed_in_place(self, bot, platform):
        platform.answer({"code": 0, "data": {}})
        bot.update_card(APP, "om_1", Card("5f0c", "completed", "en", name="Ann <at id=all>"))
        [asked] = platform.asked
        assert (asked.method, asked.path) == ("PATCH", "/open-apis/im/v1/messages/om_1")
        assert set(asked.body) == {"content"}
        content = json.loads(asked.body["content"])
        assert content["header"] == {"title": {"tag": "plain_text", "content": "Authorized"}, "template": "green"}
        assert "<at" not in asked.body["content"]

    def test_a_message_id_stays_in_its_place(self, bot, platform):
        platform.answer({"code": 230001, "msg": "invalid message_id"}, 400)
        failure(lambda: bot.update_card(APP, "../../authen/v1/user_info?x=1", CARD))
        assert platform.asked[0].path == "/open-apis/im/v1/messages/..%2F..%2Fauthen%2Fv1%2Fuser_info%3Fx%3D1"

    def test_a_template(self, platform):
        lark = Lark(platform.address, "https://accounts.example", 10, "AAq1", True)
        platform.answer({"code": 0, "tenant_access_token": "t-1", "expire": 7200})
        platform.answer({"code": 0, "data": {"message_id": "om_1"}})
        lark.send_card(APP, "chat_id", "oc_1", CARD)
        lark.close()
        content = json.loads(platform.asked[1].body["content"])
        assert (content["type"], content["data"]["template_id"]) == ("template", "AAq1")

    @pytest.mark.parametrize("code", [99991661, 99991663, 99991664, 99991665])
    def test_a_token_that_was_withdrawn_is_replaced(self, bot, platform, code):
        platform.answer({"code": code, "msg": "Invalid access token"}, 400)
        platform.answer({"code": 0, "tenant_access_token": "t-2", "expire": 7200})
        platform.answer({"code": 0, "data": {"message_id": "om_1"}})
        assert bot.send_card(APP, "open_id", "ou_1", CARD) == "om_1"
        assert [asked.headers.get("authorization") for asked in platform.asked] == ["Bearer t-1", None, "Bearer t-2"]
        assert platform.asked[0].body == platform.asked[2].body

    def test_it_is_replaced_once(self, bot, platform):
        platform.answer({"code": 99991663}, 400)
        platform.answer({"code": 0, "tenant_access_token": "t-2", "expire": 7200})
        platform.answer({"code": 99991663}, 400)
        assert failure(lambda: bot.update_card(APP, "om_1", CARD)).provider_code == 99991663
        assert len(platform.asked) == 3

    def test_a_limit_says_how_long(self, bot, platform):
        platform.answer({"code": 99991400, "msg": "request trigger frequency limit"}, 429, x_ogw_ratelimit_reset="52")
        error = failure(lambda: bot.send_card(APP, "open_id", "ou_1", CARD))
        assert isinstance(error, ProviderUnavailable)
        assert error.retry_after_seconds == 52

    @pytest.mark.parametrize(("header", "seconds"), [("0", 1), ("999999", 3600), ("-1", None), ("soon", None)])
    def test_a_strange_wait_is_bounded(self, bot, platform, header, seconds):
        platform.answer({"code": 230020}, 400, retry_after=header)
        assert failure(lambda: bot.update_card(APP, "om_1", CARD)).retry_after_seconds == seconds


IN_GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
from sidecar.domain.errors import ProviderUnavailable
from sidecar.services.lark import Lark

lark = Lark(sys.argv[1], "https://accounts.example", 1)
for _ in range(3):
    try:
        print(lark.person("u-0").open_id)
    except ProviderUnavailable as error:
        print(error.detail)
"""


class TestNoAnswer:
    """Each of these is the platform's fault, and told as such."""

    def unavailable(self, lark: Lark) -> ProviderUnavailable:
        error = failure(lambda: exchange(lark))
        assert isinstance(error, ProviderUnavailable)
        assert error.provider_code is None
        return error

    def test_nobody_listens(self):
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            lark = Lark(f"http://127.0.0.1:{reserved.getsockname()[1]}", "https://accounts.example", 5)
            self.unavailable(lark)
            lark.close()

    def test_no_such_host(self):
        lark = Lark("http://host.invalid", "https://accounts.example", 5)
        self.unavailable(lark)
        lark.close()

    def test_silence(self, hasty, platform):
        platform.write(lambda _write: platform.over.wait())
        assert "0.2 seconds" in self.unavailable(hasty).detail

    def test_an_answer_that_drips(self, platform):
        """Each byte comes in time, all of them don't. Looked at as the server does it, in greenlets; the next
        call works."""

        def drip(before: bytes, each: bytes) -> Callable[[Write], None]:
            def write(write: Write) -> None:
                write(before)
                while not platform.over.wait(0.01):
                    write(each)

            return write

        platform.write(drip(b"HTTP/1.1 200 OK\r\n", b"X-More: x\r\n"))
        platform.write(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "))
        platform.answer({"code": 0, "data": {"open_id": "ou_1"}})
        told = subprocess.run(
            [sys.executable, "-c", IN_GREENLETS, platform.address], capture_output=True, text=True, timeout=60
        )
        assert told.stdout.splitlines() == [
            "Lark did not answer within 1 seconds.",
            "Lark did not answer within 1 seconds.",
            "ou_1",
        ], told.stderr

    def test_a_connection_cut_before_the_answer(self, lark, platform):
        platform.write(lambda _write: None)
        self.unavailable(lark)

    def test_a_connection_cut_within_the_answer(self, lark, platform):
        platform.write(lambda write: write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"code":0'))
        self.unavailable(lark)

    def test_not_http(self, lark, platform):
        platform.write(lambda write: write(b"SSH-2.0-OpenSSH_9.2\r\n"))
        self.unavailable(lark)

    @pytest.mark.parametrize("status", [200, 429, 500, 502, 503, 504])
    @pytest.mark.parametrize("body", [b"", b"<html>leaked by Lark</html>", b"\xff", b"[]", b"null", b"[" * 100_000])
    def test_no_json_object(self, lark, platform, status, body):
        platform.answer(body, status)
        self.unavailable(lark)

    @pytest.mark.parametrize("body", [{}, {"code": "0"}, {"code": None}, {"code": True}, {"code": 0.0}, {"code": -1}])
    def test_no_code(self, lark, platform, body):
        platform.answer({**TOKENS, "code": None} | body)
        self.unavailable(lark)

    def test_a_code_beyond_measure(self, lark, platform):
        platform.answer(b'{"code": 1' + b"0" * 3000 + b"}")
        assert len(self.unavailable(lark).detail) < 200

    @pytest.mark.parametrize("status", [302, 400, 404, 500])
    def test_success_with_another_status(self, lark, platform, status):
        platform.answer(TOKENS, status)
        self.unavailable(lark)

    def test_a_flood(self, lark, platform):
        platform.answer({**TOKENS, "scope": "x" * MAX_ANSWER_BYTES})
        self.unavailable(lark)

    def test_a_flood_without_end(self, lark, platform):
        def pour(write: Write) -> None:
            write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not platform.over.is_set():
                write(b"x" * 65536)

        platform.write(pour)
        self.unavailable(lark)

    def test_tokens_that_are_none(self, lark, platform):
        platform.answer({**TOKENS, "access_token": ""})
        self.unavailable(lark)


class TestAnotherServer:
    """What is not Lark at all is the operator's mistake, and named."""

    @pytest.mark.parametrize("status", [301, 302, 307, 400, 403, 404, 405])
    def test_a_page(self, lark, platform, status):
        platform.answer(b"<html>nothing here</html>", status, Location=f"{platform.address}/elsewhere")
        error = failure(lambda: exchange(lark))
        assert (type(error), error.reason) == (AuthorizationFailed, "misconfigured")
        assert "SIDECAR_LARK_API_URL" in error.detail
        assert len(platform.asked) == 1  # a redirect would take the secrets along


def test_after_a_failure_the_next_call_works(lark, platform):
    platform.write(lambda _write: None)
    platform.answer(TOKENS)
    failure(lambda: exchange(lark))
    assert exchange(lark).access == "u-1"


def test_an_address_with_a_path_and_a_slash(platform):
    lark = Lark(f"{platform.address}/lark/", "https://accounts.example", 5)
    platform.answer(TOKENS)
    exchange(lark)
    lark.close()
    assert platform.asked[0].path == "/lark/open-apis/authen/v2/oauth/token"


def test_callbacks_clicks_and_advice_are_those_of_the_wire():
    lark: Provider = Lark("https://open.feishu.cn", "https://accounts.feishu.cn", 5)
    with pytest.raises(Unauthenticated):
        lark.callback(APP, {}, b"{}", 0)
    header = {"event_type": "card.action.trigger", "event_id": "e"}
    click = {"operator": {"open_id": "ou_1"}, "action": {"value": {"session_id": "s", "action": "reject"}}}
    told = lark.event({"schema": "2.0", "header": header, "event": click})
    found = lark.click(told.event)
    assert found is not None
    assert (found.session_id, found.action, found.open_id) == ("s", "reject", "ou_1")
    assert lark.answer("cancelled", "en")["toast"]["content"] == "Authorization declined"
    assert "SIDECAR_LARK_REDIRECT_URI" in str(lark.advice(20071, "en"))
