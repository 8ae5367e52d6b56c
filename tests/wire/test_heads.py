"""Heads of requests: what one reader could take for two requests, or another for one, is refused."""

from __future__ import annotations

import io

import pytest

from sidecar.wire.heads import MAX_FIELDS, MAX_HEAD_BYTES, BadRequest, Head, read_head
from tests.alarms import alarm

HOST = b"Host: localhost\r\n"


def head(*lines: bytes, first: str = "POST /a HTTP/1.1\r\n", host: bytes = HOST) -> Head:
    return read_head(first, io.BytesIO(host + b"".join(lines) + b"\r\n").readline)


def test_what_clients_send():
    read = head(b"User-Agent: curl/8\r\n", b"Content-Type:application/json\r\n", b"Content-Length: 12 \r\n")
    assert (read.method, read.target, read.version) == ("POST", "/a", "HTTP/1.1")
    assert read.fields == {
        "host": "localhost",
        "user-agent": "curl/8",
        "content-type": "application/json",
        "content-length": "12",
    }
    assert read.content_length == 12
    assert not read.close


def test_the_keys_for_wsgi():
    read = head(
        b"X-A: 1\r\n", b"x-a: 2\r\n", b"X_A: 3\r\n", b"Cookie: a=1\r\n", b"Cookie: b=2\r\n", b"X-B: \xe9\t!\r\n"
    )
    assert dict(read.fields.environ()) == {
        "HTTP_HOST": "localhost",
        "HTTP_X_A": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_B": "\xe9\t!",
    }


def test_names_are_found_in_any_spelling():
    fields = head(b"cOnTent-tYpe: a/b\r\n").fields
    assert (fields.get("Content-Type"), fields.typeheader, fields.get("Nothing", "-")) == ("a/b", "a/b", "-")


def test_the_reader_stops_at_the_end_of_the_head():
    source = io.BytesIO(HOST + b"\r\nGET /next")
    read_head("GET / HTTP/1.1\r\n", source.readline)
    assert source.read() == b"GET /next"


@pytest.mark.parametrize(
    ("first", "line", "close"),
    [
        ("GET / HTTP/1.1\r\n", b"", False),
        ("GET / HTTP/1.1\r\n", b"Connection: close\r\n", True),
        ("GET / HTTP/1.1\r\n", b"Connection: foo, Close\r\n", True),
        ("GET / HTTP/1.1\r\n", b"Connection: keep-alive\r\n", False),
        ("GET / HTTP/1.0\r\n", b"", True),
        ("GET / HTTP/1.0\r\n", b"Connection: Keep-Alive\r\n", False),
    ],
)
def test_whether_the_connection_ends(first: str, line: bytes, close: bool):
    assert head(line, first=first).close is close


def test_chunked():
    assert head(b"Transfer-Encoding: Chunked\r\n").content_length is None


def test_an_old_client_needs_no_host():
    assert head(first="GET / HTTP/1.0\r\n", host=b"").target == "/"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Transfer-Encoding: identity, chunked\r\n"],
        [b"Transfer-Encoding: chunked, identity\r\n"],
        [b"Transfer-Encoding: gzip\r\n"],
        [b"Transfer-Encoding: \x0bchunked\r\n"],
        [b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\n"],
        [b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n"],
        [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n"],
        [b"Transfer-Encoding:\r\n"],
        [b"Content-Length: 1\r\n", b"Content-Length: 2\r\n"],
        [b"Content-Length: 1, 2\r\n"],
        [b"Content-Length: +5\r\n"],
        [b"Content-Length: -1\r\n"],
        [b"Content-Length: 0_5\r\n"],
        [b"Content-Length: 0x5\r\n"],
        [b"Content-Length: 5.0\r\n"],
        [b"Content-Length: \xb2\r\n"],
        [b"Content-Length: many\r\n"],
        [b"Content-Length:\r\n"],
        [b"Content-Length: " + b"1" * 19 + b"\r\n"],
        [b"Host: other\r\n"],
        [b"X-A : 1\r\n"],
        [b"X A: 1\r\n"],
        [b" X-A: 1\r\n"],
        [b"X-A: 1\r\n", b"\tfolded\r\n"],
        [b"X-A: 1\r\n", b" Content-Length: 5\r\n"],
        [b"X-A: a\rb\r\n"],
        [b"X-A: a\rContent-Length: 5\r\n"],
        [b"X-A: a\r\r\n"],
        [b"\r\r\n"],
        [b"X-A: a\x00b\r\n"],
        [b"X\x00A: a\r\n"],
        [b"X-A: \x7f\r\n"],
        [b"X-\xe9: 1\r\n"],
        [b": 1\r\n"],
        [b"no colon\r\n"],
        [b"X-A: 1\r\n"] * MAX_FIELDS,
        [b"X-A: " + b"1" * 10_000 + b"\r\n"] * (MAX_HEAD_BYTES // 10_000 + 1),
        [b"X-A: " + b"1" * 20_000 + b"\r\n"],
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(lines: list[bytes]):
    with pytest.raises(BadRequest):
        head(*lines)


@pytest.mark.parametrize(
    "first",
    [
        "",
        "\r\n",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r",
        "GET\r\n",
        "GET /\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        " GET / HTTP/1.1\r\n",
        "GET / a HTTP/1.1\r\n",
        "GET /\x00 HTTP/1.1\r\n",
        "GET /\r HTTP/1.1\r\n",
        "GET\t/\tHTTP/1.1\r\n",
        "GET / HTTP/2.0\r\n",
        "GET / HTTP/0.9\r\n",
        "GET / HTTP/1\r\n",
        "GET / http/1.1\r\n",
        "G\xc9T / HTTP/1.1\r\n",
        "GET / HTTP/1.\xb2\r\n",
    ],
)
def test_a_line_that_is_no_request_is_refused(first: str):
    with pytest.raises(BadRequest):
        head(first=first)


def test_a_body_told_of_a_head_request_is_refused():
    with pytest.raises(BadRequest):
        head(b"Content-Length: 5\r\n", first="HEAD / HTTP/1.1\r\n")
    assert head(b"Content-Length: 0\r\n", first="HEAD / HTTP/1.1\r\n").content_length == 0


def test_no_host_is_refused():
    with pytest.raises(BadRequest):
        head(host=b"")


def test_a_head_that_breaks_off_is_refused():
    for cut in (b"", b"Hos", b"Host: x\r\n", b"Host: x\r\n\r"):
        with pytest.raises(BadRequest):
            read_head("GET / HTTP/1.1\r\n", io.BytesIO(cut).readline)


def test_a_hostile_line_takes_no_long_time():
    with alarm(2), pytest.raises(BadRequest):
        head(b"X-A:" + b" " * 16_000 + b"\x00\r\n")
