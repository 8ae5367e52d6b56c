"""Bots' keys, their open connections, the messages seen, and those that wait for a receiver."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "maim_keys",
        sa.Column("id", text, nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("tenant", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("platforms", text, nullable=True),
        sa.Column("name", text, nullable=False),
        sa.Column("created_at", text, nullable=False),
        sa.Column("revoked_at", text, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key_hash", name="maim_keys_hash"),
    )
    op.create_table(
        "maim_connections",
        sa.Column("uuid", text, nullable=False),
        sa.Column("node", text, nullable=False),
        sa.Column("key_id", text, nullable=True),
        sa.Column("tenant", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("platform", text, nullable=False),
        sa.Column("line", text, nullable=False),
        sa.Column("opened_at", text, nullable=False),
        sa.PrimaryKeyConstraint("uuid"),
    )
    op.create_index("maim_connections_node", "maim_connections", ["node"])
    op.create_table(
        "maim_seen",
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("at", text, nullable=False),
        sa.PrimaryKeyConstraint("message"),
    )
    op.create_index("maim_seen_at", "maim_seen", ["at"])
    op.create_table(
        "maim_queue",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("msg_id", text, nullable=False),
        sa.Column("tenant", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("platform", text, nullable=False),
        sa.Column("sealed", text, nullable=False),
        sa.Column("expires_at", text, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("maim_queue_place", "maim_queue", ["tenant", "user_id", "platform", "seq"])
    op.create_index("maim_queue_expiry", "maim_queue", ["expires_at"])


def downgrade() -> None:
    for table in ("maim_queue", "maim_seen", "maim_connections", "maim_keys"):
        op.drop_table(table)
