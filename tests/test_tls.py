"""TLS by the sidecar itself, with real clients: what nginx does otherwise, and what a client may do wrong."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import websocket

from tests.certificates import Authority, Pair
from tests.programs import free_port, require, wait_until
from tests.servers import ROOT, RunningSidecar, run
from tests.sockets.clients import Page, Plain

SEND = "/api/send-websocket/"
END_SECONDS = 10

Start = Callable[..., RunningSidecar]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    """One sidecar with TLS for the tests that leave it as it was."""
    environment = {"SIDECAR_RATE_LIMIT": "off", "SIDECAR_MAX_BODY_BYTES": "8000000", "SIDECAR_OUTBOX_BYTES": "40000000"}
    environment |= {"SIDECAR_OPEN": "webhooks", "SIDECAR_WEBHOOK_NETWORKS": "127.0.0.2"}
    folder = tmp_path_factory.mktemp("secure")
    server = RunningSidecar(folder, environment | authority.server().settings(), tls=authority.trusting())
    server.start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.output(), server.output()


@pytest.fixture
def start_secure(authority: Authority, tmp_path: Path) -> Iterator[Start]:
    """`start_secure(pair, SIDECAR_X="y")`: one for a test of its own; `tls` is what its clients trust and show."""
    servers: list[RunningSidecar] = []

    def start(pair: Pair | None = None, tls: ssl.SSLContext | None = None, **environment: str) -> RunningSidecar:
        settings = (pair or authority.server()).settings() | {"SIDECAR_RATE_LIMIT": "off"} | environment
        servers.append(RunningSidecar(tmp_path / f"secure-{len(servers)}", settings, tls=tls or authority.trusting()))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
        assert "Traceback" not in server.output(), server.output()


def failed(server: RunningSidecar, reason: str) -> float:
    return server.metric(f'sidecar_tls_handshakes_failed_total{{reason="{reason}"}}')


def clients(server: RunningSidecar) -> int:
    """TCP connections that it holds."""
    held = psutil.Process(server.pid).net_connections("tcp")
    return sum(one.status != psutil.CONN_LISTEN for one in held)


def at_rest(server: RunningSidecar) -> int:
    """Its descriptors while nobody is connected, the database read once."""
    assert server.get("/readyz").status_code == 200
    wait_until(lambda: clients(server) == 0, "nobody is connected")
    return sockets(server)


def sockets(server: RunningSidecar) -> int:
    count = 0
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += os.readlink(link).startswith("socket:")
    return count


def post(server: RunningSidecar, project: str, message: str) -> int:
    """A log line; its seq."""
    body = {"type": "log_entry", "project": project, "deployment_id": project, "message": message}
    answer = server.post("/api/webhooks/deployment", body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["event_id"])


def bared(tls: ssl.SSLSocket) -> socket.socket:
    """The TCP socket under it, without TLS."""
    bare = socket.socket(fileno=tls.detach())
    bare.settimeout(15)
    return bare


@contextlib.contextmanager
def connected(server: RunningSidecar, context: ssl.SSLContext | None = None) -> Iterator[ssl.SSLSocket]:
    """A bare TLS connection."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=15)
    with sock, (context or server.tls).wrap_socket(sock, server_hostname="localhost") as tls:
        yield tls


def serial(server: RunningSidecar) -> int:
    """Of the certificate that a new connection is shown."""
    with connected(server) as tls:
        shown = tls.getpeercert()
        assert shown is not None
        return int(str(shown["serialNumber"]), 16)


def gets(tls: ssl.SSLSocket, path: str = "/healthz") -> bytes:
    """One request on an open connection; its answer."""
    tls.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}\n"):
        data = tls.recv(65_536)
        assert data, answer
        answer += data
    return answer


# HTTP


def test_its_addresses_say_https(secure):
    assert f"The sidecar serves https://127.0.0.1:{secure.port}/" in secure.output()
    assert "curl https://127.0.0.1" in secure.output()


def test_cookies_are_secure_and_origins_right(secure):
    own = f"https://127.0.0.1:{secure.port}"
    code = re.search(r"login\?code=(\S+)", secure.cli("login").stdout)
    assert code
    answer = secure.post("/login", token="", data={"code": code[1]}, headers={"Origin": own})
    cookie = answer.headers["Set-Cookie"]
    assert "; Secure" in cookie
    session = cookie.partition(";")[0]
    for origin, taken in ((own, True), (own.replace("https:", "http:"), False)):
        with contextlib.ExitStack() as stack:
            if not taken:
                stack.enter_context(pytest.raises(websocket.WebSocketBadStatusException, match="403"))
            address = f"wss://127.0.0.1:{secure.port}/ws/rooms/origin/"
            made = websocket.create_connection(
                address, sslopt={"context": secure.tls}, origin=origin, cookie=session, timeout=15
            )
            stack.callback(made.close)


