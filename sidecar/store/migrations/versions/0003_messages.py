"""Messages to chosen users, live pushes, positions of devices, and who is in the rooms of each process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("events", sa.Column("target", text, nullable=True))
    op.add_column("event_rooms", sa.Column("target", text, nullable=True))
    op.add_column("nodes", sa.Column("rooms", text, nullable=True))
    op.create_table(
        "live_pushes",
        sa.Column("room", text, nullable=False),
        sa.Column("interval_seconds", sa.Float(), nullable=False),
        sa.Column("source", text, nullable=False),
        sa.Column("token_id", text, nullable=True),
        sa.Column("sender", text, nullable=False),
        sa.Column("sender_id", sa.BigInteger(), nullable=False),
        sa.Column("started_at", text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("room"),
    )
    op.create_table(
        "devices",
        sa.Column("device_id", text, nullable=False),
        sa.Column("latitude", sa.Float(), nullable=False),
        sa.Column("longitude", sa.Float(), nullable=False),
        sa.Column("updates", sa.BigInteger(), nullable=False),
        sa.Column("first_at", text, nullable=False),
        sa.Column("last_at", text, nullable=False),
        sa.PrimaryKeyConstraint("device_id"),
    )


def downgrade() -> None:
    """What was for one user alone goes: the version before would show it to everybody."""
    op.execute("DELETE FROM event_rooms WHERE target IS NOT NULL")
    op.drop_table("devices")
    op.drop_table("live_pushes")
    op.drop_column("nodes", "rooms")
    op.drop_column("event_rooms", "target")
    op.drop_column("events", "target")
