"""Fires: what a scheduler does for recurring schedules, and what is left of it.

Promise: a fire is decided once, by whichever scheduler comes first, and its job is made in the same
transaction: the fires' primary key refuses a second one, the job's key a second job. What is decided is
decided by the time that the caller has read from the database, and by the schedule as it is under its
lock, so a change in between is never undone.
Mechanism: `due` locks the schedules that it is time for and passes over those that are locked. The jobs
that a batch may cancel are locked by their ids, as everybody locks several, before the first is. A job
that was made ahead is *withdrawn* when its fire is not wanted any more: it is cancelled, gives its key
back, and its fire is forgotten, so the same fire may be made again. One that no machine was told to
start is cancelled after its fire's time too, if it is not to start at all; its fire stays on record.
Failure: a schedule that can not be read or fired says why in `problem`, and is looked at again soon, by
this scheduler or by one that can. A job that can not be read is left as it is, and reported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, insert, select, text, update

from atemporal.calendar import CronLine
from atemporal.errors import Conflict, Invalid, NotFound, Unreadable
from atemporal.model import AttemptRef, JobSpec
from atemporal.model.schedule import Schedule
from atemporal.recurrence import (
    Decision,
    Fire,
    FireOutcome,
    FireReason,
    Overlap,
    decide,
)
from atemporal.store import jobs, rows
from atemporal.tables import fires, schedules
from atemporal.userdata import check_fits

PROBLEM_S = 60
"""A schedule that can not be fired is looked at again after so many seconds.

