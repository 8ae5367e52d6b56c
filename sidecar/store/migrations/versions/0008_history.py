"""Deleting projects in small steps, and finding a project's deployments by time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("projects", sa.Column("erase_upto", sa.BigInteger(), nullable=True))
    op.create_index("projects_erase_upto", "projects", ["erase_upto"])
    op.create_index("deployments_first_at", "deployments", ["project", "first_at"])
    op.create_index("deliveries_project", "deliveries", ["project", "number"])


def downgrade() -> None:
    op.drop_index("deliveries_project", "deliveries")
    op.drop_index("deployments_first_at", "deployments")
    op.drop_index("projects_erase_upto", "projects")
    op.drop_column("projects", "erase_upto")
