"""The history of every transition, which is also the outbox for listeners.

Promise: a row is written in the transaction of its transition and handed to the broker at least once:
it is marked only after the broker confirmed it. Whoever follows the history by `page` gets each event
once, in the order of their numbers, which is the order in which things happened to a job.
Mechanism: an event gets its number while its transaction holds the row of its job or attempt, so of two
events of one row the later one has the larger number. `page` never shows what lies beyond the horizon
(`atemporal.store.horizon`), below which no event can come any more.
Failure: an event of a job that retention has deleted is gone, also for who has not read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, cast, extract, func, select, update
from sqlalchemy.dialects.postgresql import JSONB

from atemporal.model import Event, PublicEvent
from atemporal.tables import attempts, events, jobs

SCAN = 5_000
"""So many events are looked through for one page, wanted or not."""
COUNTED = 10_000
"""So many that wait for the broker are counted, and no more."""
BACK = 100_000
"""So far back the latest events are looked for."""
_LONGEST = timedelta(minutes=2)
_NEAR = 100

_TIMES = (
    *(attempts.c.created_at, attempts.c.launched_at, attempts.c.booted_at, attempts.c.ready_at),
    *(attempts.c.running_at, attempts.c.started_at, attempts.c.exited_at, attempts.c.closed_at),
)
_PUBLIC = (
    select(
        events,
        jobs.c.key,
        jobs.c.spec["labels"].label("labels"),
        attempts.c.exit_code,
        attempts.c.reason,
        attempts.c.instance_id,
        *_TIMES,
    )
    .join(jobs, jobs.c.id == events.c.job_id)
    .outerjoin(
        attempts,
        (attempts.c.job_id == events.c.job_id) & (attempts.c.number == events.c.attempt),
    )
)


@dataclass(frozen=True)
class Wanted:
    """Which events are wanted: of one job, of jobs with all the labels, of these types, since then.

    The types are whole ones; none means any.
    """

    job_id: UUID | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    types: Sequence[str] = ()
    since: datetime | None = None

    @property
    def _conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.job_id is not None:
            found.append(events.c.job_id == self.job_id)
        if self.labels:
            # As the index has it: `spec['labels']`, which means the same, is another expression.
            of_job = jobs.c.spec.op("->")("labels")
            found.append(of_job.op("@>")(cast(dict(self.labels), JSONB)))
        if self.types:
            found.append(events.c.type.in_(self.types))
        if self.since is not None:
            found.append(events.c.at >= self.since)
        return found

    @property
    def _may_be_rare(self) -> bool:
        """Whether many events may have to be looked through for one; a job's are found by an index."""
        return self.job_id is None and bool(self._conditions)

    def query(self, *more: ColumnElement[bool]) -> Select[Any]:
        """The events that are wanted and fulfil what is given besides."""
        return _PUBLIC.where(*more, *self._conditions)


@dataclass(frozen=True)
class Page:
    """Events by their numbers, and the number to go on after; `more`: there are more to look through."""

    events: list[PublicEvent]
    next: int
    more: bool


def page(tx: Connection, wanted: Wanted, *, after: int, upto: int, limit: int) -> Page:
    """Return up to `limit` events with numbers above `after`, not above the horizon `upto`.

    No more than `SCAN` events are looked through, so a page may be empty and yet have more behind it.
    """
    if after >= upto:
        return Page([], after, False)
    top = _reach(tx, after, upto) if wanted._may_be_rare else upto
    within = (events.c.id > after, events.c.id <= top)
    rows = tx.execute(wanted.query(*within).order_by(events.c.id).limit(limit)).all()
    if len(rows) == limit:
        top = rows[-1].id
    return Page([public(row) for row in rows], top, top < upto)


def latest(tx: Connection, wanted: Wanted, *, upto: int, limit: int) -> list[PublicEvent]:
    """Return the last events up to the horizon `upto`, the oldest of them first.

    Those that may be rare are looked for among the last `BACK` of all.
    """
    within = [events.c.id <= upto]
    if wanted._may_be_rare:
        behind = select(events.c.id).where(events.c.id <= upto).order_by(events.c.id.desc())
        within.append(events.c.id > (tx.scalar(behind.offset(BACK).limit(1)) or 0))
    query = wanted.query(*within).order_by(events.c.id.desc()).limit(limit)
    return [public(row) for row in tx.execute(query)][::-1]


def before(tx: Connection, at: datetime, *, upto: int) -> int:
    """Return the number of an event before all that happened at `at` or later, 0 for the beginning.

    There is no index by time: the numbers grow with it, but for as long as a transaction takes.
    """
    at -= _LONGEST
    low, high = 0, upto
    while high - low > _NEAR:
        middle = (low + high) // 2
        query = select(events.c.id, events.c.at).where(events.c.id > middle)
        found = tx.execute(query.order_by(events.c.id).limit(1)).one_or_none()
        if found is None or found.id >= high or found.at >= at:
            high = middle
        else:
            low = found.id
    return low


def _reach(tx: Connection, after: int, upto: int) -> int:
    query = select(events.c.id).where(events.c.id > after, events.c.id <= upto)
    return tx.scalar(query.order_by(events.c.id).offset(SCAN - 1).limit(1)) or upto


def of_job(tx: Connection, job_id: UUID) -> list[Event]:
    """Return a job's history, oldest first."""
    rows = tx.execute(select(events).where(events.c.job_id == job_id).order_by(events.c.id))
    return [Event.model_validate(_fields(row)) for row in rows]


def unrelayed(tx: Connection, limit: int) -> list[PublicEvent]:
    """Lock and return the oldest events that no listener has seen; other relays pass over them."""
    rows = tx.execute(
        _PUBLIC.where(~events.c.relayed)
        .order_by(events.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=events)
    )
    return [public(row) for row in rows]


def outbox(tx: Connection) -> tuple[int, float]:
    """How many events no listener has seen, and for how many seconds the oldest of them.

    `COUNTED` stands for that many or more.
    """
    waiting = select(events.c.id, events.c.at).where(~events.c.relayed).order_by(events.c.id)
    some = waiting.limit(COUNTED).subquery()
    oldest = select(waiting.limit(1).subquery().c.at).scalar_subquery()
    count, age = tx.execute(
        select(
            select(func.count()).select_from(some).scalar_subquery(),
            extract("epoch", func.clock_timestamp() - oldest),
        )
    ).one()
    return int(count), max(0.0, float(age or 0.0))


def mark_relayed(tx: Connection, ids: Sequence[int]) -> None:
    """Note that the broker has confirmed these events."""
    tx.execute(update(events).where(events.c.id == func.any(list(ids))).values(relayed=True))


def public(row: Row[Any]) -> PublicEvent:
    """Read a row of an event with its job and attempt."""
    fields = _fields(row)
    times = {one.name: fields.pop(one.name) for one in _TIMES}
    known = {name: at for name, at in times.items() if at is not None}
    return PublicEvent.model_validate({**fields, "labels": _labels(row.labels), "times": known})


def _labels(stored: Any) -> dict[str, str]:
    """Labels that can not be read are none: an event must not be held up by them."""
    labels = stored if isinstance(stored, dict) else {}
    return {name: value for name, value in labels.items() if isinstance(value, str)}


def _fields(row: Row[Any]) -> dict[str, Any]:
    fields = dict(row._mapping)
    del fields["relayed"]
    return fields
