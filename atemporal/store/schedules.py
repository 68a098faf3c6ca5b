"""Recurring schedules: made, changed, paused and resumed by people.

Promise: a change is a fact when it returns. What a schedule had made ahead for later fires is taken back
in the same transaction if it is not wanted any more: all of it by a pause, a delete and another job; by
another cron line or zone what these do not name. The next fires are made by the new rules, also those of
the next minutes. A pause and a delete cancel what is due and has not begun as well. An edit changes only
the columns, and of the stored job only the fields, that are to be others: a newer release's stay.
Mechanism: the schedule's row is locked; a scheduler passes over it meanwhile, and an earlier scheduler's
transaction is waited for. The next fire is computed here, by this process' zone rules.
Failure: a change by somebody who read an older version is refused, if it says which one was read. One
that can not be read is shown in part, with the reason, and can be paused, deleted and mended by an edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from atemporal.calendar import rules_version
from atemporal.errors import Conflict, Invalid, NotFound, Unreadable
from atemporal.model import AttemptRef
from atemporal.model.schedule import (
    RecordedFire,
    Schedule,
    ScheduleFields,
    ScheduleSpec,
    parse_edit,
    shown_in_part,
    stored_job,
    written_job,
)
from atemporal.recurrence import Fire, FireReason, look_at, passed_over
from atemporal.store import fires, jobs, rows
from atemporal.store.jobs import READ_AT, Submission
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
    """A schedule after a change; the attempts whose instances have to go; the fires given up by it.

    It is not `changed` if all was so before. Deleted it is as it was at last.
    """

    schedule: Schedule
    ended: Sequence[AttemptRef] = ()
    passed_over: Sequence[Fire] = ()
    changed: bool = True


@dataclass(frozen=True)
class Page:
    """Schedules by name, and the name to go on after; None at the end."""

    schedules: Sequence[Schedule]
    next: str | None


def create(tx: Connection, spec: ScheduleSpec) -> Schedule:
    """Make a schedule; its first fire is the first one after now.

    Raises:
        Conflict: there is one of that name.
    """
    at = spec.line.next_after(_now(tx))
    made = tx.execute(
        pg_insert(schedules)
        .values(**_fields(spec), spec=written_job(spec.job), **_next(at))
        .on_conflict_do_nothing()
        .returning(schedules.c.id)
    ).one_or_none()
    if made is None:
        raise Conflict(
            f"there is a schedule named {spec.name!r}: edit or delete it, or take another name"
        )
    return get(tx, spec.name)


def put(tx: Connection, spec: ScheduleSpec, *, actor: str) -> Changed:
    """Make a schedule, or make the one of that name like this, its job too; a pause of it stays.

    Raises:
        NotFound: it was made and deleted by somebody else in this moment.
    """
    try:
        return edit(tx, spec.name, _whole(spec), version=None, actor=actor)
    except NotFound:
        pass
    try:
        return Changed(create(tx, spec))
    except Conflict:
        # Somebody else made it in between.
        return edit(tx, spec.name, _whole(spec), version=None, actor=actor)


def get(tx: Connection, name: str) -> Schedule:
    """Return the schedule of that name.

    Raises:
        NotFound: there is none.
        Unreadable: this release can not read it.
    """
    return rows.schedule(_row(tx, name))


def shown(tx: Connection, name: str) -> Schedule:
    """Return the schedule of that name; one that can not be read as far as it can be shown.

    Raises:
        NotFound: there is none.
    """
    return _shown(_row(tx, name))


def known(tx: Connection, name: str) -> Schedule | None:
    """Return as `shown` does; None when there is no schedule of that name."""
    try:
        return shown(tx, name)
    except NotFound:
        return None


def listing(tx: Connection, *, after: str = "", limit: int) -> Page:
    """Return up to `limit` schedules by name, as `shown`, from the first one after `after` on."""
    query = select(schedules, READ_AT).where(schedules.c.name > after)
    found = tx.execute(query.order_by(schedules.c.name).limit(limit + 1)).all()
    page = found[:limit]
    return Page(
        [_shown(row) for row in page], page[-1].name if page and len(found) > limit else None
    )


def latest_fires(
    tx: Connection, schedule: Schedule, *, limit: int, until: datetime | None = None
) -> list[RecordedFire]:
    """What became of the latest fires, the latest first; without `until` of those made ahead too."""
    found = tx.execute(_FIRES, {"schedule": schedule.id, "limit": limit, "until": until})
    return rows.readable(tx, found, lambda row: rows.fire(schedule.name, row))


def edit(
    tx: Connection, name: str, changes: Mapping[str, Any], *, version: int | None, actor: str
) -> Changed:
    """Change what is given, of the job what is given of it; the rest stays.

    Raises:
        NotFound: there is no schedule of that name.
        Conflict: `version` is not the schedule's.
        Invalid: with each bad field and why; also of what is stored and can not be read.
    """
    row = _row(tx, name, lock=True)
    before = _shown(row)
    if changes.get("name", name) != name:
        raise Invalid({"name": "stays as it is: its jobs have it; make another schedule"})
    if version not in (None, before.version):
        raise Conflict(
            f"the schedule {name!r} was changed meanwhile: it has version {before.version}, not "
            f"{version}; look at it and decide again"
        )
    fields = {name: getattr(row, name) for name in ScheduleFields.model_fields}
    spec = parse_edit(fields, row.spec, changes)
    values = {name: to for name, to in _fields(spec).items() if to != fields[name]}
    if (stored := stored_job(row.spec, spec.job)) != row.spec:
        values["spec"] = stored
    if not values:
        return Changed(before, changed=False)
    now = _now(tx)
    passed: tuple[Fire, ...] = ()
    ended: list[AttemptRef] = []
    other_line = bool({"cron", "zone"} & values.keys())
    other_job = bool({"spec", "start_deadline_s"} & values.keys())
    if other_line or other_job:
        line = spec.line
        known = fires.open_fires(tx, before.id)
        keep = () if other_job else {at for at in known if fires.is_fire(line, at)}
        ended = fires.withdraw(tx, before.id, now, actor=actor, keep=keep)
        at = fires.cursor(line, before.next_fire_at, now)
        if other_line:
            # What came by the old line up to now, the new one knows nothing of.
            reason = FireReason.PAUSED if before.paused_at else FireReason.EDITED
            passed = _pass_over(tx, before, now, reason)
            at = line.next_after(now)
        values |= {"next_fire_at": at, "rules_version": rules_version()}
    # By other rules a fire that waits may be decided now.
    _write(tx, before, {**values, "look_at": now, "problem": None})
    return Changed(shown(tx, name), ended, passed)


def pause(tx: Connection, name: str, *, actor: str) -> Changed:
    """Fire no more until `resume`, and begin no job that has not begun; paused already it stays so.

    Raises:
        NotFound: there is no schedule of that name.
    """
    before = _shown(_row(tx, name, lock=True))
    if before.paused_at is not None:
        return Changed(before, changed=False)
    now = _now(tx)
    ended = fires.withdraw(tx, before.id, now, actor=actor, due=True)
    line = before.line_if_read
    at = fires.cursor(line, before.next_fire_at, now) if line else before.next_fire_at
    _write(tx, before, {"paused_at": now, "next_fire_at": at})
    return Changed(shown(tx, name), ended)


def resume(tx: Connection, name: str) -> Changed:
    """Fire again, from now on; the fires of the pause are skipped. One that is not paused stays so.

    Raises:
        NotFound: there is no schedule of that name.
        Invalid: its zone is none any more.
    """
    before = _shown(_row(tx, name, lock=True))
    if before.paused_at is None:
        return Changed(before, changed=False)
    now = _now(tx)
    passed = _pass_over(tx, before, now, FireReason.PAUSED)
    at = before.line.next_after(now)
    _write(tx, before, {"paused_at": None, **_next(at), "problem": None})
    return Changed(shown(tx, name), passed_over=passed)


def remove(tx: Connection, name: str, *, actor: str) -> Changed:
    """Delete a schedule with the record of its fires; the jobs that have begun stay.

    Raises:
        NotFound: there is no schedule of that name.
    """
    before = _shown(_row(tx, name, lock=True))
    ended = fires.withdraw(tx, before.id, _now(tx), actor=actor, due=True)
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


def _whole(spec: ScheduleSpec) -> dict[str, Any]:
    return {**_fields(spec), "job": written_job(spec.job)}


def _row(tx: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    query = select(schedules, READ_AT).where(schedules.c.name == name)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"there is no schedule named {name!r}")
    return row


def _shown(row: Row[Any]) -> Schedule:
    try:
        return rows.schedule(row)
    except Unreadable as error:
        return shown_in_part(dict(row._mapping), str(error))


def _fields(spec: ScheduleSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in ScheduleFields.model_fields}


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
    line = schedule.line_if_read
    if line is None:
        return ()
    made = fires.made_from(tx, schedule.id, schedule.next_fire_at)
    passed = passed_over(line.next_after, schedule.next_fire_at, now, reason, made=made)
    fires.write(tx, schedule.id, passed)
    return passed


def _now(tx: Connection) -> datetime:
    """The database's time after the locks were got, not that of the transaction's begin."""
    now: datetime = tx.execute(_NOW).scalar_one()
    return now
