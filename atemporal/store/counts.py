"""How many jobs wait, and which attempts are open: for gauges and for a reader in a hurry.

Mechanism: no count that a daemon asks for goes through what is scheduled for another day, or finished.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, text

from atemporal.model import AttemptRef
from atemporal.states import AttemptState, JobState
from atemporal.store import due
from atemporal.tables import DISPATCH_AT, PRIORITY, attempts

_WAIT = f"count(*) AS many, extract(epoch FROM now() - min({DISPATCH_AT})) AS oldest_s"
_DUE = text(
    f"""
    SELECT {_WAIT} FROM jobs
    WHERE state = 'scheduled' AND {PRIORITY} = ANY(CAST(:priorities AS integer[]))
      AND {DISPATCH_AT} <= now()
    """
)
_QUEUED = text(f"SELECT {_WAIT} FROM jobs WHERE state = 'queued' AND {DISPATCH_AT} <= now()")


def open_states(tx: Connection) -> dict[AttemptRef, str]:
    """The state of every attempt whose instance is not yet known to be gone."""
    columns = attempts.c.job_id, attempts.c.number, attempts.c.state
    query = select(*columns).where(attempts.c.state != AttemptState.CLOSED)
    return {AttemptRef(job_id, number): str(state) for job_id, number, state in tx.execute(query)}


def oldest_waiting(tx: Connection) -> dict[JobState, tuple[int, float]]:
    """How many jobs wait for their launch, though it should begin; the oldest's wait in seconds."""
    rows = {JobState.QUEUED: tx.execute(_QUEUED).one()}
    # The index of what is due begins with the priority: only those are looked at where any is due.
    priorities = [level.priority for level in due.survey(tx) if level.wait_s <= 0]
    if priorities:
        rows[JobState.SCHEDULED] = tx.execute(_DUE, {"priorities": priorities}).one()
    return {state: (row.many, float(row.oldest_s)) for state, row in rows.items() if row.many}
