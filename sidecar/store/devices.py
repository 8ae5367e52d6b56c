"""Rows of devices: where each was last."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select, update

from sidecar.store.tables import devices


def save_position(connection: Connection, device_id: str, latitude: float, longitude: float, now: str) -> None:
    values = {"latitude": latitude, "longitude": longitude, "last_at": now}
    moved = connection.execute(
        update(devices).where(devices.c.device_id == device_id).values(values | {"updates": devices.c.updates + 1})
    )
    if not moved.rowcount:
        connection.execute(insert(devices).values(values | {"device_id": device_id, "updates": 1, "first_at": now}))


def count_devices(connection: Connection) -> tuple[int, int]:
    """How many devices are known, and how many positions they have told."""
    row = connection.execute(select(func.count(), func.coalesce(func.sum(devices.c.updates), 0))).one()
    return int(row[0]), int(row[1])
