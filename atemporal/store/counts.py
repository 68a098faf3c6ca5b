"""How many jobs wait, and which attempts are open: for gauges and for a reader in a hurry.

Mechanism: no count that a daemon asks for goes through what is scheduled for another day, or finished.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select, text

from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState
from atemporal.store import concurrency_limits, due, limit_waits, pauses, rows, slots
from atemporal.tables import DISPATCH_AT, PRIORITY, attempts
from atemporal.waiting import Phase

_WAIT = f"count(*) AS many, extract(epoch FROM now() - min({DISPATCH_AT})) AS oldest_s"
_DUE = text(
    f"""
    SELECT {_WAIT} FROM jobs
    WHERE {due.DUE} AND {PRIORITY} = ANY(CAST(:priorities AS integer[]))
      AND {DISPATCH_AT} <= now()
    """
)
_QUEUED = text(f"SELECT {_WAIT} FROM jobs WHERE state = 'queued' AND {DISPATCH_AT} <= now()")
_LIMITED = text(f"SELECT {_WAIT} FROM jobs WHERE state = 'scheduled' AND waits_for IS NOT NULL")


def open_states(tx: Connection) -> dict[AttemptRef, str]:
    """The state of every attempt whose instance is not yet known to be gone."""
    columns = attempts.c.job_id, attempts.c.number, attempts.c.state
    query = select(*columns).where(attempts.c.state != AttemptState.CLOSED)
    return {AttemptRef(job_id, number): str(state) for job_id, number, state in tx.execute(query)}


def open_by_state(tx: Connection) -> dict[AttemptState, int]:
    """How many attempts are in each state, of those whose instance is not yet known to be gone."""
    state = attempts.c.state
    query = select(state, func.count()).where(state != AttemptState.CLOSED).group_by(state)
    found = {AttemptState(name): many for name, many in tx.execute(query)}
    return {one: found[one] for one in AttemptState if one in found}


def open_attempts(tx: Connection, *, limit: int) -> list[Attempt]:
    """The newest attempts whose instance is not yet known to be gone, without logs."""
    columns = [one for one in attempts.c if one.name != "log_tail"]
    query = select(*columns).where(attempts.c.state != AttemptState.CLOSED)
    newest = query.order_by(attempts.c.created_at.desc(), attempts.c.job_id).limit(limit)
    return rows.readable(tx, tx.execute(newest), rows.attempt)


def oldest_waiting(tx: Connection) -> dict[Phase, tuple[int, float]]:
    """How many jobs wait for their launch, though it should begin; the oldest's wait in seconds.

    By the phase that they are in: `queued`, `pause`, `limit` or `due`.
    """
    paused = pauses.current(tx) is not None
    queued, limited = tx.execute(_QUEUED).one(), tx.execute(_LIMITED).one()
    found: dict[Phase, list[Any]] = {
        Phase.QUEUED: [queued],
        Phase.PAUSE if paused else Phase.LIMIT: [limited],
    }
    # The index of what is due begins with the priority: only those are looked at where any is due.
    priorities = [level.priority for level in due.survey(tx) if level.wait_s <= 0]
    if priorities:
        rules = concurrency_limits.rules(tx)
        held_up = bool(rules) and limit_waits.full(slots.room(tx, rules)) is not None
        phase = Phase.PAUSE if paused else Phase.LIMIT if held_up else Phase.DUE
        row = tx.execute(_DUE, {"priorities": priorities}).one()
        found[phase] = [*found.get(phase, ()), row]
    return {
        phase: (sum(row.many for row in rows), max(float(row.oldest_s or 0) for row in rows))
        for phase, rows in found.items()
        if any(row.many for row in rows)
    }
