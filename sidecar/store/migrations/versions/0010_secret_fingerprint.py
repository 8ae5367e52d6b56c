"""By which secret the database was written: a process with another one is refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("journal_head", sa.Column("secret", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("journal_head", "secret")
