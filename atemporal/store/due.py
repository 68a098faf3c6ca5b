"""Due jobs: finding them by priority and time, and moving them to queued with their messages.

Promise: no job is claimed before its time by the database's clock (or `ahead_s` before, for a caller
that waits), each by one caller however many there are, and in order within a priority.
Mechanism: the index `ix_jobs_due_by_priority` holds the scheduled jobs by priority, time and id, but for
those that were put aside for a concurrency limit (`limited_claims`).
`survey` finds the first one of every priority, by going from each to the next lower one there. `claim`
takes those of one priority in order, from a given position on: rows that were claimed and that an old
snapshot keeps from being removed lie before it, and are not read again and again. The message's body is
made here, as `atemporal.messages` would encode it: a job is not read into Python, and written again, to
be sent.
Failure: what comes or is moved to before a position is not seen from there: the caller has to look from
the beginning from time to time. A position is that of a job which is due; where none is, it lies
`MARGIN_S` in the past, so that what is submitted as due at once is seen, unless that takes so long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from atemporal.tables import DISPATCH_AT, PRIORITY

AHEAD_S = 0.02
"""So long before its time a job may be claimed, in seconds: from the end of a scheduler's sleep to a
claim that is ready to be sent. As long a cancel may have to wait."""

MARGIN_S = 1.0
"""How far positions stay behind the time where nothing is due, in seconds."""

_NOBODY = "00000000-0000-0000-0000-000000000000"

DUE = "state = 'scheduled' AND waits_for IS NULL"
"""Of the scheduled jobs those that wait for their time alone, as SQL: the condition of the index."""

_FIRST = f"""
    SELECT {PRIORITY} AS priority, {DISPATCH_AT} AS at, id
    FROM jobs WHERE {DUE} {{condition}}
    ORDER BY {PRIORITY} DESC, {DISPATCH_AT}, id LIMIT 1
"""
_LEVELS = f"""
    SELECT priority, date_part('epoch', at) AS due_at, date_part('epoch', now) AS now,
           CAST(CASE WHEN at <= now THEN at ELSE now - make_interval(secs => {MARGIN_S}) END AS text),
           CASE WHEN at <= now THEN CAST(id AS text) ELSE '{_NOBODY}' END
    FROM {{found}} CROSS JOIN (SELECT clock_timestamp() AS now) AS clock
    ORDER BY priority DESC
"""

_SURVEY = text(
    f"""
    WITH RECURSIVE level AS (
        ({_FIRST.format(condition="")})
        UNION ALL
        SELECT next.* FROM level CROSS JOIN LATERAL (
            {_FIRST.format(condition=f"AND {PRIORITY} < level.priority")}
        ) AS next
    )
    {_LEVELS.format(found="level")}
    """
)

_SURVEY_FROM = text(
    f"""
    WITH level AS (
        SELECT known.priority, first.at, first.id
        FROM unnest(CAST(:priorities AS integer[]), CAST(:ats AS timestamptz[]), CAST(:ids AS uuid[]))
            AS known(priority, at, id)
        CROSS JOIN LATERAL (
            SELECT {DISPATCH_AT} AS at, id FROM jobs
            WHERE {DUE} AND {PRIORITY} = known.priority
              AND ({DISPATCH_AT}, id) >= (known.at, known.id)
            ORDER BY {DISPATCH_AT}, id LIMIT 1
        ) AS first
    )
    {_LEVELS.format(found="level")}
    """
)

FROM_POSITION = f"""
    WHERE {DUE} AND {PRIORITY} = :priority
      AND ({DISPATCH_AT}, id) >= (CAST(:at AS timestamptz), CAST(:id AS uuid))
      AND {DISPATCH_AT} <= now() + make_interval(secs => :ahead_s)
    ORDER BY {DISPATCH_AT}, id LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
"""
"""The jobs of one priority that are due, from a position on, as the end of a query."""

# By its place, which its lock keeps: finding each row again by its id would cost a fifth more. A row
# that was changed after the statement began is locked at a place that it can not see yet.
_MOVE = """
    WITH due AS (
        {due}
    ), moved AS (
        UPDATE jobs SET state = 'queued', attempt = attempt + 1, updated_at = now(),
            queued_at = now(), waits_for = NULL
        FROM due WHERE jobs.ctid = due.place
        RETURNING jobs.id, jobs.attempt, due.at
    ), logged AS (
        INSERT INTO events (job_id, attempt, type, actor)
        SELECT id, attempt, 'job.queued', :actor FROM moved
    ), counted AS (
        SELECT count(*) AS locked FROM due
    )
    SELECT CAST(id AS text) AS id, CAST(at AS text) AS at, date_part('epoch', at) AS due_at,
           id || '.' || attempt || '.due' AS message_id,
           '{{"v"\\:1,"type":"job.due","job_id":"' || id || '","attempt":' || attempt || '}}' AS body,
           locked
    FROM counted LEFT JOIN moved ON true ORDER BY moved.at, moved.id