def test_the_clients_address_is_the_real_one(secure, name):
    body = {"type": "log_entry", "project": name, "deployment_id": "1", "message": "x"}

    def posted(address: str) -> int:
        transport = httpx.HTTPTransport(local_address=address, verify=secure.tls)
        with httpx.Client(transport=transport, base_url=secure.url) as client:
            return client.post("/api/webhooks/deployment", json=body).status_code

    assert [posted("127.0.0.2"), posted("127.0.0.1")] == [200, 401]


def test_a_connection_serves_many_requests(secure):
    with connected(secure) as tls:
        for _ in range(50):
            assert b'{"status":"ok"}' in gets(tls)


def test_requests_may_come_in_one_write(secure):
    with connected(secure) as tls:
        tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        answer = b""
        while answer.count(b'{"status":"ok"}') < 20:
            data = tls.recv(65_536)
            assert data
            answer += data


def test_a_byte_a_record_is_a_request_too(secure):
    with connected(secure) as tls:
        for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
            tls.send(bytes([byte]))
        answer = b""
        while data := tls.recv(65_536):
            answer += data
        assert answer.endswith(b'{"status":"ok"}\n')
        assert tls.unwrap() is not None, "it said goodbye (close_notify)"


def test_large_bodies_both_ways(secure, name):
    for _ in range(10):
        post(secure, name, "x" * 600_000)
    page = secure.get(f"/api/deployments/{name}/logs?limit=1000")
    assert page.status_code == 200
    assert len(page.content) > 600_000


def test_a_body_too_large_is_refused_and_the_client_learns_it(secure):
    """Nothing of the answer may be lost though the body was not read."""
    answer = secure.request("POST", "/api/webhooks/deployment", content=b"x" * 9_000_000)
    assert answer.status_code == 413


# Sockets


def test_the_official_client_polls_and_upgrades(secure, authority, js, name):
    page = Page(js, secure, token=secure.token, transports=["polling", "websocket"], ca=authority.file.read_text())
    wait_until(lambda: {"connect", "upgrade"} <= {line["what"] for line in page.lines()}, "connected and upgraded")
    assert [line["transport"] for line in page.lines() if line["what"] == "upgrade"] == ["websocket"]
    page.call("subscribe_project", name)
    seqs = [post(secure, name, "x" * 60_000) for _ in range(20)]
    assert page.wait_for(20) == seqs
    page.disconnect()


def test_the_official_client_polls_alone(secure, authority, js, name):
    page = Page(js, secure, token=secure.token, transports=["polling"], ca=authority.file.read_text()).connected()
    page.call("subscribe_project", name)
    seqs = [post(secure, name, "x") for _ in range(5)]
    assert page.wait_for(5) == seqs
    page.disconnect()


def test_a_client_that_does_not_trust_us_stays_away(secure, js):
    page = Page(js, secure, token=secure.token, reconnection=False)
    page.next("connect_error")
    before = failed(secure, "refused_by_client")
    with pytest.raises(ssl.SSLCertVerificationError), connected(secure, ssl.create_default_context()):
        pass
    wait_until(lambda: failed(secure, "refused_by_client") == before + 1, "it is counted")


def test_plain_rooms_over_wss(secure, name):
    first, second = (Plain(secure, f"/ws/rooms/{name}/") for _ in range(2))
    text = "ä" * 1_000_000
    for one in (first, second):
        assert one.next()["type"] == "connection_status"
    answer = secure.post(SEND, {"room": name, "message": "x", "data": {"text": text}})
    assert answer.status_code == 200, answer.text
    for one in (first, second):
        assert text in json.dumps(one.next(), ensure_ascii=False)
        one.close()


def test_a_large_frame_from_a_client_arrives(secure, name):
    one = Plain(secure, f"/ws/rooms/{name}/")
    assert one.next()["type"] == "connection_status"
    one.made.send("x" * 7_000_000)
    assert one.next()["type"] == "error", "read whole, and no JSON"
    one.made.send("x" * 8_100_000)
    assert one.closed() == 1009
    one.close()


