"""What is planned, as the records have it: jobs that wait for their time, schedules, what is under way.

Promise: bounded, however much is planned: so many jobs by the time of their launch, so many schedules;
whoever asks for one more than he wants sees that there are more. Nothing is locked or changed.
Mechanism: the jobs are found by the index of those that are due, priority by priority, and only what
is wanted of those is read.
Failure: what this release can not read of a schedule is said as its problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from atemporal.errors import Unreadable
from atemporal.lead import DEFAULT_S
from atemporal.model.job_spec import DEFAULT_TIMEOUT_S
from atemporal.model.schedule import LABEL, Schedule
from atemporal.store import rows
from atemporal.store.due import DUE
from atemporal.tables import CAPACITY_TYPE, DISPATCH_AT, PRIORITY

LATEST = 10
"""So many of a schedule's latest runs say how long the next one takes."""
_LOOKED_AT = 50

_WANTED = (
    "spec -> 'labels' AS labels, spec -> 'timeout_s' AS timeout_s, spec -> 'machine' AS machine"
)
# Up to the time of the container's start; its launch comes before that.
_FIRST = f"SELECT {PRIORITY} AS priority FROM jobs WHERE {DUE}"
_JOBS = text(
    f"""
    WITH RECURSIVE level AS (
        ({_FIRST} ORDER BY {PRIORITY} DESC LIMIT 1)
        UNION ALL
        SELECT next.priority FROM level CROSS JOIN LATERAL (
            {_FIRST} AND {PRIORITY} < level.priority ORDER BY {PRIORITY} DESC LIMIT 1) AS next
    ), picked AS (
        SELECT first.id, first.at FROM level CROSS JOIN LATERAL (
            SELECT id, {DISPATCH_AT} AS at FROM jobs
            WHERE {DUE} AND {PRIORITY} = level.priority AND {DISPATCH_AT} < :until
            ORDER BY {DISPATCH_AT}, id LIMIT :limit) AS first
        ORDER BY first.at LIMIT :limit
    )
    SELECT picked.at AS launch_at, job.* FROM picked CROSS JOIN LATERAL (
        SELECT id, key, due_at, {_WANTED} FROM jobs WHERE id = picked.id OFFSET 0) AS job
    ORDER BY picked.at
    """
)
_HELD = text(
    f"""
    (SELECT {DISPATCH_AT} AS launch_at, id, key, due_at, {_WANTED} FROM jobs
     WHERE state = 'scheduled' AND waits_for IS NOT NULL LIMIT :limit)
    UNION ALL
    (SELECT {DISPATCH_AT} AS launch_at, id, key, due_at, {_WANTED} FROM jobs
     WHERE state = 'queued' LIMIT :limit)
    """
)
_UNDER_WAY = text(
    f"""
    SELECT job.*, coalesce(launched_at, created_at) AS launch_at,
           coalesce(started_at, running_at) AS started_at, exited_at,
           launch ->> 'instance_type' AS instance_type, {CAPACITY_TYPE} AS capacity_type
    FROM (SELECT * FROM attempts WHERE state <> 'closed' LIMIT :limit) AS open
    CROSS JOIN LATERAL (
        SELECT id, key, due_at, {_WANTED} FROM jobs WHERE id = open.job_id OFFSET 0) AS job
    """
)
_SCHEDULES = text(
    """
    SELECT *, statement_timestamp() AS read_at FROM schedules
    WHERE paused_at IS NULL AND look_at < :until ORDER BY look_at LIMIT :limit
    """
)
_PAUSED = text(
    """
    SELECT name FROM (
        SELECT name, paused_at FROM schedules WHERE name > '' ORDER BY name LIMIT :limit) AS first
    WHERE paused_at IS NOT NULL ORDER BY name
    """
)
_LATEST = text(
    f"""
    SELECT given.name, run.ran_s, run.lead_s
    FROM unnest(CAST(:names AS text[])) AS given(name)
    CROSS JOIN LATERAL (SELECT id FROM schedules WHERE name = given.name OFFSET 0) AS schedule
    CROSS JOIN LATERAL (
        SELECT job_id, fire_time FROM fires
        WHERE schedule_id = schedule.id AND fire_time <= now()
        ORDER BY fire_time DESC LIMIT {_LOOKED_AT}) AS fire
    CROSS JOIN LATERAL (
        SELECT extract(epoch FROM exited_at - coalesce(started_at, running_at)) AS ran_s, lead_s
        FROM attempts WHERE job_id = fire.job_id
          AND exited_at IS NOT NULL AND coalesce(started_at, running_at) IS NOT NULL
        ORDER BY number DESC LIMIT 1) AS run
    ORDER BY given.name, fire.fire_time DESC
    """
)
_VCPUS = text("SELECT name, vcpus FROM instance_types WHERE vcpus > 0")


