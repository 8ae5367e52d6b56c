"""The tables, as SQLAlchemy Core sees them. The migrations make them; this module only describes.

Times are ISO 8601 text in UTC with `Z` (they sort as text), durations seconds, JSON is text that we wrote.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

text = Text().with_variant(Text(collation="C"), "postgresql")
"""Compared and ordered by code points, as SQLite does, whatever language the PostgreSQL was set up for."""
serial = BigInteger().with_variant(Integer, "sqlite")

journal_head = Table(
    "journal_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("floor", BigInteger, nullable=False),
    Column("epoch", text, nullable=False),
    Column("mark", BigInteger),
    Column("secret", text),
)
"""One row. `seq` is the last one given out and `mark` that event's; events up to `floor` are no longer kept; `epoch`
names this journal; `secret` is the fingerprint of the master secret by which the database is written."""

events = Table(
    "events",
    metadata,
    Column("seq", serial, primary_key=True, autoincrement=False),
    Column("mark", BigInteger, nullable=False),
    Column("batch", text, nullable=False),
    Column("type", text, nullable=False),
    Column("payload", text, nullable=False),
    Column("rooms", text, nullable=False),
    Column("at", text, nullable=False),
    Column("target", text),
)
"""`target` is the user who alone may see it, NULL if everybody in its rooms may; event_rooms repeats it."""

event_rooms = Table(
    "event_rooms",
    metadata,
    Column("room", text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("target", text),
    sqlite_with_rowid=False,
)

projects = Table(
    "projects",
    metadata,
    Column("name", text, primary_key=True),
    Column("first_at", text, nullable=False),
    Column("last_at", text, nullable=False),
    Column("erase_upto", BigInteger),
)
"""`erase_upto` is NULL but while a project is being deleted: then it is the last seq that is to be forgotten, and
`last_at` when that last went on. (See docs/design/history.md.)"""
Index("projects_erase_upto", projects.c.erase_upto)

deployments = Table(
    "deployments",
    metadata,
    Column("deployment_id", text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False, unique=True),
    Column("latest", Boolean, nullable=False),
    Column("project", text, ForeignKey("projects.name"), nullable=False),
    Column("source", text),
    Column("status", text, nullable=False),
    Column("reported_status", text),
    Column("status_at", text, nullable=False),
    Column("workflow_name", text),
    Column("workflow_id", text),
    Column("environment", text),
    Column("ref", text),
    Column("sha", text),
    Column("actor", text),
    Column("title", text),
    Column("url", text),
    Column("queued_at", text),
    Column("started_at", text),
    Column("completed_at", text),
    Column("duration_seconds", Float),
    Column("error_message", text),
    Column("logs", text),
    Column("metrics", text),
    Column("lines", Integer, nullable=False),
    Column("first_at", text, nullable=False),
    Column("last_at", text, nullable=False),
    Column("seq", BigInteger, nullable=False),
)
"""A row an attempt. `number` (the seq of its first event) pages the lists; `seq` is the last event that touched it."""
Index("deployments_project", deployments.c.project, deployments.c.number)
Index("deployments_first_at", deployments.c.project, deployments.c.first_at)

steps = Table(
    "steps",
    metadata,
    Column("deployment_id", text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("key", text, primary_key=True),
    Column("name", text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("status", text, nullable=False),
    Column("reported_status", text),
    Column("status_at", text, nullable=False),
    Column("started_at", text),
    Column("completed_at", text),
    Column("duration_seconds", Float),
    Column("logs", text),
    Column("error_message", text),
    Column("url", text),
    Column("first_at", text, nullable=False),
    Column("last_at", text, nullable=False),
)

log_lines = Table(
    "log_lines",
    metadata,
    Column("number", serial, primary_key=True),
    Column("deployment_id", text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", text, nullable=False),
    Column("level", text, nullable=False),
    Column("source", text),
    Column("step", text),
    Column("message", text, nullable=False),
    sqlite_autoincrement=True,
)
Index("log_lines_deployment", log_lines.c.deployment_id, log_lines.c.number)

deliveries = Table(
    "deliveries",
    metadata,
    Column("number", serial, primary_key=True),
    Column("received_at", text, nullable=False),
    Column("path", text, nullable=False),
    Column("source", text, nullable=False),
    Column("address", text, nullable=False),
    Column("token_id", text),
    Column("delivery_id", text),
    Column("headers", text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_sha256", text, nullable=False),
    Column("verdict", text, nullable=False),
    Column("reason", text),
    Column("repaired", Boolean, nullable=False),
    Column("project", text),
    Column("deployment_id", text),
    Column("seq", BigInteger),
    Column("replay_of", BigInteger),
    sqlite_autoincrement=True,
)
"""What was posted, as it came. `verdict`: stored | test | quarantined | replayed | erased."""
Index("deliveries_verdict", deliveries.c.verdict, deliveries.c.number)
Index("deliveries_project", deliveries.c.project, deliveries.c.number)

idempotency = Table(
    "idempotency",
    metadata,
    Column("scope", text, primary_key=True),
    Column("body_sha256", text, nullable=False),
    Column("answer", text, nullable=False),
    Column("at", text, nullable=False),
)
Index("idempotency_at", idempotency.c.at)

tokens = Table(
    "tokens",
    metadata,
    Column("number", serial, primary_key=True),
    Column("id", text, nullable=False, unique=True),
    Column("name", text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", text, nullable=False),
    Column("projects", text),
    Column("created_at", text, nullable=False),
    Column("expires_at", text),
    Column("revoked_at", text),
    sqlite_autoincrement=True,
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("id", text, primary_key=True),
    Column("name", text, nullable=False),
    Column("projects", text),
    Column("sealed", text, nullable=False),
    Column("created_at", text, nullable=False),
    Column("revoked_at", text),
)
"""What webhooks are signed with. `projects` is a JSON list, NULL for all; `sealed` the encrypted secret, empty once it
is revoked."""

login_links = Table(
    "login_links",
    metadata,
    Column("code_hash", LargeBinary, primary_key=True),
    Column("token_id", text, nullable=False),
    Column("expires_at", text, nullable=False),
    Column("used_at", text),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", text, primary_key=True),
    Column("started_at", text, nullable=False),
    Column("seen_at", text, nullable=False),
    Column("rooms", text),
)
"""The processes that serve from this database; each says now and then that it lives (`seen_at`), and who is in its free
rooms (`rooms`: JSON, {room: {user: sockets}}, user "" for none)."""

sessions = Table(
    "sessions",
    metadata,
    Column("pid_hash", LargeBinary, primary_key=True),
    Column("sid", text, nullable=False),
    Column("namespace", text, nullable=False),
    Column("holder", text, nullable=False),
    Column("state", text, nullable=False),
    Column("owner", text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("ended_at", text),
)
"""What a Socket.IO client that reconnects is given back. `owner` is the node of its connection, `generation` counts
the connections it has had; `ended_at` is when the last of them ended, NULL while it lives (or its node died)."""
Index("sessions_ended", sessions.c.ended_at)
Index("sessions_owner", sessions.c.owner)

leases = Table(
    "leases",
    metadata,
    Column("name", text, primary_key=True),
    Column("owner", text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("until", text, nullable=False),
)
"""Who alone may do a periodic job until when; `fence` grows each time that a lease changes hands."""

live_pushes = Table(
    "live_pushes",
    metadata,
    Column("room", text, primary_key=True),
    Column("interval_seconds", Float, nullable=False),
    Column("source", text, nullable=False),
    Column("token_id", text),
    Column("sender", text, nullable=False),
    Column("sender_id", BigInteger, nullable=False),
    Column("started_at", text, nullable=False),
    Column("version", BigInteger, nullable=False),
)
"""What is pushed to a free room again and again. `version` is the seq of the event that started or changed it."""

versions = Table(
    "versions",
    metadata,
    Column("subject", text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("at", text, nullable=False),
)
"""A row each for what is versioned (`menu`, `permissions`): its version, and when it got it."""

revisions = Table(
    "revisions",
    metadata,
    Column("subject", text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("at", text, nullable=False),
    Column("action", text, nullable=False),
    Column("author", text, nullable=False),
    Column("token_id", text),
    Column("reason", text, nullable=False),
)
"""Who made a version, how (`put`, `sync`, `rollback` …) and why."""

changes = Table(
    "changes",
    metadata,
    Column("number", serial, primary_key=True),
    Column("subject", text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("kind", text, nullable=False),
    Column("name", text, nullable=False),
    Column("label", text, nullable=False),
    Column("before", text),
    Column("after", text),
    sqlite_autoincrement=True,
)
"""What a version changed: of a `menu` item, a `role` or a `user` by name its JSON before and after, NULL where it did
not exist. `label` is what a person calls it. An older version is today's with the later changes undone."""
Index("changes_version", changes.c.subject, changes.c.version)
Index("changes_name", changes.c.kind, changes.c.name, changes.c.number)

