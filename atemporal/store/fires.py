"""Fires: what a scheduler does for recurring schedules, and what is left of it.

Promise: a fire is decided once, by whichever scheduler comes first, and its job is made in the same
transaction: the fires' primary key refuses a second one, the job's key a second job. What is decided is
decided by the time that the caller has read from the database, and by the schedule as it is under its
lock, so a change in between is never undone.
Mechanism: `due` locks the schedules that it is time for and passes over those that are locked. A job
that was made ahead is *withdrawn* when its fire is not wanted any more: it is cancelled, gives its key
back, and its fire is forgotten, so the same fire may be made again. One whose container starts, or whose
fire has come, is left as it is.
Failure: a schedule that can not be read or fired says why in `problem`, and is looked at again later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection, Row, insert, select, text, update

from atemporal.calendar import CronLine
from atemporal.errors import Conflict, Invalid, NotFound, Unreadable
from atemporal.model import AttemptRef, JobSpec, describe
from atemporal.model.schedule import Schedule, read_schedule
from atemporal.recurrence import (
    Decision,
    Fire,
    FireOutcome,
    FireReason,
    Overlap,
    decide,
)
from atemporal.store import jobs
from atemporal.tables import fires, schedules
from atemporal.userdata import check_fits

PROBLEM_S = 600
"""A schedule that can not be fired is looked at again after so many seconds."""

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
_AHEAD = text(
    """
    SELECT fires.fire_time, jobs.id FROM fires JOIN jobs ON jobs.id = fires.job_id
    WHERE schedule_id = :schedule AND NOT settled AND fire_time > :now
      AND jobs.state IN ('scheduled', 'queued', 'warming')
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs
    """
)
_GIVE_KEY_BACK = text(
    "UPDATE jobs SET key = key || ':withdrawn:' || id WHERE id = :job AND key IS NOT NULL"
)
_LATEST = text(
    """
    SELECT max(fire_time) FROM fires
    WHERE schedule_id = :schedule AND outcome = 'ran' AND fire_time <= :now
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


def of_other_rules(tx: Connection, rules: str, *, limit: int) -> Sequence[Row[Any]]:
    """Lock schedules whose next fire was computed by zone rules of another version."""
    return tx.execute(_OF_OTHER_RULES, {"rules": rules, "limit": limit}).all()


def next_look(tx: Connection) -> datetime | None:
    """When the next schedule is to be looked at; None when there is none."""
    at: datetime | None = tx.scalar(_NEXT_LOOK)
    return at


def decide_due(
    tx: Connection, rows: Sequence[Row[Any]], now: datetime, *, rules: str, actor: str
) -> Done:
    """Decide the fires of schedules that are locked, make their jobs, and say when to look again.

    Raises:
        Conflict: a fire was decided already, by somebody without the lock; nothing is done.
        Unavailable: the job that has a fire's key was deleted meanwhile; nothing is done.
    """
    done = Done(schedules=len(rows))
    if not rows:
        return done
    tx.execute(_SETTLE, {"schedules": [str(row.id) for row in rows]})
    decided: list[tuple[Schedule, Decision]] = []
    for row in rows:
        try:
            schedule, line = _readable(row)
            if schedule.rules_version != rules:
                schedule = _by_other_rules(tx, schedule, line, now, done, actor=actor)
        except (Invalid, Unreadable) as error:
            _put_off(tx, row.id, now, str(error), rules=rules)
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
        problem = None
        if schedule.overlap is Overlap.CANCEL:
            problem = _cancel_earlier(tx, schedule.id, now, done, actor=actor)
            coming = (at for at in open_fires(tx, schedule.id) if at > now)
            again = min((at for at in (again, *coming) if at is not None), default=None)
        tx.execute(
            update(schedules)
            .where(schedules.c.id == schedule.id)
            .values(
                next_fire_at=decision.next_fire_at,
                look_at=again,
                rules_version=rules,
                problem=problem,
            )
        )
        done.problems += [(schedule.name, problem)] if problem else []
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
    keep: Collection[datetime] = (),
) -> list[AttemptRef]:
    """Take back the jobs that were made ahead and not begun, but for the fires in `keep`.

    Returns the attempts whose instances have to go.
    """
    ended: list[AttemptRef] = []
    for row in tx.execute(_AHEAD, {"schedule": schedule_id, "now": now}).all():
        if row.fire_time in keep:
            continue
        ref = jobs.cancel(tx, row.id, actor=actor)
        ended += [ref] if ref else []
        tx.execute(_GIVE_KEY_BACK, {"job": row.id})
        tx.execute(
            fires.delete().where(
                fires.c.schedule_id == schedule_id, fires.c.fire_time == row.fire_time
            )
        )
    return ended


def write(tx: Connection, schedule_id: UUID, ended: Iterable[Fire]) -> None:
    """Write down fires without a job."""
    if rows := [_row(schedule_id, fire) for fire in ended]:
        tx.execute(insert(fires), rows)


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
        Invalid: it can not; with the reason.
    """
    try:
        schedule = read_schedule(dict(row._mapping))
    except ValidationError as error:
        raise Invalid(describe(error)) from None
    # The job of one fire is as large as that of any other.
    check_fits(schedule.labelled())
    return schedule, schedule.line


def _put_off(tx: Connection, schedule_id: UUID, now: datetime, why: str, *, rules: str) -> None:
    again = now + timedelta(seconds=PROBLEM_S)
    tx.execute(
        update(schedules)
        .where(schedules.c.id == schedule_id)
        .values(look_at=again, problem=why, rules_version=rules)
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
    rows, ended = [], []
    for schedule, fire, spec in wanted:
        job_id = None
        if spec is not None:
            submission = next(made)
            job_id = submission.job_id
            if submission.differs:
                fire, job_id = Fire(fire.time, FireReason.KEY_TAKEN), None
        rows.append(_row(schedule.id, fire, job_id))
        ended.append((schedule, fire))
    if rows:
        tx.execute(insert(fires), rows)
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
) -> str | None:
    """Cancel the jobs before the latest fire that has come; say why one can not be."""
    latest = tx.scalar(_LATEST, {"schedule": schedule_id, "now": now})
    problem = None
    for at, job_id in open_fires(tx, schedule_id).items():
        if latest is None or at >= latest:
            continue
        try:
            ref = jobs.cancel(tx, job_id, actor=actor)
        except (Conflict, NotFound):
            # It has finished since it was looked at.
            continue
        except Unreadable as error:
            problem = str(error)
            continue
        done.ended += [ref] if ref else []
    return problem
