"""Recurring schedules: made, changed, paused and resumed by people.

Promise: a change is a fact when it returns. What a schedule had made ahead for later fires is taken back
in the same transaction if it is not wanted any more: all of it by a pause, a delete and another job; by
another cron line or zone what these do not name. The next fires are made by the new rules, also those of
the next minutes.
Mechanism: the schedule's row is locked; a scheduler passes over it meanwhile, and an earlier scheduler's
transaction is waited for. The next fire is computed here, by this process' zone rules.
Failure: a change by somebody who read an older version is refused, if it says which one was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from atemporal.calendar import CronLine, rules_version
from atemporal.errors import Conflict, Invalid, NotFound, Unreadable
from atemporal.model import AttemptRef, describe
from atemporal.model.schedule import (
    RecordedFire,
    Schedule,
    ScheduleFields,
    ScheduleSpec,
    parse_schedule,
    read_schedule,
    written_job,
)
from atemporal.recurrence import Fire, FireReason, look_at, passed_over
from atemporal.store import fires, jobs
from atemporal.store.jobs import READ_AT, Submission
from atemporal.store.rows import readable
from atemporal.tables import schedules

_NOW = text("SELECT clock_timestamp()")
_FIRES = text(
    """
    SELECT fires.fire_time, fires.outcome, fires.reason, fires.job_id, fires.count, fires.until,
           fires.decided_at, coalesce(jobs.outcome, jobs.state) AS job_state
    FROM fires LEFT JOIN jobs ON jobs.id = fires.job_id
    WHERE schedule_id = :schedule
      AND fire_time <= coalesce(CAST(:until AS timestamptz), 'infinity')
    ORDER BY fire_time DESC LIMIT :limit
    """
)


@dataclass(frozen=True)
class Changed:
    """A schedule after a change; the attempts whose instances have to go; the fires given up by it."""

    schedule: Schedule
    ended: Sequence[AttemptRef] = ()
    passed_over: Sequence[Fire] = ()


def create(tx: Connection, spec: ScheduleSpec) -> Schedule:
    """Make a schedule; its first fire is the first one after now.

    Raises:
        Conflict: there is one of that name.
    """
    at = spec.line.next_after(_now(tx))
    made = tx.execute(
        pg_insert(schedules)
        .values(**_columns(spec), **_next(at))
        .on_conflict_do_nothing()
        .returning(schedules.c.id)
    ).one_or_none()
    if made is None:
        raise Conflict(
            f"there is a schedule named {spec.name!r}: edit or delete it, or take another name"
        )
    return get(tx, spec.name)


def get(tx: Connection, name: str, *, lock: bool = False) -> Schedule:
    """Return the schedule of that name.

    Raises:
        NotFound: there is none.
        Unreadable: this release can not read it.
    """
    query = select(schedules, READ_AT).where(schedules.c.name == name)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"there is no schedule named {name!r}")
    return _read(row)


def listing(tx: Connection, *, after: str = "", limit: int) -> list[Schedule]:
    """Return up to `limit` schedules by name, from the first one after the name `after` on."""
    query = select(schedules, READ_AT).where(schedules.c.name > after)
    return readable(tx, tx.execute(query.order_by(schedules.c.name).limit(limit)).all(), _read)


def latest_fires(
    tx: Connection, schedule: Schedule, *, limit: int, until: datetime | None = None
) -> list[RecordedFire]:
    """What became of the latest fires, the latest first; without `until` of those made ahead too."""
    rows = tx.execute(_FIRES, {"schedule": schedule.id, "limit": limit, "until": until})
    return [RecordedFire.model_validate(dict(row._mapping)) for row in rows]


def edit(
    tx: Connection, name: str, changes: Mapping[str, Any], *, version: int | None, actor: str
) -> Changed:
    """Change what is given, of the job what is given of it; the rest stays.

    Raises:
        NotFound: there is no schedule of that name.
        Conflict: `version` is not the schedule's.
        Invalid: with each bad field and why.
    """
    before = get(tx, name, lock=True)
    if changes.get("name", name) != name:
        raise Invalid({"name": "stays as it is: its jobs have it; make another schedule"})
    if version not in (None, before.version):
        raise Conflict(
            f"the schedule {name!r} was changed meanwhile: it has version {before.version}, not "
            f"{version}; look at it and decide again"
        )
    spec = parse_schedule(_merged(before, changes))
    if _columns(spec) == _columns(before):
        return Changed(before)
    other_line = (spec.cron, spec.zone) != (before.cron, before.zone)
    other_job = written_job(spec.job) != written_job(before.job)
    now = _now(tx)
    # By other rules a fire that waits may be decided now.
    values: dict[str, Any] = {"look_at": now}
    passed: tuple[Fire, ...] = ()
    ended: list[AttemptRef] = []
    if (other_line or other_job) and before.paused_at is None:
        line = spec.line
        known = fires.open_fires(tx, before.id)
        keep = () if other_job else {at for at in known if fires.is_fire(line, at)}
        ended = fires.withdraw(tx, before.id, now, actor=actor, keep=keep)
        at = fires.cursor(line, before.next_fire_at, now)
        if other_line:
            passed = _pass_over(tx, before, now, FireReason.EDITED)
            at = line.next_after(now)
        values |= {"next_fire_at": at, "rules_version": rules_version()}
    _write(tx, before, {**_columns(spec), **values, "problem": None})
    return Changed(get(tx, name), ended, passed)


def pause(tx: Connection, name: str, *, actor: str) -> Changed:
    """Fire no more until `resume`; a schedule that is paused stays as it is.

    Raises:
        NotFound: there is no schedule of that name.
    """
    before = get(tx, name, lock=True)
    if before.paused_at is not None:
        return Changed(before)
    now = _now(tx)
    ended = fires.withdraw(tx, before.id, now, actor=actor)
    line = _line(before)
    at = fires.cursor(line, before.next_fire_at, now) if line else before.next_fire_at
    _write(tx, before, {"paused_at": now, "next_fire_at": at})
    return Changed(get(tx, name), ended)


def resume(tx: Connection, name: str) -> Changed:
    """Fire again, from now on; the fires of the pause are skipped. One that is not paused stays so.

    Raises:
        NotFound: there is no schedule of that name.
        Invalid: its zone is none any more.
    """
    before = get(tx, name, lock=True)
    if before.paused_at is None:
        return Changed(before)
    now = _now(tx)
    passed = _pass_over(tx, before, now, FireReason.PAUSED)
    at = before.line.next_after(now)
    _write(tx, before, {"paused_at": None, **_next(at), "problem": None})
    return Changed(get(tx, name), passed_over=passed)


def remove(tx: Connection, name: str, *, actor: str) -> Changed:
    """Delete a schedule with the record of its fires; the jobs that have begun stay.

    Raises:
        NotFound: there is no schedule of that name.
    """
    before = get(tx, name, lock=True)
    ended = fires.withdraw(tx, before.id, _now(tx), actor=actor)
    tx.execute(delete(schedules).where(schedules.c.id == before.id))
    return Changed(before, ended)


def run_now(tx: Connection, name: str, *, key: str | None, actor: str) -> Submission:
    """Make a job of the schedule that is due now; it is none of its fires, and does not change them.

    Raises:
        NotFound: there is no schedule of that name.
        Conflict: the key belongs to a job with another specification.
    """
    spec = get(tx, name).labelled().model_copy(update={"key": key})
    return jobs.submit_one(tx, spec, actor=actor)


def _read(row: Row[Any]) -> Schedule:
    try:
        return read_schedule(dict(row._mapping))
    except ValidationError as error:
        why = "; ".join(f"{name}: {what}" for name, what in describe(error).items())
        raise Unreadable(row.name, None, why, kind="schedule") from None


def _columns(spec: ScheduleSpec) -> dict[str, Any]:
    fields = {name: getattr(spec, name) for name in ScheduleFields.model_fields}
    return {**fields, "spec": written_job(spec.job)}


def _merged(before: Schedule, changes: Mapping[str, Any]) -> dict[str, Any]:
    """All fields as they are to be."""
    fields = {name: getattr(before, name) for name in ScheduleFields.model_fields}
    fields |= {name: value for name, value in changes.items() if name != "job"}
    job, asked = written_job(before.job), changes.get("job", {})
    if not isinstance(asked, Mapping):
        return {**fields, "job": asked}
    if isinstance(asked.get("machine"), Mapping):
        asked = {**asked, "machine": {**job["machine"], **asked["machine"]}}
    return {**fields, "job": {**job, **asked}}


def _next(at: datetime | None) -> dict[str, Any]:
    return {"next_fire_at": at, "look_at": look_at(at), "rules_version": rules_version()}


def _write(tx: Connection, before: Schedule, values: Mapping[str, Any]) -> None:
    tx.execute(
        update(schedules)
        .where(schedules.c.id == before.id)
        .values(**values, version=before.version + 1, updated_at=func.now())
    )


def _pass_over(
    tx: Connection, schedule: Schedule, now: datetime, reason: FireReason
) -> tuple[Fire, ...]:
    """Write down that nobody will run the fires up to now that were not decided."""
    line = _line(schedule)
    if line is None:
        return ()
    made = fires.made_from(tx, schedule.id, schedule.next_fire_at)
    passed = passed_over(line.next_after, schedule.next_fire_at, now, reason, made=made)
    fires.write(tx, schedule.id, passed)
    return passed


def _line(schedule: Schedule) -> CronLine | None:
    """Its line; None where this release can not read it: that keeps nobody from changing it."""
    try:
        return schedule.line
    except Invalid:
        return None


def _now(tx: Connection) -> datetime:
    """The database's time after the locks were got, not that of the transaction's begin."""
    now: datetime = tx.execute(_NOW).scalar_one()
    return now
