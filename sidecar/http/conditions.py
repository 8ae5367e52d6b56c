"""ETags of what is versioned: a read that is answered 304, and a write that holds only for what was read."""

from __future__ import annotations

import re

from flask import Response, request

from sidecar.domain.versions import Condition

_VERSION = re.compile(r"([0-9]{1,19})(?:-.*)?")


def tagged(response: Response, tag: str, private: bool = True) -> Response:
    """The response under this tag, which begins with the version; 304 for who has it already. Kept copies are asked
    about each time; `private` ones no proxy may keep."""
    response.set_etag(tag)
    response.headers["Cache-Control"] = "private, no-cache" if private else "no-cache"
    response.headers.add("Vary", "Authorization, Cookie, X-API-Key")
    if request.if_none_match.contains_weak(tag):
        response.status_code = 304
        response.set_data(b"")
    return response


def condition() -> Condition:
    """What the request says by If-Match and If-None-Match. (Weak tags count: a proxy that compresses weakens them.)"""
    match, none_match = request.if_match, request.if_none_match
    exists = True if match.star_tag else False if none_match.star_tag else None
    if "If-Match" not in request.headers or match.star_tag:
        return Condition(exists=exists)
    tags = [found[1] for tag in match.as_set(include_weak=True) if (found := _VERSION.fullmatch(tag or ""))]
    return Condition(frozenset(map(int, tags)), exists)
