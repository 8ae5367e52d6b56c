"""What Lark answers when it is asked, read with distrust: bounded, of the right type, or not at all.

Sources (open.feishu.cn/document): "Get user_access_token" (v2: a flat object), "Get user information", "Get
tenant_access_token / app_access_token (internal apps)", "Send message".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from sidecar.domain.authorizations import AppToken, AppTokenKind, Person, UserTokens
from sidecar.domain.errors import ProviderUnavailable

MAX_TOKEN_CHARACTERS = 16_384
"""Lark speaks of 1 to 2 KB and says to reserve 4."""
MAX_LIFETIME_SECONDS = 10 * 365 * 86_400
MAX_SCOPE_CHARACTERS = 16_384
MAX_ID_CHARACTERS = 128
MAX_TEXT_CHARACTERS = 10_000
MAX_NAME_CHARACTERS = 128
"""A longer name is cut; other texts that are too long are left out."""
MAX_MOBILE_CHARACTERS = 32
MAX_EMAIL_CHARACTERS = 128

_VISIBLE = re.compile(r"[\x21-\x7e]+")


def user_tokens(body: Mapping[str, Any]) -> UserTokens:
    """Raises ProviderUnavailable if the answer holds no usable token. A refresh token that is none is left out."""
    refresh = body.get("refresh_token")
    return UserTokens(
        access=_required(body, "access_token", MAX_TOKEN_CHARACTERS),
        expires_in=_lifetime(body, "expires_in"),
        refresh=refresh if _is_visible(refresh, MAX_TOKEN_CHARACTERS) else None,
        refresh_expires_in=_seconds(body.get("refresh_token_expires_in")),
        scope=_text(body.get("scope"), MAX_SCOPE_CHARACTERS) or "",
    )


def person(body: Mapping[str, Any]) -> Person:
    """Raises ProviderUnavailable if the answer doesn't say who."""
    data = _data(body)
    name = _text(data.get("name"), MAX_TEXT_CHARACTERS)
    return Person(
        open_id=_required(data, "open_id", MAX_ID_CHARACTERS),
        union_id=_text(data.get("union_id"), MAX_ID_CHARACTERS),
        name=name[:MAX_NAME_CHARACTERS] if name else None,
        mobile=_text(data.get("mobile"), MAX_MOBILE_CHARACTERS),
        email=_text(data.get("email"), MAX_EMAIL_CHARACTERS)
        or _text(data.get("enterprise_email"), MAX_EMAIL_CHARACTERS),
    )


def app_token(body: Mapping[str, Any], kind: AppTokenKind) -> AppToken:
    return AppToken(_required(body, f"{kind}_access_token", MAX_TOKEN_CHARACTERS), _lifetime(body, "expire"))


def message_id(body: Mapping[str, Any]) -> str:
    return _required(_data(body), "message_id", MAX_ID_CHARACTERS)


def _data(body: Mapping[str, Any]) -> Mapping[str, Any]:
    data = body.get("data")
    if not isinstance(data, Mapping):
        raise _unusable("data")
    return data


def _required(body: Mapping[str, Any], name: str, most: int) -> str:
    value = body.get(name)
    if not _is_visible(value, most):
        raise _unusable(name)
    return str(value)


def _lifetime(body: Mapping[str, Any], name: str) -> float:
    seconds = _seconds(body.get(name))
    if seconds is None:
        raise _unusable(name)
    return seconds


def _is_visible(value: Any, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most and _VISIBLE.fullmatch(value) is not None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value) if 0 < value <= MAX_LIFETIME_SECONDS else None


def _text(value: Any, most: int) -> str | None:
    """What a person may read; None if it is empty, too long or no text."""
    if not isinstance(value, str) or len(value) > most:
        return None
    return "".join(c if c.isprintable() else " " for c in value).strip() or None


def _unusable(name: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"Lark's answer can't be used: its field {name} is missing or strange.")