"""

# Read in the index's order there is nothing to sort. From statistics that do not know a new priority yet
# the planner would rather read all that is due and sort it, for each batch again.
IN_ORDER = "SET LOCAL enable_bitmapscan = off;"
_CLAIM = text(
    IN_ORDER
    + _MOVE.format(due=f"SELECT ctid AS place, {DISPATCH_AT} AS at FROM jobs {FROM_POSITION}")
)
_CLAIM_THESE = text(
    _MOVE.format(
        due=f"SELECT ctid AS place, {DISPATCH_AT} AS at FROM jobs"
        " WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'scheduled' FOR NO KEY UPDATE"
    )
)

_CLOCK = text("SELECT date_part('epoch', clock_timestamp())")


class Position(NamedTuple):
    """A place in the order of one priority: the time, as the database writes it, and the id of a job."""

    at: str
    job_id: str


BEGINNING = Position("-infinity", _NOBODY)
"""Before all jobs."""


class Level(NamedTuple):
    """The first scheduled job of one priority, in seconds since the epoch, and when it was found.

    `position` is where to go on: at this job when it is due, else a little back in time.
    """

    priority: int
    due_at: float
    now: float
    position: Position

    @property
    def wait_s(self) -> float:
        """Seconds until it is due; below zero when it has been."""
        return self.due_at - self.now


class Claimed(NamedTuple):
    """A job moved to queued, with its message; `due_at` in seconds since the epoch."""

    position: Position
    due_at: float
    message_id: str
    body: bytes


class Claim(NamedTuple):
    """The jobs moved to queued, in order, and how many rows were locked for them.

    More were locked than moved where somebody changed a row just then: it is scheduled still, and not
    before the position that was given.
    """

    jobs: list[Claimed]
    locked: int


def survey(tx: Connection) -> list[Level]:
    """Find the priorities that scheduled jobs have, the highest first."""
    return [_level(*row) for row in tx.execute(_SURVEY)]


def survey_from(tx: Connection, positions: Mapping[int, Position]) -> list[Level]:
    """Find the first jobs of the given priorities from the given positions on, the highest first."""
    values = {
        "priorities": list(positions),
        "ats": [position.at for position in positions.values()],
        "ids": [position.job_id for position in positions.values()],
    }
    return [_level(*row) for row in tx.execute(_SURVEY_FROM, values)]


def claim(
    tx: Connection,
    priority: int,
    *,
    actor: str,
    limit: int,
    position: Position = BEGINNING,
    ahead_s: float = 0.0,
) -> Claim:
    """Move up to `limit` jobs of one priority to queued, in order; each gets a new attempt number.

    Those are taken that were due when the transaction began, or `ahead_s` seconds later. Rows locked by
    another scheduler are passed over. The caller commits after the broker confirmed.
    """
    values = {"priority": priority, "limit": limit, "actor": actor, "ahead_s": ahead_s}
    rows = tx.execute(_CLAIM, {**values, "at": position.at, "id": position.job_id}).all()
    return Claim(_claimed(rows), rows[0].locked)


def claim_these(tx: Connection, ids: Sequence[str], *, actor: str) -> list[Claimed]:
    """Move the jobs of these ids to queued, in their order; the caller has locked them."""
    found = _claimed(tx.execute(_CLAIM_THESE, {"ids": list(ids), "actor": actor}).all())
    by_id = {one.position.job_id: one for one in found}
    return [by_id[job_id] for job_id in ids if job_id in by_id]


def clock(tx: Connection) -> float:
    """The database's clock now, in seconds since the epoch."""
    return float(tx.scalar(_CLOCK) or 0.0)


def _claimed(rows: Sequence[Any]) -> list[Claimed]:
    return [
        Claimed(Position(at, job_id), due_at, message_id, body.encode())
        for job_id, at, due_at, message_id, body, _ in rows
        if job_id is not None
    ]


def _level(priority: int, due_at: float, now: float, at: str, job_id: str) -> Level:
    return Level(priority, due_at, now, Position(at, job_id))