def test_a_websocket_is_closed_in_order(secure, name):
    one = Plain(secure, f"/ws/rooms/{name}/")
    assert one.next()["type"] == "connection_status"
    one.made.send_close(1000)
    assert one.closed() == 1000
    assert one.made.sock.recv(1) == b"", "and TLS said goodbye too"
    one.close()


# Mutual TLS


def test_mutual_tls_lets_in_who_shows_a_certificate(start_secure, authority, tmp_path, js, name):
    ours, other = Authority(tmp_path / "ours", "clients"), Authority(tmp_path / "other", "clients")
    shown = ours.client("bob")
    server = start_secure(tls=authority.trusting(shown), SIDECAR_TLS_CLIENT_CA=str(ours.file))
    assert server.get("/readyz").json()["ready"]
    one = Plain(server, f"/ws/rooms/{name}/")
    assert one.next()["type"] == "connection_status"
    one.close()
    files = {"ca": authority.file, "cert": shown.certificate, "key": shown.key}
    page = Page(js, server, token=server.token, **{key: file.read_text() for key, file in files.items()}).connected()
    page.disconnect()
    refused = (None, other.client("bob"), authority.server())
    for count, pair in enumerate(refused, 1):
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url + "/healthz", verify=authority.trusting(pair))
        wait_until(lambda count=count: failed(server, "client_certificate") == count, "it is counted")
    assert server.output().count("tls.handshake_failed") == 1, "a line, not one for each"


# Versions


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_versions_are_spoken(secure, authority, version):
    context = authority.trusting()
    context.minimum_version = context.maximum_version = version
    with connected(secure, context) as tls:
        assert b'{"status":"ok"}' in gets(tls)
        assert tls.version() == version.name.replace("_", ".")


def test_old_versions_are_refused(secure, authority):
    context = authority.trusting()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    before = failed(secure, "version")
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"), connected(secure, context):
        pass
    assert failed(secure, "version") == before + 1


# Reading the certificate again


def replace(pair: Pair, new: Pair) -> None:
    """As a renewal does: other files at the same place."""
    for old, fresh in ((pair.certificate, new.certificate), (pair.key, new.key)):
        os.replace(fresh, old)


def test_a_renewed_certificate_is_taken_and_nobody_is_disturbed(start_secure, authority, name):
    pair, new = authority.server(days=10), authority.server(days=20)
    server = start_secure(pair)
    expiry = "sidecar_tls_certificate_expiry_timestamp_seconds"
    assert server.metric(expiry) == pair.ends
    one = Plain(server, f"/ws/rooms/{name}/")
    assert one.next()["type"] == "connection_status"
    with connected(server) as tls:
        assert b"ok" in gets(tls)
        replace(pair, new)
        assert serial(server) == pair.serial
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: serial(server) == new.serial, "new connections are shown the new one")
        assert server.metric(expiry) == new.ends
        assert b"ok" in gets(tls)
        assert server.post(SEND, {"room": name, "message": "still here"}).status_code == 200
        assert "still here" in json.dumps(one.next())
    one.close()
    assert "tls.reloaded" in server.output()


def bad_files(authority: Authority) -> dict[str, Callable[[Pair], None]]:
    def without_key(pair: Pair) -> None:
        pair.key.unlink()

    def other_key(pair: Pair) -> None:
        os.replace(authority.server().key, pair.key)

    def encrypted(pair: Pair) -> None:
        replace(pair, authority.server(passphrase=b"secret"))

    def empty(pair: Pair) -> None:
        pair.certificate.write_text("")

    def broken_key(pair: Pair) -> None:
        pair.key.write_text("nonsense")

    return {
        "SIDECAR_TLS_KEY: can't be read": without_key,
        "SIDECAR_TLS_KEY: is not the key": other_key,
        "SIDECAR_TLS_KEY: is encrypted": encrypted,
        "SIDECAR_TLS_CERT: holds no certificate": empty,
        "SIDECAR_TLS_KEY: holds no private key": broken_key,
    }


def test_a_bad_certificate_changes_nothing(start_secure, authority):
    pair = authority.server()
    server = start_secure(pair)
    good = {file: file.read_bytes() for file in (pair.certificate, pair.key)}
    for told, spoil in bad_files(authority).items():
        spoil(pair)
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda told=told: told in server.output(), told)
        assert serial(server) == pair.serial
        assert server.metric("sidecar_tls_certificate_expiry_timestamp_seconds") == pair.ends
        for file, content in good.items():
            file.write_bytes(content)
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: "tls.reloaded" in server.output(), "a good one is taken again")


# Starts that fail


