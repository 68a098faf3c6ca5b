"""Launches: the intent of an attempt that has no instance yet, and the lease on asking for it.

Promise: the row always says which call is being made, and what blocks it. `ask` is committed before
the call and is granted to one of all that read the same row; an offering is exchanged by a guarded
update that fails when anybody has called since. So of two launchers that hold the same attempt, one
goes on and the other learns that its view is stale.
Mechanism: (placement, calls) in the launch is the fence. `called_at` is when the lease of
`attempts.lease_unlaunched` began: an attempt that is to be taken again in d seconds is given a lease
that began so long ago that it ends then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, insert, select, text, update

from atemporal.end_code import is_spot_interruption
from atemporal.model import AttemptRef, Launch
from atemporal.states import AttemptState, BlockedReason, JobState, Reason
from atemporal.store.database import server_time
from atemporal.store.transitions import record, record_many, transition_jobs
from atemporal.tables import CAPACITY_TYPE, attempts

_UNLAUNCHED = text(
    """
    SELECT blocked_on, count(*) AS many,
           extract(epoch FROM least(
               min(called_at) FILTER (WHERE group_id IS NULL),
               (SELECT min(called_at) FROM launch_groups WHERE settled_at IS NULL)
           ) - now()) + :stale_s AS next_s
    FROM attempts WHERE state = 'launching' AND instance_id IS NULL GROUP BY 1
    """
)

# One that was to be launched ahead and was not is late, and counts.
_KEEP_PLAN = text(
    """
    UPDATE attempts SET
        dispatch_at = coalesce(jobs.dispatch_at, jobs.due_at),
        lead_s = jobs.lead_s,
        start_at = CASE WHEN jobs.dispatch_at IS NOT NULL OR jobs.due_at > now() THEN jobs.due_at END
    FROM jobs
    WHERE jobs.id = ANY(:ids) AND attempts.job_id = jobs.id AND attempts.number = jobs.attempt
    """
)

_SPOT_LOST = text(
    f"""
    SELECT launch ->> 'instance_type' AS instance_type, launch ->> 'subnet_id' AS subnet_id,
           reason, end_code, extract(epoch FROM now() - exited_at) AS age_s
    FROM attempts
    WHERE {CAPACITY_TYPE} = 'spot' AND reason IN ('instance_lost', 'spot_interrupted')
      AND exited_at > now() - make_interval(secs => :within_s)
    """
)

_PUT_BACK = text(
    """
    UPDATE attempts SET called_at = to_timestamp(0)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS int[])) AS given (job_id, number)
    WHERE attempts.job_id = given.job_id AND attempts.number = given.number
      AND state = 'launching' AND instance_id IS NULL AND group_id IS NULL
    """
)

# An attempt that was cancelled, or got no instance after all, does not show whether machines boot.
_NEVER_BOOTED = text(
    """
    WITH latest AS (
        SELECT reason, exited_at FROM attempts
        WHERE exited_at > now() - make_interval(secs => :within_s)
          AND launched_at IS NOT NULL
          AND reason NOT IN ('cancelled', 'no_capacity', 'rescheduled', 'start_deadline')
        ORDER BY exited_at DESC LIMIT :machines)
    SELECT count(*) = :machines AND bool_and(reason = 'boot_deadline') AND NOT EXISTS (
        SELECT 1 FROM attempts WHERE state <> 'closed'
        AND coalesce(booted_at, running_at) > (SELECT min(exited_at) FROM latest))
    FROM latest
    """
)
_BOOTING = text(
    """
    SELECT count(*) FROM attempts
    WHERE booted_at IS NULL AND (state = 'warming' OR state = 'launching' AND blocked_on IS NULL)
    """
)
_SHORTAGES = text(
    f"""
    SELECT launch ->> 'instance_type' AS instance_type, launch ->> 'subnet_id' AS subnet_id,
           {CAPACITY_TYPE} AS capacity_type, end_code,
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
    """An instance that EC2 granted and then had no room for, `age_s` seconds ago."""

    instance_type: str
    subnet_id: str | None
    capacity_type: Literal["on-demand", "spot"]
    end_code: str | None
    age_s: float


class Unlaunched(NamedTuple):
    """The attempts without an instance: how many by what blocks them (None for nothing), and in how
    many seconds the first may be taken; None when there is none."""

    blocked: dict[BlockedReason | None, int]
    next_in_s: float | None


def begin_many(
    tx: Connection, intents: Mapping[AttemptRef, Launch], *, actor: str
) -> list[AttemptRef]:
    """Write the intents to launch; returns those whose job was still queued for the attempt.

    Each keeps what its job's plan was: the next attempt may have another.
    """
    moved = transition_jobs(tx, list(intents), JobState.WARMING, actor=actor)
    if moved:
        tx.execute(
            insert(attempts),
            [
                {
                    "job_id": ref.job_id,
                    "number": ref.number,
                    "state": AttemptState.LAUNCHING,
                    "launch": intents[ref].model_dump(mode="json"),
                }
                for ref in moved
            ],
        )
        tx.execute(_KEEP_PLAN, {"ids": [ref.job_id for ref in moved]})
    record_many(
        tx,
        {
            ref: {
                "instance_type": intents[ref].instance_type,
                "placement": intents[ref].placement,
            }
            for ref in moved
        },
        f"attempt.{AttemptState.LAUNCHING}",
        actor=actor,
    )
    return moved


