"""Alembic's entry: runs on the connection that `store.database` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from sidecar.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
context.run_migrations()
