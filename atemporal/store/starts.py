"""Starts: a machine that is ready holds its container until its time, and says when it started.

Promise: a machine learns how long it has to hold, each time it asks, from the job as it is now: so a new
time and a cancel reach it. `ready` is written once, and so is the start. What a machine says of its
clock decides only how its own instants are read.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select, update

from atemporal.lead import CLAIM_AHEAD_S
from atemporal.model import AttemptRef, MachineClock
from atemporal.states import AttemptState
from atemporal.store.attempts import check_machine, get, locked
from atemporal.store.transitions import record, transition_attempt
from atemporal.tables import attempts, jobs

ASK_AGAIN_S = 5.0
"""A machine that holds asks so often: so soon it learns of another time."""


class Hold(NamedTuple):
    """What a machine is told, in milliseconds; the first two may be over (negative never: 0).

    `hold_ms`: until it is to ask again; 0: it may claim. `start_in_ms`: until its container is to start.
    `time_ms` is that instant and `now_ms` the present one, by the database's clock, since 1970.
    """

    hold_ms: int
    start_in_ms: int
    time_ms: int
    now_ms: int


class Start(NamedTuple):
    """A start that was written down: when, by the clock that counts, and how late that was."""

    at: datetime
    skew_s: float | None


def hold(tx: Connection, ref: AttemptRef) -> Hold:
    """How long the attempt's machine has to hold, by the database's clock.

    Rounded up: a machine that waits so long is never early.
    """
    now = func.clock_timestamp().label("now")
    row = tx.execute(
        select(
            func.extract("epoch", jobs.c.due_at).label("due"),
            func.extract("epoch", now).label("now"),
        ).where(jobs.c.id == ref.job_id)
    ).one()
    now_ms, time_ms = math.floor(row.now * 1000), math.ceil(row.due * 1000)
    start_in_ms = max(0, time_ms - now_ms)
    left_ms = start_in_ms - int(CLAIM_AHEAD_S * 1000)
    hold_ms = max(0, min(left_ms, int(ASK_AGAIN_S * 1000)))
    return Hold(hold_ms, start_in_ms, time_ms, now_ms)


def ready(
    tx: Connection,
    ref: AttemptRef,
    *,
    instance_id: str | None,
    clock: MachineClock,
    actor: str,
) -> bool:
    """Write down that a machine has created its container and holds it; True the first time.

    Raises:
        Conflict: EC2 has said otherwise of the instance, or the attempt can not be run any more.
    """
    attempt = get(tx, ref)
    values = {
        "clock_synchronised": clock.synchronised,
        "clock_offset_ms": clock.offset_ms,
    }
    if attempt is not None and attempt.state is AttemptState.READY:
        check_machine(tx, attempt, instance_id)
        known = MachineClock(
            synchronised=attempt.clock_synchronised, offset_ms=attempt.clock_offset_ms
        )
        if known.state is not clock.state and clock.offset_ms is not None:
            tx.execute(
                update(attempts)
                .where(attempts.c.job_id == ref.job_id, attempts.c.number == ref.number)
                .values(**values)
            )
        return False
    attempt = locked(tx, ref)
    if attempt is None:
        return False
    check_machine(tx, attempt, instance_id)
    return transition_attempt(
        tx,
        ref,
        AttemptState.READY,
        actor=actor,
        values={"ready_at": func.now(), "blocked_on": None, "detail": None, **values},
        detail={"clock": clock.state, "clock_offset_ms": clock.offset_ms},
    )


def started(tx: Connection, ref: AttemptRef, at: datetime, *, actor: str) -> Start | None:
    """Write down when the container started, as its machine read it off its clock.

    None when that is known, no machine of the attempt was granted the claim, or it is closed.
    """
    attempt = get(tx, ref)
    if attempt is None or attempt.started_at is not None:
        return None
    clock = MachineClock(
        synchronised=attempt.clock_synchronised, offset_ms=attempt.clock_offset_ms
    )
    true = clock.true(at)
    noted = tx.execute(
        update(attempts)
        .where(
            attempts.c.job_id == ref.job_id,
            attempts.c.number == ref.number,
            attempts.c.started_at.is_(None),
            attempts.c.running_at.is_not(None),
            attempts.c.state != AttemptState.CLOSED,
        )
        .values(started_at=true)
    )
    if not noted.rowcount:
        return None
    skew_s = None if attempt.start_at is None else (true - attempt.start_at).total_seconds()
    record(tx, ref, "attempt.started", actor=actor, detail={"skew_s": skew_s})
    return Start(true, skew_s)