def begin(tx: Connection, ref: AttemptRef, launch: Launch, *, actor: str) -> bool:
    """Write one intent; False when the job is not queued for this attempt any more."""
    return bool(begin_many(tx, {ref: launch}, actor=actor))


def put_back(tx: Connection, refs: Sequence[AttemptRef]) -> None:
    """Give back the lease of attempts that nobody has asked for: any sweep may take them at once."""
    tx.execute(
        _PUT_BACK, {"ids": [one.job_id for one in refs], "numbers": [one.number for one in refs]}
    )


def unlaunched(tx: Connection, *, stale_s: float) -> Unlaunched:
    """Look at what `lease_unlaunched` and `groups.lease` give now or later."""
    rows = tx.execute(_UNLAUNCHED, {"stale_s": stale_s}).all()
    blocked: Counter[BlockedReason | None] = Counter()
    for row in rows:
        known = row.blocked_on in frozenset(BlockedReason)
        blocked[BlockedReason(row.blocked_on) if known else None] += row.many
    return Unlaunched(
        blocked=dict(blocked),
        next_in_s=min((float(row.next_s) for row in rows if row.next_s is not None), default=None),
    )


def ask(tx: Connection, ref: AttemptRef, launch: Launch) -> Launch | None:
    """Take the right to send one RunInstances call, before sending it; lease the attempt anew.

    Returns the launch as it is recorded now; None when somebody else has called or moved on
    since `launch` was read, or the attempt needs no instance any more: then nothing may be sent.
    """
    # Until its outcome is written down it may have launched.
    now = {"calls": launch.calls + 1, "unsure_at": server_time(tx)}
    asked = launch.model_copy(update=now)
    return asked if _rewrite(tx, ref, launch, asked, called_at=func.now()) else None


def replace(tx: Connection, ref: AttemptRef, launch: Launch, by: Launch) -> bool:
    """Exchange the offering that is to be asked; False when the caller's view is stale.

    Only for one that was never asked, or was definitely refused: the caller knows.
    """
    return _rewrite(tx, ref, launch, by, called_at=func.now())


def release(
    tx: Connection, ref: AttemptRef, launch: Launch, *, delay_s: float, stale_s: float
) -> bool:
    """Leave the attempt to a sweep in `delay_s` seconds; False when stale."""
    return _rewrite(tx, ref, launch, launch, called_at=lease_begin(delay_s, stale_s))


def postpone(
    tx: Connection,
    ref: AttemptRef,
    launch: Launch,
    *,
    blocked_on: BlockedReason,
    detail: str,
    delay_s: float,
    stale_s: float,
    actor: str,
) -> bool:
    """Leave the attempt to a sweep in `delay_s` seconds and write what blocks it.

    `detail` says more to people. The history gets one row when `blocked_on` changes, however often the
    attempt is tried in between. False when stale.
    """
    guard = _still(ref, launch)
    known = tx.scalar(select(attempts.c.blocked_on).where(*guard).with_for_update())
    values = {
        "called_at": lease_begin(delay_s, stale_s),
        "blocked_on": blocked_on,
        "detail": detail,
    }
    if not _rewrite(tx, ref, launch, launch, **values):
        return False
    if known != blocked_on:
        change = {"blocked_on": blocked_on, "detail": detail}
        record(tx, ref, "attempt.blocked", actor=actor, detail=change)
    return True


def spot_interruptions(tx: Connection, *, within_s: float) -> list[Interruption]:
    """Return the spot instances that EC2 took back in the last `within_s` seconds."""
    lost = tx.execute(_SPOT_LOST, {"within_s": within_s})
    return [
        Interruption(row.instance_type, row.subnet_id, float(row.age_s))
        for row in lost
        if row.reason == Reason.SPOT_INTERRUPTED or is_spot_interruption(row.end_code)
    ]


def never_booted(tx: Connection, *, machines: int, within_s: float) -> bool:
    """Whether the last `machines` machines that ended never booted, and none has booted since.

    A machine has booted when its boot callback, or its claim, has come.

    Only endings of the last `within_s` seconds count: fewer of them prove nothing.
    """
    return bool(tx.scalar(_NEVER_BOOTED, {"machines": machines, "within_s": within_s}))


def booting(tx: Connection) -> int:
    """How many attempts have a machine that boots, or will have one in a moment.

    Not those that are blocked until EC2 gives one: that can take hours.
    """
    return int(tx.scalar(_BOOTING) or 0)


def shortages(tx: Connection, *, within_s: float) -> list[Shortage]:
    """Return the instances that EC2 had no room for after all, of the last `within_s` seconds.

    The newest comes first.
    """
    rows = tx.execute(_SHORTAGES, {"within_s": within_s})
    return [
        Shortage(
            row.instance_type, row.subnet_id, row.capacity_type, row.end_code, float(row.age_s)
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
        attempts.c.group_id.is_(None),
        func.coalesce(stored["placement"].as_integer(), 0) == launch.placement,
        func.coalesce(stored["calls"].as_integer(), 1) == launch.calls,
    )


def lease_begin(delay_s: float, stale_s: float) -> ColumnElement[Any]:
    """The beginning of a lease that ends in `delay_s` seconds."""
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, delay_s - stale_s)


def _rewrite(tx: Connection, ref: AttemptRef, launch: Launch, by: Launch, **values: Any) -> bool:
    changed = tx.execute(
        update(attempts)
        .where(*_still(ref, launch))
        # What an older release did not say stays unsaid: it decides what may follow a call.
        .values(launch=by.model_dump(mode="json", exclude_unset=True), **values)
    )
    return bool(changed.rowcount)
