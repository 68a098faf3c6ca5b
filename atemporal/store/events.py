"""The history of every transition, which is also the outbox for listeners.

Promise: a row is written in the transaction of its transition and handed to the broker at least once:
it is marked only after the broker confirmed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, Row, func, select, update

from atemporal.model import Event
from atemporal.tables import events


def of_job(tx: Connection, job_id: UUID) -> list[Event]:
    """Return a job's history, oldest first."""
    rows = tx.execute(select(events).where(events.c.job_id == job_id).order_by(events.c.id))
    return [_event(row) for row in rows]


def unrelayed(tx: Connection, limit: int) -> list[Event]:
    """Lock and return the oldest events that no listener has seen; other relays pass over them."""
    rows = tx.execute(
        select(events)
        .where(~events.c.relayed)
        .order_by(events.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_event(row) for row in rows]


def mark_relayed(tx: Connection, ids: Sequence[int]) -> None:
    """Note that the broker has confirmed these events."""
    tx.execute(update(events).where(events.c.id == func.any(list(ids))).values(relayed=True))


def _event(row: Row[tuple[object, ...]]) -> Event:
    fields = dict(row._mapping)
    del fields["relayed"]
    return Event.model_validate(fields)
