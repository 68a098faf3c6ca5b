"""Jobs by the page, in the order of their submit; a page can be followed without losing one.

With a time from or to which jobs are wanted they come in the order of their own times, from an index in
that order: a page and its total cost what they show, however far back it is. Nothing is promised then to
who follows: a job with an earlier time can still be submitted.

Mechanism: the order is that of the submits' transactions, and by id within one. A transaction that began
later has a larger number, so what lies before a job whose elders are all committed can not change any
more: `Page.next` is always such a job, when the oldest come first.
Each status has its own part of an index in that order; of several, the first of each are merged. How
many match is counted up to `COUNTED`; beyond, it is what Postgres expects, by its statistics: to count
a million takes longer than anybody wants to wait for a page.
Environments may be large, so rows come in pieces, and a page ends early where it has `LARGEST`
characters of environments, secrets and commands, and those of one job more.
A page may go on after a job that retention has deleted: the id of that says when it was made, so the
listing goes on from what was made a minute before it. Jobs of that minute come twice, and none is lost.
Failure: a transaction that stays open for more than a minute is not waited for, or listings would never
end; a job that it submits can then be missed by who has gone past it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    Uuid,
    cast,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable

from atemporal.errors import NotFound
from atemporal.model import Job
from atemporal.states import JobState, Outcome
from atemporal.store import attempts as attempt_rows
from atemporal.store.jobs import READ_AT, read
from atemporal.store.limit_waits import COUNTED_EACH, explained
from atemporal.store.rows import LARGEST, readable
from atemporal.tables import STATUS, jobs

BEGINNING = UUID(int=0)
"""Before the first job: where to go on while no job is beyond doubt."""

COUNTED = 10_000
"""So many are counted."""

LOOKED_THROUGH = 5_000
"""So many jobs are looked through for a page of those with an image, for which there is no index."""

_AT_ONCE = 200

# A UUIDv7 begins with its time in milliseconds, of 48 bits.
_TIMED, _AFTER_TIME, _LAST_MS = 7, 80, (1 << 48) - 1
_MINUTE_MS = 60_000

# What jobs are in order of, and then of their ids.
_By = Literal["submit_xid", "run_at"]
_STATUSES = {*map(str, JobState), *map(str, Outcome)} - {str(JobState.FINISHED)}

# Transactions below the oldest that still runs are over, and what they wrote is there. A transaction
# that stays open long is not waited for: listings would never end.
_SETTLED: ColumnElement[bool] = literal_column(
    "(submit_xid IS NULL OR created_at < now() - interval '1 minute'"
    " OR submit_xid < (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint)"
).label("settled")


@dataclass(frozen=True)
class Page:
    """One page of a listing; `total` is how many match, more than `COUNTED` only as an estimate.

    `next` is the id to go on after, None at the end. A page may repeat jobs of the one before, whose
    submit was not yet beyond doubt the eldest that still could come.
    """

    jobs: list[Job]
    total: int
    total_estimated: bool
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
    image: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page:
    """Return jobs in the order of their submit, with their attempts, without logs, in few queries.

    A job is wanted that is in one of the states or has one of the outcomes, if any are given, and
    has all the labels. With `image`, those are wanted whose image has this in its name: up to
    `LOOKED_THROUGH` jobs are looked through for a page, so it may be empty and yet have a next one,
    and `total` says nothing. With `since` or `until`, or both, those are wanted whose time (`run_at`)
    is not before the one and is before the other; then the order is that of these times.

    Else the order is that of the submits' transactions, and by id within one: so what
    lies before a job that was committed with all its elders can not change any more. `Page.next` is
    always such a job when the oldest come first.

    Raises:
        NotFound: there is no job `after`, and never was; or, in the order of times, it was deleted.
    """
    by: _By = "submit_xid" if since is None and until is None else "run_at"
    parts = _parts(states, outcomes, labels, since, until)
    total, estimated = (0, True) if image else _total(tx, parts, by)
    if after is not None:
        find = _behind if by == "submit_xid" else _behind_in_time
        behind = find(tx, after, newest_first=newest_first)
        parts = [part.where(one) for part in parts for one in behind]
    if image:
        wanted, reached = _with_image(tx, parts, image, limit + 1, by, newest_first=newest_first)
    else:
        wanted, reached = _first(parts, limit + 1, by, newest_first=newest_first), None
    rows, cut = _held(tx, wanted)
    shown = rows[:limit]
    tries = attempt_rows.of_jobs(tx, [row.id for row in shown])
    found = readable(tx, shown, lambda row: read(row, tries.get(row.id, ())))
    settled_only = by == "submit_xid" and not newest_first
    more = cut or len(rows) > limit
    following = _next(shown, more=more, after=after, settled_only=settled_only)
    return Page(
        jobs=explained(tx, found, counted=COUNTED_EACH),
        total=total,
        total_estimated=estimated,
        next=following or reached,
    )


def _parts(
    states: Sequence[JobState],
    outcomes: Sequence[Outcome],
    labels: Mapping[str, str] | None,
    since: datetime | None,
    until: datetime | None,
) -> list[Select[Any]]:
    """The jobs that are wanted, as disjoint queries: one for each status, or one for all."""
    query = select(jobs, READ_AT, _SETTLED)
    if labels:
        # As the index has it: `spec['labels']`, which means the same, is another expression.
        of_job = jobs.c.spec.op("->")("labels")
        query = query.where(of_job.op("@>")(cast(dict(labels), JSONB)))
    statuses = {str(state) for state in states if state is not JobState.FINISHED}
    statuses |= set(Outcome if JobState.FINISHED in states else outcomes)
    if since is not None or until is not None:
        # The index in this order has a part for each status, and none of all.
        statuses = statuses or _STATUSES
        query = query if since is None else query.where(jobs.c.run_at >= since)
        query = query if until is None else query.where(jobs.c.run_at < until)
    status: ColumnElement[Any] = literal_column(STATUS)
    return [query.where(status == str(one)) for one in sorted(statuses)] or [query]


def _held(tx: Connection, query: Select[Any]) -> tuple[list[Row[Any]], bool]:
    """The rows of a page, and whether there are more than one may hold."""
    rows: list[Row[Any]] = []
    size = 0
    with tx.execute(query.execution_options(yield_per=_AT_ONCE)) as found:
        for row in found:
            if size > LARGEST:
                return rows, True
            rows.append(row)
            size += _size(row.spec)
    return rows, False


def _size(spec: Mapping[str, Any]) -> int:
    """About how much of a specification is not small; of one that can not be read too."""
    large = (spec.get(name) for name in ("env", "secrets", "secret_refs", "command"))
    return sum(len(str(one)) for one in large if one)


def _first(
    parts: Sequence[Select[Any]], limit: int, by: _By, *, newest_first: bool
) -> Select[Any]:
    """The first rows of all parts together, in order, by the first of each."""
    place = _place_in(jobs.c, by)
    each = [_in_order(part, *place, newest_first=newest_first).limit(limit) for part in parts]
    if len(each) == 1:
        return each[0]
    merged = union_all(*each).subquery()
    place = _place_in(merged.c, by)
    return _in_order(select(merged), *place, newest_first=newest_first).limit(limit)


def _with_image(
    tx: Connection,
    parts: Sequence[Select[Any]],
    image: str,
    limit: int,
    by: _By,
    *,
    newest_first: bool,
) -> tuple[Select[Any], UUID | None]:
    """The first rows with this in their image's name, and how far was looked, if not to the end."""
    place = _place_in(jobs.c, by)
    each = [
        _in_order(part, *place, newest_first=newest_first).limit(LOOKED_THROUGH) for part in parts
    ]
    merged = (union_all(*each) if len(each) > 1 else each[0]).subquery()
    place = _place_in(merged.c, by)
    ordered = _in_order(select(merged), *place, newest_first=newest_first)
    few = ordered.limit(LOOKED_THROUGH).subquery()
    place = _place_in(few.c, by)
    fits = func.strpos(few.c.spec.op("->>")("image"), image.lower()) > 0
    wanted = _in_order(select(few).where(fits), *place, newest_first=newest_first)
    last = _in_order(select(few.c.id), *place, newest_first=newest_first)
    reached = tx.scalar(last.offset(LOOKED_THROUGH - 1).limit(1))
    return wanted.limit(limit), reached


