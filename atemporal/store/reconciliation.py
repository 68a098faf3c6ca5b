"""The recorded side of a reconciliation: which attempt has which instance, and for how long.

Promise: it only reads, and never a log's tail, so that it can be asked often and for many.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, or_, select, tuple_

from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState
from atemporal.store import rows
from atemporal.tables import attempts

_COLUMNS = [attempts.c[name] for name in Attempt.model_fields if name != "log_tail"]
_REF = tuple_(attempts.c.job_id, attempts.c.number)


class Page(NamedTuple):
    """What a reconciliation needs of the records.

    `attempts` are open, were closed lately, or are asked for; `settled` counts all others that had
    an instance, `settled_s` is how many seconds those lived.
    """

    attempts: list[Attempt]
    settled: int
    settled_s: float


def page(
    tx: Connection,
    *,
    instance_ids: Sequence[str],
    refs: Collection[AttemptRef],
    within_s: float,
) -> Page:
    """Read it; `within_s` is what lately means, in seconds."""
    lately = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, within_s)
    wanted = or_(
        attempts.c.state != AttemptState.CLOSED,
        attempts.c.closed_at >= lately,
        attempts.c.instance_id == func.any(list(instance_ids)),
        _REF.in_(refs),
    )
    read = _read(tx, select(*_COLUMNS).where(wanted).order_by(attempts.c.created_at))
    asked = [one.ref for one in read if one.state is AttemptState.CLOSED]
    began = func.coalesce(attempts.c.launched_at, attempts.c.running_at, attempts.c.created_at)
    row = tx.execute(
        select(
            func.count(),
            func.coalesce(func.sum(func.extract("epoch", attempts.c.closed_at - began)), 0),
        ).where(
            attempts.c.closed_at < lately,
            attempts.c.instance_id.is_not(None),
            _REF.not_in(asked),
        )
    ).one()
    return Page(read, int(row[0]), float(row[1]))


def of_instances(tx: Connection, instance_ids: Sequence[str]) -> list[Attempt]:
    """The attempts that have these instances."""
    wanted = attempts.c.instance_id == func.any(list(instance_ids))
    return _read(tx, select(*_COLUMNS).where(wanted))


def _read(tx: Connection, query: Any) -> list[Attempt]:
    return rows.readable(tx, tx.execute(query), rows.attempt)
