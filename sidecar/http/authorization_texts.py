"""What the pages of authorizations say, in Chinese and English: what has happened, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.domain.authorizations import Language, State
from sidecar.domain.errors import (
    AuthorizationCodeExpired,
    AuthorizationCodeMissing,
    AuthorizationExpired,
    AuthorizationNotFound,
    AuthorizationRejected,
    Conflict,
    ProviderUnavailable,
    SidecarError,
    Unavailable,
    WrongUser,
)

Kind = Literal["good", "waiting", "bad"]
Shown = State | Literal["completed_before"]


@dataclass(frozen=True, slots=True)
class Text:
    """`kind` gives the colour, `advice` is what to do next; all plain text."""

    kind: Kind
    title: str
    message: str
    advice: str = ""


FAILED = {"zh": "授权失败", "en": "Not authorized"}
CLOSE = {"zh": "您可以关闭此页面。", "en": "You may close this page."}
AGAIN = {
    "zh": "请回到发起授权的页面或卡片，重新授权。",
    "en": "Go back to where you came from (the page or the card) and authorize again.",
}

STATES: dict[Language, dict[Shown, Text]] = {
    "zh": {
        "pending": Text(
            "waiting", "等待授权", "尚未完成授权。", "请在飞书的授权页面上点击授权；完成后此页面会自动更新。"
        ),
        "completed": Text("good", "授权成功", "授权已完成。", CLOSE["zh"]),
        "completed_before": Text("good", "授权成功", "授权此前已完成，本次未作任何更改。", CLOSE["zh"]),
        "rejected": Text("bad", "授权失败", "您已取消授权。", AGAIN["zh"]),
        "expired": Text("bad", "授权失败", "授权已过期。", AGAIN["zh"]),
    },
    "en": {
        "pending": Text(
            "waiting",
            "Waiting for you",
            "You have not authorized yet.",
            "Authorize on the page of Lark; this page follows by itself.",
        ),
        "completed": Text("good", "Authorized", "The authorization is complete.", CLOSE["en"]),
        "completed_before": Text(
            "good", "Authorized", "The authorization was complete before; nothing was changed.", CLOSE["en"]
        ),
        "rejected": Text("bad", FAILED["en"], "You have declined.", AGAIN["en"]),
        "expired": Text("bad", FAILED["en"], "The time to authorize is over.", AGAIN["en"]),
    },
}

LAST_FAILURE: dict[Language, str] = {
    "zh": "上一次尝试未成功。",
    "en": "The last attempt did not succeed.",
}

ERRORS: dict[type[SidecarError], dict[Language, tuple[str, str]]] = {
    AuthorizationNotFound: {
        "zh": ("找不到此授权：链接无效或已过时。", AGAIN["zh"]),
        "en": ("There is no such authorization: the address is wrong or too old.", AGAIN["en"]),
    },
    AuthorizationExpired: {
        "zh": ("授权已过期。", AGAIN["zh"]),
        "en": ("The time to authorize is over.", AGAIN["en"]),
    },
    AuthorizationRejected: {
        "zh": ("您已取消授权。", AGAIN["zh"]),
        "en": ("The authorization was declined.", AGAIN["en"]),
    },
    AuthorizationCodeExpired: {
        "zh": ("授权码已过期或已被使用。", AGAIN["zh"]),
        "en": ("The code of the platform has expired or was used before.", AGAIN["en"]),
    },
    AuthorizationCodeMissing: {
        "zh": ("缺少必需参数：飞书没有返回授权码。", AGAIN["zh"]),
        "en": ("A parameter is missing: Lark has sent no code.", AGAIN["en"]),
    },
    WrongUser: {
        "zh": ("授权的飞书账号与被请求的用户不一致。", "请切换到正确的飞书账号后重新授权。"),
        "en": (
            "Somebody else is signed in at Lark than the one who was asked.",
            "Sign in at Lark with the right account, then authorize again.",
        ),
    },
    ProviderUnavailable: {
        "zh": ("飞书暂时没有响应，授权未完成。", "请稍后重新授权。"),
        "en": ("Lark does not answer now; nothing was authorized.", "Authorize again in a little while."),
    },
    Conflict: {
        "zh": ("此授权正在处理或已经结束。", "请稍后查看状态页面。"),
        "en": ("The authorization is being completed, or has ended.", "Look at its page again in a moment."),
    },
    Unavailable: {
        "zh": ("服务器暂时无法保存，授权未完成。", "请稍后重新授权。"),
        "en": ("The server can't store anything now; nothing was authorized.", "Authorize again in a little while."),
    },
}
OTHERWISE: dict[Language, tuple[str, str]] = {
    "zh": ("授权未完成。", AGAIN["zh"]),
    "en": ("Nothing was authorized.", AGAIN["en"]),
}


def of_state(state: Shown, language: Language, reason: str | None = None) -> Text:
    text = STATES[language][state]
    if state == "pending" and reason is not None:
        return Text(text.kind, text.title, f"{text.message} {LAST_FAILURE[language]}", text.advice)
    return text


def of_error(error: SidecarError, language: Language, advice: str | None) -> Text:
    """`advice` is the platform's own, if it gave a number that is known."""
    message, next = ERRORS.get(type(error), OTHERWISE)[language]
    return Text("bad", FAILED[language], message, advice or next)