def _place_in(columns: Any, by: _By) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    return columns[by], columns.id


def _in_order(
    query: Select[Any], number: ColumnElement[Any], id_: ColumnElement[Any], *, newest_first: bool
) -> Select[Any]:
    # Rows of earlier releases have no number, and come before all others.
    if newest_first:
        return query.order_by(number.desc().nulls_last(), id_.desc())
    return query.order_by(number.nulls_first(), id_)


def _total(tx: Connection, parts: Sequence[Select[Any]], by: _By) -> tuple[int, bool]:
    """How many jobs the parts have, and whether that is an estimate."""
    bare = [part.with_only_columns(literal(1)).select_from(jobs) for part in parts]
    # In order, so that no table is read from its beginning for want of an end.
    place = _place_in(jobs.c, by)
    some = [_in_order(part, *place, newest_first=False).limit(COUNTED + 1) for part in bare]
    each = union_all(*some).subquery()
    first = select(literal(1)).select_from(each).limit(COUNTED + 1).subquery()
    counted = tx.scalar(select(func.count()).select_from(first)) or 0
    if counted <= COUNTED:
        return counted, False
    plan = tx.scalar(_Expected(union_all(*bare) if len(bare) > 1 else bare[0]))
    expected = plan[0]["Plan"]["Plan Rows"]
    return max(counted, expected), True


