"""Which attempt a machine that asks is for: that of its instance by EC2's answer, and of no other.

Promise: what is told is what was written down from EC2's answer to the launch; a machine is told nothing
while that is not. It may ask again until its attempt has been claimed: from then on nobody is told any
more, so neither a second boot of the instance nor whoever has seen its document gets the job's secrets.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, select

from atemporal.errors import Conflict, NotFound
from atemporal.model import Attempt, AttemptRef, JobSpec
from atemporal.states import AttemptState
from atemporal.store import groups, rows
from atemporal.tables import attempts, jobs

Assignment = tuple[Attempt, JobSpec]
"""An attempt, and what its machine has to run."""

_UNCLAIMED = frozenset((AttemptState.LAUNCHING, AttemptState.WARMING, AttemptState.READY))


def of_group(tx: Connection, group_id: UUID, instance_id: str) -> Assignment | None:
    """What the machine of this instance has to run, which a launch group's call asked for.

    None while EC2's answer to the group's call is not written down.

    Raises:
        NotFound: there is no such group.
        Conflict: none of the group's attempts has it, and none will; or the one that has it has been
            claimed, or has ended.
        Unreadable: this release can not read the attempt.
    """
    # First: what is settled between two questions has its attempts by the second.
    settled = groups.get(tx, group_id).settled_at is not None
    row = _row(tx, attempts.c.group_id == group_id, attempts.c.instance_id == instance_id)
    if row is None:
        if not settled:
            return None
        raise Conflict(f"no attempt of group {group_id} has instance {instance_id}")
    return _unclaimed(row)


def of_attempt(tx: Connection, ref: AttemptRef, instance_id: str) -> Assignment | None:
    """What the machine of this instance has to run, which was launched for this attempt alone.

    None while EC2's answer to the attempt's call is not written down.

    Raises:
        NotFound: there is no such attempt.
        Conflict: another instance is the attempt's; or it has been claimed, or has ended.
        Unreadable: this release can not read the attempt.
    """
    row = _row(tx, attempts.c.job_id == ref.job_id, attempts.c.number == ref.number)
    if row is None:
        raise NotFound(f"there is no attempt {ref.id}")
    if row.instance_id not in (None, instance_id):
        raise Conflict(f"attempt {ref.id} has another instance than {instance_id}")
    found = _unclaimed(row)
    return found if row.instance_id else None


def _row(tx: Connection, *where: ColumnElement[bool]) -> Any:
    columns = [column for column in attempts.c if column.name != "log_tail"]
    query = select(*columns, jobs.c.spec, jobs.c.key).join(jobs, jobs.c.id == attempts.c.job_id)
    return tx.execute(query.where(*where)).one_or_none()


def _unclaimed(row: Row[Any]) -> Assignment:
    attempt = rows.attempt(row)
    if attempt.state in (AttemptState.EXITED, AttemptState.CLOSED):
        raise Conflict(f"attempt {attempt.ref.id} has ended")
    if attempt.state not in _UNCLAIMED:
        raise Conflict(f"attempt {attempt.ref.id} has been claimed: its job is told no more")
    return attempt, rows.spec(attempt.ref, row)