menu_items = Table(
    "menu_items",
    metadata,
    Column("key", text, primary_key=True),
    Column("name", text, nullable=False),
    Column("menu_level", text, nullable=False),
    Column("icon", text, nullable=False),
    Column("url", text, nullable=False),
    Column("sort_order", Integer, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("description", text, nullable=False),
    Column("parent", text),
    Column("created_at", text, nullable=False),
    Column("updated_at", text, nullable=False),
    Column("version", BigInteger, nullable=False),
)

roles = Table(
    "roles",
    metadata,
    Column("name", text, primary_key=True),
    Column("inherits", text, nullable=False),
    Column("grants", text, nullable=False),
    Column("menus", text, nullable=False),
    Column("version", BigInteger, nullable=False),
)
"""`inherits` and `menus` are JSON lists of names, `grants` one of [resource, action, effect]."""

user_roles = Table(
    "user_roles",
    metadata,
    Column("user_id", text, primary_key=True),
    Column("role", text, primary_key=True),
)
Index("user_roles_role", user_roles.c.role)

devices = Table(
    "devices",
    metadata,
    Column("device_id", text, primary_key=True),
    Column("latitude", Float, nullable=False),
    Column("longitude", Float, nullable=False),
    Column("updates", BigInteger, nullable=False),
    Column("first_at", text, nullable=False),
    Column("last_at", text, nullable=False),
)
"""The last known position of each device, and how often it has told one."""

maim_keys = Table(
    "maim_keys",
    metadata,
    Column("id", text, primary_key=True),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("tenant", text, nullable=False),
    Column("user_id", text, nullable=False),
    Column("platforms", text),
    Column("name", text, nullable=False),
    Column("created_at", text, nullable=False),
    Column("revoked_at", text),
)
"""Bots' API keys, by a keyed hash. `platforms` is a JSON list, NULL for any."""

maim_connections = Table(
    "maim_connections",
    metadata,
    Column("uuid", text, primary_key=True),
    Column("node", text, nullable=False),
    Column("key_id", text),
    Column("tenant", text, nullable=False),
    Column("user_id", text, nullable=False),
    Column("platform", text, nullable=False),
    Column("line", text, nullable=False),
    Column("opened_at", text, nullable=False),
)
"""Bots that are connected, and the process that holds each."""
Index("maim_connections_node", maim_connections.c.node)

maim_seen = Table(
    "maim_seen",
    metadata,
    Column("message", LargeBinary, primary_key=True),
    Column("at", text, nullable=False),
)
"""A hash of each key and msg_id that has come lately."""
Index("maim_seen_at", maim_seen.c.at)

maim_queue = Table(
    "maim_queue",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("msg_id", text, nullable=False),
    Column("tenant", text, nullable=False),
    Column("user_id", text, nullable=False),
    Column("platform", text, nullable=False),
    Column("sealed", text, nullable=False),
    Column("expires_at", text, nullable=False),
)
"""Messages until their receiver has acknowledged them. `seq` is that of the control event that told of it, `sealed` the
encrypted frame."""
Index("maim_queue_place", maim_queue.c.tenant, maim_queue.c.user_id, maim_queue.c.platform, maim_queue.c.seq)
Index("maim_queue_expiry", maim_queue.c.expires_at)


lark_apps = Table(
    "lark_apps",
    metadata,
    Column("app_id", text, primary_key=True),
    Column("name", text, nullable=False),
    Column("sealed", text, nullable=False),
    Column("created_at", text, nullable=False),
)
"""Apps at Lark. `sealed` holds the secret, the verification token and the encrypt key, encrypted."""

user_auth_sessions = Table(
    "user_auth_sessions",
    metadata,
    Column("id", serial, primary_key=True),
    Column("session_id", text, nullable=False, unique=True),
    Column("app_id", text, nullable=False),
    Column("user_id", text, nullable=False),
    Column("state", text, nullable=False),
    Column("auth_method", text, nullable=False),
    Column("redirect_uri", text, nullable=False),
    Column("open_id", text),
    Column("union_id", text),
    Column("user_name", text),
    Column("mobile", text),
    Column("email", text),
    Column("message_id", text),
    Column("user_access_token", text),
    Column("token_expires_at", text),
    Column("created_at", text, nullable=False),
    Column("expires_at", text, nullable=False),
    Column("completed_at", text),
    Column("expected_open_id", text),
    Column("asked_scope", text, nullable=False),
    Column("language", text, nullable=False),
    Column("state_hash", text, nullable=False, unique=True),
    Column("sealed", text),
    Column("reason", text),
    Column("exchanging_until", text),
    Column("card_state", text),
    Column("card_due_at", text),
    Column("refresh_token", text),
    Column("refresh_expires_at", text),
    Column("token_issued_at", text),
    Column("token_scope", text),
    Column("refreshing_until", text),
    Column("renew_at", text),
    CheckConstraint("state IN ('pending', 'completed', 'expired', 'rejected')", name="chk_auth_session_state"),
    CheckConstraint("auth_method IN ('websocket_card', 'oauth', 'http_callback')", name="chk_auth_session_auth_method"),
    CheckConstraint("(state = 'completed') = (completed_at IS NOT NULL)", name="chk_auth_session_completed_at"),
    CheckConstraint(
        "user_access_token IS NULL OR (state = 'completed' AND token_expires_at IS NOT NULL)",
        name="chk_auth_session_token",
    ),
    CheckConstraint("refresh_token IS NULL OR user_access_token IS NOT NULL", name="chk_auth_session_refresh_token"),
)
"""Authorizations. `sealed` are the secrets of one under way, encrypted as both tokens are; `card_state` is what the
card shows, and `card_due_at` when it is to be changed, NULL if it shows what is. `renew_at` is when the tokens are to
be renewed ahead, NULL if they can't be. At most one row of a user at an app has tokens."""
Index(
    "idx_auth_session_user", user_auth_sessions.c.app_id, user_auth_sessions.c.user_id, user_auth_sessions.c.created_at
)
Index("idx_auth_session_token_expires", user_auth_sessions.c.token_expires_at)
Index("idx_auth_session_created", user_auth_sessions.c.created_at)
Index("idx_auth_session_state", user_auth_sessions.c.state)
Index("idx_auth_session_expires", user_auth_sessions.c.expires_at)
Index("idx_auth_session_card_due", user_auth_sessions.c.card_due_at)
Index("idx_auth_session_renew", user_auth_sessions.c.renew_at)
Index(
    "uq_auth_session_tokens",
    user_auth_sessions.c.app_id,
    user_auth_sessions.c.user_id,
    unique=True,
    sqlite_where=user_auth_sessions.c.user_access_token.is_not(None),
    postgresql_where=user_auth_sessions.c.user_access_token.is_not(None),
)

authorization_uses = Table(
    "authorization_uses",
    metadata,
    Column("id", serial, primary_key=True),
    Column("at", text, nullable=False),
    Column("app_id", text, nullable=False),
    Column("user_id", text),
    Column("use", text, nullable=False),
    Column("by", text, nullable=False),
    Column("token_id", text),
)
"""Who was given a token, or did away with one, and when."""
Index("authorization_uses_at", authorization_uses.c.at)

lark_nonces = Table(
    "lark_nonces",
    metadata,
    Column("nonce", text, primary_key=True),
    Column("at", text, nullable=False),
)
"""Callbacks that have come lately, each of which may come once."""
Index("lark_nonces_at", lark_nonces.c.at)

lark_events = Table(
    "lark_events",
    metadata,
    Column("app_id", text, primary_key=True),
    Column("event_id", text, primary_key=True),
    Column("type", text, nullable=False),
    Column("transport", text, nullable=False),
    Column("sealed", text),
    Column("answer", text),
    Column("received_at", text, nullable=False),
    Column("claimed_until", text),
    Column("tries", Integer, nullable=False),
)
"""Events of Lark. While `claimed_until` is set they are to be handled (again, from that time on), and `sealed` is what
they say, encrypted; then `answer` is what was answered."""
Index("lark_events_claimed", lark_events.c.claimed_until)
Index("lark_events_received", lark_events.c.received_at)

lark_links = Table(
    "lark_links",
    metadata,
    Column("app_id", text, primary_key=True),
    Column("started_at", text, primary_key=True),
    Column("connected", Boolean, nullable=False),
    Column("heard_at", text, nullable=False),
    Column("heartbeat_seconds", Float, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("successes", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
)
"""The long connections to Lark, as each process that holds one (it began at `started_at`) has told last."""
Index("lark_links_heard", lark_links.c.heard_at)
