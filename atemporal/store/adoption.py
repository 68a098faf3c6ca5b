"""Adoption: an instance that EC2 shows with an attempt's tags is written down as that attempt's.

Promise: whatever the state of the attempt, an instance of its own that EC2 shows is recorded: the one
whose answer was lost, the one that came with a cancel, the one that came after the attempt was closed.
What is recorded already is not replaced, but for one case: `adopt` says which.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, update

from atemporal.model import AttemptRef
from atemporal.states import AttemptState
from atemporal.store.attempts import launched
from atemporal.store.groups import lock_group_of
from atemporal.store.transitions import record
from atemporal.tables import attempts


def adopt(
    tx: Connection,
    ref: AttemptRef,
    instance_id: str,
    *,
    known: str | None,
    gone: bool,
    launched_at: datetime | None,
    actor: str,
) -> None:
    """Write down an instance that EC2 shows as this attempt's, unless its row has changed meanwhile.

    `known` is what was recorded when EC2 was asked. Of two instances of a running attempt, the one that
    was granted the claim takes the place of the other. An attempt that was closed for want of an
    instance gets it when it is `gone`, and is closed as of now: until then it is drift, and shown as
    such. `launched_at` is when EC2 launched it.
    """
    lock_group_of(tx, ref)
    if known is not None:
        running = attempts.c.state == AttemptState.RUNNING
        # The end of the other one, if it was seen, is not the end of this one.
        values = {"instance_id": instance_id, "billed_until": None}
        _note(tx, ref, values, running, known=known, actor=actor)
        return
    launched(tx, ref, instance_id, actor=actor)
    if gone:
        late = {
            "instance_id": instance_id,
            "launched_at": func.coalesce(launched_at, attempts.c.created_at),
            "closed_at": func.now(),
        }
        closed = attempts.c.state == AttemptState.CLOSED
        _note(tx, ref, late, closed, known=None, actor=actor)


def _note(
    tx: Connection,
    ref: AttemptRef,
    values: dict[str, Any],
    guard: ColumnElement[bool],
    *,
    known: str | None,
    actor: str,
) -> None:
    noted = tx.execute(
        update(attempts)
        .where(
            attempts.c.job_id == ref.job_id,
            attempts.c.number == ref.number,
            attempts.c.instance_id.is_not_distinct_from(known),
            guard,
        )
        .values(**values)
    )
    if noted.rowcount:
        detail = {"instance_id": values["instance_id"], "instead_of": known}
        record(tx, ref, "attempt.instance", actor=actor, detail=detail)