def refused(environment: dict[str, str], folder: Path) -> str:
    """What a start with these settings says on its way out."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "PORT"))}
    given = {"SIDECAR_INSTANCE_DIR": str(folder), "SIDECAR_PORT": str(free_port())}
    done = run(str(ROOT / "app.py"), environment=inherited | given | environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert not folder.exists(), "nothing was begun"
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_bad_files_are_told_in_one_line(authority, tmp_path):
    for told, spoil in bad_files(authority).items():
        pair = authority.server()
        spoil(pair)
        assert told in refused(pair.settings(), tmp_path / "none")


def test_a_folder_or_nonsense_for_the_clients_authority_is_told(authority, tmp_path):
    settings = authority.server().settings()
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for file, told in (
        (tmp_path, "can't be read"),
        (nonsense, "holds no certificate"),
        (tmp_path / "x", "can't be read"),
    ):
        said = refused(settings | {"SIDECAR_TLS_CLIENT_CA": str(file)}, tmp_path / "none")
        assert f"SIDECAR_TLS_CLIENT_CA: {told}" in said


# Who doesn't speak TLS, or not to its end


def test_plain_http_is_told_where_to_go(secure):
    before = failed(secure, "plain_http")
    answer = httpx.get(f"http://127.0.0.1:{secure.port}/healthz")
    assert (answer.status_code, "https://" in answer.text) == (400, True)
    assert failed(secure, "plain_http") == before + 1


def test_garbage_is_closed_and_costs_a_line(start_secure):
    server = start_secure()
    rest = at_rest(server)
    for number in range(50, 100):  # (22 would be the beginning of a handshake)
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as sock:
            sock.sendall(bytes([number]) * 600)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):
                    pass
    assert sum(failed(server, reason) for reason in ("not_tls", "other", "version")) == 50
    assert server.output().count("tls.handshake_failed") == 1
    wait_until(lambda: sockets(server) <= rest, "nothing of them stays")


def test_garbage_after_the_handshake_ends_the_connection(start_secure):
    server = start_secure()
    rest = at_rest(server)
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as sock:
        tls = server.tls.wrap_socket(sock, server_hostname="localhost")
        assert b"ok" in gets(tls)
        with bared(tls) as bare:
            bare.sendall(b"no record of ours" * 100)
            with contextlib.suppress(ConnectionResetError):
                while bare.recv(4096):
                    pass
    wait_until(lambda: sockets(server) <= rest, "nothing of them stays")


def test_a_handshake_that_never_ends_is_ended(start_secure):
    server = start_secure()
    rest = at_rest(server)
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)) for _ in range(20)
        ]
        for sock in slow[10:]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01")  # a ClientHello begins
        wait_until(lambda: clients(server) >= 20, "they are in")
        assert server.get("/healthz").status_code == 200, "others are served meanwhile"
        for sock in slow:
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(4096) == b""
    assert failed(server, "timeout") == 20
    wait_until(lambda: sockets(server) <= rest, "nothing of them stays")


@pytest.mark.parametrize("how", ["reset", "truncated", "goodbye"])
def test_however_clients_end_nothing_stays(start_secure, name, how):
    server = start_secure()
    rest = at_rest(server)
    ones = [Plain(server, f"/ws/rooms/{name}/") for _ in range(20)]
    for one in ones:
        assert one.next()["type"] == "connection_status"
    wait_until(lambda: server.metric("sidecar_socket_connections") == 20, "all are in")
    for one in ones:
        tls = one.made.sock
        if how == "reset":
            one.reset()
        elif how == "truncated":  # TCP ends, TLS doesn't
            with bared(tls) as bare:
                bare.shutdown(socket.SHUT_WR)
                while bare.recv(4096):
                    pass
        else:
            with contextlib.suppress(ssl.SSLError):
                tls.unwrap()
            tls.close()
    wait_until(lambda: server.metric("sidecar_socket_connections") == 0, "all are out")
    wait_until(lambda: sockets(server) <= rest, "nothing of them stays")
    assert server.metric('sidecar_sockets_failed_total{kind="rooms",reason="cut"}') == 20


def test_clients_that_leave_in_the_middle_leave_nothing(start_secure, name):
    """Requests half sent, answers half read."""
    server = start_secure(SIDECAR_MAX_BODY_BYTES="2000000", SIDECAR_OUTBOX_BYTES="8000000")
    for _ in range(40):
        post(server, name, "x" * 60_000)
    rest = at_rest(server)
    for number in range(40):
        with connected(server) as tls:
            if number % 2:
                tls.sendall(b"POST /api/webhooks/deployment HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nxxx")
            else:
                head = f"GET /api/deployments/{name}/events?limit=1000 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                tls.sendall(f"{head}Authorization: Token {server.token}\r\n\r\n".encode())
                assert tls.recv(1000)
            if number % 4 < 2:
                tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: sockets(server) <= rest, "nothing of them stays")
    assert server.get("/readyz").status_code == 200


def test_a_slow_reader_slows_nobody_and_gets_everything(start_secure, name):
    server = start_secure(SIDECAR_OUTBOX_BYTES="4194304")
    slow, quick = Plain(server, f"/ws/rooms/{name}/"), Plain(server, f"/ws/rooms/{name}/")
    for one in (slow, quick):
        assert one.next()["type"] == "connection_status"
    count = 60
    for _ in range(count):
        answer = server.post(SEND, {"room": name, "message": "m", "data": {"text": "x" * 500_000}})
        assert answer.status_code == 200
        assert len(quick.made.recv()) > 500_000
    assert server.metric("sidecar_subscribers_demoted_total") >= 1, "what it didn't take is not kept for it"
    for _ in range(count):
        assert len(slow.made.recv()) > 500_000
    for one in (slow, quick):
        one.close()


# The end


def test_the_end_comes_in_time_whoever_is_there(start_secure, name):
    server = start_secure()
    ones = [Plain(server, f"/ws/rooms/{name}/") for _ in range(30)]
    for one in ones:
        assert one.next()["type"] == "connection_status"
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(connected(server))
        assert b"ok" in gets(idle)
        stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=15))  # in its handshake
        os.kill(server.pid, signal.SIGTERM)
        assert [one.closed() for one in ones] == [1012] * 30
        for one in ones:
            one.close()
        assert idle.recv(1) == b"", "closed with a goodbye, not cut"
        assert server._process is not None
        assert server._process.wait(END_SECONDS) == 0, server.output()


# Around it


def test_the_command_line_speaks_it_too(secure, authority, name):
    sent = secure.cli("send", "--room", name, "hello", SSL_CERT_FILE=str(authority.file), SIDECAR_PORT=str(secure.port))
    assert sent.returncode == 0, sent.stderr
    assert "Stored as event" in sent.stdout


def test_the_command_line_listens_too(secure, authority, name):
    assert secure.post(SEND, {"room": name, "message": "hello"}).status_code == 200
    environment = {"SSL_CERT_FILE": str(authority.file), "SIDECAR_PORT": str(secure.port)}
    tail, output, errors = secure.begin_cli("tail", "--room", name, "--since", "0", **environment)
    with output, errors:
        assert b"hello" in output.readline()
        tail.send_signal(signal.SIGTERM)
        tail.wait(END_SECONDS)


def test_the_commands_of_the_page_make_what_it_needs(start_secure, tmp_path):
    """docs/hosting.md, word by word: an authority, a certificate of the sidecar, and one of a client."""
    for program in ("bash", "openssl", "curl"):
        require(program)
    section = (ROOT / "docs" / "hosting.md").read_text().split("## Without nginx", 1)[1].split("\n## ", 1)[0]
    commands = re.findall(r"^    ((?:openssl|printf) .*)$", section, re.MULTILINE)
    (curl,) = re.findall(r"^    (curl .*)$", section, re.MULTILINE)
    assert len(commands) == 7

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for command in commands:
        run(command)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # as from Python 3.13 on
    trusting.load_cert_chain(tmp_path / "bob.pem", tmp_path / "bob-key.pem")
    pair = Pair(tmp_path / "server.pem", tmp_path / "server-key.pem", 0, 0)
    server = start_secure(pair, trusting, SIDECAR_TLS_CLIENT_CA=str(tmp_path / "ca.pem"))
    assert server.get("/healthz").json() == {"status": "ok"}
    assert json.loads(run(curl.replace("8091", str(server.port)))) == {"status": "ok"}


def test_without_tls_the_figure_is_zero(sidecar):
    assert sidecar.metric("sidecar_tls_certificate_expiry_timestamp_seconds") == 0


def test_requests_that_come_at_once_are_all_served(secure):
    with contextlib.ExitStack() as stack:
        all_of_them: list[Any] = []
        for _ in range(60):
            made = http.client.HTTPSConnection("127.0.0.1", secure.port, context=secure.tls, timeout=30)
            stack.callback(made.close)
            made.request("GET", "/healthz")
            all_of_them.append(made)
        assert [made.getresponse().status for made in all_of_them] == [200] * 60
