"""How many jobs stand where: for gauges and for a reader in a hurry."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from atemporal.states import JobState
from atemporal.tables import jobs


def count_by_state(tx: Connection) -> dict[JobState, int]:
    """How many jobs there are in each state that has any."""
    rows = tx.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
    return {JobState(state): count for state, count in rows}


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
