"""Costs: what a closed attempt cost, written once, and the sums of that.

Promise: the cost of an attempt is written together with its close, by the price of its launch, so that a
later price table changes nothing of the past; at the same time it is added to the sums, so a report
reads these, however many jobs there are, and sums of jobs that were deleted stay.
Mechanism: the sums are by hour, instance type, capacity type and all labels of the job, among them that
of its schedule. An attempt counts in the hour of its close. What EC2 says of begin and end counts, else
what was recorded; the end of an instance is written down when it is first seen (`ending`).
Failure: one without a price is counted as such, with its seconds, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, text

from atemporal.billing import billed_s
from atemporal.end_code import SHORTAGES
from atemporal.model import Attempt, AttemptRef
from atemporal.model.schedule import LABEL
from atemporal.states import AttemptState
from atemporal.store import rows
from atemporal.tables import attempts

_ENDING = text(
    """
    WITH free AS (
        SELECT attempts.job_id, attempts.number, given.at
        FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS int[]), CAST(:at AS timestamptz[]))
            AS given (job_id, number, at)
        JOIN attempts ON attempts.job_id = given.job_id AND attempts.number = given.number
        WHERE billed_until IS NULL AND state <> 'closed'
        FOR NO KEY UPDATE OF attempts SKIP LOCKED)
    UPDATE attempts SET billed_until = coalesce(free.at, now())
    FROM free WHERE attempts.job_id = free.job_id AND attempts.number = free.number
    """
)
_BOOK = text(
    """
    WITH booked AS (
        UPDATE attempts SET billed_from = :begin, billed_until = :until,
                            billed_s = :seconds, booked = :cost
        WHERE job_id = :job_id AND number = :number
        RETURNING closed_at
    )
    INSERT INTO costs (hour, instance_type, capacity_type, labels_digest, labels,
                       attempts, unpriced, seconds, cost)
    SELECT date_trunc('hour', closed_at, 'UTC'), :instance_type, :capacity_type,
           sha256(convert_to(labels::text, 'UTF8')), labels,
           1, CASE WHEN CAST(:cost AS bigint) IS NULL THEN 1 ELSE 0 END, :seconds,
           coalesce(CAST(:cost AS bigint), 0)
    FROM booked, (SELECT coalesce(spec -> 'labels', '{}') AS labels FROM jobs WHERE id = :job_id) job
    ON CONFLICT (hour, instance_type, capacity_type, labels_digest) DO UPDATE SET
        attempts = costs.attempts + 1,
        unpriced = costs.unpriced + excluded.unpriced,
        seconds = costs.seconds + excluded.seconds,
        cost = costs.cost + excluded.cost
    """
)
_SUMS = """
    coalesce(sum(attempts), 0)::bigint AS attempts, coalesce(sum(unpriced), 0)::bigint AS unpriced,
    coalesce(sum(seconds), 0)::bigint AS seconds, coalesce(sum(cost), 0)::bigint AS cost