class _Expected(Executable, ClauseElement):
    """What Postgres expects of a query, without running it."""

    inherit_cache = False

    def __init__(self, query: ClauseElement) -> None:
        self.query = query


@compiles(_Expected)
def _compile_expected(element: _Expected, compiler: Any, **kw: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.query, **kw)}"


def _behind(tx: Connection, after: UUID, *, newest_first: bool) -> list[ColumnElement[bool]]:
    """What comes behind a job in the order of submit, or before it when the newest come first.

    Ranges of that order: put together by OR they would be looked for from its beginning.
    """
    if after == BEGINNING:
        return [true()]
    here = _place(tx, jobs.c.id == after)
    if here is None:
        here = _beside_deleted(tx, after, newest_first=newest_first)
    if here is None:
        return [true()]
    # Rows of earlier releases have no number, and come before all others.
    unnumbered = jobs.c.submit_xid.is_(None)
    if here.submit_xid is None:
        if newest_first:
            return [unnumbered & (jobs.c.id < here.id)]
        return [unnumbered & (jobs.c.id > here.id), ~unnumbered]
    place = tuple_(jobs.c.submit_xid, jobs.c.id)
    at = tuple_(literal(here.submit_xid, BigInteger), literal(here.id, Uuid))
    return [place < at, unnumbered] if newest_first else [place > at]


def _behind_in_time(
    tx: Connection, after: UUID, *, newest_first: bool
) -> list[ColumnElement[bool]]:
    """What comes behind a job in the order of times, or before it when the latest come first.

    Raises:
        NotFound: there is no such job, or none any more: nothing else says its time.
    """
    if after == BEGINNING:
        return [true()]
    run_at = tx.scalar(select(jobs.c.run_at).where(jobs.c.id == after))
    if run_at is None:
        raise NotFound(f"there is no job {after} to go on after: begin with the first page again")
    place = tuple_(jobs.c.run_at, jobs.c.id)
    at = tuple_(literal(run_at, jobs.c.run_at.type), literal(after, Uuid))
    return [place < at] if newest_first else [place > at]


def _place(
    tx: Connection, where: ColumnElement[bool], *order: ColumnElement[Any]
) -> Row[Any] | None:
    """The place of the first such job in the order of submit."""
    query: Select[Any] = (
        select(jobs.c.submit_xid, jobs.c.id).where(where).order_by(*order).limit(1)
    )
    return tx.execute(query).one_or_none()


def _beside_deleted(tx: Connection, gone: UUID, *, newest_first: bool) -> Row[Any] | None:
    """The place of a job that certainly comes before one that is gone; None for the beginning.

    Ids of two processes, or of transactions side by side, are not in the order of submit. But no submit
    takes a minute from its ids to its number (a statement may take half of that), so where ids
    differ by a minute they are.

    Raises:
        NotFound: the id is none of ours: it does not say when it was made.
    """
    if gone.version != _TIMED:
        raise NotFound(f"there is no job {gone} to go on after")
    made_ms = gone.int >> _AFTER_TIME
    if newest_first:
        later = UUID(int=min(made_ms + _MINUTE_MS, _LAST_MS) << _AFTER_TIME)
        return _place(tx, jobs.c.id > later, jobs.c.id)
    earlier = UUID(int=max(made_ms - _MINUTE_MS, 0) << _AFTER_TIME)
    return _place(tx, jobs.c.id < earlier, jobs.c.id.desc())


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
