"""What every tier of the tests asks in the end: has every promise about jobs and attempts held?

A violation is shown with the whole story of its job: the events of the database, merged by their time
with whatever else a test saw (calls to EC2, faults, crashes).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from atemporal.clock import format_utc
from atemporal.errors import NotFound
from atemporal.store import events, jobs
from atemporal.store.database import Database
from atemporal.store.invariants import violations

Seen = tuple[datetime, str]


def assert_invariants(database: Database, seen: Iterable[Seen] = ()) -> None:
    """Fail when a promise is broken; `seen` is what else is known of the time."""
    with database.begin() as tx:
        broken = violations(tx)
    if broken:
        stories = [timeline(database, job_id, seen) for job_id in {one.job_id for one in broken}]
        raise AssertionError("\n".join([*map(str, broken), *stories]))


def timeline(database: Database, job_id: UUID, seen: Iterable[Seen] = ()) -> str:
    """A job's story, one line for each thing that happened."""
    with database.begin() as tx:
        try:
            job = jobs.get(tx, job_id)
        except NotFound:
            return f"there is no job {job_id}"
        history = events.of_job(tx, job_id)
    lines = [
        *((e.at, f"{e.type} {e.attempt} by {e.actor} {e.detail or ''}") for e in history),
        *((at, text) for at, text in seen if str(job_id) in text),
    ]
    lines.sort(key=lambda line: line[0])
    story = [f"  {format_utc(at)} {text}" for at, text in lines]
    tries = [
        f"  attempt {one.number}: {one.state} {one.reason or ''} {one.instance_id or 'no instance'}"
        for one in job.attempts
    ]
    head = f"job {job_id}: {job.state} {job.outcome or ''}, attempt {job.attempt}"
    return "\n".join([head, *tries, *story])
