"""Leases with fencing: of all processes one alone does a periodic job, and one that has lost the lease changes nothing.

Both are asked inside the write transaction of what is to be done, so a holder that stood still for an hour finds out.
"""

from __future__ import annotations

from sqlalchemy import insert, select, update

from sidecar.domain.times import unix_seconds, utc_text
from sidecar.store.journal import Transaction
from sidecar.store.tables import leases


def take_lease(transaction: Transaction, name: str, owner: str, seconds: float) -> int | None:
    """The fence under which this owner holds the lease for so long from now; None while another holds it. A lease that
    changes hands, or was let run out, gets a higher fence."""
    connection, now = transaction.connection, transaction.now
    until = utc_text(unix_seconds(now) + seconds)
    row = connection.execute(select(leases).where(leases.c.name == name)).first()
    if row is None:
        connection.execute(insert(leases).values(name=name, owner=owner, fence=1, until=until))
        return 1
    if row.until > now and row.owner != owner:
        return None
    fence: int = row.fence if row.owner == owner and row.until > now else row.fence + 1
    connection.execute(update(leases).where(leases.c.name == name).values(owner=owner, fence=fence, until=until))
    return fence


def keep_lease(transaction: Transaction, name: str, fence: int, seconds: float) -> bool:
    """Hold it for so long from now; False if it has run out or changed hands since this fence."""
    until = utc_text(unix_seconds(transaction.now) + seconds)
    kept = transaction.connection.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.fence == fence, leases.c.until > transaction.now)
        .values(until=until)
    )
    return kept.rowcount > 0


def give_up_lease(transaction: Transaction, name: str, fence: int) -> None:
    """Whoever wants it may have it now."""
    transaction.connection.execute(
        update(leases).where(leases.c.name == name, leases.c.fence == fence).values(until=transaction.now)
    )
