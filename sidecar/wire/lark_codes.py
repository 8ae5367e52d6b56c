"""What Lark's error codes mean: which error of ours each is, and what to do about it, in Chinese and English. Lark's
own messages are not passed on: they may repeat what was sent.

Sources (open.feishu.cn/document): "Obtain OAuth code", "Get user_access_token" and "Refresh user_access_token" (v2, and
the historic v1 oidc pair), "Get user information", "Send message", "Update sent message card", "Generic error codes".
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.domain.authorizations import Language
from sidecar.domain.errors import (
    AuthorizationCodeExpired,
    AuthorizationFailed,
    ProviderUnavailable,
    TokenRefreshFailed,
    UserTokenExpired,
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """`error` is the class it becomes, `reason` one of REASONS if it isn't the class's own."""

    error: type[AuthorizationFailed]
    zh: str
    en: str
    reason: str | None = None


def _again(zh: str, en: str) -> Meaning:
    return Meaning(AuthorizationCodeExpired, f"{zh}，请重新发起授权。", f"{en}: start the authorization again.")


def _renew(zh: str, en: str) -> Meaning:
    return Meaning(TokenRefreshFailed, f"{zh}，请用户重新授权。", f"{en}: the user has to authorize again.")


def _token(zh: str, en: str) -> Meaning:
    return Meaning(UserTokenExpired, f"{zh}，请重新授权。", f"{en}: the user has to authorize again.")


def _configure(zh: str, en: str) -> Meaning:
    return Meaning(AuthorizationFailed, zh, en, "misconfigured")


def _failed(zh: str, en: str) -> Meaning:
    return Meaning(AuthorizationFailed, zh, en, "unknown_error")


def _later(zh: str, en: str) -> Meaning:
    return Meaning(ProviderUnavailable, zh, en)


_SECRET = _configure(
    "App ID 或 App Secret 不正确，请按开发者后台「凭证与基础信息」核对后重新配置。",
    "The app's id or secret is wrong: compare it with Credentials & Basic Info in the developer console.",
)
_REQUEST = _configure(
    "飞书认为请求的参数不正确，请检查应用配置，并联系管理员。",
    "Lark finds a parameter missing or wrong: check the app's settings and tell the administrator.",
)
_DISABLED = _configure(
    "应用未启用、不存在或未安装，请管理员在开发者后台和管理后台检查应用状态。",
    "The app is disabled, unknown or not installed: let the administrator check its state in Lark's consoles.",
)
_AVAILABILITY = _configure(
    "该用户不在应用的可用范围内，请管理员在「版本管理与发布」中把用户加入可用范围并发布新版本。",
    "The user may not use this app: add them to its availability (Version Management & Release) and publish a version.",
)
_PERMISSION = _configure(
    "应用缺少所需权限，请在开发者后台「权限管理」中开通并发布新版本。",
    "The app lacks a scope: add it under Permissions & Scopes in the developer console and publish a version.",
)
_SCOPES = _configure(
    "请求的权限重复或未被授予，请检查 SIDECAR_LARK_SCOPES 和开发者后台的「权限管理」。",
    "Scopes are asked for twice or not granted: check SIDECAR_LARK_SCOPES and Permissions & Scopes in the console.",
)
_SCOPES_OFF = _configure(
    "请求的权限尚未在应用中开通：请在开发者后台「权限管理」中开通 SIDECAR_LARK_SCOPES 的每一项并发布新版本。",
    "A scope that is asked for is not enabled for the app: add each of SIDECAR_LARK_SCOPES under Permissions & Scopes "
    "in the developer console and publish a version.",
)
_USER = _failed(
    "该飞书用户不存在、未注册、已冻结或已离职，请换用有效账号。",
    "This Lark user does not exist, is not registered, frozen or has left: use a valid account.",
)
_BUSY = _later("飞书服务暂时不可用，请稍后重试。", "Lark is temporarily unavailable: try again in a moment.")
_LIMIT = _later("请求过于频繁，被飞书限流，请稍后重试。", "Lark limits how often it is asked: try again in a moment.")
_APP_TOKEN = _later(
    "应用的访问凭证已失效，请稍后重试；若持续出现，请核对 App Secret。",
    "The app's own token was not accepted: try again; if it goes on, check the app's secret.",
)
_USER_TOKEN = _token("用户访问凭证无效或已过期", "The user's token is not valid or has expired")
_RECEIVER = _failed(
    "接收者 ID 无效，请检查 receive_id 与 receive_id_type 是否匹配。",
    "The receiver is not known: check that receive_id is of the kind that receive_id_type says.",
)
_CARD = _configure(
    "飞书无法生成卡片；若使用了卡片模板，请检查 SIDECAR_LARK_CARD_TEMPLATE_ID，并确认模板已发布且应用有权使用。",
    "Lark could not make the card; with a template, check SIDECAR_LARK_CARD_TEMPLATE_ID, and that it is published and "
    "visible to the app.",
)
_MESSAGE_GONE = _failed("卡片消息已被撤回或删除。", "The message with the card was recalled or deleted.")
_REDIRECT = _configure(
    "重定向 URL 未配置：请在开发者后台「安全设置 - 重定向 URL」中逐字添加 SIDECAR_LARK_REDIRECT_URI 的地址。",
    "The redirect URL is not configured: add the address of SIDECAR_LARK_REDIRECT_URI, letter by letter, under "
    "Security Settings, Redirect URLs in the developer console.",
)

MEANINGS: dict[int, Meaning] = {
    # Tokens of users, v2 and v1 (authen)
    20001: _REQUEST,
    20002: _SECRET,
    20003: _again("授权码无效或已被使用", "The authorization code is not valid or was used before"),
    20004: _again("授权码已过期（有效期 5 分钟）", "The authorization code has expired (it lives five minutes)"),
    20005: _token("用户访问凭证无效", "The user's token is not valid"),
    20006: _token("用户访问凭证已过期", "The user's token has expired"),
    20007: _again("授权码已过期或已被使用", "The authorization code has expired or was used before"),
    20008: _USER,
    20009: _DISABLED,
    20010: _AVAILABILITY,
    20013: _APP_TOKEN,
    20014: _APP_TOKEN,
    20021: _USER,
    20022: _USER,
    20023: _USER,
    20024: _configure(
        "授权码或刷新凭证属于另一个应用，请检查 App ID 是否与发起授权时一致，然后重新授权。",
        "The code or refresh token belongs to another app: check the app's id, then authorize again.",
    ),
    20025: _SECRET,
    20026: _renew("刷新凭证无效", "The refresh token is not valid"),
    20027: _SCOPES_OFF,
    20028: _SECRET,
    20029: _REDIRECT,
    20035: _SECRET,
    20036: _REQUEST,
    20037: _renew("刷新凭证已过期", "The refresh token has expired"),
    20038: _renew("刷新凭证不存在或已被使用", "The refresh token is not known or was used before"),
    20039: _token("用户访问凭证不存在", "The user's token is not known"),
    20042: _DISABLED,
    20046: _configure(
        "应用与域名不一致：飞书应用请用 open.feishu.cn，Lark 应用请用 open.larksuite.com（SIDECAR_LARK_API_URL）。",
        "The app and the host are of different brands: Feishu apps need open.feishu.cn, Lark apps open.larksuite.com "
        "(SIDECAR_LARK_API_URL).",
    ),
    20048: _DISABLED,
    20049: _failed(
        "授权链接与本次会话不匹配（PKCE 校验失败），请重新发起授权。",
        "The answer does not belong to this authorization (PKCE): start it again.",
    ),
    20050: _BUSY,
    20063: _REQUEST,
    20064: _renew("刷新凭证已被撤销", "The refresh token was revoked"),
    20065: _again("授权码已被使用（只能使用一次）", "The authorization code was used before (it works once)"),
    20066: _USER,
    20067: _SCOPES,
    20068: _SCOPES,
    20069: _DISABLED,
    20070: _REQUEST,
    20071: _configure(
        "重定向 URL 与授权时不一致：SIDECAR_LARK_REDIRECT_URI 必须与开发者后台「安全设置 - 重定向 URL」完全相同。",
        "The redirect URL is not the one of the authorization: SIDECAR_LARK_REDIRECT_URI and Security Settings, "
        "Redirect URLs in the developer console must agree letter by letter.",
    ),
    20072: _BUSY,
    20073: _renew("刷新凭证已被使用（只能使用一次）", "The refresh token was used before (it works once)"),
    20074: _configure(
        "应用未开启刷新 user_access_token：请在开发者后台「安全设置」中打开该开关并发布新版本。",
        "The app may not refresh tokens: turn on refreshing user_access_token under Security Settings in the developer "
        "console and publish a version.",
    ),
    # Tokens of apps (auth/v3)
    10003: _SECRET,
    10005: _SECRET,
    10012: _APP_TOKEN,
    10013: _APP_TOKEN,
    10014: _SECRET,
    10015: _SECRET,
    # All endpoints
    99991400: _LIMIT,
    99991401: _configure(
        "本服务器的 IP 不在应用的 IP 白名单中，请在开发者后台「安全设置」中添加。",
        "This server's address is not on the app's IP allowlist: add it under Security Settings in the console.",
    ),
    99991403: _configure(
        "本月 API 调用次数已达上限，请联系企业管理员。",
        "This month's quota of calls is used up: ask the administrator of the organization.",
    ),
    99991543: _SECRET,
    99991661: _APP_TOKEN,
    99991662: _DISABLED,
    99991663: _APP_TOKEN,
    99991664: _APP_TOKEN,
    99991665: _APP_TOKEN,
    99991668: _USER_TOKEN,
    99991669: _renew("刷新凭证无效", "The refresh token is not valid"),
    99991671: _APP_TOKEN,
    99991672: _PERMISSION,
    99991673: _DISABLED,
    99991676: _PERMISSION,
    99991677: _token("用户访问凭证已过期", "The user's token has expired"),
    99991679: _failed(
        "用户尚未授予所需权限，请带上该权限重新授权。",
        "The user has not granted a scope that this needs: authorize again with it.",
    ),
    99992351: _RECEIVER,
    99992360: _RECEIVER,
    99992361: _RECEIVER,
    99992364: _RECEIVER,
    99992402: _REQUEST,
    # Messages (im/v1)
    230001: _failed(
        "参数无效：请检查 receive_id 与 receive_id_type 是否匹配，以及消息是否存在。",
        "The receiver or the message is not known: check that receive_id is of the kind that receive_id_type says.",
    ),
    230002: _configure(
        "机器人不在该群中，请先把应用机器人加入群聊。",
        "The bot is not in this chat: add the app's bot to it first.",
    ),
    230006: _configure(
        "应用未启用机器人能力，请在开发者后台「添加应用能力」中启用并发布新版本。",
        "The app has no bot: enable the bot under Add Features in the developer console and publish a version.",
    ),
    230011: _MESSAGE_GONE,
    230013: _AVAILABILITY,
    230018: _failed("群设置不允许发送此消息。", "The settings of this chat don't allow it."),
    230020: _LIMIT,
    230022: _failed("消息内容被判为敏感信息。", "Lark finds sensitive words in the message."),
    230025: _CARD,
    230027: _PERMISSION,
    230028: _failed("消息未通过数据防泄漏审查。", "The message did not pass the organization's audit."),
    230029: _USER,
    230031: _failed("卡片发送已超过 14 天，无法再更新。", "The card is older than 14 days: it can't be changed."),
    230034: _RECEIVER,
    230035: _failed("没有向该接收者发送消息的权限。", "Sending messages to this receiver is not allowed."),
    230038: _failed("不能向其他企业的用户发送单聊消息。", "Users of other organizations can't be written to."),
    230049: _LIMIT,
    230053: _failed("用户已设置不再接收机器人消息。", "The user takes no messages from this bot."),
    230099: _CARD,
    230110: _MESSAGE_GONE,
    232009: _failed("群聊已被解散。", "The chat was dissolved."),
}

APP_TOKEN_CODES = frozenset(code for code, meaning in MEANINGS.items() if meaning is _APP_TOKEN)
"""A new token of the app may help."""


def advice(code: int | None, language: Language) -> str | None:
    """What a code means and what to do about it; None if it is not known."""
    meaning = MEANINGS.get(code) if code is not None else None
    if meaning is None:
        return None
    return meaning.zh if language == "zh" else meaning.en


def refusal(
    code: int, status: int, of_user: bool = False, retry_after_seconds: int | None = None
) -> AuthorizationFailed:
    """The error for an answer of Lark with this code (not 0) and HTTP status, to a call with a user's token or without
    one. A code that is not known is Lark's own trouble when the status says so, and otherwise a failure that nobody can
    explain."""
    meaning = MEANINGS.get(code)
    if of_user and meaning is _APP_TOKEN:
        meaning = _USER_TOKEN
    if meaning is not None:
        return meaning.error(
            f"Lark refuses with {code}. {meaning.en}",
            provider_code=code,
            reason=meaning.reason,
            retry_after_seconds=retry_after_seconds,
        )
    if status == 429 or status >= 500:
        return ProviderUnavailable(
            f"Lark can't answer now ({code}).", provider_code=code, retry_after_seconds=retry_after_seconds
        )
    return AuthorizationFailed(f"Lark refuses with {code}, which it does not explain.", provider_code=code)