Where two releases of `tzdata` run side by side one may read a zone that the other can not: so it is
short against the minutes by which a fire is decided earlier than the longest lead needs.
"""

_DUE = text(
    """
    SELECT *, statement_timestamp() AS read_at FROM schedules
    WHERE paused_at IS NULL AND look_at <= :now
    ORDER BY look_at LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
    """
)
_OF_OTHER_RULES = text(
    """
    SELECT *, statement_timestamp() AS read_at FROM schedules
    WHERE paused_at IS NULL AND (rules_version < :rules OR rules_version > :rules)
      AND (problem IS NULL OR look_at <= :now)
    LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
    """
)
_NEXT_LOOK = text("SELECT min(look_at) FROM schedules WHERE paused_at IS NULL")
# A job that was deleted had finished.
_SETTLE = text(
    """
    UPDATE fires SET settled = true
    WHERE schedule_id = ANY(CAST(:schedules AS uuid[])) AND NOT settled
      AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = fires.job_id AND state <> 'finished')
    """
)
# What no machine was told to start. A job that waits for another attempt after a run has begun.
_NOT_BEGUN = text(
    """
    SELECT fires.fire_time, jobs.id FROM fires JOIN jobs ON jobs.id = fires.job_id
    WHERE schedule_id = :schedule AND NOT settled AND (:due OR fire_time > :now)
      AND jobs.state IN ('scheduled', 'queued', 'warming')
      AND NOT EXISTS (SELECT 1 FROM attempts WHERE job_id = jobs.id AND running_at IS NOT NULL)
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs
    """
)
# All that these schedules may have cancelled, but for jobs that are made only now.
_LOCK = text(
    """
    SELECT jobs.id FROM schedules
        JOIN fires ON fires.schedule_id = schedules.id JOIN jobs ON jobs.id = fires.job_id
    WHERE schedules.id = ANY(CAST(:schedules AS uuid[])) AND NOT settled
      AND CASE WHEN fire_time <= :now THEN overlap = 'cancel' ELSE rules_version <> :rules END
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs
    """
)
_GIVE_KEY_BACK = text(
    "UPDATE jobs SET key = key || ':withdrawn:' || id WHERE id = :job AND key IS NOT NULL"
)
# One that was cancelled ends no other.
_LATEST = text(
    """
    SELECT fire_time FROM fires LEFT JOIN jobs ON jobs.id = fires.job_id
    WHERE schedule_id = :schedule AND fires.outcome = 'ran' AND fire_time <= :now
      AND jobs.outcome IS DISTINCT FROM 'cancelled'
    ORDER BY fire_time DESC LIMIT 1
    """
)


@dataclass
class Done:
    """What came of looking at some schedules."""

    schedules: int = 0
    fires: list[tuple[str, Fire]] = field(default_factory=list)
    """The name of each one's schedule, and what became of it."""
    ended: list[AttemptRef] = field(default_factory=list)
    """The attempts whose instances have to go."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """The name of each schedule that can not be fired, and why."""


def due(tx: Connection, now: datetime, *, limit: int) -> Sequence[Row[Any]]:
    """Lock the schedules that it is time to look at, the most urgent first."""
    return tx.execute(_DUE, {"now": now, "limit": limit}).all()


def of_other_rules(tx: Connection, rules: str, now: datetime, *, limit: int) -> Sequence[Row[Any]]:
    """Lock schedules whose next fire was computed by zone rules of another version.

    Not those that could not be fired, and are looked at later.
    """
    return tx.execute(_OF_OTHER_RULES, {"rules": rules, "now": now, "limit": limit}).all()


def next_look(tx: Connection) -> datetime | None:
    """When the next schedule is to be looked at; None when there is none."""
    at: datetime | None = tx.scalar(_NEXT_LOOK)
    return at


def decide_due(
    tx: Connection, locked: Sequence[Row[Any]], now: datetime, *, rules: str, actor: str
) -> Done:
    """Decide the fires of schedules that are locked, make their jobs, and say when to look again.

    Raises:
        Conflict: a fire was decided already, by somebody without the lock; nothing is done.
        Unavailable: the job that has a fire's key was deleted meanwhile; nothing is done.
    """
    done = Done(schedules=len(locked))
    if not locked:
        return done
    ids = [str(row.id) for row in locked]
    tx.execute(_SETTLE, {"schedules": ids})
    tx.execute(_LOCK, {"schedules": ids, "now": now, "rules": rules})
    decided: list[tuple[Schedule, Decision]] = []
    for row in locked:
        try:
            schedule, line = _readable(row)
            if schedule.rules_version != rules:
                schedule = _by_other_rules(tx, schedule, line, now, done, actor=actor)
        except (Invalid, Unreadable) as error:
            _put_off(tx, row.id, now, str(error))
            done.problems.append((row.name, str(error)))
            continue
        decision = decide(
            line.next_after,
            schedule.next_fire_at,
            now,
            schedule.rules,
            alive=open_fires(tx, schedule.id),
            made=made_from(tx, schedule.id, schedule.next_fire_at),
        )
        decided.append((schedule, decision))
    for schedule, fire in _make(tx, decided, actor=actor):
        done.fires.append((schedule.name, fire))
    for schedule, decision in decided:
        again = decision.look_at
        if schedule.overlap is Overlap.CANCEL:
            _cancel_earlier(tx, schedule.id, now, done, actor=actor)
            coming = (at for at in open_fires(tx, schedule.id) if at > now)
            again = min((at for at in (again, *coming) if at is not None), default=None)
        tx.execute(
            update(schedules)
            .where(schedules.c.id == schedule.id)
            .values(
                next_fire_at=decision.next_fire_at,
                look_at=again,
                rules_version=rules,
                problem=None,
            )
        )
    return done


def open_fires(tx: Connection, schedule_id: UUID) -> dict[datetime, UUID]:
    """The fires whose jobs had not finished when they were looked at last, with these jobs."""
    found = select(fires.c.fire_time, fires.c.job_id).where(
        fires.c.schedule_id == schedule_id, ~fires.c.settled
    )
    return {row.fire_time: row.job_id for row in tx.execute(found)}


def made_from(tx: Connection, schedule_id: UUID, at: datetime | None) -> set[datetime]:
    """The fires from `at` on that are decided."""
    if at is None:
        return set()
    found = select(fires.c.fire_time).where(
        fires.c.schedule_id == schedule_id, fires.c.fire_time >= at
    )
    return set(tx.scalars(found))


def withdraw(
    tx: Connection,
    schedule_id: UUID,
    now: datetime,
    *,
    actor: str,
    due: bool = False,
    keep: Collection[datetime] = (),
) -> list[AttemptRef]:
    """Take back the jobs that were made ahead and not begun, but for the fires in `keep`.

    With `due` those not begun are cancelled too whose fires have come; these fires stay on record.
    Returns the attempts whose instances have to go.
    """
    ended: list[AttemptRef] = []
    found = tx.execute(_NOT_BEGUN, {"schedule": schedule_id, "now": now, "due": due})
    for row in found.all():
        if row.fire_time in keep:
            continue
        try:
            ref = jobs.cancel(tx, row.id, actor=actor)
        except Unreadable as error:
            rows.leave_out(tx, error)
            continue
        ended += [ref] if ref else []
        if row.fire_time <= now:
            continue
        tx.execute(_GIVE_KEY_BACK, {"job": row.id})
        tx.execute(
            fires.delete().where(
                fires.c.schedule_id == schedule_id, fires.c.fire_time == row.fire_time
            )
        )
    return ended


def write(tx: Connection, schedule_id: UUID, ended: Iterable[Fire]) -> None:
    """Write down fires without a job."""
    if written := [_row(schedule_id, fire) for fire in ended]:
        tx.execute(insert(fires), written)


def cursor(line: CronLine, next_fire_at: datetime | None, now: datetime) -> datetime | None:
    """The next fire by a line that may be another now; from before `now` on if one is undecided."""
    if next_fire_at is not None and next_fire_at <= now:
        return line.next_after(next_fire_at - timedelta(microseconds=1))
    return line.next_after(now)


def is_fire(line: CronLine, at: datetime) -> bool:
    """Whether the line fires at this instant."""
    return line.next_after(at - timedelta(microseconds=1)) == at


def _readable(row: Row[Any]) -> tuple[Schedule, CronLine]:
    """Read a schedule that can be fired.

    Raises:
        Unreadable: this release can not read it.
        Invalid: it can not be fired; with the reason.
    """
    schedule = rows.schedule(row)
    # The job of one fire is as large as that of any other.
    check_fits(schedule.labelled())
    return schedule, schedule.line


def _put_off(tx: Connection, schedule_id: UUID, now: datetime, why: str) -> None:
    again = now + timedelta(seconds=PROBLEM_S)
    tx.execute(
        update(schedules).where(schedules.c.id == schedule_id).values(look_at=again, problem=why)
    )


def _by_other_rules(
    tx: Connection, schedule: Schedule, line: CronLine, now: datetime, done: Done, *, actor: str
) -> Schedule:
    """Compute the next fire anew, and take back what was made ahead for fires that are none now."""
    keep = {at for at in open_fires(tx, schedule.id) if is_fire(line, at)}
    done.ended += withdraw(tx, schedule.id, now, actor=actor, keep=keep)
    at = cursor(line, schedule.next_fire_at, now)
    return schedule.model_copy(update={"next_fire_at": at})


def _make(
    tx: Connection, decided: Sequence[tuple[Schedule, Decision]], *, actor: str
) -> list[tuple[Schedule, Fire]]:
    """Make the jobs, and write down what became of each fire."""
    wanted = [
        (schedule, fire, schedule.job_at(fire.time) if fire.reason is None else None)
        for schedule, decision in decided
        for fire in decision.fires
    ]
    specs: list[JobSpec] = [spec for _, _, spec in wanted if spec is not None]
    made = iter(jobs.submit(tx, specs, actor=actor) if specs else ())
    written, ended = [], []
    for schedule, fire, spec in wanted:
        job_id = None
        if spec is not None:
            submission = next(made)
            job_id = submission.job_id
            if submission.differs:
                fire, job_id = Fire(fire.time, FireReason.KEY_TAKEN), None
        written.append(_row(schedule.id, fire, job_id))
        ended.append((schedule, fire))
    if written:
        tx.execute(insert(fires), written)
    return ended


def _row(schedule_id: UUID, fire: Fire, job_id: UUID | None = None) -> dict[str, Any]:
    return {
        "schedule_id": schedule_id,
        "fire_time": fire.time,
        "outcome": fire.outcome,
        "reason": fire.reason,
        "job_id": job_id,
        "count": fire.count,
        "until": fire.until,
        "settled": fire.outcome is not FireOutcome.RAN,
    }


def _cancel_earlier(
    tx: Connection, schedule_id: UUID, now: datetime, done: Done, *, actor: str
) -> None:
    """Cancel the jobs before the latest fire that has come."""
    latest = tx.scalar(_LATEST, {"schedule": schedule_id, "now": now})
    for at, job_id in open_fires(tx, schedule_id).items():
        if latest is None or at >= latest:
            continue
        try:
            ref = jobs.cancel(tx, job_id, actor=actor)
        except (Conflict, NotFound):
            # It has finished since it was looked at.
            continue
        except Unreadable as error:
            rows.leave_out(tx, error)
            continue
        done.ended += [ref] if ref else []
