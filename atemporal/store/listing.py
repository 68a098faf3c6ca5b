"""Jobs by the page, in the order of their submit; a page can be followed without losing one.

Mechanism: the order is that of the submits' transactions, and by id within one. A transaction that began
later has a larger number, so what lies before a job whose elders are all committed can not change any
more: `Page.next` is always such a job, when the oldest come first.
Failure: a transaction that stays open for more than a minute is not waited for, or listings would never
end; a job that it submits can then be missed by who has gone past it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Uuid,
    cast,
    func,
    literal,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from atemporal.errors import NotFound
from atemporal.model import Job
from atemporal.states import JobState, Outcome
from atemporal.store import attempts as attempt_rows
from atemporal.store.jobs import READ_AT, read
from atemporal.store.rows import readable
from atemporal.tables import jobs

BEGINNING = UUID(int=0)
"""Before the first job: where to go on while no job is beyond doubt."""

# Transactions below the oldest that still runs are over, and what they wrote is there. A transaction
# that stays open long is not waited for: listings would never end.
_SETTLED = text(
    """
    (submit_xid IS NULL OR created_at < now() - interval '1 minute'
     OR submit_xid < (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint) AS settled
    """
)


@dataclass(frozen=True)
class Page:
    """One page of a listing; `total` counts all that match.

    `next` is the id to go on after, None at the end. A page may repeat jobs of the one before, whose
    submit was not yet beyond doubt the eldest that still could come.
    """

    jobs: list[Job]
    total: int
    next: UUID | None


def page(
    tx: Connection,
    *,
    states: Sequence[JobState] = (),
    outcomes: Sequence[Outcome] = (),
    labels: Mapping[str, str] | None = None,
    limit: int = 100,
    after: UUID | None = None,
    newest_first: bool = False,
) -> Page:
    """Return jobs in the order of their submit, with their attempts, without logs, in few queries.

    A job is wanted that is in one of the states or has one of the outcomes, if any are given, and
    has all the labels. The order is that of the submits' transactions, and by id within one: so what
    lies before a job that was committed with all its elders can not change any more. `Page.next` is
    always such a job when the oldest come first.

    Raises:
        NotFound: there is no job `after`.
    """
    wanted: list[ColumnElement[bool]] = []
    if states or outcomes:
        wanted.append(jobs.c.state.in_(states) | jobs.c.outcome.in_(outcomes))
    if labels:
        wanted.append(jobs.c.spec["labels"].op("@>")(cast(dict(labels), JSONB)))
    total = tx.scalar(select(func.count()).select_from(jobs).where(*wanted)) or 0
    if after is not None:
        wanted.append(_behind(tx, after, newest_first=newest_first))
    order = (
        (jobs.c.submit_xid.desc().nulls_last(), jobs.c.id.desc())
        if newest_first
        else (jobs.c.submit_xid.nulls_first(), jobs.c.id)
    )
    query = select(jobs, READ_AT, _SETTLED).where(*wanted).order_by(*order).limit(limit + 1)
    rows = tx.execute(query).all()
    shown = rows[:limit]
    tries = attempt_rows.of_jobs(tx, [row.id for row in shown])
    return Page(
        jobs=readable(tx, shown, lambda row: read(row, tries.get(row.id, ()))),
        total=total,
        next=_next(shown, more=len(rows) > limit, after=after, settled_only=not newest_first),
    )


def _behind(tx: Connection, after: UUID, *, newest_first: bool) -> ColumnElement[bool]:
    """What comes behind a job in the order of submit, or before it when the newest come first."""
    if after == BEGINNING:
        return true()
    number = tx.execute(select(jobs.c.submit_xid).where(jobs.c.id == after)).one_or_none()
    if number is None:
        raise NotFound(f"there is no job {after} to go on after")
    # Rows of earlier releases have no number, and come before all others.
    unnumbered = jobs.c.submit_xid.is_(None)
    if number.submit_xid is None:
        older = unnumbered & (jobs.c.id < after)
        return older if newest_first else (unnumbered & (jobs.c.id > after)) | ~unnumbered
    place = tuple_(jobs.c.submit_xid, jobs.c.id)
    here = tuple_(literal(number.submit_xid, BigInteger), literal(after, Uuid))
    return (place < here) | unnumbered if newest_first else place > here


def _next(
    shown: Sequence[Row[Any]], *, more: bool, after: UUID | None, settled_only: bool
) -> UUID | None:
    """The job to go on after; None when the page is the last one and nothing of it can still change."""
    if not settled_only:
        return shown[-1].id if more else None
    settled = [row.id for row in shown if row.settled]
    if not more and len(settled) == len(shown):
        return None
    return settled[-1] if settled else after or BEGINNING
