"""Rescheduling: another time for a job, in every phase before its container is let go.

Promise: the job starts at the new time and not at the old one, or the caller is told that it is too
late; the same time again changes nothing. A machine that is there already holds for the new time if it
can; else its attempt ends, at nobody's cost, and the job is launched anew for that time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, func, text, update

from atemporal.clock import format_utc
from atemporal.errors import Conflict
from atemporal.lead import AGAIN_S
from atemporal.model import AttemptRef, Job
from atemporal.states import AttemptState, JobState, Reason
from atemporal.store import jobs as job_rows
from atemporal.store.database import server_time
from atemporal.store.leads import DISPATCH_AT, LEAD_S, PLAN_AT, ahead_s
from atemporal.store.start_deadlines import START_BY
from atemporal.store.transitions import notify_scheduler, record, transition_attempt
from atemporal.tables import attempts

_PLANNED = text(
    f"""
    SELECT due_at, {DISPATCH_AT} AS dispatch_at, {LEAD_S} AS lead_s, {PLAN_AT} AS plan_at
    FROM (SELECT greatest(CAST(:time AS timestamptz), now()) AS due_at,
                 CAST(:ahead_s AS float) AS ahead_s) AS wanted
    """
)
_RETIME = text(
    f"""
    UPDATE jobs SET run_at = :time, due_at = :due_at, updated_at = now(), state = :state,
        dispatch_at = :dispatch_at, lead_s = :lead_s, plan_at = :plan_at, waits_for = NULL,
        start_by = {START_BY.format(time="CAST(:time AS timestamptz)", seconds=":start_deadline_s")},
        attempt_limit = attempt_limit + :free
    WHERE id = :id AND attempt = :attempt AND state = :before
    """
)


class Rescheduled(NamedTuple):
    """What became of it: whether anything changed, and the attempt whose instance has to go."""

    changed: bool
    ended: AttemptRef | None = None


def reschedule(
    tx: Connection, job_id: UUID, *, time: datetime | None, delay_s: int | None, actor: str
) -> Rescheduled:
    """Give a job another time: an instant, or so many seconds from now. One that is past means now.

    Raises:
        NotFound: there is no such job.
        Conflict: it has finished, or its machine was told to start its container.
    """
    job = job_rows.get(tx, job_id, lock=True)
    if job.state in (JobState.FINISHED, JobState.RUNNING):
        why = {
            JobState.FINISHED: f"has finished ({job.outcome}): `atemporal retry` runs it again",
            JobState.RUNNING: "has begun: its container starts, or has started",
        }
        raise Conflict(f"job {job_id} {why[job.state]}: it keeps its time")
    now = server_time(tx)
    wanted = time if time is not None else now + timedelta(seconds=delay_s or 0)
    if wanted == job.run_at:
        return Rescheduled(changed=False)
    ref = AttemptRef(job_id, job.attempt)
    planned = dict(
        tx.execute(_PLANNED, {"time": wanted, "ahead_s": ahead_s(job.spec)}).mappings().one()
    )
    before, after = job.state, job.state
    ended = None
    if job.state is JobState.QUEUED and _is_far(planned["dispatch_at"] or planned["due_at"], now):
        after = JobState.SCHEDULED
    elif job.state is JobState.WARMING and not _can_hold(job, planned["due_at"]):
        transition_attempt(
            tx,
            ref,
            AttemptState.EXITED,
            actor=actor,
            values={"reason": Reason.RESCHEDULED, "exited_at": func.now()},
            detail={"reason": Reason.RESCHEDULED},
        )
        after, ended = JobState.SCHEDULED, ref
    elif job.state is not JobState.SCHEDULED:
        # Its launch has begun, and stays begun.
        planned |= {"dispatch_at": job.dispatch_at, "lead_s": job.lead_s, "plan_at": None}
        tx.execute(
            update(attempts)
            .where(
                attempts.c.job_id == ref.job_id,
                attempts.c.number == ref.number,
            )
            .values(start_at=planned["due_at"])
        )
    tx.execute(
        _RETIME,
        {
            **planned,
            "id": job_id,
            "attempt": job.attempt,
            "time": wanted,
            "before": before,
            "state": after,
            "start_deadline_s": job.spec.start_deadline_s,
            # An attempt that was begun for the old time leaves as many to come as before.
            "free": int(after is not before),
        },
    )
    detail = {"time": format_utc(wanted), "before": format_utc(job.run_at)}
    record(tx, ref, "job.rescheduled", actor=actor, detail=detail)
    if after is not before:
        record(tx, ref, f"job.{after}", actor=actor)
    if after is JobState.SCHEDULED:
        notify_scheduler(tx)
    return Rescheduled(changed=True, ended=ended)


def _is_far(launch_at: datetime, now: datetime) -> bool:
    """Whether its launch is so far away that it is worth a message more."""
    return (launch_at - now).total_seconds() > AGAIN_S


def _can_hold(job: Job, due_at: datetime) -> bool:
    """Whether the machine of its attempt can hold for so long: its deadline counts from its launch."""
    attempt = job.attempts[-1]
    hold = timedelta(seconds=attempt.launch.hold_s)
    return due_at <= max(job.due_at, attempt.created_at + hold)
