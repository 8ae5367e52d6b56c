"""Who is in which free room, a row for each, in place of what each process told of all its rooms at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "presences",
        sa.Column("node", text, nullable=False),
        sa.Column("room", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("connections", sa.Integer(), nullable=False),
        sa.Column("gone_at", text, nullable=True),
        sa.PrimaryKeyConstraint("node", "room", "user_id"),
    )
    op.create_index("presences_room", "presences", ["room", "user_id"])
    op.create_index("presences_gone", "presences", ["gone_at", "node"])
    op.drop_column("nodes", "rooms")


def downgrade() -> None:
    op.add_column("nodes", sa.Column("rooms", text, nullable=True))
    op.drop_index("presences_gone", "presences")
    op.drop_index("presences_room", "presences")
    op.drop_table("presences")
