"""The menu, roles and who has them, and their versions."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    versions = op.create_table(
        "versions",
        sa.Column("subject", text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("at", text, nullable=False),
        sa.PrimaryKeyConstraint("subject"),
    )
    revisions = op.create_table(
        "revisions",
        sa.Column("subject", text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("at", text, nullable=False),
        sa.Column("action", text, nullable=False),
        sa.Column("author", text, nullable=False),
        sa.Column("token_id", text, nullable=True),
        sa.Column("reason", text, nullable=False),
        sa.PrimaryKeyConstraint("subject", "version"),
    )
    now = datetime.now(UTC)
    first = [
        {"subject": subject, "version": int(now.timestamp()), "at": f"{now:%Y-%m-%dT%H:%M:%S.000Z}"}
        for subject in ("menu", "permissions")
    ]
    op.bulk_insert(versions, first)
    op.bulk_insert(revisions, [{**row, "action": "start", "author": "system", "reason": ""} for row in first])
    op.create_table(
        "changes",
        sa.Column("number", serial, nullable=False),
        sa.Column("subject", text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("label", text, nullable=False),
        sa.Column("before", text, nullable=True),
        sa.Column("after", text, nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    op.create_index("changes_version", "changes", ["subject", "version"])
    op.create_index("changes_name", "changes", ["kind", "name", "number"])
    op.create_table(
        "menu_items",
        sa.Column("key", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("menu_level", text, nullable=False),
        sa.Column("icon", text, nullable=False),
        sa.Column("url", text, nullable=False),
        sa.Column("sort_order", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("parent", text, nullable=True),
        sa.Column("created_at", text, nullable=False),
        sa.Column("updated_at", text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "roles",
        sa.Column("name", text, nullable=False),
        sa.Column("inherits", text, nullable=False),
        sa.Column("grants", text, nullable=False),
        sa.Column("menus", text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "user_roles",
        sa.Column("user_id", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "role"),
    )
    op.create_index("user_roles_role", "user_roles", ["role"])


def downgrade() -> None:
    for table in ("user_roles", "roles", "menu_items", "changes", "revisions", "versions"):
        op.drop_table(table)
