"""The history of every transition, which is also the outbox for listeners.

Promise: a row is written in the transaction of its transition and handed to the broker at least once:
it is marked only after the broker confirmed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select, update

from atemporal.model import Event, PublicEvent
from atemporal.tables import attempts, events, jobs


def of_job(tx: Connection, job_id: UUID) -> list[Event]:
    """Return a job's history, oldest first."""
    rows = tx.execute(select(events).where(events.c.job_id == job_id).order_by(events.c.id))
    return [Event.model_validate(_fields(row)) for row in rows]


def unrelayed(tx: Connection, limit: int) -> list[PublicEvent]:
    """Lock and return the oldest events that no listener has seen; other relays pass over them."""
    rows = tx.execute(
        select(events, jobs.c.key, jobs.c.spec["labels"].label("labels"), attempts.c.exit_code)
        .join(jobs, jobs.c.id == events.c.job_id)
        .outerjoin(
            attempts,
            (attempts.c.job_id == events.c.job_id) & (attempts.c.number == events.c.attempt),
        )
        .where(~events.c.relayed)
        .order_by(events.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=events)
    )
    return [
        PublicEvent.model_validate({**_fields(row), "labels": _labels(row.labels)}) for row in rows
    ]


def mark_relayed(tx: Connection, ids: Sequence[int]) -> None:
    """Note that the broker has confirmed these events."""
    tx.execute(update(events).where(events.c.id == func.any(list(ids))).values(relayed=True))


def _labels(stored: Any) -> dict[str, str]:
    """Labels that can not be read are none: an event must not be held up by them."""
    labels = stored if isinstance(stored, dict) else {}
    return {name: value for name, value in labels.items() if isinstance(value, str)}


def _fields(row: Row[Any]) -> dict[str, Any]:
    fields = dict(row._mapping)
    del fields["relayed"]
    return fields
