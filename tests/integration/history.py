"""A history of many events of many jobs, written as the product does, and what was heard of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text

from atemporal.model import AttemptRef, parse_spec
from atemporal.store import jobs
from atemporal.store.database import Database
from atemporal.store.transitions import record_many

KIND = "attempt.blocked"


def made(database: Database, many: int = 1, **fields: Any) -> list[UUID]:
    """Make so many jobs that are not due, each with its first event."""
    spec = parse_spec({"image": "busybox", "delay_s": 9999, **fields})
    with database.begin() as tx:
        return [one.job_id for one in jobs.submit(tx, [spec] * many, actor="test")]


def happen(database: Database, ids: Sequence[UUID], *numbers: int) -> None:
    """Record an event with each of the numbers for each of the jobs."""
    with database.begin() as tx:
        # As the product does: a change comes first.
        tx.execute(text("UPDATE jobs SET updated_at = now() WHERE id = :id"), {"id": ids[0]})
        for number in numbers:
            details = {AttemptRef(one, 1): {"n": number} for one in ids}
            record_many(tx, details, KIND, actor="test")


def numbers(events: Iterable[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The numbers of each job, in the order in which they came."""
    found = defaultdict(list)
    for event in events:
        if event["type"] == KIND:
            found[event["job_id"]].append(event["detail"]["n"])
    return dict(found)


def once(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What is left when the events that were seen before are dropped, as a listener does."""
    return list({event["event_id"]: event for event in reversed(list(events))}.values())[::-1]


def no_events(database: Database) -> None:
    """Leave nothing behind."""
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events"))
