"""Bounds on what a job costs: one that has passed its own is ended.

Promise: a job whose attempts have cost more than its `max_cost` ends as failed, for the reason
`max_cost`, and is not tried again; its instance goes. An operator's retry gives it the bound anew, as it
does the budgets of attempts.
Mechanism: `jobs.max_cost` is the bound; an index holds just the jobs that have one, have been begun and
have not finished. What an attempt costs so far is reckoned as it is shown (`Attempt.cost_at`).
Failure: what is not ended now is found by the next look, or by another scheduler. An attempt of which no
price is known counts as nothing; a launcher begins none for such a job.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, func, select, text

from atemporal.model import Attempt, AttemptRef
from atemporal.states import Reason
from atemporal.store import rows
from atemporal.store.transitions import end_jobs
from atemporal.tables import attempts

_BOUNDED = text(
    """
    SELECT id, attempt, attempt_base, max_cost FROM jobs
    WHERE max_cost IS NOT NULL AND attempt > 0 AND state <> 'finished'
      AND id > CAST(:after AS uuid)
    ORDER BY id LIMIT :limit
    """
)
_LOCK = text(
    """
    SELECT id, attempt, attempt_base FROM jobs
    WHERE id = ANY(CAST(:ids AS uuid[])) AND state <> 'finished'
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    """
)
_NOW = text("SELECT now()")
BEGIN = UUID(int=0)


@dataclass(frozen=True)
class Passed:
    """Jobs that were ended, each by its last attempt, and those of them whose instances have to go.

    `after` is where to go on; None at the end.
    """

    jobs: Sequence[AttemptRef]
    ended: Sequence[AttemptRef]
    after: UUID | None


def end_passed(tx: Connection, *, actor: str, after: UUID = BEGIN, limit: int) -> Passed:
    """Look at up to `limit` jobs behind `after` in the order of their ids, and end what has passed."""
    found = tx.execute(_BOUNDED, {"after": after, "limit": limit}).all()
    now: datetime = tx.execute(_NOW).scalar_one()
    tried = _attempts(tx, [row.id for row in found])
    passed = [
        row
        for row in found
        if sum(one.cost_at(now) or 0 for one in tried[row.id] if one.number > row.attempt_base)
        > row.max_cost
    ]
    # Who has gone on meanwhile, or was retried, is looked at the next time.
    locked = tx.execute(_LOCK, {"ids": [row.id for row in passed]}).all() if passed else []
    same = {tuple(row) for row in locked}
    refs = [AttemptRef(row.id, row.attempt) for row in passed if tuple(row[:3]) in same]
    finished, ended = end_jobs(tx, refs, Reason.MAX_COST, actor=actor)
    return Passed(finished, ended, found[-1].id if len(found) == limit else None)


def _attempts(tx: Connection, job_ids: Sequence[UUID]) -> dict[UUID, list[Attempt]]:
    query = select(*(one for one in attempts.c if one.name != "log_tail")).where(
        attempts.c.job_id == func.any(list(job_ids))
    )
    of: dict[UUID, list[Attempt]] = defaultdict(list)
    if job_ids:
        for one in rows.readable(tx, tx.execute(query), rows.attempt):
            of[one.job_id].append(one)
    return of
