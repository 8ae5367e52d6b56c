"""Recovery of connections, several processes: sessions, nodes, leases, and the head's mark."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("journal_head", sa.Column("mark", sa.BigInteger(), nullable=True))
    op.execute("UPDATE journal_head SET mark = (SELECT mark FROM events WHERE events.seq = journal_head.seq)")
    op.create_table(
        "nodes",
        sa.Column("id", text, nullable=False),
        sa.Column("started_at", text, nullable=False),
        sa.Column("seen_at", text, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "sessions",
        sa.Column("pid_hash", sa.LargeBinary(), nullable=False),
        sa.Column("sid", text, nullable=False),
        sa.Column("namespace", text, nullable=False),
        sa.Column("holder", text, nullable=False),
        sa.Column("state", text, nullable=False),
        sa.Column("owner", text, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("ended_at", text, nullable=True),
        sa.PrimaryKeyConstraint("pid_hash"),
    )
    op.create_index("sessions_ended", "sessions", ["ended_at"], unique=False)
    op.create_index("sessions_owner", "sessions", ["owner"], unique=False)
    op.create_table(
        "leases",
        sa.Column("name", text, nullable=False),
        sa.Column("owner", text, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("until", text, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:
    op.drop_table("leases")
    op.drop_table("sessions")
    op.drop_table("nodes")
    op.drop_column("journal_head", "mark")
