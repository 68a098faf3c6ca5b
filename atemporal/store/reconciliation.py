"""The recorded side of a reconciliation: which attempt has which instance, and for how long.

Promise: it only reads, and never a log's tail, so that it can be asked often and for many.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, tuple_, union_all

from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState
from atemporal.store import rows
from atemporal.store.database import server_time
from atemporal.tables import attempts

_COLUMNS = [attempts.c[name] for name in Attempt.model_fields if name != "log_tail"]
_REF = tuple_(attempts.c.job_id, attempts.c.number)


class Page(NamedTuple):
    """What a reconciliation needs of the records.

    `attempts` are open, were closed lately, or are asked for; `settled` counts the others that had
    an instance, `settled_s` is how many seconds those lived: of the time that was asked for.
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
    settled_for_s: float | None = None,
) -> Page:
    """Read it; `within_s` is what lately means, in seconds.

    Of the settled ones those are counted that were closed in the last `settled_for_s` seconds; without
    it all, which goes through the whole table.
    """
    now = server_time(tx)
    lately = now - timedelta(seconds=within_s)
    wanted = (
        attempts.c.state != AttemptState.CLOSED,
        attempts.c.closed_at >= lately,
        attempts.c.instance_id == func.any(list(instance_ids)),
        *([_REF.in_(refs)] if refs else []),
    )
    # Each by its own index; put together by OR there would be none. One statement, one state.
    found = union_all(*(select(*_COLUMNS).where(one) for one in wanted)).subquery()
    each = {one.ref: one for one in _read(tx, select(found).order_by(found.c.created_at))}
    read = list(each.values())
    asked = [one.ref for one in read if one.closed_at and one.closed_at < lately]
    began = func.coalesce(attempts.c.launched_at, attempts.c.running_at, attempts.c.created_at)
    settled = [attempts.c.closed_at < lately, attempts.c.instance_id.is_not(None)]
    if settled_for_s is not None:
        settled.append(attempts.c.closed_at >= now - timedelta(seconds=settled_for_s))
    if asked:
        settled.append(_REF.not_in(asked))
    row = tx.execute(
        select(
            func.count(),
            func.coalesce(func.sum(func.extract("epoch", attempts.c.closed_at - began)), 0),
        ).where(*settled)
    ).one()
    return Page(read, int(row[0]), float(row[1]))


def of_instances(tx: Connection, instance_ids: Sequence[str]) -> list[Attempt]:
    """The attempts that have these instances."""
    wanted = attempts.c.instance_id == func.any(list(instance_ids))
    return _read(tx, select(*_COLUMNS).where(wanted))


def _read(tx: Connection, query: Any) -> list[Attempt]:
    return rows.readable(tx, tx.execute(query), rows.attempt)