@dataclass(frozen=True)
class PlannedJob:
    """A job that waits for its time or for room, or is under way with an attempt.

    `machine` says what is asked for; for one under way `instance_type` and `capacity_type` say what
    it got. `started_at` is when its container started, `exited_at` when it was known to have ended.
    """

    id: UUID
    key: str | None
    launch_at: datetime
    due_at: datetime
    timeout_s: float
    labels: Mapping[str, str]
    instance_types: Sequence[str]
    capacity_type: str
    disk_gb: int
    instance_type: str | None = None
    started_at: datetime | None = None
    exited_at: datetime | None = None

    @property
    def schedule(self) -> str | None:
        """The name of the schedule whose job it is."""
        return self.labels.get(LABEL)


class Latest(NamedTuple):
    """How long a schedule's latest runs took, and the lead of the last one; in seconds."""

    ran_s: Sequence[float]
    lead_s: float


@dataclass(frozen=True)
class Schedules:
    """The schedules that may fire before an instant; `stuck` are those that can not, with the reason.

    `left_from` is when the first of those may fire that are not among them; None when all are.
    """

    active: Sequence[Schedule]
    stuck: Mapping[str, str]
    left_from: datetime | None = None


def waiting(tx: Connection, *, until: datetime, limit: int) -> list[PlannedJob]:
    """The jobs whose launch begins before an instant, the first first."""
    return [_job(row) for row in tx.execute(_JOBS, {"until": until, "limit": limit})]


def held(tx: Connection, *, limit: int) -> list[PlannedJob]:
    """The jobs that were due and wait for a limit or for a launcher: up to `limit` of each."""
    return [_job(row) for row in tx.execute(_HELD, {"limit": limit})]


def under_way(tx: Connection, *, limit: int) -> list[PlannedJob]:
    """The jobs with an attempt whose instance is not known to be gone."""
    return [_begun(row) for row in tx.execute(_UNDER_WAY, {"limit": limit})]


def schedules(tx: Connection, *, until: datetime, limit: int) -> Schedules:
    """Up to `limit` schedules that may have a fire before an instant, the most urgent first."""
    active: list[Schedule] = []
    stuck: dict[str, str] = {}
    found = tx.execute(_SCHEDULES, {"until": until, "limit": limit + 1}).all()
    for row in found[:limit]:
        try:
            one = rows.schedule(row)
        except Unreadable as error:
            stuck[row.name] = str(error)
            continue
        if one.problem is None and one.line_if_read is None:
            stuck[one.name] = f"{one.cron!r} in the zone {one.zone!r} can not be read here"
        elif one.problem is not None:
            stuck[one.name] = one.problem
        else:
            active.append(one)
    # A schedule is looked at ahead of its fire, and they are in the order of these looks.
    return Schedules(active, stuck, found[limit].look_at if len(found) > limit else None)


def paused(tx: Connection, *, limit: int) -> list[str]:
    """The names of the paused ones among the first `limit` schedules by name."""
    return list(tx.scalars(_PAUSED, {"limit": limit}))


def latest(tx: Connection, names: Sequence[str]) -> dict[str, Latest]:
    """What the latest runs of schedules took; one that has none yet is not among them."""
    found: dict[str, list[Any]] = {}
    for row in tx.execute(_LATEST, {"names": list(names)}):
        found.setdefault(row.name, []).append(row)
    return {
        name: Latest(
            [max(0.0, float(row.ran_s)) for row in of_it[:LATEST]], of_it[0].lead_s or DEFAULT_S
        )
        for name, of_it in found.items()
    }


def vcpus(tx: Connection) -> dict[str, int]:
    """The vCPUs of the types that are known."""
    return {row.name: row.vcpus for row in tx.execute(_VCPUS)}


def _job(row: Row[Any], **more: Any) -> PlannedJob:
    """Read what is needed of a specification, whichever release or hand wrote it."""
    machine = row.machine if isinstance(row.machine, dict) else {}
    types, disk = machine.get("instance_types"), machine.get("disk_gb")
    labels = row.labels if isinstance(row.labels, dict) else {}
    timeout = row.timeout_s
    return PlannedJob(
        id=row.id,
        key=row.key,
        launch_at=row.launch_at,
        due_at=row.due_at,
        timeout_s=float(timeout if isinstance(timeout, int | float) else DEFAULT_TIMEOUT_S),
        labels={name: value for name, value in labels.items() if isinstance(value, str)},
        instance_types=tuple(map(str, types)) if isinstance(types, list) else (),
        **{
            "capacity_type": str(machine.get("capacity_type") or machine.get("market") or ""),
            **more,
        },
        disk_gb=disk if isinstance(disk, int) else 0,
    )


def _begun(row: Row[Any]) -> PlannedJob:
    return _job(
        row,
        instance_type=row.instance_type,
        capacity_type=str(row.capacity_type),
        started_at=row.started_at,
        exited_at=row.exited_at,
    )
