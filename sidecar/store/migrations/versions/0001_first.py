"""Journal, deployments, deliveries, tokens: the first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("received_at", text, nullable=False),
        sa.Column("path", text, nullable=False),
        sa.Column("source", text, nullable=False),
        sa.Column("address", text, nullable=False),
        sa.Column("token_id", text, nullable=True),
        sa.Column("delivery_id", text, nullable=True),
        sa.Column("headers", text, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_sha256", text, nullable=False),
        sa.Column("verdict", text, nullable=False),
        sa.Column("reason", text, nullable=True),
        sa.Column("repaired", sa.Boolean(), nullable=False),
        sa.Column("project", text, nullable=True),
        sa.Column("deployment_id", text, nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("replay_of", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    op.create_index("deliveries_verdict", "deliveries", ["verdict", "number"], unique=False)
    op.create_table(
        "event_rooms",
        sa.Column("room", text, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("room", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("mark", sa.BigInteger(), nullable=False),
        sa.Column("batch", text, nullable=False),
        sa.Column("type", text, nullable=False),
        sa.Column("payload", text, nullable=False),
        sa.Column("rooms", text, nullable=False),
        sa.Column("at", text, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "idempotency",
        sa.Column("scope", text, nullable=False),
        sa.Column("body_sha256", text, nullable=False),
        sa.Column("answer", text, nullable=False),
        sa.Column("at", text, nullable=False),
        sa.PrimaryKeyConstraint("scope"),
    )
    op.create_index("idempotency_at", "idempotency", ["at"], unique=False)
    op.create_table(
        "journal_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("floor", sa.BigInteger(), nullable=False),
        sa.Column("epoch", text, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "log_lines",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("deployment_id", text, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", text, nullable=False),
        sa.Column("level", text, nullable=False),
        sa.Column("source", text, nullable=True),
        sa.Column("step", text, nullable=True),
        sa.Column("message", text, nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    op.create_index("log_lines_deployment", "log_lines", ["deployment_id", "number"], unique=False)
    op.create_table(
        "login_links",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("token_id", text, nullable=False),
        sa.Column("expires_at", text, nullable=False),
        sa.Column("used_at", text, nullable=True),
        sa.PrimaryKeyConstraint("code_hash"),
    )
    op.create_table(
        "projects",
        sa.Column("name", text, nullable=False),
        sa.Column("first_at", text, nullable=False),
        sa.Column("last_at", text, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "steps",
        sa.Column("deployment_id", text, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("status", text, nullable=False),
        sa.Column("reported_status", text, nullable=True),
        sa.Column("status_at", text, nullable=False),
        sa.Column("started_at", text, nullable=True),
        sa.Column("completed_at", text, nullable=True),
        sa.Column("duration_seconds", sa.Float(), nullable=True),
        sa.Column("logs", text, nullable=True),
        sa.Column("error_message", text, nullable=True),
        sa.Column("url", text, nullable=True),
        sa.Column("first_at", text, nullable=False),
        sa.Column("last_at", text, nullable=False),
        sa.PrimaryKeyConstraint("deployment_id", "attempt", "key"),
    )
    op.create_table(
        "tokens",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", text, nullable=False),
        sa.Column("projects", text, nullable=True),
        sa.Column("created_at", text, nullable=False),
        sa.Column("expires_at", text, nullable=True),
        sa.Column("revoked_at", text, nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "deployments",
        sa.Column("deployment_id", text, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("latest", sa.Boolean(), nullable=False),
        sa.Column("project", text, nullable=False),
        sa.Column("source", text, nullable=True),
        sa.Column("status", text, nullable=False),
        sa.Column("reported_status", text, nullable=True),
        sa.Column("status_at", text, nullable=False),
        sa.Column("workflow_name", text, nullable=True),
        sa.Column("workflow_id", text, nullable=True),
        sa.Column("environment", text, nullable=True),
        sa.Column("ref", text, nullable=True),
        sa.Column("sha", text, nullable=True),
        sa.Column("actor", text, nullable=True),
        sa.Column("title", text, nullable=True),
        sa.Column("url", text, nullable=True),
        sa.Column("queued_at", text, nullable=True),
        sa.Column("started_at", text, nullable=True),
        sa.Column("completed_at", text, nullable=True),
        sa.Column("duration_seconds", sa.Float(), nullable=True),
        sa.Column("error_message", text, nullable=True),
        sa.Column("logs", text, nullable=True),
        sa.Column("metrics", text, nullable=True),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("first_at", text, nullable=False),
        sa.Column("last_at", text, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project"],
            ["projects.name"],
        ),
        sa.PrimaryKeyConstraint("deployment_id", "attempt"),
        sa.UniqueConstraint("number"),
    )
    op.create_index("deployments_project", "deployments", ["project", "number"], unique=False)


def downgrade() -> None:
    op.drop_table("deployments")
    op.drop_table("tokens")
    op.drop_table("steps")
    op.drop_table("projects")
    op.drop_table("login_links")
    op.drop_table("log_lines")
    op.drop_table("journal_head")
    op.drop_table("idempotency")
    op.drop_table("events")
    op.drop_table("event_rooms")
    op.drop_table("deliveries")
