"""Every number in the text of the protocol's pages is one that the code holds to: a limit that is changed in one place
only is a client that is refused for no reason that it could have read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import Settings
from sidecar.domain import maim, menu, messages, projects, rooms
from sidecar.fanout import catchup, engine
from sidecar.fanout.websocket import TRY_LATER, UNSUPPORTED
from sidecar.http import deliveries as http_deliveries
from sidecar.http import deployments as http_deployments
from sidecar.http import requests
from sidecar.http import versions as http_versions
from sidecar.http.errors import STATUS
from sidecar.http.parameters import Parameters
from sidecar.jobs import authorizations as authorization_jobs
from sidecar.jobs import presence
from sidecar.patience import BODY_SECONDS, HEAD_SECONDS
from sidecar.server import CLOSE_RESTART
from sidecar.services import (
    connections,
    deliveries,
    deployments,
    idempotency,
    lark_callbacks,
    maim_hooks,
    role_changes,
    sources,
    versions,
    views,
    webhook_secrets,
)
from sidecar.services.projects import WORK_SECONDS
from sidecar.sockets import watch
from sidecar.sockets.maim import REVOKED, BotSocket
from sidecar.sockets.plain import SENT_AWAY, TOKEN_ENDED
from sidecar.store.projects import STEP_NAMES
from sidecar.wire import bodies, lark, tokens
from sidecar.wire import deployments as wire_deployments
from sidecar.wire import menu as wire_menu
from sidecar.wire import messages as wire_messages
from sidecar.wire import webhook_secrets as wire_secrets
from sidecar.wire.badges import LABEL_CHARACTERS
from sidecar.wire.checks import field_errors
from sidecar.wire.frames import TOO_BIG

DOCS = Path(__file__).resolve().parent.parent / "docs"
NUMBER_WORDS = {1: "one", 5: "five", 7: "seven", 10: "ten"}
PAGES = ("protocol.md", "messages.md", "menu.md", "maim.md", "authorizations.md")
NO_LIMITS = (
    "ISO 8601",
    "UTF-8",
    "RFC 9457",
    "SHA-256",
    "HMAC-SHA256",
    "OpenAPI 3.1",
    "AsyncAPI 3.0",
    "Socket.IO 3 and later (protocol 5",
    "socket.io-client 4.6",
    "0.6.x (plain WebSocket) and 0.7.x (Socket.IO)",
    "(from 1; adds `pagination`)",
    "from 1 and without a hole",
    "0 is no error",
    "0 is a place",
    "a whole number | 0; in a sync",
    "with `version` 1 and",
    "and in `data` (0) at once",
    "(401, 99991668, 99991677)",
)
SECTIONS = r"\bsection \d\b|\bthose of \d\.\d|\bwords of \d\.\d|\bsee \d\.\d|\[\d\.\d\]|\(\d\.\d\)"
STATUSES = {*STATUS.values(), 200, 202, 303, 304, 405, 408, 411, 426}
"""Those of answers. (tests/contract finds answers that the document does not tell.)"""
CLOSES = {CLOSE_RESTART, REVOKED, SENT_AWAY, TOKEN_ENDED, UNSUPPORTED, TOO_BIG, TRY_LATER}


def time(seconds: float) -> str:
    """As it is written: `five minutes`."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0:
            count = int(seconds // size)
            return f"{NUMBER_WORDS.get(count, count)} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"


def page_of(query: type[Parameters]) -> str:
    """`(1 to 200, else 20)`"""
    schema = query.declared["limit"].schema
    return f"({schema['minimum']} to {schema['maximum']}, else {schema['default']})"


def of(field: str) -> float:
    """A setting's default."""
    return float(Settings.model_fields[field].default)


def limits() -> Iterator[tuple[str, str]]:
    """(page, what it says by what the code has)"""
    protocol = "protocol.md"
    rate, burst = Settings().rate or (0, 0)
    most = re.search(r",(\d+)\}", requests.REQUEST_ID.pattern)
    assert most
    mebibytes = int(of("max_body_bytes") / 2**20)
    yield protocol, f"one of 1 to {most[1]} letters, digits"
    yield protocol, f"{rate:g} requests a second of one token (or of one address without a token), {burst} at once"
    yield protocol, f"for at most {time(connections.QUERY_TTL_SECONDS)} as `?token=`"
    yield protocol, f"at most {mebibytes} MiB (`SIDECAR_MAX_BODY_BYTES`)"
    yield protocol, f"{bodies.MAX_DEPTH} levels and {bodies.MAX_NODES:,} values"
    yield protocol, f"up to {wire_deployments.MAX_LINES} lines"
    yield protocol, f"up to {wire_deployments.MAX_METRICS} figures"
    yield protocol, f"more than {time(wire_deployments.CLOCK_SKEW_SECONDS)} ahead of our clock"
    yield protocol, f"without news for {of('stale_after_hours'):g} hours (`SIDECAR_STALE_AFTER_HOURS`)"
    yield protocol, f"(1 to {idempotency.KEY_MAX_CHARACTERS} characters)"
    yield protocol, f"For {idempotency.KEY_SECONDS // 3_600} hours the same key"
    yield protocol, f"is kept for {of('retention_days'):g} days"
    yield protocol, f"kept {of('retention_days'):g} days and {int(of('deliveries_bytes') / 2**20)} MiB"
    yield protocol, f"Bounds: {deployments.MAX_STEPS} steps and {deployments.MAX_LINES:,} log lines a deployment"
    yield protocol, f"{wire_deployments.MAX_MESSAGE_CHARACTERS:,} characters a line"
    yield protocol, f"{rooms.NAME_MAX_CHARACTERS} characters a name"
    yield protocol, f"whole numbers of 1 to {rooms.NAME_MAX_CHARACTERS} characters"
    yield protocol, f"A socket may be in {of('max_rooms'):g} rooms"
    yield protocol, f"the socket is in {of('max_rooms'):g} rooms (`SIDECAR_MAX_ROOMS`)"
    yield protocol, f"asked for the past {catchup.MAX_REPLAYS:,} times"
    yield protocol, f"every {engine.PING_INTERVAL_SECONDS} s, {engine.PING_TIMEOUT_SECONDS} s to answer"
    yield protocol, f"be away for {time(of('recovery_seconds'))} (`SIDECAR_RECOVERY_SECONDS`)"
    yield protocol, f"its {views.SNAPSHOT_DEPLOYMENTS} newest deployments"
    yield protocol, {30: "Half a minute before a token ends"}[watch.WARNING_SECONDS]
    yield protocol, f"close with code {CLOSE_RESTART}"
    yield protocol, page_of(http_deployments.DeploymentsQuery)
    yield protocol, page_of(http_deployments.LinesQuery)
    yield protocol, page_of(http_deployments.EventsQuery)
    yield protocol, page_of(http_deliveries.DeliveriesQuery)
    yield protocol, f"came in the last {http_deliveries.DAY_SECONDS // 3_600} hours"
    yield protocol, f"the newest {http_deployments.UI_LINES} lines"
    yield protocol, f"together {projects.MAX_DAYS} days at most"
    yield protocol, f"the {projects.DAYS} days of which today is the last"
    yield protocol, f"the {STEP_NAMES} names that are most frequent"
    yield protocol, f"(of {projects.DAYS} days, as above)"
    yield protocol, f"`label` ({LABEL_CHARACTERS} characters)"
    yield protocol, f"after {WORK_SECONDS:g} s it is 202"
    yield protocol, f"up to {tokens.MAX_PATTERNS} patterns"
    yield protocol, f"| {connections.DEFAULT_TTL_SECONDS} | 1 to {tokens.MAX_CONNECTION_SECONDS} |"
    yield protocol, f"{webhook_secrets.MAX_ACTIVE} at most"
    least = wire_secrets.MIN_SECRET_CHARACTERS
    yield protocol, f"({least} to {wire_secrets.MAX_SECRET_CHARACTERS} printable characters)"
    yield protocol, f"for {time(connections.LOGIN_LINK_SECONDS)}"
    yield protocol, f"{time(connections.COOKIE_SECONDS)})"
    yield protocol, f"the first {deliveries.MAX_HEADERS};"
    yield protocol, f"a head within {HEAD_SECONDS} s, of a body some byte every {BODY_SECONDS} s"

    yield "messages.md", f"text, up to {wire_messages.MAX_MESSAGE_CHARACTERS:,} characters"
    refused = field_errors(wire_messages.LocationBody, {"latitude": 1e9, "longitude": 1e9})
    assert isinstance(refused, list)
    yield "messages.md", "Degrees, " + " and ".join(one.message.partition("from ")[2] for one in refused)
    yield "messages.md", f"({messages.MIN_INTERVAL_SECONDS:g} to {messages.MAX_INTERVAL_SECONDS:g})"
    yield "messages.md", f"It may block, for {sources.SOURCE_SECONDS:g} seconds at most"
    yield "messages.md", f"within the last {time(presence.PERIOD_SECONDS)}"
    yield "messages.md", f"a connection token of {time(connections.QUERY_TTL_SECONDS)} at most"
    yield "messages.md", {30: "half a minute before the token ends"}[watch.WARNING_SECONDS]

    yield "menu.md", f"the last {NUMBER_WORDS[versions.SHOWN_CHANGES]} `changes`"
    yield "menu.md", f"1 to {wire_menu.MAX_KEY_CHARACTERS} characters"
    yield "menu.md", f"what people read, up to {wire_menu.MAX_NAME_CHARACTERS} characters"
    yield "menu.md", f"up to {menu.MAX_DEPTH} levels deep"
    texts = (wire_menu.MAX_ICON_CHARACTERS, wire_menu.MAX_URL_CHARACTERS, wire_menu.MAX_DESCRIPTION_CHARACTERS)
    yield "menu.md", "up to {:,}, {:,} and {:,} characters".format(*texts)
    yield "menu.md", f"`limit` is 1 to {http_versions.MAX_PAGE}"
    yield "menu.md", {100: "the first hundred, then with `more`"}[role_changes.TOLD_KEYS]
    yield "menu.md", {1_000: "more than a thousand users of a role"}[role_changes.TOLD_USERS]

    yield "maim.md", f"pings plain WebSockets every {BotSocket.ping_seconds:g} s"
    yield "maim.md", f"a sign of life for {BotSocket.ping_seconds:g} s more"
    yield "maim.md", f"SIDECAR_MAX_BODY_BYTES: {mebibytes} MiB here, where the original takes 100 MiB"
    bound = next(one.le for one in Settings.model_fields["max_body_bytes"].metadata if hasattr(one, "le"))
    yield "maim.md", f"up to {bound // 2**20} MiB if you say so"
    yield "maim.md", f"nested deeper than {bodies.MAX_DEPTH}"
    yield "maim.md", {3_600: "within an hour"}[maim.DUPLICATE_SECONDS]
    yield "maim.md", f"takes longer than {maim_hooks.HOOK_SECONDS:g} s"

    yield "authorizations.md", f"within {time(of('lark_session_seconds'))} (`SIDECAR_LARK_SESSION_SECONDS`)"
    yield "authorizations.md", f"{NUMBER_WORDS[int(of('lark_user_rate_per_minute'))]} a minute"
    yield "authorizations.md", {0.1: "below a tenth of its life"}[of("lark_refresh_threshold")]
    yield "authorizations.md", f"answered within {lark_callbacks.ANSWER_SECONDS:g} s"
    yield (
        "authorizations.md",
        {(10.0, 60.0, 600.0): "after 10 s, a minute and ten minutes"}[lark_callbacks.RETRY_SECONDS],
    )
    yield "authorizations.md", f"be no older than {time(lark.FRESH_SECONDS)}"
    yield "authorizations.md", {3_600: "happens each hour by itself"}[authorization_jobs.CLEAN_SECONDS]


def prose(page: str) -> str:
    """The page's text in one line, without examples, headings and the table of contents."""
    text = (DOCS / page).read_text()
    text = re.sub(r"^```.*?^```$|^    .*?$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(#+ .*|(?:\d+\. \[.*)+)$", "", text, flags=re.MULTILINE)
    return re.sub(r"\s+", " ", re.sub(r"\]\([^)]*\)", "]", text))


@pytest.fixture(scope="module")
def said() -> dict[str, list[str]]:
    """By page, what it must say."""
    found: dict[str, list[str]] = {}
    for page, text in limits():
        found.setdefault(page, []).append(text)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_the_page_says_the_limits_that_the_code_has(page, said):
    text = prose(page)
    assert [limit for limit in said[page] if limit not in text] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_number_on_the_page_is_one_that_the_code_has(page, said):
    """A new one needs a line in `limits`, or (if it is no limit) in NO_LIMITS."""
    text = prose(page)
    for known in sorted([*said[page], *NO_LIMITS], key=len, reverse=True):
        text = text.replace(known, "…")
    text = re.sub(r"`[^`]*`", "`…`", re.sub(SECTIONS, "…", text))
    numbers = re.finditer(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d", text)
    unknown = [
        text[max(0, found.start() - 40) : found.end() + 20]
        for found in numbers
        if int(re.sub(r"\D", "", found[0])) not in STATUSES | CLOSES
    ]
    assert unknown == []
