"""How many jobs there are: for who waits until all have finished."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from atemporal.states import JobState
from atemporal.tables import jobs


def jobs_by_state(tx: Connection) -> dict[JobState, int]:
    """How many jobs each state has that has any; it reads the whole table, as no daemon may."""
    rows = tx.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
    return {JobState(state): count for state, count in rows}
