"""Pauses of the whole installation: nothing new is dispatched until somebody resumes it.

Promise: a pause is a fact when it returns. No job is dispatched after it, by whichever scheduler; what
was dispatched and has no attempt yet is scheduled again, at no cost to its budget; attempts that were
begun go on. Who paused, why, and who resumed is kept.
Mechanism: a claim reads the pause under the lock that it holds for the limits until it is committed
(`concurrency_limits`), and a change holds that lock alone.
Failure: a change that has to wait for a claim longer than ten seconds is refused, and may be repeated.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from atemporal.errors import Conflict
from atemporal.model import AttemptRef, Pause
from atemporal.states import JobState
from atemporal.store import concurrency_limits
from atemporal.store.transitions import notify_scheduler, transition_jobs
from atemporal.tables import jobs

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
_OPEN = text("SELECT count(*) FROM attempts WHERE state <> 'closed'")


class Begun(NamedTuple):
    """A pause that was begun, and how many jobs that had been dispatched are scheduled again."""

    pause: Pause
    put_back: int


def current(tx: Connection) -> Pause | None:
    """The pause that is on; None while there is none."""
    row = tx.execute(_CURRENT).one_or_none()
    return Pause(since=row.at, by=row.actor, reason=row.reason) if row else None


def under_way(tx: Connection) -> int:
    """How many attempts were begun whose instance is not known to be gone: what a pause lets go on."""
    return int(tx.scalar(_OPEN) or 0)


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
