"""Pauses of the whole installation: nothing new is dispatched until somebody resumes it.

Promise: a pause is a fact when it returns. No job is dispatched after it, by whichever scheduler; what
was dispatched and has no attempt yet is scheduled again, at no cost to its budget; attempts that were
begun go on. Who paused, why, and who resumed is kept.
Mechanism: a claim reads the pause under the lock that it holds for the limits until it is committed
(`concurrency_limits`), and a change holds that lock alone.
Failure: a change that has to wait for a claim longer than ten seconds is refused, and may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from atemporal.errors import Conflict
from atemporal.model import AttemptRef, Pause
from atemporal.states import AttemptState, JobState
from atemporal.store import concurrency_limits
from atemporal.store.transitions import notify_scheduler, transition_jobs
from atemporal.tables import jobs
from atemporal.waiting import Phase

_CURRENT = text("SELECT at, actor, reason FROM pauses WHERE active")
_BEGIN = text("INSERT INTO pauses (at, actor, reason) VALUES (clock_timestamp(), :actor, :reason)")
_END = text(
    """
    UPDATE pauses SET active = NULL, ended_at = clock_timestamp(), ended_by = :actor WHERE active
    RETURNING at, actor, reason
    """
)
# In the order in which launchers lock them: who begins one just now is waited for.
_QUEUED = text("SELECT id, attempt FROM jobs WHERE state = 'queued' ORDER BY id FOR UPDATE")
_PART = 10_000
# What `atemporal.waiting.until` says of one job, for all that are under way at once.
_OPEN = text(
    """
    SELECT state, count(*) AS many, min(CASE
        WHEN state = 'ready' THEN due_at
        WHEN state = 'running'
            THEN coalesce(running_at, created_at) + make_interval(secs => timeout_s)
        WHEN state = 'exited' THEN coalesce(exited_at, created_at) + make_interval(secs => :stop)
        WHEN state = 'launching' THEN least(created_at + make_interval(secs => :launch), start_by)
        WHEN booted_at IS NOT NULL THEN least(booted_at + make_interval(secs => :pull), start_by)
        ELSE least(coalesce(launched_at, created_at) + make_interval(secs => :boot), start_by)
    END) AS deadline
    FROM attempts CROSS JOIN LATERAL (
        SELECT due_at, start_by, CASE WHEN jsonb_typeof(spec -> 'timeout_s') = 'number'
            THEN CAST(spec ->> 'timeout_s' AS double precision) END AS timeout_s
        FROM jobs WHERE id = attempts.job_id OFFSET 0) AS job
    WHERE attempts.state <> 'closed' GROUP BY state
    """
)


class Begun(NamedTuple):
    """A pause that was begun, and how many jobs that had been dispatched are scheduled again."""

    pause: Pause
    put_back: int


class UnderWay(NamedTuple):
    """How many attempts are in each state, and when the wait of the first of them ends at the latest."""

    by_state: Mapping[AttemptState, int]
    next_deadline: datetime | None


def current(tx: Connection) -> Pause | None:
    """The pause that is on; None while there is none."""
    row = tx.execute(_CURRENT).one_or_none()
    return Pause(since=row.at, by=row.actor, reason=row.reason) if row else None


def under_way(tx: Connection, deadlines: Mapping[Phase, float]) -> UnderWay:
    """The attempts that were begun and whose instance is not known to be gone: a pause lets them go on.

    `deadlines` are the seconds that the deployment gives each phase.
    """
    phases = (Phase.LAUNCH, Phase.BOOT, Phase.PULL, Phase.STOP)
    given: dict[str, float] = {phase.value: deadlines[phase] for phase in phases}
    found = {row.state: row for row in tx.execute(_OPEN, given)}
    ends = [row.deadline for row in found.values() if row.deadline is not None]
    return UnderWay(
        {one: found[one].many for one in AttemptState if one in found}, min(ends, default=None)
    )


def begin(tx: Connection, *, actor: str, reason: str) -> Begun:
    """Pause the installation. `reason` is for whoever asks why nothing happens.

    Raises:
        Conflict: it is paused already.
    """
    concurrency_limits.hold_claims(tx)
    if (on := current(tx)) is not None:
        raise Conflict(f"{on}: `atemporal resume` ends that")
    tx.execute(_BEGIN, {"actor": actor, "reason": reason})
    queued = [AttemptRef(*row) for row in tx.execute(_QUEUED)]
    put_back = 0
    # A statement may last half a minute, and in an incident many wait.
    for first in range(0, len(queued), _PART):
        part = queued[first : first + _PART]
        # The number of the attempt that was not begun is used up; how many may follow is as before.
        free = {"attempt_limit": jobs.c.attempt_limit + 1}
        put_back += len(transition_jobs(tx, part, JobState.SCHEDULED, actor=actor, values=free))
    begun = current(tx)
    assert begun is not None
    return Begun(begun, put_back)


def end(tx: Connection, *, actor: str) -> Pause:
    """Resume the installation; what is due is dispatched at once. Returns the pause that was on.

    Raises:
        Conflict: it is not paused.
    """
    concurrency_limits.hold_claims(tx)
    row = tx.execute(_END, {"actor": actor}).one_or_none()
    if row is None:
        raise Conflict("the installation is not paused: there is nothing to resume")
    notify_scheduler(tx)
    return Pause(since=row.at, by=row.actor, reason=row.reason)