"""
_WITHIN = "hour >= :since AND hour < :until"
_TOTAL = text(f"SELECT {_SUMS} FROM costs WHERE {_WITHIN}")
_JOBS = text(
    """
    SELECT job_id::text AS name, count(*) AS attempts,
           count(*) FILTER (WHERE booked IS NULL) AS unpriced,
           sum(billed_s)::bigint AS seconds,
           coalesce(sum(booked), 0)::bigint AS cost
    FROM attempts
    WHERE closed_at >= :since AND closed_at < :until AND billed_from IS NOT NULL
    GROUP BY job_id ORDER BY cost DESC, name LIMIT :limit
    """
)
_HOURS = text(
    """
    SELECT date_trunc('hour', coalesce(CAST(:since AS timestamptz),
                                       now() - make_interval(secs => :since_s)), 'UTC') AS since,
           coalesce(date_trunc('hour', CAST(:until AS timestamptz) + interval '1 hour'
                               - interval '1 microsecond', 'UTC'),
                    date_trunc('hour', now(), 'UTC') + interval '1 hour') AS until,
           now() AS read_at
    """
)
_OLD = text(
    """
    DELETE FROM costs WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM costs WHERE hour < now() - make_interval(secs => :keep_s)
        ORDER BY hour LIMIT :limit FOR UPDATE SKIP LOCKED))
    """
)


class By(StrEnum):
    """What costs are summed by; `label` wants a name beside."""

    LABEL = "label"
    SCHEDULE = "schedule"
    JOB = "job"
    INSTANCE_TYPE = "instance-type"
    CAPACITY_TYPE = "capacity-type"
    DAY = "day"


# The name of a row, as SQL; of jobs there are no sums.
_NAMES = {
    By.LABEL: "labels ->> :label",
    By.SCHEDULE: "labels ->> :label",
    By.INSTANCE_TYPE: "instance_type",
    By.CAPACITY_TYPE: "capacity_type",
    By.DAY: "to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}


class Sum(NamedTuple):
    """Attempts and what they cost, in billionths of a dollar; `name` None is those without the label."""

    name: str | None
    attempts: int
    unpriced: int
    seconds: int
    cost: int


@dataclass(frozen=True)
class Report:
    """Sums from `since` to `until`, whole hours; `others` is what is in none of the rows.

    `under_way` are the attempts whose instances are not known to be gone, as they were at `read_at`.
    """

    since: datetime
    until: datetime
    read_at: datetime
    rows: Sequence[Sum]
    others: Sum
    total: Sum
    under_way: Sequence[Attempt]


def ending(tx: Connection, ends: Mapping[AttemptRef, datetime | None]) -> None:
    """Write down when instances ended, where that is not known yet; None is now.

    What somebody else has locked is passed over: nobody waits for this, and the next sweep sees it too.
    """
    if ends:
        tx.execute(
            _ENDING,
            {
                "ids": [ref.job_id for ref in ends],
                "numbers": [ref.number for ref in ends],
                "at": list(ends.values()),
            },
        )


def book(
    tx: Connection,
    ref: AttemptRef,
    *,
    launched_at: datetime | None = None,
    ended_at: datetime | None = None,
) -> Attempt | None:
    """Write what a closed attempt's instance cost; None where it had none, or that is written.

    `launched_at` and `ended_at` are EC2's own words, as far as it said any.
    """
    query = select(*(one for one in attempts.c if one.name != "log_tail"))
    known = (attempts.c.job_id == ref.job_id, attempts.c.number == ref.number)
    row = tx.execute(query.where(*known).with_for_update()).one_or_none()
    attempt = rows.attempt(row) if row else None
    if attempt is None or attempt.instance_id is None or attempt.billed_from is not None:
        return None
    if attempt.state is not AttemptState.CLOSED:
        return None
    begin = launched_at or attempt.launched_at or attempt.created_at
    until = ended_at or attempt.billed_until or attempt.exited_at or begin
    until = max(begin, until)
    if attempt.end_code in SHORTAGES and not attempt.booted_at:
        # It was never running, so it is not billed.
        until, seconds = begin, 0
    else:
        seconds = billed_s(begin, until)
    price = attempt.launch.price
    cost = price.cost(seconds) if price else None
    tx.execute(
        _BOOK,
        {
            "job_id": ref.job_id,
            "number": ref.number,
            "begin": begin,
            "until": until,
            "seconds": seconds,
            "cost": cost,
            "instance_type": attempt.launch.instance_type,
            "capacity_type": attempt.launch.capacity_type,
        },
    )
    return attempt.model_copy(
        update={"billed_from": begin, "billed_until": until, "billed_s": seconds, "booked": cost}
    )


def report(
    tx: Connection,
    by: By,
    *,
    label: str = "",
    since: datetime | None = None,
    since_s: float = 0.0,
    until: datetime | None = None,
    limit: int,
) -> Report:
    """Sum up what attempts cost that were closed in a time, the dearest first, days in their order.

    The time is from `since`, or from `since_s` seconds ago, up to `until` or now, with whole hours.
    """
    hours = tx.execute(_HOURS, {"since": since, "since_s": since_s, "until": until}).one()
    within: dict[str, Any] = {"since": hours.since, "until": hours.until}
    total = Sum(None, **tx.execute(_TOTAL, within).one()._mapping)
    named = {**within, "limit": limit, "label": LABEL if by is By.SCHEDULE else label}
    if by is By.JOB:
        del named["label"]
        found = tx.execute(_JOBS, named)
    else:
        if by not in (By.LABEL, By.SCHEDULE):
            del named["label"]
        order = "name" if by is By.DAY else "cost DESC, name"
        statement = (
            f"SELECT {_NAMES[by]} AS name, {_SUMS} FROM costs WHERE {_WITHIN}"
            f" GROUP BY 1 ORDER BY {order} LIMIT :limit"
        )
        found = tx.execute(text(statement), named)
    sums = [Sum(**row._mapping) for row in found]
    open_ = select(*(one for one in attempts.c if one.name != "log_tail")).where(
        attempts.c.state != AttemptState.CLOSED, attempts.c.instance_id.is_not(None)
    )
    under_way = rows.readable(tx, tx.execute(open_), rows.attempt)
    return Report(
        hours.since, hours.until, hours.read_at, sums, _rest(total, sums), total, under_way
    )


def delete_old(tx: Connection, *, keep_s: float, limit: int) -> int:
    """Delete up to `limit` sums of hours that began more than `keep_s` seconds ago; return how many."""
    return tx.execute(_OLD, {"keep_s": keep_s, "limit": limit}).rowcount


def _rest(total: Sum, sums: Sequence[Sum]) -> Sum:
    """What the total has beyond the rows: those beyond the limit, and jobs that were deleted."""
    shown = [sum(column) for column in zip(*(one[1:] for one in sums), strict=True)] or [0] * 4
    return Sum(None, *(max(0, whole - part) for whole, part in zip(total[1:], shown, strict=True)))
