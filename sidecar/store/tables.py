"""The tables, as SQLAlchemy Core sees them. The migrations make them; this module only describes.

Times are ISO 8601 text in UTC with `Z` (they sort as text), durations seconds, JSON is text that we wrote.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
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

serial = BigInteger().with_variant(Integer, "sqlite")

journal_head = Table(
    "journal_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("floor", BigInteger, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("mark", BigInteger),
)
"""One row. `seq` is the last one given out and `mark` that event's; events up to `floor` are no longer kept; `epoch`
names this journal."""

events = Table(
    "events",
    metadata,
    Column("seq", serial, primary_key=True, autoincrement=False),
    Column("mark", BigInteger, nullable=False),
    Column("batch", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("rooms", Text, nullable=False),
    Column("at", Text, nullable=False),
)

event_rooms = Table(
    "event_rooms",
    metadata,
    Column("room", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

projects = Table(
    "projects",
    metadata,
    Column("name", Text, primary_key=True),
    Column("first_at", Text, nullable=False),
    Column("last_at", Text, nullable=False),
)

deployments = Table(
    "deployments",
    metadata,
    Column("deployment_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False, unique=True),
    Column("latest", Boolean, nullable=False),
    Column("project", Text, ForeignKey("projects.name"), nullable=False),
    Column("source", Text),
    Column("status", Text, nullable=False),
    Column("reported_status", Text),
    Column("status_at", Text, nullable=False),
    Column("workflow_name", Text),
    Column("workflow_id", Text),
    Column("environment", Text),
    Column("ref", Text),
    Column("sha", Text),
    Column("actor", Text),
    Column("title", Text),
    Column("url", Text),
    Column("queued_at", Text),
    Column("started_at", Text),
    Column("completed_at", Text),
    Column("duration_seconds", Float),
    Column("error_message", Text),
    Column("logs", Text),
    Column("metrics", Text),
    Column("lines", Integer, nullable=False),
    Column("first_at", Text, nullable=False),
    Column("last_at", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
)
"""A row an attempt. `number` (the seq of its first event) pages the lists; `seq` is the last event that touched it."""
Index("deployments_project", deployments.c.project, deployments.c.number)

steps = Table(
    "steps",
    metadata,
    Column("deployment_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("reported_status", Text),
    Column("status_at", Text, nullable=False),
    Column("started_at", Text),
    Column("completed_at", Text),
    Column("duration_seconds", Float),
    Column("logs", Text),
    Column("error_message", Text),
    Column("url", Text),
    Column("first_at", Text, nullable=False),
    Column("last_at", Text, nullable=False),
)

log_lines = Table(
    "log_lines",
    metadata,
    Column("number", serial, primary_key=True),
    Column("deployment_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("source", Text),
    Column("step", Text),
    Column("message", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index("log_lines_deployment", log_lines.c.deployment_id, log_lines.c.number)

deliveries = Table(
    "deliveries",
    metadata,
    Column("number", serial, primary_key=True),
    Column("received_at", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("token_id", Text),
    Column("delivery_id", Text),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_sha256", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reason", Text),
    Column("repaired", Boolean, nullable=False),
    Column("project", Text),
    Column("deployment_id", Text),
    Column("seq", BigInteger),
    Column("replay_of", BigInteger),
    sqlite_autoincrement=True,
)
"""What was posted, as it came. `verdict`: stored | test | quarantined | replayed."""
Index("deliveries_verdict", deliveries.c.verdict, deliveries.c.number)

idempotency = Table(
    "idempotency",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("body_sha256", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("at", Text, nullable=False),
)
Index("idempotency_at", idempotency.c.at)

tokens = Table(
    "tokens",
    metadata,
    Column("number", serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("projects", Text),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("revoked_at", Text),
    sqlite_autoincrement=True,
)

login_links = Table(
    "login_links",
    metadata,
    Column("code_hash", LargeBinary, primary_key=True),
    Column("token_id", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("used_at", Text),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("started_at", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
)
"""The processes that serve from this database; each says now and then that it lives (`seen_at`)."""

sessions = Table(
    "sessions",
    metadata,
    Column("pid_hash", LargeBinary, primary_key=True),
    Column("sid", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("ended_at", Text),
)
"""What a Socket.IO client that reconnects is given back. `owner` is the node of its connection, `generation` counts
the connections it has had; `ended_at` is when the last of them ended, NULL while it lives (or its node died)."""
Index("sessions_ended", sessions.c.ended_at)
Index("sessions_owner", sessions.c.owner)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("until", Text, nullable=False),
)
"""Who alone may do a periodic job until when; `fence` grows each time that a lease changes hands."""
