"""The head of an HTTP/1 request, read strictly: what two readers could understand differently is refused, so that
nobody can hide a second request in the body of a first (RFC 9112, sections 2.2, 3, 5 and 6.3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_FIELDS = 100
MAX_LINE_BYTES = 16_384
MAX_HEAD_BYTES = 65_536
MAX_LENGTH_DIGITS = 18

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) (HTTP/1\.[0-9])\r?\n", re.ASCII)
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r?\n", re.ASCII)
_ONCE = frozenset({"host", "content-length", "content-type", "transfer-encoding"})


class BadRequest(ValueError):
    """This is no request that can be answered but with 400; the connection must end. Holds nothing of the input."""


class Fields(dict[str, str]):
    """Header fields by their name in small letters; a repeated one is joined. Answers also what pywsgi's handler
    asks of its own header class."""

    status = ""

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        return super().get(name.lower(), default)

    def getheader(self, name: str) -> str | None:
        return super().get(name)

    @property
    def typeheader(self) -> str | None:
        return super().get("content-type")

    def environ(self) -> Iterator[tuple[str, str]]:
        """The WSGI keys. A name with an underscore is left out: it could pose as another one."""
        for name, value in self.items():
            if "_" not in name and name not in ("content-type", "content-length"):
                yield "HTTP_" + name.upper().replace("-", "_"), value


@dataclass(frozen=True, slots=True)
class Head:
    """`content_length` None: no body, or a chunked one; `close`: the connection ends after the answer."""

    method: str
    target: str
    version: str
    fields: Fields
    content_length: int | None
    close: bool


def read_head(request_line: str, readline: Callable[[int], bytes]) -> Head:
    """The head that begins with this line; its other lines come from `readline(size)`. Raises BadRequest."""
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise BadRequest("request line")
    method, target, version = match.groups()
    fields = _read_fields(readline)
    if "host" not in fields and version != "HTTP/1.0":
        raise BadRequest("no Host")
    length = _content_length(fields, version)
    if length and method == "HEAD":
        raise BadRequest("HEAD with a body")
    options = [option.strip() for option in fields.get("connection").lower().split(",")]
    close = "keep-alive" not in options if version == "HTTP/1.0" else "close" in options
    return Head(method, target, version, fields, length, close)


def _read_fields(readline: Callable[[int], bytes]) -> Fields:
    fields = Fields()
    left = MAX_HEAD_BYTES
    for _ in range(MAX_FIELDS + 1):
        line = readline(MAX_LINE_BYTES)
        if line in (b"\r\n", b"\n"):
            return fields
        left -= len(line)
        match = _FIELD.fullmatch(line.decode("latin-1"))
        if match is None or left < 0:
            raise BadRequest("header field")
        name, value = match[1].lower(), match[2].strip(" \t")
        if name not in fields:
            fields[name] = value
        elif name in _ONCE:
            raise BadRequest("repeated header field")
        else:
            fields[name] += ("; " if name == "cookie" else ",") + value
    raise BadRequest("too many header fields")


def _content_length(fields: Fields, version: str) -> int | None:
    """Of the two ways to tell where a body ends only one, and only as the RFC writes it."""
    coding, length = fields.getheader("transfer-encoding"), fields.getheader("content-length")
    if coding is not None and (length is not None or version == "HTTP/1.0" or coding.lower() != "chunked"):
        raise BadRequest("Transfer-Encoding")
    if length is None:
        return None
    if not (length.isascii() and length.isdigit() and len(length) <= MAX_LENGTH_DIGITS):
        raise BadRequest("Content-Length")
    return int(length)
