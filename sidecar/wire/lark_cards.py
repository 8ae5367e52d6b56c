"""Cards that ask a user to authorize, what they show afterwards, and what a click is answered, in Chinese and English.

A card is JSON 1.0 from its first form to its last, and always shared (`update_multi`): Lark changes a card in place
only if both hold before and after (error 200830 otherwise). A button's `value` must be an object.

Sources (open.feishu.cn/document): "Card JSON 1.0 structure", its components button and rich text (escaping), "Card
callback communication", "Update sent message card".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sidecar.domain.authorizations import Card, Language, State, Toast

MAX_NAME_CHARACTERS = 64

TITLES: dict[State, dict[Language, str]] = {
    "pending": {"zh": "用户授权请求", "en": "Authorization request"},
    "completed": {"zh": "授权成功", "en": "Authorized"},
    "rejected": {"zh": "已取消授权", "en": "Declined"},
    "expired": {"zh": "授权已过期", "en": "Expired"},
}
COLORS: dict[State, str] = {"pending": "blue", "completed": "green", "rejected": "grey", "expired": "grey"}
TEXTS: dict[State, dict[Language, str]] = {
    "pending": {
        "zh": "应用需要您的授权，才能以您的身份访问飞书。请点击**授权**，在打开的页面中确认。",
        "en": "An application asks to use Lark on your behalf. Click **Authorize** and confirm on the page that opens.",
    },
    "completed": {
        "zh": "您已完成授权，可以关闭此消息。",
        "en": "You have authorized; nothing is left to do.",
    },
    "rejected": {
        "zh": "您已取消本次授权，应用不会访问您的数据。",
        "en": "You have declined. The application does not touch your data.",
    },
    "expired": {
        "zh": "本次授权请求已过期，如仍需要请重新发起。",
        "en": "This request has expired. If it is still wanted, ask for a new one.",
    },
}
AUTHORIZE: dict[Language, str] = {"zh": "授权", "en": "Authorize"}
CANCEL: dict[Language, str] = {"zh": "取消", "en": "Cancel"}
PRIVACY: dict[Language, str] = {
    "zh": "授权信息经加密保存，仅用于您同意的用途；您可以随时撤销。",
    "en": "What you grant is kept encrypted, used for what you agree to only, and can be revoked at any time.",
}

TOASTS: dict[Toast, tuple[str, dict[Language, str]]] = {
    "cancelled": ("info", {"zh": "已取消授权", "en": "Authorization declined"}),
    "follow_link": ("info", {"zh": "请点击链接完成授权", "en": "Follow the link to authorize"}),
    "completed": ("success", {"zh": "授权成功！", "en": "Authorized"}),
    "expired": ("error", {"zh": "授权已过期，请重新授权", "en": "This has expired: ask for a new authorization"}),
    "failed": ("error", {"zh": "授权失败，请重试", "en": "That failed: please try again"}),
    "not_yours": ("warning", {"zh": "此授权请求不是发给您的", "en": "This request is for somebody else"}),
}

_SPECIAL = re.compile(r"""[!"#$&'()*+/:<>@\[\\\]_`{|}~-]""")


@dataclass(frozen=True, slots=True)
class Look:
    """How cards are drawn: by a template of the card builder if there is one; else by us, with or without the
    sentences that explain."""

    template_id: str | None = None
    with_description: bool = True


def content(card: Card, look: Look) -> dict[str, Any]:
    """The card as the field `content` of a message holds it (there as text)."""
    if look.template_id:
        return {"type": "template", "data": _template(card, look.template_id)}
    return _drawn(card, look.with_description)


def answer(toast: Toast, language: Language, card: Card | None, look: Look) -> dict[str, Any]:
    """What a click is answered."""
    kind, words = TOASTS[toast]
    told: dict[str, Any] = {"toast": {"type": kind, "content": words[language]}}
    if card is not None:
        told["card"] = content(card, look) if look.template_id else {"type": "raw", "data": content(card, look)}
    return told


def escaped(text: str) -> str:
    """Text as `lark_md` shows it letter by letter: no mark-up, no mention, no link, on one line."""
    line = "".join(c if c.isprintable() else " " for c in text)[:MAX_NAME_CHARACTERS].strip()
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", line)


def _drawn(card: Card, with_description: bool) -> dict[str, Any]:
    elements: list[dict[str, Any]] = []
    if with_description or card.state != "pending":
        elements.append({"tag": "div", "text": {"tag": "lark_md", "content": _text(card)}})
    if card.state == "pending":
        elements.append({"tag": "action", "actions": _buttons(card)})
        elements.append({"tag": "note", "elements": [_plain(PRIVACY[card.language])]})
    return {
        "config": {"wide_screen_mode": True, "update_multi": True},
        "header": {"title": _plain(TITLES[card.state][card.language]), "template": COLORS[card.state]},
        "elements": elements,
    }


def _text(card: Card) -> str:
    words = TEXTS[card.state][card.language]
    name = escaped(card.name) if card.name and card.state == "completed" else ""
    if not name:
        return words
    return f"**{name}**，{words}" if card.language == "zh" else f"**{name}**: {words}"


def _buttons(card: Card) -> list[dict[str, Any]]:
    cancel = _button(card, CANCEL[card.language], "default", "reject")
    if card.authorize_url is None:
        return [cancel]
    return [_button(card, AUTHORIZE[card.language], "primary", "authorize") | {"url": card.authorize_url}, cancel]


def _button(card: Card, text: str, type: str, action: str) -> dict[str, Any]:
    value = {"session_id": card.session_id, "action": action}
    return {"tag": "button", "text": _plain(text), "type": type, "value": value}


def _plain(text: str) -> dict[str, str]:
    return {"tag": "plain_text", "content": text}


def _template(card: Card, template_id: str) -> dict[str, Any]:
    """The variables that a template may use; every one is always there, as text."""
    variables = {
        "title": TITLES[card.state][card.language],
        "text": _text(card),
        "state": card.state,
        "color": COLORS[card.state],
        "authorize_url": card.authorize_url or "",
        "session_id": card.session_id,
    }
    return {"template_id": template_id, "template_variable": variables}
