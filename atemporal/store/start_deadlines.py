"""Start deadlines: a job whose container has not started in time is not started any more.

Promise: a job with a start deadline whose machine was not told to start its container by then ends as
cancelled, for the reason `start_deadline`, wherever it is: scheduled, put aside for a limit, queued, or
with a machine that boots, pulls or holds. No container of it starts after that: the claim refuses
(`attempts.claim`), whether or not anybody has swept. If it is a fire's job, its fire was skipped.
Mechanism: `jobs.start_by` is the deadline, from the time that was asked for on; it is empty once a
container has started (`retries`). An index holds just the jobs that have one and have not begun.
Failure: what is not ended now is found by the next look, or by another scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from atemporal.model import AttemptRef
from atemporal.states import Reason
from atemporal.store.transitions import end_jobs

# Behind the last time that a job can have; what reads it has no later ones.
_LAST = "timestamptz '9999-12-31 23:59:59Z'"
# `least` passes over NULL.
START_BY = (
    "CASE WHEN CAST({seconds} AS float) IS NOT NULL"
    f" THEN least({{time}} + make_interval(secs => CAST({{seconds}} AS float)), {_LAST}) END"
)
"""A deadline as SQL, NULL without `seconds`."""

_NOT_BEGUN = "start_by IS NOT NULL AND state IN ('scheduled', 'queued', 'warming')"
_EXPIRED = text(
    f"""
    SELECT id, attempt FROM jobs WHERE {_NOT_BEGUN} AND start_by < now()
    ORDER BY start_by LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
    """
)
_NEXT_IN_S = text(
    "SELECT extract(epoch FROM start_by - clock_timestamp())::float FROM jobs"
    f" WHERE {_NOT_BEGUN} ORDER BY start_by LIMIT 1"
)
# By the schedule that its label names, as `jobs.retry` finds it.
_SKIP_FIRES = text(
    """
    UPDATE fires SET outcome = 'skipped', reason = 'start_deadline', settled = true
    FROM jobs JOIN schedules ON schedules.name = jobs.spec -> 'labels' ->> 'atemporal/schedule'
    WHERE jobs.id = ANY(CAST(:jobs AS uuid[])) AND fires.schedule_id = schedules.id
      AND NOT fires.settled AND fires.job_id = jobs.id
    """
)


@dataclass(frozen=True)
class Expired:
    """The jobs that were ended, each by its last attempt; those of them whose instances have to go;
    and how many fires were skipped by it."""

    jobs: Sequence[AttemptRef]
    ended: Sequence[AttemptRef]
    fires: int


def expire(tx: Connection, *, limit: int, actor: str) -> Expired:
    """End up to `limit` jobs that have not begun by their start deadline, the earliest first."""
    refs = [AttemptRef(row.id, row.attempt) for row in tx.execute(_EXPIRED, {"limit": limit})]
    finished, ended = end_jobs(tx, refs, Reason.START_DEADLINE, actor=actor)
    ids = [ref.job_id for ref in finished]
    skipped = tx.execute(_SKIP_FIRES, {"jobs": ids}).rowcount if ids else 0
    return Expired(finished, ended, skipped)


def next_in_s(tx: Connection) -> float | None:
    """Seconds until the next start deadline of a job that has not begun; None when there is none."""
    seconds: float | None = tx.scalar(_NEXT_IN_S)
    return seconds
