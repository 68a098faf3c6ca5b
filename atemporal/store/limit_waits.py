"""Who waits for which concurrency limit, and behind how many: for readers.

Promise: of each job that is due and may not start it is told for what it waits, how much of that is in
use and how many come before it, as of one moment. It decides nothing.
Mechanism: who was put aside says so itself. Where `jobs` or `instances` are used up nobody is put aside:
then all that is due waits for that. Those before it are counted by the indexes, up to a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from atemporal.concurrency import INSTANCES, JOBS, Room, Rules, limit_of, size_of, unknown_type_of
from atemporal.model import Job, LimitWait
from atemporal.states import JobState
from atemporal.store import concurrency_limits, due, pauses, slots
from atemporal.tables import DISPATCH_AT, PRIORITY

COUNTED = 1000
"""So many that come before a job are counted."""
COUNTED_EACH = 100
"""The same for each job of a listing."""

_AHEAD = f"""
    SELECT given.id, {{before}} + (
        SELECT count(*) FROM (
            SELECT 1 FROM jobs WHERE {{condition}} AND {PRIORITY} = here.priority
            AND ({DISPATCH_AT}, jobs.id) < (here.at, given.id) LIMIT :most) AS beside) AS many
    FROM unnest(CAST(:ids AS uuid[])) AS given(id)
    CROSS JOIN LATERAL (
        SELECT waits_for AS lane, {PRIORITY} AS priority, {DISPATCH_AT} AS at
        FROM jobs WHERE id = given.id OFFSET 0) AS here
"""
_IN_FRONT = "(SELECT count(*) FROM ({higher} LIMIT :most) AS higher)"
_LANE = "state = 'scheduled' AND waits_for = here.lane"
_AHEAD_IN_LANE = text(
    _AHEAD.format(
        condition=_LANE,
        before=_IN_FRONT.format(
            higher=f"SELECT 1 FROM jobs WHERE {_LANE} AND {PRIORITY} > here.priority"
        ),
    )
)
# What is due: of each priority by itself, or all that is scheduled for another day would be passed.
_AHEAD_OF_DUE = text(
    _AHEAD.format(
        condition=due.DUE,
        before=_IN_FRONT.format(
            higher=f"""
            SELECT 1 FROM unnest(CAST(:priorities AS integer[])) AS level(priority)
            CROSS JOIN LATERAL (
                SELECT 1 FROM jobs
                WHERE {due.DUE} AND {PRIORITY} = level.priority AND {DISPATCH_AT} <= now()
                LIMIT :most) AS of_level
            WHERE level.priority > here.priority
            """
        ),
    )
)
_IN_LANE = """
    SELECT count(*) AS many FROM (
        SELECT 1 FROM jobs WHERE state = 'scheduled' AND waits_for = lane.name LIMIT :most) AS of_lane
"""
_EACH_LANE = text(
    f"""
    SELECT lane.name, counted.many
    FROM unnest(CAST(:lanes AS text[])) AS lane(name) CROSS JOIN LATERAL ({_IN_LANE}) AS counted
    """
)


class Use(NamedTuple):
    """What is counted under one name: how much is held, how much may be, and who waits for it.

    `waiting` is counted up to `COUNTED` for each lane.
    """

    name: str
    used: int
    most: int
    waiting: int


def full(room: Room) -> str | None:
    """The limit of all jobs that keeps back everybody; None where none does."""
    return next((name for name in (JOBS, INSTANCES) if room.of_lane(name) < 1), None)


def explained(tx: Connection, found: Sequence[Job], *, counted: int = COUNTED) -> list[Job]:
    """The same jobs; those that wait for a limit say so in `limit_wait`, or else for a pause in `pause`.

    Those before each are counted up to `counted`.
    """
    due_now = [
        job
        for job in found
        if job.state is JobState.SCHEDULED and job.read_at and job.read_at >= job.launch_at
    ]
    if due_now and (pause := pauses.current(tx)) is not None:
        paused = {job.id for job in due_now}
        return [
            job.model_copy(update={"pause": pause}) if job.id in paused else job for job in found
        ]
    rules = concurrency_limits.rules(tx) if due_now else Rules({})
    aside = {job.id: job.waits_for for job in due_now if job.waits_for}
    if not rules and not aside:
        return list(found)
    room = slots.room(tx, rules)
    held_up = full(room)
    rest = [job.id for job in due_now if job.id not in aside] if held_up else []
    waiting_jobs: dict[UUID, LimitWait] = {}
    before = _before(tx, _AHEAD_IN_LANE, list(aside), counted)
    for job_id, lane in aside.items():
        waiting_jobs[job_id] = _wait(room, rules, lane, before[job_id], counted)
    if held_up and rest:
        priorities = [level.priority for level in due.survey(tx) if level.wait_s <= 0]
        before = _before(tx, _AHEAD_OF_DUE, rest, counted, priorities=priorities)
        for job_id in rest:
            waiting_jobs[job_id] = _wait(room, rules, held_up, before[job_id], counted)
    return [job.model_copy(update={"limit_wait": waiting_jobs.get(job.id)}) for job in found]


def uses(tx: Connection, *, counted: int = COUNTED) -> list[Use]:
    """What is counted under each limit that is set, by the names in use."""
    rules = concurrency_limits.rules(tx)
    if not rules:
        return []
    room = slots.room(tx, rules)
    lanes = slots.lanes(tx)
    rows = tx.execute(_EACH_LANE, {"lanes": lanes, "most": counted})
    waiting: dict[str, int] = {}
    for row in rows:
        waiting[limit_of(row.name)] = waiting.get(limit_of(row.name), 0) + row.many
    names = {*(one for one in rules if not one.endswith("=*")), *room.names(), *waiting}
    return [
        Use(name, room.used(name), most, waiting.get(name, 0))
        for name in sorted(names)
        if (most := rules.most(name)) is not None
    ]


def _before(
    tx: Connection, query: TextClause, ids: Sequence[UUID], counted: int, **more: object
) -> dict[UUID, int]:
    if not ids:
        return {}
    rows = tx.execute(query, {"ids": list(map(str, ids)), "most": counted + 1, **more})
    return {row.id: row.many for row in rows}


def _wait(room: Room, rules: Rules, lane: str, before: int, counted: int) -> LimitWait:
    name = limit_of(lane)
    return LimitWait(
        limit=name,
        used=room.used(name),
        most=rules.most(name),
        needs=size_of(lane),
        vcpus_of=unknown_type_of(lane),
        before=min(before, counted),
        before_more=before > counted,
    )
