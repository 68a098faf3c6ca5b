"""Schedules, their jobs, and the loop that fires them, as tests make and look at them.

What time it is, each test says: to the loop by the function that reads it, to the store by a patch of
the same. The jobs' own times are in the database's past or future all the same.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from atemporal.broker import Link
from atemporal.model import AttemptRef, Job
from atemporal.model.schedule import RecordedFire, Schedule, parse_schedule
from atemporal.recurrence import HORIZON_S, FireOutcome
from atemporal.states import JobState
from atemporal.store import attempts, jobs, launches, schedules
from atemporal.store.database import Database
from services.scheduler.recurring import RecurringLoop
from tests.launches import LAUNCH

# A January's day at two o'clock in the morning of the zone, for years to come.
ZONE = "America/Sao_Paulo"


T = datetime(2041, 1, 10, 5, tzinfo=UTC)


HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


HORIZON = timedelta(seconds=HORIZON_S)


RAN, SKIPPED, MISSED = FireOutcome.RAN, FireOutcome.SKIPPED, FireOutcome.MISSED


class Clock:
    """The time that everybody is told."""

    def __init__(self) -> None:
        self.now = T - 3 * HOUR

    def __call__(self, _tx: Connection) -> datetime:
        return self.now


def a_loop(database: Database, clock: Clock, **more: Any) -> RecurringLoop:
    return RecurringLoop(
        database, Link("memory://", name="recurring"), interval_s=1.0, time_of=clock, **more
    )


def run(loop: RecurringLoop) -> None:
    """Tick until there is nothing more to do."""
    while loop.tick() == 0.0:
        pass


def make(database: Database, **fields: Any) -> Schedule:
    given = {"name": "nightly", "cron": "0 2 * * *", "zone": ZONE, "job": {"image": "busybox"}}
    with database.begin() as tx:
        return schedules.create(tx, parse_schedule(given | fields))


def shown(database: Database, name: str = "nightly") -> Schedule:
    with database.begin() as tx:
        return schedules.get(tx, name)


def fires_of(database: Database, name: str = "nightly") -> list[RecordedFire]:
    """What became of its fires, the first first."""
    with database.begin() as tx:
        schedule = schedules.get(tx, name)
        return schedules.latest_fires(tx, schedule, limit=100)[::-1]


def ends(database: Database, name: str = "nightly") -> list[tuple[datetime, str]]:
    return [(one.fire_time, one.reason or one.outcome) for one in fires_of(database, name)]


def job(database: Database, job_id: UUID | None) -> Job:
    assert job_id is not None
    with database.begin() as tx:
        return jobs.get(tx, job_id)


def all_jobs(database: Database) -> list[Job]:
    with database.begin() as tx:
        return [
            jobs.get(tx, one) for one in tx.scalars(text("SELECT id FROM jobs ORDER BY run_at"))
        ]


def wait_for(database: Database, holder: Connection) -> None:
    """Wait until somebody waits for a lock of this transaction's."""
    deadline = time.monotonic() + 30
    pid = holder.scalar(text("SELECT pg_backend_pid()"))
    query = text("SELECT bool_or(:pid = ANY(pg_blocking_pids(pid))) FROM pg_stat_activity")
    while True:
        with database.begin() as tx:
            if tx.scalar(query, {"pid": pid}):
                return
        assert time.monotonic() < deadline, "nobody waited for it"
        time.sleep(0.02)


def finish(database: Database, job_id: UUID | None) -> None:
    """The job ends: how, is all the same here."""
    assert job_id is not None
    with database.begin() as tx:
        jobs.cancel(tx, job_id, actor="test")


def begin(database: Database, job_id: UUID | None, *, running: bool) -> AttemptRef:
    """Bring a job to an attempt whose machine boots, or runs."""
    assert job_id is not None
    ref = AttemptRef(job_id, 1)
    with database.begin() as tx:
        tx.execute(
            text("UPDATE jobs SET state = 'queued', attempt = 1 WHERE id = :id"), {"id": job_id}
        )
        assert launches.begin(tx, ref, LAUNCH, actor="test")
        attempts.launched(tx, ref, f"i-{job_id.hex[:17]}", actor="test")
        if running:
            tx.execute(
                text("UPDATE jobs SET due_at = now(), run_at = now() WHERE id = :id"),
                {"id": job_id},
            )
            attempts.claim(tx, ref, claim_id="c", instance_id=None, actor="test")
    assert job(database, job_id).state is (JobState.RUNNING if running else JobState.WARMING)
    return ref
