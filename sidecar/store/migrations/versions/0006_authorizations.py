"""Authorizations of users through Lark: apps, sessions and their tokens, callbacks, audit log, links."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "lark_apps",
        sa.Column("app_id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("sealed", text, nullable=False),
        sa.Column("created_at", text, nullable=False),
        sa.PrimaryKeyConstraint("app_id"),
    )
    op.create_table(
        "user_auth_sessions",
        sa.Column("id", serial, nullable=False),
        sa.Column("session_id", text, nullable=False),
        sa.Column("app_id", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("auth_method", text, nullable=False),
        sa.Column("redirect_uri", text, nullable=False),
        sa.Column("open_id", text, nullable=True),
        sa.Column("union_id", text, nullable=True),
        sa.Column("user_name", text, nullable=True),
        sa.Column("mobile", text, nullable=True),
        sa.Column("email", text, nullable=True),
        sa.Column("message_id", text, nullable=True),
        sa.Column("user_access_token", text, nullable=True),
        sa.Column("token_expires_at", text, nullable=True),
        sa.Column("created_at", text, nullable=False),
        sa.Column("expires_at", text, nullable=False),
        sa.Column("completed_at", text, nullable=True),
        sa.Column("expected_open_id", text, nullable=True),
        sa.Column("asked_scope", text, nullable=False),
        sa.Column("language", text, nullable=False),
        sa.Column("state_hash", text, nullable=False),
        sa.Column("sealed", text, nullable=True),
        sa.Column("reason", text, nullable=True),
        sa.Column("exchanging_until", text, nullable=True),
        sa.Column("card_state", text, nullable=True),
        sa.Column("card_due_at", text, nullable=True),
        sa.Column("refresh_token", text, nullable=True),
        sa.Column("refresh_expires_at", text, nullable=True),
        sa.Column("token_issued_at", text, nullable=True),
        sa.Column("token_scope", text, nullable=True),
        sa.Column("refreshing_until", text, nullable=True),
        sa.Column("renew_at", text, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("session_id", name="user_auth_sessions_session_id"),
        sa.UniqueConstraint("state_hash", name="user_auth_sessions_state_hash"),
        sa.CheckConstraint(
            "refresh_token IS NULL OR user_access_token IS NOT NULL", name="chk_auth_session_refresh_token"
        ),
        sa.CheckConstraint("(state = 'completed') = (completed_at IS NOT NULL)", name="chk_auth_session_completed_at"),
        sa.CheckConstraint(
            "auth_method IN ('websocket_card', 'oauth', 'http_callback')", name="chk_auth_session_auth_method"
        ),
        sa.CheckConstraint("state IN ('pending', 'completed', 'expired', 'rejected')", name="chk_auth_session_state"),
        sa.CheckConstraint(
            "user_access_token IS NULL OR (state = 'completed' AND token_expires_at IS NOT NULL)",
            name="chk_auth_session_token",
        ),
    )
    op.create_index("idx_auth_session_card_due", "user_auth_sessions", ["card_due_at"])
    op.create_index("idx_auth_session_created", "user_auth_sessions", ["created_at"])
    op.create_index("idx_auth_session_expires", "user_auth_sessions", ["expires_at"])
    op.create_index("idx_auth_session_renew", "user_auth_sessions", ["renew_at"])
    op.create_index("idx_auth_session_state", "user_auth_sessions", ["state"])
    op.create_index("idx_auth_session_token_expires", "user_auth_sessions", ["token_expires_at"])
    op.create_index("idx_auth_session_user", "user_auth_sessions", ["app_id", "user_id", "created_at"])
    op.create_index(
        "uq_auth_session_tokens",
        "user_auth_sessions",
        ["app_id", "user_id"],
        unique=True,
        sqlite_where=sa.text("user_access_token IS NOT NULL"),
        postgresql_where=sa.text("user_access_token IS NOT NULL"),
    )
    op.create_table(
        "authorization_uses",
        sa.Column("id", serial, nullable=False),
        sa.Column("at", text, nullable=False),
        sa.Column("app_id", text, nullable=False),
        sa.Column("user_id", text, nullable=True),
        sa.Column("use", text, nullable=False),
        sa.Column("by", text, nullable=False),
        sa.Column("token_id", text, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("authorization_uses_at", "authorization_uses", ["at"])
    op.create_table(
        "lark_nonces",
        sa.Column("nonce", text, nullable=False),
        sa.Column("at", text, nullable=False),
        sa.PrimaryKeyConstraint("nonce"),
    )
    op.create_index("lark_nonces_at", "lark_nonces", ["at"])
    op.create_table(
        "lark_events",
        sa.Column("app_id", text, nullable=False),
        sa.Column("event_id", text, nullable=False),
        sa.Column("type", text, nullable=False),
        sa.Column("transport", text, nullable=False),
        sa.Column("sealed", text, nullable=True),
        sa.Column("answer", text, nullable=True),
        sa.Column("received_at", text, nullable=False),
        sa.Column("claimed_until", text, nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("app_id", "event_id"),
    )
    op.create_index("lark_events_claimed", "lark_events", ["claimed_until"])
    op.create_index("lark_events_received", "lark_events", ["received_at"])
    op.create_table(
        "lark_links",
        sa.Column("app_id", text, nullable=False),
        sa.Column("started_at", text, nullable=False),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("heard_at", text, nullable=False),
        sa.Column("heartbeat_seconds", sa.Float(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("successes", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("app_id", "started_at"),
    )
    op.create_index("lark_links_heard", "lark_links", ["heard_at"])


def downgrade() -> None:
    for table in ("lark_links", "lark_events", "lark_nonces", "authorization_uses", "user_auth_sessions", "lark_apps"):
        op.drop_table(table)
