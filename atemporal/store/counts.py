"""How many jobs stand where, and which attempts are open: for gauges and for a reader in a hurry."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from atemporal.model import AttemptRef
from atemporal.states import AttemptState, JobState
from atemporal.tables import attempts, jobs


def count_by_state(tx: Connection) -> dict[JobState, int]:
    """How many jobs there are in each state that has any."""
    rows = tx.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
    return {JobState(state): count for state, count in rows}


def open_states(tx: Connection) -> dict[AttemptRef, str]:
    """The state of every attempt whose instance is not yet known to be gone."""
    columns = attempts.c.job_id, attempts.c.number, attempts.c.state
    query = select(*columns).where(attempts.c.state != AttemptState.CLOSED)
    return {AttemptRef(job_id, number): str(state) for job_id, number, state in tx.execute(query)}


def oldest_waiting(tx: Connection) -> dict[JobState, tuple[int, float]]:
    """How many jobs wait for their launch, though it should begin; the oldest's wait in seconds."""
    launch_at = func.coalesce(jobs.c.dispatch_at, jobs.c.due_at)
    rows = tx.execute(
        select(
            jobs.c.state,
            func.count(),
            func.extract("epoch", func.now() - func.min(launch_at)),
        )
        .where(jobs.c.state.in_([JobState.SCHEDULED, JobState.QUEUED]), launch_at <= func.now())
        .group_by(jobs.c.state)
    )
    return {JobState(state): (count, float(oldest)) for state, count, oldest in rows}
