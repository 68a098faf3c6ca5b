"""Launches: the intent of an attempt that has no instance yet, and the lease on asking for it.

Promise: the row always says which call is being made. `ask` is committed before the call and is
granted to one of all that read the same row; a candidate is exchanged by a guarded update that fails
when anybody has called since. So of two launchers that hold the same attempt, one goes on and the
other learns that its view is stale.
Mechanism: (placement, calls) in the launch is the fence. `called_at` is when the lease of
`attempts.lease_unlaunched` began: an attempt that is to be taken again in d seconds is given a lease
that began so long ago that it ends then.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select, text, update

from atemporal.model import AttemptRef, Launch
from atemporal.states import AttemptState
from atemporal.store.transitions import record
from atemporal.tables import attempts

_UNLAUNCHED = text(
    """
    SELECT split_part(detail, ':', 1) AS waits_for, count(*) AS many,
           extract(epoch FROM min(called_at) - now()) + :stale_s AS next_s
    FROM attempts WHERE state = 'launching' AND instance_id IS NULL GROUP BY 1
    """
)

# `detail` holds EC2's code for the end of a lost instance, as the reaper found it.
_INTERRUPTIONS = text(
    """
    SELECT launch ->> 'instance_type' AS instance_type, launch ->> 'subnet_id' AS subnet_id,
           extract(epoch FROM now() - exited_at) AS age_s
    FROM attempts
    WHERE launch ->> 'market' = 'spot' AND reason IN ('instance_lost', 'spot_interrupted')
      AND exited_at > now() - make_interval(secs => :within_s)
      AND (reason = 'spot_interrupted' OR detail LIKE '%Server.SpotInstanceTermination%')
    """
)

# Who was cancelled, or never got an instance after all, says nothing of whether machines can call.
_SILENT = text(
    """
    WITH latest AS (
        SELECT reason, exited_at FROM attempts
        WHERE exited_at > now() - make_interval(secs => :within_s)
          AND launched_at IS NOT NULL AND reason NOT IN ('cancelled', 'no_capacity')
        ORDER BY exited_at DESC LIMIT :machines)
    SELECT count(*) = :machines AND bool_and(reason = 'boot_deadline') AND NOT EXISTS (
        SELECT 1 FROM attempts WHERE state <> 'closed'
        AND coalesce(booted_at, running_at) > (SELECT min(exited_at) FROM latest))
    FROM latest
    """
)
_UNBORN = text(
    """
    SELECT count(*) FROM attempts
    WHERE booted_at IS NULL AND (state = 'warming' OR state = 'launching' AND detail IS NULL)
    """
)
# Newest first; `detail` is EC2's code.
_SHORTAGES = text(
    """
    SELECT launch ->> 'instance_type' AS instance_type, launch ->> 'subnet_id' AS subnet_id,
           coalesce(launch ->> 'market', 'on-demand') AS market, detail AS why,
           extract(epoch FROM now() - exited_at) AS age_s
    FROM attempts
    WHERE reason = 'no_capacity' AND exited_at > now() - make_interval(secs => :within_s)
    ORDER BY exited_at DESC
    """
)


class Interruption(NamedTuple):
    """A spot instance that EC2 took back, `age_s` seconds ago."""

    instance_type: str
    subnet_id: str | None
    age_s: float


class Shortage(NamedTuple):
    """An instance that EC2 took on and then had no room for, `age_s` seconds ago; `why` is its code."""

    instance_type: str
    subnet_id: str | None
    capacity_type: Literal["on-demand", "spot"]
    why: str
    age_s: float


class Unlaunched(NamedTuple):
    """The attempts without an instance: how many by what they wait for ("" for nothing told), and
    in how many seconds the first may be taken; None when there is none."""

    waiting: dict[str, int]
    next_in_s: float | None


def unlaunched(tx: Connection, *, stale_s: float) -> Unlaunched:
    """Look at what `lease_unlaunched` gives now or later."""
    rows = tx.execute(_UNLAUNCHED, {"stale_s": stale_s}).all()
    return Unlaunched(
        waiting={row.waits_for or "": row.many for row in rows},
        next_in_s=min((float(row.next_s) for row in rows), default=None),
    )


def ask(tx: Connection, ref: AttemptRef, launch: Launch) -> Launch | None:
    """Take the right to send one RunInstances call, before sending it; lease the attempt anew.

    Returns the launch as it is in the books now; None when somebody else has called or moved on
    since `launch` was read, or the attempt needs no instance any more: then nothing may be sent.
    """
    asked = launch.model_copy(update={"calls": launch.calls + 1})
    return asked if _rewrite(tx, ref, launch, asked, called_at=func.now()) else None


def replace(tx: Connection, ref: AttemptRef, launch: Launch, by: Launch) -> bool:
    """Exchange the candidate that is to be asked; False when the caller's view is stale.

    Only for one that was never asked, or was definitely refused: the caller knows.
    """
    return _rewrite(tx, ref, launch, by, called_at=func.now())


def release(
    tx: Connection, ref: AttemptRef, launch: Launch, *, delay_s: float, stale_s: float
) -> bool:
    """Leave the attempt to a sweep in `delay_s` seconds; False when stale."""
    return _rewrite(tx, ref, launch, launch, called_at=_lease(delay_s, stale_s))


def postpone(
    tx: Connection,
    ref: AttemptRef,
    launch: Launch,
    *,
    waits_for: str,
    why: str,
    delay_s: float,
    stale_s: float,
    actor: str,
) -> bool:
    """Leave the attempt to a sweep in `delay_s` seconds and write what it waits for.

    The history gets one row when `waits_for` changes, however often the attempt is tried in between.
    False when stale.
    """
    guard = _still(ref, launch)
    known = tx.scalar(select(attempts.c.detail).where(*guard).with_for_update())
    lease = _lease(delay_s, stale_s)
    if not _rewrite(tx, ref, launch, launch, called_at=lease, detail=f"{waits_for}: {why}"):
        return False
    if (known or "").partition(":")[0] != waits_for:
        record(tx, ref, "attempt.waiting", actor=actor, detail={"for": waits_for, "why": why})
    return True


def spot_interruptions(tx: Connection, *, within_s: float) -> list[Interruption]:
    """Return the spot instances that EC2 took back in the last `within_s` seconds."""
    rows = tx.execute(_INTERRUPTIONS, {"within_s": within_s})
    return [Interruption(row.instance_type, row.subnet_id, float(row.age_s)) for row in rows]


def silent(tx: Connection, *, machines: int, within_s: float) -> bool:
    """Whether the last `machines` machines that ended never called, and none has called since.

    Only endings of the last `within_s` seconds count: fewer of them prove nothing.
    """
    return bool(tx.scalar(_SILENT, {"machines": machines, "within_s": within_s}))


def unborn(tx: Connection) -> int:
    """How many attempts have a machine that has not called yet, or will have one in a moment.

    Not those that wait until EC2 gives one: that can take hours.
    """
    return int(tx.scalar(_UNBORN) or 0)


def shortages(tx: Connection, *, within_s: float) -> list[Shortage]:
    """Return the instances that EC2 had no room for after all, of the last `within_s` seconds."""
    rows = tx.execute(_SHORTAGES, {"within_s": within_s})
    return [
        Shortage(
            row.instance_type, row.subnet_id, row.capacity_type, row.why or "", float(row.age_s)
        )
        for row in rows
    ]


def _still(ref: AttemptRef, launch: Launch) -> tuple[ColumnElement[bool], ...]:
    """The guard of a launch's changes: nobody has called, exchanged or launched it meanwhile."""
    stored = attempts.c.launch
    return (
        attempts.c.job_id == ref.job_id,
        attempts.c.number == ref.number,
        attempts.c.state == AttemptState.LAUNCHING,
        attempts.c.instance_id.is_(None),
        func.coalesce(stored["placement"].as_integer(), 0) == launch.placement,
        func.coalesce(stored["calls"].as_integer(), 1) == launch.calls,
    )


def _lease(delay_s: float, stale_s: float) -> ColumnElement[Any]:
    """The beginning of a lease that ends in `delay_s` seconds."""
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, delay_s - stale_s)


def _rewrite(tx: Connection, ref: AttemptRef, launch: Launch, by: Launch, **values: Any) -> bool:
    changed = tx.execute(
        update(attempts)
        .where(*_still(ref, launch))
        .values(launch=by.model_dump(mode="json"), **values)
    )
    return bool(changed.rowcount)
